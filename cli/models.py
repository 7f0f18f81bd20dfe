"""The model file and the pictures that a command uses if the user names none."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from dlink.cli.step import progress
from dlink.imagery.reading import RGB, Reading

if TYPE_CHECKING:
    from dlink.calib.sample import Sample
    from dlink.runtime import Spec

HELD_OUT = 1_000_000  # seed of the first scene for testing; training uses lower seeds
CALIBRATION = 3_000_000  # seed of the first scene for calibration
GREEN = 1  # plane of a scene
PROOF_PIXELS = 2 << 20  # pixels that prove a file: two tiles of 1024 px, up to 16 smaller ones
CALIBRATED, HELD_BACK = 24, 4  # tiles for the ranges of an INT8 file, and for its evaluation


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The file to make if the user gives none, and the tiles for it."""

    precision: str = "fp16"
    tile: int = 1024  # px
    tiles: Path | None = None  # a folder of pictures; None: generated scenes
    reading: Reading = RGB  # of those


def model_file(model: Path | None, wanted: Wanted) -> Path:
    """The model itself if it is an ONNX file or a plan; else an ONNX file of the checkpoint, kept in the cache."""
    if model is not None and model.suffix in (".onnx", ".plan"):
        return model
    float_file = exported(model, wanted.tile, "fp16" if wanted.precision == "int8" else wanted.precision)
    return calibrated(float_file, model, wanted) if wanted.precision == "int8" else float_file


def exported(model: Path | None, tile: int, precision: str) -> Path:
    """The ONNX file of a checkpoint or of the embedded one, exported and proven unless the cache has it."""
    from dlink.bench.cache import export_path
    from dlink.nets.embedded import EMBEDDED, GSD_M

    checkpoint = model or EMBEDDED
    path = export_path(checkpoint, tile, precision)
    if not path.exists():
        from dlink.export.export import export
        from dlink.nets.checkpoint import read_checkpoint
        from dlink.nets.zoo import spec_of

        click.echo("Exporting the checkpoint and proving the file; the cache keeps it for the next time.", err=True)
        read = read_checkpoint(checkpoint)
        for note in read.notes:
            click.echo(f"note: {note}", err=True)
        spec = spec_of(tile=tile, precision=precision, gsd_m=0.5 if model else GSD_M, **read.facts)
        export(read, path, spec, pictures(None, spec))
    return path


def calibrated(float_file: Path, model: Path | None, wanted: Wanted) -> Path:
    """The INT8 file of an ONNX file, calibrated on tiles or on generated scenes unless the cache has it.

    Scenes say little about a network that was trained on other pictures, so its roads on scenes have no limits.
    """
    from dlink.bench.cache import int8_path
    from dlink.calib.calibrate import CalibrationOptions, calibrate
    from dlink.calib.evaluator import HoldoutLimits
    from dlink.calib.network import read_network

    limits, sample = HoldoutLimits(), None
    if wanted.tiles is not None:
        sample = tiles_of(wanted.tiles, wanted.tile, wanted.reading.of_network(read_network(float_file).spec))
    elif model:
        limits = HoldoutLimits(max_iou_drop=1.0, min_agreement=0.0)
        click.echo(
            "note: INT8 is calibrated on generated scenes; --tiles are better, and its roads then have limits", err=True
        )
    path = int8_path(float_file, sample.sha256[:16] if sample else f"scenes{CALIBRATED}")
    if not path.exists():
        chosen = sample or tiles_of(None, wanted.tile)
        calibrate(float_file, path, chosen, CalibrationOptions(limits=limits), None, progress)
    return path


def tiles_of(folder: Path | None, side: int, how: Reading = RGB) -> "Sample":
    """Tiles for calibration and for the holdout: from a folder, or generated scenes with their labels."""
    from dlink.calib.sample import Sample, Tile, digest, sample
    from dlink.runtime.windows import square
    from dlink.scenes import with_roads
    from dlink.scenes.scene import LARGEST, SMALLEST

    if folder is not None:
        return sample(folder, side, CALIBRATED, HELD_BACK, seed=0, how=how)
    made = with_roads(CALIBRATED + HELD_BACK, min(max(side, SMALLEST), LARGEST), CALIBRATION)
    cut = [(square(s.image[:side, :side], side), square(s.mask[:side, :side, None], side)[..., 0] > 0) for s in made]
    tiles = tuple(Tile(f"scene {i}", image, label) for i, (image, label) in enumerate(cut))
    return Sample(tiles[:CALIBRATED], tiles[CALIBRATED:], (), digest(tiles[:CALIBRATED]))


def pictures(folder: Path | None, spec: "Spec", how: Reading = RGB) -> list[NDArray[np.uint8]]:
    """Tiles for a Spec: the upper left of each picture of a folder, or generated scenes with roads."""
    from dlink.imagery.images import find_tiles, read_image
    from dlink.runtime.segmenter import check_image
    from dlink.runtime.windows import square
    from dlink.scenes import with_roads
    from dlink.scenes.scene import LARGEST, SMALLEST

    side = spec.tile
    count = min(max(PROOF_PIXELS // side**2, 2), 16)
    if folder is None:
        scenes = with_roads(count, min(max(side, SMALLEST), LARGEST), HELD_OUT)
        images = [with_bands(made.image, spec) for made in scenes]
    else:
        reading = how.of_network(spec)
        images = [read_image(t.image, reading) for t in find_tiles(folder)[:count]]
    for image in images:
        check_image(image, spec)
    return [square(image[:side, :side], side) for image in images]


def with_bands(image: NDArray[np.uint8], spec: "Spec") -> NDArray[np.uint8]:
    """A scene (H, W, 3) with the Spec's bands: its colours where they are named, green's copy for every other band."""
    from dlink.runtime.spec import COLOURS

    if spec.bands == COLOURS:
        return image
    return image[..., [COLOURS.index(band) if band in COLOURS else GREEN for band in spec.bands]]


def made_up(spec: "Spec") -> str:
    """The bands that `with_bands` copies, such as "nir is"; empty if there are none."""
    from dlink.runtime.spec import COLOURS

    others = [band for band in spec.bands if band not in COLOURS]
    return f"{', '.join(others)} {'is' if len(others) == 1 else 'are'}" if others else ""
