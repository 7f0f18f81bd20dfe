"""95 % intervals of figures over a few tiles, by the bootstrap over tiles.

From n tiles, n are drawn with replacement, 4000 times. The figure is computed of each draw, and the interval is the
middle of the draws' figures. The unit is the tile and not the pixel, because a tile's pixels share its streets and its
light. A draw takes all of a tile's numbers, so a difference between two models is paired.

For few tiles the middle 95 % of the draws are too narrow. So the levels are moved outward to fit Student's t for a mean
("expanded percentile": Hesterberg, What Teachers Should Know About the Bootstrap, arXiv:1411.5279, where
level' = Phi(sqrt(n / (n - 1)) t(level, n - 1))). For 14 tiles this is the middle 97.5 %. In 400 simulated sets with
very unequal amounts of road, the interval of an IoU drop held the truth in 93 % for 14 tiles and in 90 % for 5; without
the correction in 90 % and 80 %.

An interval says nothing about tiles of another kind.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000
AT_ONCE = 1 << 21  # numbers in one block of draws, 16 MB
SEED = 0
LEVEL = 0.95

Floats: TypeAlias = NDArray[np.float64]
Figure: TypeAlias = Callable[[Floats], Floats]  # sums over tiles (..., k) -> the figure (...), NaN for 0 / 0


@dataclass(frozen=True)
class Estimate:
    """A figure of some tiles and its 95 % interval."""

    value: float | None  # None: 0 / 0
    low: float | None  # None: fewer than two tiles
    high: float | None
    tiles: int


def estimate(columns: NDArray[np.generic], figure: Figure) -> Estimate:
    """The figure of all tiles and its interval. `columns` (tiles, k) holds what adds up over tiles."""
    rows: Floats = np.asarray(columns, np.float64)
    tiles = len(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(rows.sum(axis=0)))
        drawn = np.concatenate([figure(counts @ rows) for counts in draws(tiles)]) if tiles > 1 else np.empty(0)
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value):
        return Estimate(None, None, None, tiles)
    if not drawn.size:
        return Estimate(value, None, None, tiles)
    low, high = np.quantile(drawn, levels(tiles))
    return Estimate(value, float(low), float(high), tiles)


def draws(tiles: int) -> Iterator[Floats]:
    """How often each tile is in each draw, in blocks (draws, tiles). The same for every figure of so many tiles."""
    rng = np.random.default_rng(SEED)
    block = max(1, min(DRAWS, AT_ONCE // tiles))
    for begin in range(0, DRAWS, block):
        size = min(block, DRAWS - begin)
        yield rng.multinomial(tiles, np.full(tiles, 1 / tiles), size=size).astype(np.float64)


def levels(tiles: int) -> tuple[float, float]:
    """The quantiles of the draws that bound the interval."""
    low = NormalDist().cdf(-sqrt(tiles / (tiles - 1)) * student((1 + LEVEL) / 2, tiles - 1))
    return low, 1 - low


def student(level: float, freedom: int) -> float:
    """Quantile of Student's t, within 3 % from 2 degrees of freedom on (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(freedom) ** i for i, term in enumerate(terms, 1))


def ratio(sums: Floats) -> Floats:
    """The first column divided by the second: the pooled IoU of (intersections, unions)."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def loss(sums: Floats) -> Floats:
    """The first ratio minus the second: columns (a, b, c, d) -> a / b - c / d."""
    return ratio(sums[..., :2]) - ratio(sums[..., 2:])
