"""How far a figure of a few tiles can be trusted: 95 % intervals by the bootstrap over tiles.

As many tiles as there are, are drawn anew from them, with replacement, 4000 times, and the figure is computed of each
draw; the interval holds the middle of those. Tiles are drawn and not pixels, since a tile's pixels share its streets
and its light. A draw takes all of a tile's numbers, so a difference of two models is paired.

The middle 95 % of the draws are too narrow for few tiles, so the levels are moved outward until they fit Student's t
for a mean ("expanded percentile": Hesterberg, What Teachers Should Know About the Bootstrap, arXiv:1411.5279, where
level' = Phi(sqrt(n / (n - 1)) t(level, n - 1))). For 14 tiles that is the middle 97.5 %. Of 400 simulated sets with
very unequal amounts of road, the interval of an IoU drop held the truth in 93 % for 14 tiles and in 90 % for 5; plain
ones in 90 % and 80 %.

What no interval says: how the figure is on tiles of another kind than these.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DRAWS = 4000
AT_ONCE = 1 << 21  # numbers of one block of draws, 16 MB
SEED = 0
LEVEL = 0.95

Floats: TypeAlias = NDArray[np.float64]
Figure: TypeAlias = Callable[[Floats], Floats]  # sums over tiles (..., k) -> the figure (...), NaN where it has none


@dataclass(frozen=True)
class Estimate:
    """A figure of some tiles and its 95 % interval."""

    value: float | None  # None where these tiles have none (0 / 0)
    low: float | None  # None where there are fewer than two tiles
    high: float | None
    tiles: int


def estimate(columns: NDArray[np.generic], figure: Figure) -> Estimate:
    """The figure of all tiles, and where it lies in draws of them. `columns` (tiles, k) is what adds up over tiles."""
    rows: Floats = np.asarray(columns, np.float64)
    tiles = len(rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(figure(rows.sum(axis=0)))
        found = np.concatenate([figure(counts @ rows) for counts in draws(tiles)]) if tiles > 1 else np.empty(0)
    found = found[np.isfinite(found)]
    if not np.isfinite(value):
        return Estimate(None, None, None, tiles)
    if not found.size:
        return Estimate(value, None, None, tiles)
    low, high = np.quantile(found, levels(tiles))
    return Estimate(value, float(low), float(high), tiles)


def draws(tiles: int) -> Iterator[Floats]:
    """How often each tile is in each draw, (some, tiles) at a time: the same for every figure of so many tiles."""
    rng = np.random.default_rng(SEED)
    block = max(1, min(DRAWS, AT_ONCE // tiles))
    for begin in range(0, DRAWS, block):
        some = min(block, DRAWS - begin)
        yield rng.multinomial(tiles, np.full(tiles, 1 / tiles), size=some).astype(np.float64)


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
    """The first column by the second: a pooled IoU of (intersections, unions)."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def loss(sums: Floats) -> Floats:
    """What the second ratio lacks of the first, of columns (a, b, c, d): a / b - c / d."""
    return ratio(sums[..., :2]) - ratio(sums[..., 2:])
