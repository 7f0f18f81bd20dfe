"""Whether positions follow each other as an aircraft flies.

The checksum of a KLV set is a sum of 16 bits. On a link that turns many bits, one damaged set of some hundred passes
it, and puts the camera kilometres away.
"""

import math
from itertools import pairwise

import numpy as np

from dlink.live.ground.earth import to_local
from dlink.live.pose import Pose

FASTEST_MPS = 400.0  # of an aircraft with a camera, with room to spare
JITTER_M = 50.0  # of positions, on top of it
AGREE = 3  # positions in a row that follow each other, after which the earlier ones were wrong


class Likely:
    """Compares each position with the last one that was likely."""

    def __init__(self) -> None:
        self.last: tuple[float, Pose] | None = None
        self.doubted: list[tuple[float, Pose]] = []  # the last ones, as long as they do not follow `last`

    def take(self, when: float, pose: Pose) -> bool:
        """Whether a position of a time, seconds, is likely. The first one is."""
        if self.last is not None and not follows(self.last, (when, pose)):
            self.doubted.append((when, pose))
            if not all(follows(a, b) for a, b in pairwise(self.doubted)):
                self.doubted = self.doubted[-1:]
            if len(self.doubted) < AGREE:
                return False
        self.last, self.doubted = (when, pose), []
        return True


def follows(first: tuple[float, Pose], second: tuple[float, Pose]) -> bool:
    """Whether an aircraft can fly from one to the other."""
    (begin, a), (end, b) = first, second
    local = to_local(a.latitude, a.longitude, np.array([b.latitude]), np.array([b.longitude]))[0]
    up = 0.0 if a.altitude_m is None or b.altitude_m is None else b.altitude_m - a.altitude_m
    return math.hypot(*local, up) <= JITTER_M + FASTEST_MPS * abs(end - begin)
