"""Chooses where to cut a tensor's values: the largest |value| that int8 keeps, from a histogram.

Integers are -127 .. 127 with zero at 0, so every method chooses one number, the limit. Larger values are clipped. A
lower limit makes finer steps and clips more. A histogram counts |value| from 0 to the tensor's peak in equal bins.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

STEPS = 127
PERCENTILE = 99.99  # per cent of the values that are kept; measured, see DESIGN.md
TRIED = np.linspace(0.2, 1, 81)  # of the peak: limits that mse tries
ENTROPY_FIRST, ENTROPY_EVERY = 128, 16  # bins: the least limit that entropy tries, and the step to the next

Bins = NDArray[np.int64]


def maximum(bins: Bins, peak: float) -> float:
    """The peak: nothing is clipped."""
    return peak


def percentile(bins: Bins, peak: float) -> float:
    """The limit that keeps PERCENTILE of the values."""
    below = np.cumsum(bins)
    return float((np.searchsorted(below, PERCENTILE / 100 * below[-1]) + 1) * peak / len(bins))


def mse(bins: Bins, peak: float) -> float:
    """The limit with the least mean squared error of clipping and rounding together."""
    centres = (np.arange(len(bins)) + 0.5) * peak / len(bins)
    steps = TRIED[:, None] * peak / STEPS
    back = np.minimum(np.rint(centres / steps), STEPS) * steps
    return float(TRIED[np.argmin(((back - centres) ** 2) @ bins)] * peak)


def entropy(bins: Bins, peak: float) -> float:
    """The limit with the least Kullback-Leibler divergence between the values and their int8 values.

    After S. Migacz, 8-bit Inference with TensorRT, GTC 2017: clipped values count in the last bin of the reference. The
    quantised distribution spreads each of its 128 levels evenly over the bins that had values.
    """
    # The first bin is left out of the comparison, as in MXNet and ONNX Runtime: ReLU's zeros are exact in int8.
    values = bins.astype(np.float64)
    values[0] = values[1]
    tried = range(ENTROPY_FIRST, len(bins) + 1, ENTROPY_EVERY)
    scores = [divergence(values, end) for end in tried]
    return tried[int(np.argmin(scores))] * peak / len(bins)


def divergence(values: NDArray[np.float64], end: int) -> float:
    kept = values[:end]
    reference = kept.copy()
    reference[-1] += values[end:].sum()
    level = np.arange(end) * (STEPS + 1) // end
    held = (kept > 0).astype(np.float64)
    sums, counts = np.bincount(level, kept), np.bincount(level, held)
    spread = held * (sums / np.maximum(counts, 1))[level]
    both = (reference > 0) & (spread > 0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1)
    # Where the quantised distribution is 0 the divergence is infinite; its amount still ranks the limits.
    lost = p[(reference > 0) & ~both].sum()
    return float((p[both] * np.log(p[both] / q[both])).sum() + 1e3 * lost)


METHODS: dict[str, Callable[[Bins, float], float]] = {
    "entropy": entropy,
    "percentile": percentile,
    "mse": mse,
    "max": maximum,
}
