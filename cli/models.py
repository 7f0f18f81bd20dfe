"""Which model file and which pictures a command works on, where the user leaves it open."""

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

HELD_OUT = 1_000_000  # seed of the first scene that is for testing; training uses those below
PROOF_PIXELS = 2 << 20  # how much is looked at to prove a file: two tiles of 1024 px, up to 16 of smaller ones


def model_file(model: Path | None, tile: int, precision: str) -> Path:
    """An ONNX file as it is; one made (and kept in the cache) from a checkpoint, or from the embedded one."""
    if model is not None and model.suffix == ".onnx":
        return model
    from dlink.export.cache import cached_export
    from dlink.nets.embedded import EMBEDDED

    return cached_export(model or EMBEDDED, tile, precision, lambda: announced(tile))


def announced(tile: int) -> list[NDArray[np.uint8]]:
    click.echo("Exporting the checkpoint and proving the file; it is kept for the next time.", err=True)
    return pictures(None, tile)


def pictures(folder: Path | None, side: int) -> list[NDArray[np.uint8]]:
    """RGB tiles (side, side, 3): the upper left of each picture of a folder, or generated scenes with roads."""
    from dlink.scenes import with_roads
    from dlink.scenes.scene import LARGEST, SMALLEST
    from dlink.trt_runtime.images import find_tiles, read_image
    from dlink.trt_runtime.windows import square

    count = min(max(PROOF_PIXELS // side**2, 2), 16)
    if folder is None:
        images = [made.image for made in with_roads(count, min(max(side, SMALLEST), LARGEST), HELD_OUT)]
    else:
        images = [read_image(t.image) for t in find_tiles(folder)[:count]]
    return [square(image[:side, :side], side) for image in images]
