"""Measures views="adaptive" on labelled tiles: views a window and pooled IoU, for several limits of doubt.

    python -m dlink.bench.adaptive roads.onnx tiles/ [more/]

Each window runs with one view and with eight. The results of every limit follow from these two.
"""

from pathlib import Path

import click
import numpy as np

from dlink.accuracy.iou import Overlap
from dlink.bench.halo import pooled
from dlink.imagery.images import find_tiles
from dlink.imagery.labels import read_tile
from dlink.runtime import open_model
from dlink.runtime.adaptive import DOUBT, FIRST, MOST, REST, doubt_of
from dlink.runtime.views import ALL
from dlink.runtime.windows import cover, square

LIMITS = (0.0, 0.01, 0.02, 0.04, 0.05, DOUBT, 0.06, 0.08, MOST)


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("tiles", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True)
def main(model: Path, tiles: tuple[Path, ...]) -> None:
    """Print for each limit: views a window, pooled IoU, and its loss compared with eight views."""
    seen: list[tuple[float, tuple[int, int], tuple[int, int]]] = []  # doubt, (both, either) with one view, with eight
    with open_model(model) as segmenter:
        side = segmenter.spec.tile
        for tile in (t for folder in tiles for t in find_tiles(folder) if t.label):
            image, label = read_tile(tile)
            assert label is not None
            for window in cover(label.shape[0], label.shape[1], side, segmenter.halo):
                pixels = square(image[window.outer], side)[None]
                one, eight = (segmenter.backend.probabilities(pixels, views)[0] for views in (FIRST, ALL))
                counts = Overlap()
                for prob in (one, eight):
                    counts.add(prob[window.inner] > segmenter.threshold, label[window.core])
                seen.append((doubt_of(one), counts.each[0], counts.each[1]))
    click.echo(f"{len(seen)} windows of {side} px\n doubt  views a window  pooled IoU  lost")
    whole = 0.0
    for limit in LIMITS:
        total, doubtful = Overlap(), [doubt > limit for doubt, *_ in seen]
        for unsure, (_, one_view, eight_views) in zip(doubtful, seen, strict=True):
            both, either = eight_views if unsure else one_view
            total.both, total.either, total.tiles = total.both + both, total.either + either, total.tiles + 1
        iou = pooled(total)
        whole = whole or iou  # the first limit is 0: eight views everywhere
        taken = len(FIRST) + len(REST) * float(np.mean(doubtful))
        click.echo(f"{limit:6.4f}  {taken:14.2f}  {iou:10.4f}  {whole - iou:7.4f}")


if __name__ == "__main__":
    main()
