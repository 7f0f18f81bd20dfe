"""Measures what all of it gives together: ways to draw the same roads, beside the authors' procedure, in one run.

    python -m dlink.bench.together roads.th tiles/ --way roads.onnx@8 --way slim-int8.onnx@adaptive@scouted.onnx

A way is MODEL@VIEWS or MODEL@VIEWS@SCOUT. Each labelled tile is drawn by the authors' eager procedure with eight views,
by the best of PyTorch with eight views and with one (best_torch.py), and by each way; what goes first changes from tile
to tile. A way's time is the sum over the tiles, because adaptive views and a scout take longer where there are roads.
The IoU is pooled. Tiles are cut to the models' tile from their upper left corner, since the authors' procedure takes
whole pictures.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from dlink.accuracy.iou import Overlap
from dlink.bench.authors import eight_view_sum
from dlink.bench.best_torch import best_torch, torch_threads
from dlink.bench.machine import machine
from dlink.bench.rows import append_row
from dlink.bench.watch.processor import usable_cores
from dlink.imagery.images import find_tiles
from dlink.imagery.labels import read_tile
from dlink.nets.checkpoint import read_checkpoint
from dlink.runtime import Segmenter, open_model
from dlink.runtime.spec import Spec
from dlink.training.crops import labelled

Mask = NDArray[np.bool_]
Draw = Callable[[NDArray[np.uint8]], Mask]
AUTHORS = "authors, eager, 8 views"


@dataclass
class Drawn:
    """What one way has given so far."""

    seconds: float = 0.0
    overlap: Overlap = field(default_factory=Overlap)  # with the labels
    alike: Overlap = field(default_factory=Overlap)  # with the authors' masks

    @property
    def ious(self) -> tuple[float, float]:
        """Pooled: with the labels, with the authors' masks."""
        found = [overlap.iou() for overlap in (self.overlap, self.alike)]
        label, alike = (each.pooled if each and each.pooled is not None else float("nan") for each in found)
        return label, alike


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("tiles", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@click.option("--way", "ways", multiple=True, required=True, metavar="MODEL@VIEWS[@SCOUT]")
@click.option("--limit", type=int, help="The most tiles of each folder.")
@click.option("--append", type=click.Path(path_type=Path), help="Append a line of JSON to this file.")
def main(
    checkpoint: Path, tiles: tuple[Path, ...], ways: tuple[str, ...], limit: int | None, append: Path | None
) -> None:
    """Print for each way: seconds, how many times as fast as the authors' procedure, and IoU."""
    read = read_checkpoint(checkpoint)
    with torch_threads(len(usable_cores())), ExitStack() as stack:  # as the models have
        models = {way: (stack.enter_context(opened(way)), views_of(way)) for way in ways}
        spec = next(iter(models.values()))[0].spec
        pictures = [cut(*read_tile(t), spec.tile) for f in tiles for t in labelled(find_tiles(f)[:limit])]
        draws, best = procedures(read.net, spec, pictures[0][0], models)
        found = in_turn(draws, pictures)
    rows = [row_of(name, each, found) for name, each in found.items()]
    click.echo(f"{len(pictures)} tiles of {spec.tile} px\n{'':>60}  s a tile   times  of best     IoU   alike")
    for row in rows:
        click.echo(
            f"{row['way']:>60} {row['seconds'] / len(pictures):>9.4f} {row['times']:>7.1f} {row['of_best']:>8.2f} "
            f"{row['iou']:>7.4f} {row['alike']:>7.4f}"
        )
    about = {"when": time.strftime("%Y-%m-%d", time.gmtime()), "figure": "together", "tile": spec.tile}
    more = {"tiles": len(pictures), "network": read.arch, "width": read.width, "torch": torch.__version__}
    append_row(append, {**about, **more, "best": best, "rows": rows, "machine": machine()})


def opened(way: str) -> Segmenter:
    """The model of a way."""
    model, _, *scout = way.split("@")
    return open_model(model, scout=scout[0]) if scout else open_model(model)


def views_of(way: str) -> Any:
    views = way.split("@")[1]
    return views if views == "adaptive" else int(views)


def cut(image: NDArray[np.uint8], label: Mask | None, side: int) -> tuple[NDArray[np.uint8], Mask]:
    """The upper left corner of a tile and its label."""
    assert label is not None  # `labelled` has only such tiles
    if min(label.shape) < side:
        raise click.ClickException(
            f"a picture of {label.shape[1]} x {label.shape[0]} px: less than a tile of {side} px"
        )
    return np.ascontiguousarray(image[:side, :side]), label[:side, :side]


def procedures(
    net: torch.nn.Module, spec: Spec, image: NDArray[np.uint8], models: Mapping[str, tuple[Segmenter, Any]]
) -> tuple[dict[str, Draw], dict[str, Any]]:
    """All ways by name, the authors' first, and what was tried of PyTorch's best."""
    draws: dict[str, Draw] = {AUTHORS: lambda pixels: eight_view_sum(net, pixels) > 8 * spec.threshold}
    tried = {}
    for views in (8, 1):
        best = best_torch(net, spec, views, image, lambda words: click.echo(f"trying {words}", err=True))
        draws[f"best of PyTorch, {views} views: {best.way}"] = partial(drawn, best.call)
        tried[views] = best.to_json()
    for way, (model, views) in models.items():
        draws[way] = partial(drawn, partial(model.mask, views=views))
    return draws, {str(views): each for views, each in tried.items()}


def drawn(call: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], pixels: NDArray[np.uint8]) -> Mask:
    road: Mask = call(pixels) > 0
    return road


def in_turn(draws: Mapping[str, Draw], pictures: Sequence[tuple[NDArray[np.uint8], Mask]]) -> dict[str, Drawn]:
    """Every tile by every way."""
    names, found = list(draws), {name: Drawn() for name in draws}
    for name in names:
        draws[name](pictures[0][0])  # warm
    for turn, (image, label) in enumerate(pictures):
        masks: dict[str, Mask] = {}
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            begun = time.perf_counter()
            masks[name] = draws[name](image)
            found[name].seconds += time.perf_counter() - begun
        for name, mask in masks.items():
            found[name].overlap.add(mask, label)
            found[name].alike.add(mask, masks[AUTHORS])
    return found


def row_of(name: str, given: Drawn, found: Mapping[str, Drawn]) -> dict[str, Any]:
    """The figures of a way."""
    label, alike = given.ious
    bests = [each.seconds for other, each in found.items() if other.startswith("best of PyTorch, 8")]
    return {
        "way": "@".join([Path(name.split("@")[0]).name, *(Path(p).name for p in name.split("@")[1:])]),
        "seconds": given.seconds,
        "times": found[AUTHORS].seconds / given.seconds,
        "of_best": bests[0] / given.seconds,
        "iou": label,
        "alike": alike,
    }


if __name__ == "__main__":
    main()
