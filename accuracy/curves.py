"""Precision, recall and IoU over thresholds, and the calibration of probabilities.

Two histograms are kept of every tile, one of the label's road pixels and one of the others, by how many of the
thresholds 0, 0.001 ... 0.999 the pixel's probability exceeds. So the mask of each threshold is counted exactly, and
memory is 8 KB a tile of any size.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.bootstrap import Floats
from dlink.runtime.backend import Probs

STEPS = 1000
THRESHOLDS: Floats = np.arange(STEPS) / STEPS
EDGES = THRESHOLDS.astype(np.float32)  # `as_mask` compares float32 with float32
BINS = 10  # of equal width, for the calibration


def histogram(prob: Probs, label: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Pixels (2, 1001), not road and road, by the number of thresholds that their probability exceeds."""
    exceeds = np.searchsorted(EDGES, prob.ravel(), side="left")
    exceeds += (STEPS + 1) * label.ravel()
    counts: NDArray[np.int32] = np.bincount(exceeds, minlength=2 * (STEPS + 1)).astype(np.int32)
    return counts.reshape(2, STEPS + 1)


@dataclass
class Histograms:
    """Histograms of a series of tiles."""

    tiles: list[NDArray[np.int32]] = field(default_factory=list)

    def add(self, prob: Probs, label: NDArray[np.bool_]) -> None:
        self.tiles.append(histogram(prob, label))

    def each(self) -> NDArray[np.int32]:
        """Each tile's, (tiles, 2, 1001)."""
        return np.stack(self.tiles) if self.tiles else np.zeros((0, 2, STEPS + 1), np.int32)

    def pooled(self) -> Floats:
        """The sum over tiles, (2, 1001)."""
        counts: Floats = self.each().sum(axis=0, dtype=np.float64)
        return counts


def hits_and_extras(counts: Floats) -> tuple[Floats, Floats]:
    """True and false positives at each threshold: (..., 2, 1001) -> (..., 1000) twice."""
    above = np.cumsum(counts[..., ::-1], axis=-1)[..., -2::-1]
    return above[..., 1, :], above[..., 0, :]


def iou_over_thresholds(counts: Floats) -> Floats:
    """IoU with the labels at each threshold: (..., 2, 1001) -> (..., 1000); NaN without road in mask and label."""
    hits, extras = hits_and_extras(counts)
    with np.errstate(invalid="ignore"):
        return np.asarray(hits / (counts[..., 1, :].sum(axis=-1, keepdims=True) + extras))


def best(iou: Floats) -> NDArray[np.intp]:
    """Index of the threshold with the highest IoU, (..., 1000) -> (...); the middle one of equal neighbours."""
    highest = iou == np.nanmax(iou, axis=-1, keepdims=True, initial=0)
    first = highest.argmax(axis=-1)
    over = ~highest & (np.arange(STEPS) > first[..., None])
    after = np.where(over.any(axis=-1), over.argmax(axis=-1), STEPS)
    return np.asarray((first + after - 1) // 2)


@dataclass(frozen=True)
class Curve:
    """Figures at each of THRESHOLDS, over all labelled tiles; NaN for 0 / 0."""

    precision: Floats
    recall: Floats
    iou: Floats

    @classmethod
    def of(cls, counts: Floats) -> "Curve":
        hits, extras = hits_and_extras(counts)
        with np.errstate(invalid="ignore"):
            return cls(hits / (hits + extras), hits / counts[1].sum(), iou_over_thresholds(counts))

    @property
    def best(self) -> int:
        return int(best(self.iou))


@dataclass(frozen=True)
class Calibration:
    """How often pixels of probability p are road, in ten bins of equal width. Calibrated means: in a share p of cases.

    `error` is the expected calibration error of Guo et al., On Calibration of Modern Neural Networks (2017),
    equation 3, with the probability of road as the confidence: the mean of |share - probability| over pixels.
    """

    probability: Floats  # mean of the bin's pixels, to 0.0005; NaN for an empty bin
    share: Floats  # that are road in the label
    pixels: Floats
    error: float | None  # None without pixels

    @classmethod
    def of(cls, counts: Floats) -> "Calibration":
        middles = np.maximum(np.arange(STEPS + 1) - 0.5, 0) / STEPS
        starts = np.concatenate([[0], np.arange(1, BINS) * (STEPS // BINS) + 1])
        both = counts.sum(axis=0)
        pixels, road, total = (np.add.reduceat(v, starts) for v in (both, counts[1], both * middles))
        with np.errstate(invalid="ignore"):
            probability, share = total / pixels, road / pixels
        if not pixels.sum():
            return cls(probability, share, pixels, None)
        return cls(probability, share, pixels, float(np.abs(road - total).sum() / pixels.sum()))
