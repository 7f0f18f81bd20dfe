"""Measures how wide a halo must be: compares tiling near its seams with the same network over the whole picture.

    python -m dlink.bench.halo roads.th tiles/ [--tile 512]

Every picture runs once as a whole and then in tiles, with the same checkpoint in float32 with one view. Near a seam
means within 8 px of the edge between two cores.
"""

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.iou import Overlap
from dlink.imagery.images import find_tiles
from dlink.imagery.labels import read_tile
from dlink.nets.checkpoint import read_checkpoint
from dlink.nets.torch_backend import network
from dlink.runtime.backend import HostBackend
from dlink.runtime.rounding import settle
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.spec import Spec
from dlink.runtime.windows import spans

HALOS = (0, 8, 16, 32, 64, 96, 128)
NEAR = 8  # px


def near_seams(length: int, tile: int, halo: int) -> NDArray[np.bool_]:
    """Whether each pixel of an axis is near the edge between two cores."""
    edges = [s.hi for s in spans(length, tile, halo)[:-1]]
    at = np.arange(length)
    near: NDArray[np.bool_] = np.any([np.abs(at - edge + 0.5) < NEAR for edge in edges], axis=0)
    return near


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("tiles", type=click.Path(exists=True, path_type=Path))
@click.option("--tile", default=512, show_default=True, help="Side of the tiles, px.")
@click.option("--halos", default=",".join(map(str, HALOS)), show_default=True)
def main(checkpoint: Path, tiles: Path, tile: int, halos: str) -> None:
    """Print for each halo: cost, difference near seams, agreement with the whole picture's masks, IoU with labels."""
    read = read_checkpoint(checkpoint)
    run = network(read.net)
    pictures = [read_tile(t) for t in find_tiles(tiles)]
    side = min(n for image, _ in pictures for n in image.shape[:2]) // 32 * 32  # so that a whole picture is one tile
    pictures = [(image[:side, :side], None if label is None else label[:side, :side]) for image, label in pictures]
    whole = Segmenter(HostBackend(run, Spec(arch=read.arch, width=read.width, tile=side)), halo=0)
    wholes = [whole.probabilities(image, 1) for image, _ in pictures]
    click.echo("halo  tiles  near seams: mean |dp|  largest  masks agree | all: masks agree  IoU with labels")
    for halo in [*map(int, halos.split(",")), None]:
        model = whole if halo is None else Segmenter(HostBackend(run, Spec(tile=tile)), halo=halo)
        seams, agree, labels, off, worst, area = Overlap(), Overlap(), Overlap(), 0.0, 0.0, 0
        for (image, label), reference in zip(pictures, wholes, strict=True):
            prob = reference if halo is None else model.probabilities(image, 1)
            mask, other, _ = settle([(prob, model.threshold), (reference, model.threshold)])
            agree.add(mask, other)
            if label is not None:
                labels.add(mask, label)
            if halo is not None:
                rows, cols = (near_seams(n, tile, halo) for n in prob.shape)
                near = rows[:, None] | cols[None, :]
                seams.add(mask & near, other & near)
                off += float(np.abs(prob - reference)[near].sum())
                worst = max(worst, float(np.abs(prob - reference)[near].max()))
                area += int(near.sum())
        name = "whole" if halo is None else str(halo)
        count = 1 if halo is None else len(spans(side, tile, halo)) ** 2
        figures = (off / max(area, 1), worst, pooled(seams), pooled(agree), pooled(labels))
        click.echo(f"{name:>5} {count:>5}  " + "  ".join(f"{v:.4f}" for v in figures))


def pooled(overlap: Overlap) -> float:
    iou = overlap.iou()
    return float("nan") if iou is None or iou.pooled is None else iou.pooled


if __name__ == "__main__":
    main()
