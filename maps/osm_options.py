"""What is compared with OpenStreetMap, and how. It is apart from conflate.py, which needs pyosmium."""

import math
from dataclasses import dataclass
from pathlib import Path

from dlink.runtime.errors import BadInput

DISTANCE = 12.0  # metres: a lane or two of offset between picture and map, and half of a road
OFFSET = 4.0  # metres between a wide road's middle line and its outer lanes' line, over half its width: a lane


@dataclass(frozen=True, kw_only=True)
class OsmOptions:
    """The extract that roads are compared with, and how near is the same road.

    Raises:
        BadInput: The distance is not positive.
    """

    extract: Path | None = None  # None: roads are not compared
    distance: float = DISTANCE  # metres

    def __post_init__(self) -> None:
        if not (self.distance > 0 and math.isfinite(self.distance)):
            raise BadInput(f"--osm-distance {self.distance:g}: must be more than 0")

    def tolerance(self, width: float) -> float:
        """Metres from an existing line at which a road of this width is the same; wide roads may have two lines."""
        return max(self.distance, width / 2 + OFFSET)
