"""How much work a network's roads need: slim networks beside narrow ones and beside fewer views.

    python -m dlink.bench.slim roads.th tiles/ valid/ kept/ --flops 0.4,0.25 --widths 0.625,0.5 -o curve/

Each share is a slimming of the original (training/slim.py); each width a network from nothing, trained by the same
labels for as many epochs of the same tiles and their variants, so that both see as many crops. Both keep their state in
the folder, so the script goes on where it was stopped. The IoU is pooled over each further folder of labelled tiles, of
one view, four and eight: the original with fewer views is the other way to less work. A row is a line of
JSON in `rows.jsonl`.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from dlink.accuracy.iou import Overlap
from dlink.imagery.images import TileFile, find_tiles
from dlink.imagery.labels import read_tile
from dlink.nets.checkpoint import Checkpoint, read_checkpoint
from dlink.nets.multiply_adds import total
from dlink.nets.zoo import spec_of
from dlink.runtime.spec import Spec
from dlink.training.crops import labelled
from dlink.training.loop import train
from dlink.training.recipe import Recipe, SlimOptions, TrainingStep
from dlink.training.slim import slim
from dlink.training.validate import segmenter
from dlink.training.variants import varied

IN_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
VIEWS = (1, 4, 8)
EVERY = 60.0  # seconds between lines


@dataclass(frozen=True)
class Curve:
    """What all rows share."""

    original: Checkpoint
    tiles: list[TileFile]
    sets: dict[str, list[TileFile]]  # labelled tiles for the IoU, by name
    recipe: Recipe
    how: SlimOptions
    out: Path


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if isinstance(value, tuple) else tuple(float(part) for part in value.split(",") if part)


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("folders", type=IN_FOLDER, nargs=-1, required=True, metavar="TILES VALID...")
@click.option("--flops", type=Numbers(), default="0.4,0.25", show_default=True, help="Shares of the slim networks.")
@click.option("--widths", type=Numbers(), default="", help="Widths of the narrow networks.")
@click.option("--crop", default=384, show_default=True, help="Side of the crops, and of the tile of the IoU, px.")
@click.option("--epochs", default=24, show_default=True, help="Passes over the tiles and their variants.")
@click.option("--variants", default=4, show_default=True, help="Of each tile.")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
def main(
    checkpoint: Path, folders: tuple[Path, ...], flops: tuple[float, ...], widths: tuple[float, ...], crop: int,
    epochs: int, variants: int, out: Path,
) -> None:  # fmt: skip
    """Print and keep a row for the original, each slim network and each narrow one."""
    out.mkdir(parents=True, exist_ok=True)
    curve = Curve(
        read_checkpoint(checkpoint),
        find_tiles(folders[0]),
        {folder.name: labelled(find_tiles(folder)) for folder in folders[1:]},
        Recipe(crop=crop, epochs=epochs, schedule="poly"),
        SlimOptions(variants=variants, views=out / "views"),
        out,
    )
    for name, make in networks(curve, flops, widths):
        if name not in rows_of(out):
            keep(curve, name, make())


def networks(
    curve: Curve, flops: tuple[float, ...], widths: tuple[float, ...]
) -> Iterator[tuple[str, Callable[[], Checkpoint]]]:
    """The rows' names, and what makes the network of each."""
    yield "original", lambda: curve.original
    for share in flops:
        yield f"slim {share:g}", partial(slimmed, curve, share)
    for width in widths:
        yield f"width {width:g}", partial(narrow, curve, width)


def slimmed(curve: Curve, share: float) -> Checkpoint:
    path, how = curve.out / f"slim{share:g}.th", replace(curve.how, flops=share)
    slim(curve.original, curve.tiles, path, curve.recipe, how, resume=begun(path), report=Shown(path.stem))
    return read_checkpoint(path, curve.original.arch)


def narrow(curve: Curve, width: float) -> Checkpoint:
    """A network of a width, from nothing."""
    path = curve.out / f"width{width:g}.th"
    recipe = replace(curve.recipe, arch=curve.original.arch, width=width * curve.original.width)
    with varied(curve.tiles, curve.how.variants, curve.out / "variants", recipe.seed) as tiles:
        train(tiles, path, recipe, resume=begun(path), report=Shown(path.stem))
    return read_checkpoint(path, curve.original.arch)


def begun(path: Path) -> bool:
    return path.with_suffix(".state").exists()


class Shown:
    """A line for a training's progress, once a minute."""

    def __init__(self, name: str) -> None:
        self.name, self.last = name, 0.0

    def __call__(self, s: TrainingStep) -> None:
        if time.monotonic() - self.last > EVERY or s.step == s.steps:
            self.last = time.monotonic()
            click.echo(f"{self.name}: epoch {s.epoch}/{s.epochs}, {s.step}/{s.steps}, loss {s.loss:.5f}", err=True)


def keep(curve: Curve, name: str, read: Checkpoint) -> None:
    """Measure a network, print its row and append it."""
    spec = spec_of(read.arch, tile=curve.recipe.crop)
    row = {
        "name": name,
        "sha256": read.sha256,
        "multiply_adds": total(read.net, Spec.tile),
        "share": total(read.net, Spec.tile) / total(curve.original.net, Spec.tile),
        "iou": {which: ious(read, tiles, spec) for which, tiles in curve.sets.items()},
        "recipe": {"crop": curve.recipe.crop, "epochs": curve.recipe.epochs, "tiles": len(curve.tiles)},
    }
    click.echo(json.dumps(row))
    with (curve.out / "rows.jsonl").open("a") as f:
        f.write(json.dumps(row) + "\n")


def rows_of(out: Path) -> set[str]:
    """The names of the rows that are there."""
    path = out / "rows.jsonl"
    return {json.loads(line)["name"] for line in path.read_text().splitlines()} if path.exists() else set()


def ious(read: Checkpoint, tiles: list[TileFile], spec: Spec) -> dict[int, float | None]:
    """The pooled IoU by the number of views; None without any road."""
    model, overlaps = segmenter(read.net, spec), {views: Overlap() for views in VIEWS}
    for tile in tiles:
        image, label = read_tile(tile)
        assert label is not None  # `labelled` has only such tiles
        for views, overlap in overlaps.items():
            overlap.add(model.mask(image, views) > 0, label)
    return {views: found.pooled if (found := overlap.iou()) else None for views, overlap in overlaps.items()}


if __name__ == "__main__":
    main()
