"""Versions: as numbers that compare, and of what is installed, without importing it."""

import re
from importlib import metadata

# What pip may have installed a TensorRT as, any of these: `tensorrt` is also what a Jetson's python3-libnvinfer says it
# is. The others stand behind a package that may not be there itself: in a folder of wheels, or beside an image's own.
TENSORRT_DISTRIBUTIONS = {
    target: tuple(f"{name}{cuda}{part}" for part in ("", "-bindings") for cuda in ("", *cudas))
    for target, name, cudas in (
        ("tensorrt", "tensorrt", ("-cu13", "-cu12", "-cu11")),
        ("tensorrt-rtx", "tensorrt-rtx", ("-cu13", "-cu12")),
    )
}


def version_numbers(version: str) -> tuple[int, ...]:
    """Its leading numbers: "2.13.0+cpu" -> (2, 13, 0)."""
    digits = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, digits[0].split("."))) if digits else ()


def installed_version(*distributions: str) -> str:
    """That of the first distribution which is installed; empty where none is, or an interrupted pip left its folder."""
    for name in distributions:
        try:
            if version := metadata.version(name):
                return version
        except metadata.PackageNotFoundError:
            continue
    return ""
