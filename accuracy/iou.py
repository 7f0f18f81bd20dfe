"""Intersection over union, in the two forms that papers give.

Pooled over tiles: the sum of intersections by the sum of unions, TP / (TP + FP + FN), as the DeepGlobe challenge
counts. And the mean of each tile's own, 1 where both masks are empty, as the D-LinkNet authors' code counts.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class IoU:
    """Of the same tiles, in both forms."""

    pooled: float | None  # None where there was no road in either mask of any tile: 0 / 0
    mean: float


@dataclass
class Overlap:
    """The IoU of two series of masks, a tile at a time. Numbers of pixels, which never round."""

    both: int = 0
    either: int = 0
    total: float = 0.0  # of the tiles' own
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
        """None where no tile was counted."""
        if not self.tiles:
            return None
        return IoU(self.both / self.either if self.either else None, self.total / self.tiles)
