"""Intersection over union, in the two forms that papers use.

Pooled over tiles: the sum of intersections divided by the sum of unions, TP / (TP + FP + FN), as in the DeepGlobe
challenge. Mean: the mean of the tiles' own IoU, 1 where both masks are empty, as in the D-LinkNet authors' code.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class IoU:
    """The IoU of some tiles in both forms."""

    pooled: float | None  # None: no road in any mask, 0 / 0
    mean: float


@dataclass
class Overlap:
    """Counts pixels for the IoU of two series of masks, a tile at a time."""

    both: int = 0
    either: int = 0
    total: float = 0.0  # sum of the tiles' own IoU
    tiles: int = 0
    each: list[tuple[int, int]] = field(default_factory=list)  # (both, either) of every tile

    def add(self, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
        """Count one tile's masks, bool (H, W) each; returns this tile's own IoU."""
        both, either = int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))
        own = both / either if either else 1.0
        self.both += both
        self.either += either
        self.total += own
        self.tiles += 1
        self.each.append((both, either))
        return own

    def iou(self) -> IoU | None:
        """The IoU; None if no tile was counted."""
        if not self.tiles:
            return None
        return IoU(self.both / self.either if self.either else None, self.total / self.tiles)
