"""Finds the threshold with the highest pooled IoU between a model's roads and labels.

The IoU on the tiles that chose the threshold is too high: check the threshold on other tiles.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.bootstrap import Estimate, Floats, estimate, loss, ratio
from dlink.accuracy.curves import STEPS, THRESHOLDS, Histograms, best, hits_and_extras, iou_over_thresholds
from dlink.accuracy.iou import Overlap
from dlink.imagery.images import TileFile
from dlink.imagery.labels import read_tile
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.errors import BadInput, within
from dlink.runtime.progress import Tick
from dlink.runtime.segmenter import Segmenter, as_mask
from dlink.runtime.words import counted


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What is asked of a search for a threshold."""

    views: int | None = None  # None: the model's own
    limit: int | None = None  # tiles, the first by name
    reading: Reading = RGB


@dataclass(frozen=True)
class TunedThreshold:
    """The best of the thresholds 0, 0.001 ... 0.999; the middle one of equal neighbours.

    The estimates have intervals over tiles. `threshold` is the best threshold, `iou` its IoU, and `gain` its IoU minus
    that of the model's own threshold, `before`.
    """

    tiles: int  # with labels
    views: int
    before: float
    iou_before: float
    threshold: Estimate
    iou: Estimate
    gain: Estimate

    @property
    def best(self) -> float:
        assert self.threshold.value is not None, "tune() refuses labels without road"
        return self.threshold.value

    def to_json(self) -> dict[str, Any]:
        """Plain values: the fields, estimates as {"value", "low", "high", "tiles"}; one tile has null low and high."""
        return asdict(self)


def tune(
    model: Segmenter,
    tiles: Sequence[TileFile],
    views: int | None = None,
    report: Tick = lambda done, total, words: None,
) -> TunedThreshold:
    """Find the best threshold on the tiles that have labels. `views` None: the model's own.

    One tile at a time is in memory, and 8 KB of each tile. `report` is called with (tiles done, all, the tile's id).
    """
    labelled = [t for t in tiles if t.label is not None]
    if not labelled:
        raise BadInput(f"no label among {counted(len(tiles), 'tile')}; tuning needs <id>_mask.png beside <id>_sat.jpg")
    histograms, own = Histograms(), Overlap()
    for done, tile in enumerate(labelled, 1):
        image, label = read_tile(tile)
        assert label is not None  # `labelled` has only tiles with labels
        with within(f"tile {tile.id}"):
            prob = model.probabilities(image, views)
        histograms.add(prob, label)
        own.add(as_mask(prob, model.threshold) > 0, label)
        report(done, len(labelled), tile.id)
    counts = histograms.each()
    if not counts[:, 1].any():
        raise BadInput(f"no road in any of {counted(len(labelled), 'label')}: give labels with roads")
    at = int(best(iou_over_thresholds(histograms.pooled())))
    overlap = np.array(own.each)
    there = np.stack([iou_columns(tile, at) for tile in counts])
    return TunedThreshold(
        tiles=len(labelled),
        views=len(model.spec.views) if views is None else views,
        before=model.threshold,
        iou_before=own.both / own.either,
        threshold=estimate(counts.reshape(len(counts), -1), best_threshold),
        iou=estimate(there, ratio),
        gain=estimate(np.hstack([there, overlap]), loss),
    )


def best_threshold(sums: Floats) -> Floats:
    """The best threshold (...) of flattened histograms (..., 2002)."""
    return np.asarray(THRESHOLDS[best(iou_over_thresholds(sums.reshape(*sums.shape[:-1], 2, STEPS + 1)))])


def iou_columns(counts: NDArray[np.int32], at: int) -> Floats:
    """Intersection and union of one tile at a threshold."""
    hits, extras = hits_and_extras(counts.astype(np.float64))
    return np.array([hits[at], counts[1].sum() + extras[at]])
