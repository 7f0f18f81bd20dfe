"""Figures of one model's roads against labels, as pixels and as graphs.

`Roads` has the reported figures beyond IoU. APLS is the mean over labelled tiles. Links are pooled: all broken or
bridged links divided by all kilometres of the labels' roads (links.py). A `Connectivity` compares graphs
(connectivity.py); without one the graphs' figures are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from dlink.accuracy.bootstrap import Floats
from dlink.accuracy.pixels import Mask, PixelCounts

# Of a mask: APLS, broken links, bridged links, and the kilometres of the label's roads.
Connectivity: TypeAlias = Callable[[Mask], tuple[float, float, float, float]]


@dataclass(frozen=True, kw_only=True)
class Roads:
    """Figures of one model's roads; None for 0 / 0, or where graphs were not compared."""

    precision: float | None  # share of the pixels drawn that are road in the label
    recall: float | None  # share of the label's road that is drawn
    f1: float | None
    apls: float | None = None  # mean over tiles
    broken_per_km: float | None = None  # of the label's roads
    bridged_per_km: float | None = None
    km: float | None = None  # of the labels' roads


@dataclass
class RoadTally:
    """Counts for Roads, a tile at a time."""

    pixels: PixelCounts = field(default_factory=PixelCounts)
    graphs: list[tuple[float, ...]] = field(default_factory=list)  # APLS, broken, bridged, km, 1

    @property
    def overlaps(self) -> list[tuple[int, int]]:
        """Each tile's pixels in both mask and label, and in either."""
        return self.pixels.overlap.each

    def add(self, mask: Mask, label: Mask, measure: Connectivity | None) -> float:
        """Count one tile; returns its IoU."""
        self.pixels.add(mask, label)
        if measure is not None:
            self.graphs.append((*measure(mask), 1))
        both, either = self.overlaps[-1]
        return both / either if either else 1.0

    def figures(self) -> Roads | None:
        """The figures; None if no tile was counted."""
        p = self.pixels
        if not p.overlap.tiles:
            return None
        pixels = {"precision": p.precision, "recall": p.recall, "f1": p.f1}
        if not self.graphs:
            return Roads(**pixels)
        apls, broken, bridged, km, tiles = (float(v) for v in np.sum(self.graphs, axis=0))
        per_km = (broken / km, bridged / km) if km else (None, None)
        return Roads(**pixels, apls=apls / tiles, broken_per_km=per_km[0], bridged_per_km=per_km[1], km=km)


def apls_drop(sums: Floats) -> Floats:
    """How much lower the candidate's mean APLS is. Columns: the reference's `graphs`, then the candidate's."""
    return np.asarray(sums[..., 0] / sums[..., 4] - sums[..., 5] / sums[..., 9])


def broken_rise(sums: Floats) -> Floats:
    """How many more links a km the candidate breaks. Columns as in `apls_drop`."""
    return np.asarray(sums[..., 6] / sums[..., 8] - sums[..., 1] / sums[..., 3])
