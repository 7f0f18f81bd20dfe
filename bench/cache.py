"""Paths of intermediate files in the cache, named by content, so that each file is made once.

A path contains everything that a file depends on: the hash of its source, its options, and the version of the code that
makes it. The caller makes the file if it does not exist.
"""

from pathlib import Path

from dlink.runtime.files import cache_folder, file_sha256

EXPORT_VERSION = 2  # raise it when export writes another file from the same checkpoint
INT8_VERSION = 3  # raise it when calibration writes another file from the same tiles


def export_path(checkpoint: Path, tile: int, precision: str) -> Path:
    """The path of a checkpoint's ONNX file."""
    return (
        cache_folder() / f"{checkpoint.stem}-{file_sha256(checkpoint)[:16]}-{tile}-{precision}-v{EXPORT_VERSION}.onnx"
    )


def int8_path(source: Path, sample: str) -> Path:
    """The path of an ONNX file's INT8 file. `sample` names the tiles: their hash, or their source."""
    return cache_folder() / f"int8-{file_sha256(source)[:16]}-{sample}-v{INT8_VERSION}.onnx"
