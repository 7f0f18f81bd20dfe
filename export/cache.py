"""ONNX files made from checkpoints on the way to something else, kept by content so that each is made once."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.files import cache_folder, file_sha256

VERSION = 2  # of what export writes; raise it when the same checkpoint gives another file


def cached_export(
    checkpoint: Path, tile: int, precision: str, tiles: Callable[[], Iterable[NDArray[np.uint8]]], gsd_m: float = 0.5
) -> Path:
    """The ONNX file of a checkpoint, exported and proven on `tiles()` unless it has been before."""
    digest = file_sha256(checkpoint)
    path = cache_folder() / f"{checkpoint.stem}-{digest[:16]}-{tile}-{precision}-v{VERSION}.onnx"
    if not path.exists():
        from dlink.export.export import export
        from dlink.nets.checkpoint import read_checkpoint
        from dlink.nets.zoo import spec_of

        read = read_checkpoint(checkpoint)
        spec = spec_of(
            read.arch, width=read.width, tile=tile, precision=precision, gsd_m=gsd_m, checkpoint_sha256=digest
        )
        export(read, path, spec, tiles())
    return path
