"""Where files made on the way to something else are kept, by content, so that each is made once.

A path says all that a file depends on: the hash of what it is made from, how, and the version of what makes it. Who
asks for a path makes the file if it is not there.
"""

from pathlib import Path

from dlink.runtime.files import cache_folder, file_sha256

EXPORT_VERSION = 2  # of what export writes; raise it when the same checkpoint gives another file
INT8_VERSION = 2  # of what calibration writes; raise it when the same tiles give another file


def export_path(checkpoint: Path, tile: int, precision: str) -> Path:
    """Of a checkpoint's ONNX file."""
    return (
        cache_folder() / f"{checkpoint.stem}-{file_sha256(checkpoint)[:16]}-{tile}-{precision}-v{EXPORT_VERSION}.onnx"
    )


def int8_path(source: Path, sample: str) -> Path:
    """Of the INT8 file of an ONNX file. `sample` stands for the tiles: their hash, or what they are made from."""
    return cache_folder() / f"int8-{file_sha256(source)[:16]}-{sample}-v{INT8_VERSION}.onnx"
