"""What is left to rounding where two models are compared, so that no verdict hangs on it.

A mask is a step: two probabilities that differ in their last digit can be road and not road. A network may give large
areas one value, and where that is the threshold, whole masks hang on a digit that another processor rounds the other
way. So a pixel is undecided where both probabilities lie within NOISE of their own model's threshold, and by margins
(probability less threshold) that differ by no more than NOISE: there the candidate takes the reference's side. Every
other pixel counts as the two masks have it, so what differs by more than the noise counts in full.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Float32's rounding moved probabilities of these networks by 3e-7 from an AMD processor to an Intel one, and by 4e-6
# from one library to another; export refuses a float32 file above 1e-4 (export/proof.py).
NOISE = 1e-5
WORTH_SAYING = 0.001  # share of undecided pixels from which on a result says so, though no side differed

# The least size that a difference of tensors is said as a share of: of a tensor that is zero throughout, as a ReLU's
# may be, rounding's 1e-8 would be infinitely much. All other layers' outputs were seen to have root mean squares from
# 0.006 (made-up weights) or 0.3 (the embedded network) up.
SMALL = 1e-3

Sides: TypeAlias = NDArray[np.bool_]  # True: road
Pair: TypeAlias = Sequence[tuple[NDArray[np.float32], float]]  # the candidate's and the reference's, with thresholds


@dataclass(frozen=True)
class Near:
    """How many pixels rounding could decide."""

    pixels: int = 0  # all that were compared
    undecided: int = 0
    settled: int = 0  # of the undecided, those whose sides differed

    def __add__(self, other: "Near") -> "Near":
        return Near(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def words(self) -> str:
        """What to add to a result; nothing where rounding decides next to nothing."""
        share = self.undecided / max(self.pixels, 1)
        if not self.settled and share < WORTH_SAYING:
            return ""
        amount = "under 0.1 %" if share < WORTH_SAYING else f"{100 * share:.1f} %"
        return (
            f"{amount} of the pixels lie within {NOISE:g} of the threshold, where rounding decides: the reference's "
            f"side is taken there"
        )


def settle(pair: Pair) -> tuple[Sides, Sides, Near]:
    """The candidate's and the reference's roads as they are to be compared, and how many pixels were undecided."""
    (a, at), (b, bt) = pair
    candidate, reference = a > at, b > bt
    margins = a - np.float32(at), b - np.float32(bt)
    undecided = np.abs(margins[0] - margins[1]) <= NOISE
    for margin in margins:
        undecided &= np.abs(margin) <= NOISE
    differ = undecided & (candidate != reference)
    near = Near(undecided.size, int(np.count_nonzero(undecided)), int(np.count_nonzero(differ)))
    return candidate ^ differ, reference, near
