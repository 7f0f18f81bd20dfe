"""Which model file and which pictures a command works on, where the user leaves it open."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from dlink.cli.step import progress

if TYPE_CHECKING:
    from dlink.calib.sample import Sample

HELD_OUT = 1_000_000  # seed of the first scene that is for testing; training uses those below
CALIBRATION = 3_000_000  # seed of the first scene that is for calibration
PROOF_PIXELS = 2 << 20  # how much is looked at to prove a file: two tiles of 1024 px, up to 16 of smaller ones


CALIBRATED, HELD_BACK = 24, 4  # tiles that an INT8 file is made from here, and judged by


def model_file(model: Path | None, tile: int, precision: str, tiles: Path | None = None) -> Path:
    """An ONNX file or a plan as it is; one made (and kept in the cache) from a checkpoint, or from the embedded one.

    An INT8 file is calibrated on `tiles`, or on generated scenes. Those say little of a network that was trained on
    something else: its roads there are then held to no limits.
    """
    if model is not None and model.suffix in (".onnx", ".plan"):
        return model
    from dlink.export.cache import cached_export
    from dlink.nets.embedded import EMBEDDED, GSD_M

    float_precision = "fp16" if precision == "int8" else precision
    gsd_m = 0.5 if model else GSD_M
    path = cached_export(model or EMBEDDED, tile, float_precision, lambda: announced(tile), gsd_m)
    if precision != "int8":
        return path
    from dlink.calib.cache import cached_int8
    from dlink.calib.evaluator import HoldoutLimits

    if tiles is not None:
        sample = tiles_of(tiles, tile)
        return cached_int8(path, sample.sha256[:16], lambda: sample, HoldoutLimits(), progress)
    limits = HoldoutLimits()
    if model:
        limits = HoldoutLimits(max_iou_drop=1.0, min_agreement=0.0)
        click.echo(
            "note: INT8 is calibrated on generated scenes; --tiles are better, and hold its roads to limits", err=True
        )
    return cached_int8(path, f"scenes{CALIBRATED}", lambda: tiles_of(None, tile), limits, progress)


def tiles_of(folder: Path | None, side: int) -> "Sample":
    """Tiles to calibrate on and tiles to judge by: of a folder, or generated scenes with their labels."""
    from dlink.calib.sample import Sample, Tile, digest, sample
    from dlink.runtime.windows import square
    from dlink.scenes import with_roads
    from dlink.scenes.scene import LARGEST, SMALLEST

    if folder is not None:
        return sample(folder, side, CALIBRATED, HELD_BACK, seed=0)
    made = with_roads(CALIBRATED + HELD_BACK, min(max(side, SMALLEST), LARGEST), CALIBRATION)
    cut = [(square(s.image[:side, :side], side), square(s.mask[:side, :side, None], side)[..., 0] > 0) for s in made]
    tiles = tuple(Tile(f"scene {i}", image, label) for i, (image, label) in enumerate(cut))
    return Sample(tiles[:CALIBRATED], tiles[CALIBRATED:], (), digest(tiles[:CALIBRATED]))


def announced(tile: int) -> list[NDArray[np.uint8]]:
    click.echo("Exporting the checkpoint and proving the file; it is kept for the next time.", err=True)
    return pictures(None, tile)


def pictures(folder: Path | None, side: int) -> list[NDArray[np.uint8]]:
    """RGB tiles (side, side, 3): the upper left of each picture of a folder, or generated scenes with roads."""
    from dlink.imagery.images import find_tiles, read_image
    from dlink.runtime.windows import square
    from dlink.scenes import with_roads
    from dlink.scenes.scene import LARGEST, SMALLEST

    count = min(max(PROOF_PIXELS // side**2, 2), 16)
    if folder is None:
        images = [made.image for made in with_roads(count, min(max(side, SMALLEST), LARGEST), HELD_OUT)]
    else:
        images = [read_image(t.image) for t in find_tiles(folder)[:count]]
    return [square(image[:side, :side], side) for image in images]
