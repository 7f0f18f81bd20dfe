"""How good one model's roads are, against labels: as pixels, and as graphs.

`Roads` is what is reported beyond IoU. APLS is the mean over labelled tiles; links are pooled: all that are broken or
bridged by all kilometres of the labels' roads (see links.py). A
`Connectivity` compares graphs (connectivity.py); without one they are left out, and with them what only they need.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from dlink.accuracy.bootstrap import Floats
from dlink.accuracy.pixels import Mask, PixelCounts

Connectivity: TypeAlias = Callable[
    [Mask], tuple[float, float, float, float]
]  # a mask's APLS, broken, bridged, label's km


@dataclass(frozen=True, kw_only=True)
class Roads:
    """Figures of one model's roads; None where there is nothing to divide by, or graphs were not asked for."""

    precision: float | None  # share of the pixels drawn that are road in the label
    recall: float | None  # share of the label's road that is drawn
    f1: float | None
    apls: float | None = None  # mean over tiles
    broken_per_km: float | None = None  # of the label's roads
    bridged_per_km: float | None = None
    km: float | None = None  # of the labels' roads


@dataclass
class RoadTally:
    """Roads in the making, a tile at a time."""

    pixels: PixelCounts = field(default_factory=PixelCounts)
    graphs: list[tuple[float, ...]] = field(default_factory=list)  # APLS, broken, bridged, km, 1

    @property
    def overlaps(self) -> list[tuple[int, int]]:
        """Pixels in both mask and label, and in either, of every tile."""
        return self.pixels.overlap.each

    def add(self, mask: Mask, label: Mask, measure: Connectivity | None) -> float:
        """Count one tile; returns its IoU."""
        self.pixels.add(mask, label)
        if measure is not None:
            self.graphs.append((*measure(mask), 1))
        both, either = self.overlaps[-1]
        return both / either if either else 1.0

    def figures(self) -> Roads | None:
        """None where no tile was counted."""
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
    """Of columns of the reference's `graphs`, then the candidate's: how much lower the candidate's mean APLS is."""
    return np.asarray(sums[..., 0] / sums[..., 4] - sums[..., 5] / sums[..., 9])


def broken_rise(sums: Floats) -> Floats:
    """Of the same columns: how many more links a km the candidate breaks."""
    return np.asarray(sums[..., 6] / sums[..., 8] - sums[..., 1] / sums[..., 3])
