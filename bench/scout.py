"""Measures a calibrated scout on labelled tiles: multiply-adds, seconds and pooled IoU, with it and without.

    python -m dlink.bench.scout roads.onnx scouted.onnx tiles/ [more/] [--road 0.3] [--views 8,1,adaptive]

Each window runs through both networks, and the results of both ways follow from that. The tiles should be others than
those of the calibration. Multiply-adds are those of the convolutions, counted from the files' graphs.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from dlink.accuracy.iou import Overlap
from dlink.bench.halo import pooled
from dlink.bench.machine import machine
from dlink.bench.rows import append_row
from dlink.imagery.images import TileFile, find_tiles
from dlink.imagery.labels import read_tile
from dlink.onnx_graph.model import read_model
from dlink.runtime import Segmenter, open_model
from dlink.runtime.adaptive import FIRST, REST, doubt_of
from dlink.runtime.scout import ONE_VIEW, Scouted
from dlink.runtime.scout_limit import SHARE
from dlink.runtime.views import ALL
from dlink.runtime.windows import cover, square

WAYS = ("8", "1", "adaptive")


@dataclass(frozen=True)
class Looked:
    """What one window gave."""

    skipped: bool
    scout_s: float
    first_s: float  # seconds of the first view
    rest_s: float  # of the other seven
    doubtful: bool  # whether adaptive views would take all eight
    one: tuple[int, int]  # (both, either) with the label, one view
    eight: tuple[int, int]
    road: int  # px of the label in its core

    def taken(self, way: str) -> tuple[int, float, tuple[int, int]]:
        """Views, seconds, and (both, either), if it is not skipped."""
        if way == "1" or (way == "adaptive" and not self.doubtful):
            return len(FIRST), self.first_s, self.one
        return len(ALL), self.first_s + self.rest_s, self.eight


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("scout", type=click.Path(exists=True, path_type=Path))
@click.argument("tiles", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
@click.option("--road", type=float, help="Leave out tiles so that this share of them has road.")
@click.option("--limit", type=int, help="The most tiles of each folder.")
@click.option("--threads", type=int)
@click.option("--append", type=click.Path(path_type=Path), help="Append a line for each number of views to this file.")
def main(
    model: Path, scout: Path, tiles: tuple[Path, ...], road: float | None, limit: int | None, threads: int | None,
    append: Path | None,
) -> None:  # fmt: skip
    """Print for 8, 1 and adaptive views: multiply-adds, seconds and pooled IoU, with the scout and without."""
    files = [t for folder in tiles for t in find_tiles(folder)[:limit] if t.label]
    chosen = files if road is None else mixed(files, road)
    with open_model(model, scout=scout, threads=threads) as segmenter:
        assert isinstance(segmenter.backend, Scouted)
        seen = [one for tile in chosen for one in windows_of(segmenter, segmenter.backend, tile)]
        about = {
            "when": time.strftime("%Y-%m-%d", time.gmtime()),
            "figure": "scout",
            "files": [model.name, scout.name],
            "engine": segmenter.backend.engine,
            "limit": vars(segmenter.backend.limit),
            "tile": segmenter.spec.tile,
            "tiles": [folder.name for folder in tiles],
            "pictures": len(chosen),
            "windows": len(seen),
            "with_road": sum(one.road >= segmenter.spec.tile**2 * SHARE for one in seen),
            "skipped": sum(one.skipped for one in seen),
        }
    macs = [macs_of(path) for path in (model, scout)]
    lost = sum(one.eight[0] for one in seen if one.skipped) / max(sum(one.eight[0] for one in seen), 1)
    click.echo(
        f"{about['windows']} windows, {about['with_road']} with road, {about['skipped']} skipped; of the road found "
        f"{lost:.3%} is missed\nmultiply-adds a view: {macs[0] / 1e9:.2f} G, scout {macs[1] / 1e9:.2f} G\n"
        "   views  multiply-adds  with scout  times |  seconds  with scout |    IoU  with scout    lost"
    )
    for way in WAYS:
        row = compared(seen, way, macs)
        click.echo(
            f"{way:>8} {row['macs'] / 1e12:>12.3f}T {row['macs_scouted'] / 1e12:>10.3f}T {row['times']:>6.2f} | "
            f"{row['seconds']:>8.1f} {row['seconds_scouted']:>11.1f} | {row['iou']:.4f} {row['iou_scouted']:>11.4f} "
            f"{row['iou'] - row['iou_scouted']:>7.4f}"
        )
        append_row(append, about | {"views": way, "missed": lost} | row | {"machine": machine()})


def mixed(files: Sequence[TileFile], share: float) -> list[TileFile]:
    """As many of the files as give this share with road, the first by name of either kind."""
    kinds: dict[bool, list[TileFile]] = {True: [], False: []}
    for file in files:
        _, label = read_tile(file)
        assert label is not None
        kinds[bool(label.mean() >= SHARE)].append(file)
    most = min(len(kinds[True]) / share, len(kinds[False]) / (1 - share))
    return kinds[True][: round(most * share)] + kinds[False][: round(most * (1 - share))]


def windows_of(model: Segmenter, backend: Scouted, tile: TileFile) -> Iterator[Looked]:
    """Every window of a tile through both networks."""
    image, label = read_tile(tile)
    assert label is not None
    height, width = label.shape
    for window in cover(height, width, model.spec.tile, model.halo):
        pixels = square(image[window.outer], model.spec.tile)[None]
        clock = [time.perf_counter()]
        level = backend.scout.start(pixels, ONE_VIEW, "level")()[0]
        clock.append(time.perf_counter())
        first = backend.large.probabilities(pixels, FIRST)[0]
        clock.append(time.perf_counter())
        rest = backend.large.probabilities(pixels, REST)[0]
        clock.append(time.perf_counter())
        counts, truth = Overlap(), label[window.core]
        for prob in (first, (first + rest * np.float32(len(REST))) / np.float32(len(ALL))):
            counts.add(prob[window.inner] > model.threshold, truth)
        scout_s, first_s, rest_s = np.diff(clock).tolist()
        doubtful = doubt_of(first) > model.adaptive.doubt
        one, eight = counts.each
        road = int(np.count_nonzero(truth))
        yield Looked(backend.limit.skips(level), scout_s, first_s, rest_s, doubtful, one, eight, road)


def macs_of(path: Path) -> int:
    """Multiply-adds of a file's convolutions, for one view."""
    graph = read_model(path)
    return sum(map(graph.macs, graph.convolutions))


def compared(seen: Sequence[Looked], way: str, macs: Sequence[int]) -> dict[str, Any]:
    """The figures of one number of views, without the scout and with it."""
    plain, scouted = Overlap(), Overlap()
    views = [0, 0]
    seconds = [0.0, 0.0]
    for one in seen:
        number, took, (both, either) = one.taken(way)
        kept = not one.skipped
        for total, counts in ((plain, (both, either)), (scouted, (both, either) if kept else (0, one.road))):
            total.both, total.either, total.tiles = total.both + counts[0], total.either + counts[1], total.tiles + 1
        views[0], views[1] = views[0] + number, views[1] + number * kept
        seconds[0], seconds[1] = seconds[0] + took, seconds[1] + one.scout_s + took * kept
    work, less = views[0] * macs[0], views[1] * macs[0] + len(seen) * macs[1]
    return {
        "macs": work,
        "macs_scouted": less,
        "times": work / less,
        "seconds": seconds[0],
        "seconds_scouted": seconds[1],
        "iou": pooled(plain),
        "iou_scouted": pooled(scouted),
    }


if __name__ == "__main__":
    main()
