"""When a scout's view of a tile lets the large network skip it, and what is known of the road that is missed by it.

dlink-scout finds the limit on the user's tiles and writes it into the scout's Spec. The bound holds for tiles of the
same kind. A tile of it is a picture of the calibration that has road: at least a thousandth of it (SHARE). Each of them
counts alike, and what is bounded is the mean share of a tile's road that is skipped.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput
from dlink.runtime.views import ALL
from dlink.runtime.words import counted

SHARE = 1 / 1000  # of a tile's pixels: a road of 8 px through 130 px of a tile of 1024 x 1024
HIGHEST = 254  # level: at 255 every tile would be skipped
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ScoutLimit:
    """A calibrated limit.

    Raises:
        BadInput: A value is out of range.
    """

    level: int  # of 255: a tile is skipped if at most SHARE of its pixels have a greater probability
    missed: float  # bound of the mean share of a tile's road that is skipped
    confidence: float  # that the bound holds, over the choice of the calibration's tiles
    tiles: int  # with road, that it was calibrated on
    threshold: float  # of the large network: what it draws above it was its road
    large_sha256: str  # of the large network's file
    views: int  # of the large network, for the road
    halo: int  # px, of the windows

    def __post_init__(self) -> None:
        if not 0 <= self.level <= HIGHEST:
            raise BadInput(f"a scout's level must be from 0 to {HIGHEST}, got {self.level}")
        if not (0 < self.missed < 1 and 0 < self.confidence < 1 and 0 <= self.threshold < 1):
            raise BadInput(
                f"a scout's missed road, confidence and threshold must lie between 0 and 1, got {self.missed}, "
                f"{self.confidence} and {self.threshold}"
            )
        if not 1 <= self.views <= len(ALL) or self.halo < 0:
            raise BadInput(f"a scout's views must be 1 to 8 and its halo 0 or more, got {self.views} and {self.halo}")
        if self.tiles < 1:
            raise BadInput(f"a scout must be calibrated on tiles with road, got {self.tiles}")
        if not SHA256.fullmatch(self.large_sha256):
            raise BadInput(f"large_sha256 must be 64 hexadecimal digits, got {self.large_sha256[:80]!r}")

    @property
    def words(self) -> str:
        """What the limit is, and what it was calibrated for."""
        return (
            f"skips a tile where at most {SHARE:.1%} of it exceeds level {self.level} of 255; of the road that "
            f"{counted(self.views, 'view')} draw above {self.threshold:g} with a halo of {self.halo} px, at most "
            f"{self.missed:g} is missed with confidence {self.confidence:g}, from {counted(self.tiles, 'tile')} with "
            f"road; for the file of SHA-256 {self.large_sha256} alone"
        )

    def skips(self, levels: NDArray[np.uint8]) -> bool:
        """Whether the large network skips a tile, by the scout's uint8 (S, S) probabilities in 255 steps."""
        return int(np.count_nonzero(levels > self.level)) <= levels.size * SHARE


def least_limit(levels: NDArray[np.uint8]) -> int:
    """The least `level` whose limit skips a tile of uint8 (S, S), from 0 to 255: `skips` for every level at once."""
    above = levels.size - np.cumsum(np.bincount(levels.ravel(), minlength=256))  # pixels of a greater level
    return int(np.argmax(above <= levels.size * SHARE))
