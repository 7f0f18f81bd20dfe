"""Compares two models' masks so that rounding does not decide the verdict.

A mask is a step function: of two probabilities that differ in the last digit, one can be road and the other not. A
network may also give one value to large areas; if that value is the threshold, a whole mask depends on how a processor
rounds. So a pixel is undecided if both probabilities lie within NOISE of their model's threshold, and their margins
(probability minus threshold) differ by at most NOISE. There the candidate takes the reference's side. All other pixels
count as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Float32's rounding moved probabilities of these networks by 3e-7 from an AMD processor to an Intel one, and by 4e-6
# from one library to another; export refuses a float32 file above 1e-4 (export/proof.py).
NOISE = 1e-5
WORTH_SAYING = 0.001  # from this share of undecided pixels on a result mentions them, even if no side differed

# Relative differences of tensors divide by at least this: a ReLU's output may be all zero, and rounding's 1e-8 would
# be an infinite share of it. Other layers' root mean squares start at 0.006 (random weights) or 0.3 (the embedded
# network).
SMALL = 1e-3

Sides: TypeAlias = NDArray[np.bool_]  # True: road
Pair: TypeAlias = Sequence[tuple[NDArray[np.float32], float]]  # the candidate's and the reference's, with thresholds


@dataclass(frozen=True)
class Near:
    """Counts of the pixels that rounding could decide."""

    pixels: int = 0  # all compared pixels
    undecided: int = 0
    settled: int = 0  # undecided pixels whose sides differed

    def __add__(self, other: "Near") -> "Near":
        return Near(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def words(self) -> str:
        """A sentence for the result; empty where rounding decides almost nothing."""
        share = self.undecided / max(self.pixels, 1)
        if not self.settled and share < WORTH_SAYING:
            return ""
        amount = "under 0.1 %" if share < WORTH_SAYING else f"{100 * share:.1f} %"
        return (
            f"{amount} of the pixels lie within {NOISE:g} of the threshold, where rounding decides: the reference's "
            f"side is taken there"
        )


def settle(pair: Pair) -> tuple[Sides, Sides, Near]:
    """The candidate's and the reference's masks to compare, and how many pixels were undecided."""
    (a, at), (b, bt) = pair
    candidate, reference = a > at, b > bt
    margins = a - np.float32(at), b - np.float32(bt)
    undecided = np.abs(margins[0] - margins[1]) <= NOISE
    for margin in margins:
        undecided &= np.abs(margin) <= NOISE
    differ = undecided & (candidate != reference)
    near = Near(undecided.size, int(np.count_nonzero(undecided)), int(np.count_nonzero(differ)))
    return candidate ^ differ, reference, near
