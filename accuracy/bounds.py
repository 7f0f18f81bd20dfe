"""An upper bound of a mean that holds with a stated confidence for any number of tiles, and for any distribution.

The tiles must be drawn alike and independently of each other; each gives a loss from 0 to 1. Nothing is assumed of how
the losses are distributed, and nothing holds only for many tiles.

- Losses that can only be 0 or 1 are a binomial: the bound is Clopper and Pearson's, which is exact (Biometrika 26,
  1934).
- Other losses have the bound of Hoeffding and Bentkus (Bates et al., Distribution-Free, Risk-Controlling Prediction
  Sets, arXiv:2101.02703, section 3.1): the p-value of "the mean is at least a" is the smaller one of
  exp(-n kl(m, a)) and e P(Bin(n, a) <= ceil(n m)), m being the losses' mean.

Where no tile of n has a loss, both are 1 - (1 - confidence)^(1/n), about 3 / n for 95 %.
"""

import math
from collections.abc import Sequence

from scipy.special import bdtr

STEPS = 60  # of a bisection: to 1e-18


def upper_bound(losses: Sequence[float], confidence: float, binary: bool) -> float:
    """The upper bound of the mean loss. `binary`: a loss can only be 0 or 1, whatever these are. 1 of no losses."""
    n, total = len(losses), sum(losses)
    low, high = (total / n if n else 1.0), 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if p_value(n, total, middle, binary) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def lower_bound(losses: Sequence[float], confidence: float, binary: bool) -> float:
    """The lower bound of the mean loss, with the same confidence. 0 of no losses."""
    return 1 - upper_bound([1 - loss for loss in losses], confidence, binary)


def p_value(n: int, total: float, mean: float, binary: bool) -> float:
    """The greatest probability that n losses sum up to `total` or less, if their mean is at least `mean`."""
    near = round(total)
    whole = near if binary or math.isclose(total, near, abs_tol=1e-9) else math.ceil(total)
    tail = float(bdtr(min(whole, n), n, mean))
    if binary:
        return tail
    hoeffding = math.exp(-n * divergence(min(total / n, mean), mean)) if n else 1.0
    return min(hoeffding, math.e * tail, 1.0)


def divergence(m: float, a: float) -> float:
    """Kullback and Leibler's, of two coins that fall with probability m and a, 0 < a; in natural units."""
    first = m * math.log(m / a) if m else 0.0
    if m == 1:
        return first
    return first + (1 - m) * math.log((1 - m) / (1 - a)) if a < 1 else math.inf


def fewest(bound: float, confidence: float) -> int:
    """The fewest tiles that can show a bound, if none has a loss."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-bound) - 1e-9)
