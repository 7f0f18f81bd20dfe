"""How samples of more than 8 bits become 8 bits: `2,98` or `200:1475`, for a picture's reader and in a Spec."""

import math
from dataclasses import dataclass
from typing import TypeAlias

from dlink.runtime.errors import BadInput

Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Stretch:
    """How samples become 0..255: by percentiles of the whole picture, or by values; both ends are cut off.

    By percentiles each band gets a range of its own. By values there is one range for all bands, or one for each.
    """

    percentiles: Range | None = None
    ranges: tuple[Range, ...] = ()

    @classmethod
    def of(cls, text: str, name: str = "--stretch") -> "Stretch":
        """Read `2,98` (percentiles), `200:1475` (values) or `200:1475,180:1300,150:1100` (values for each band)."""
        try:
            if ":" not in text:
                low, high = map(float, text.split(","))
                if not 0 <= low < high <= 100:
                    raise ValueError
                return cls(percentiles=(low, high))
            ranges = tuple((float(low), float(high)) for low, high in (part.split(":") for part in text.split(",")))
        except ValueError:
            raise BadInput(
                f"{name} {text[:60]}: expected percentiles such as 2,98 or values such as 200:1475, the lower one first"
            ) from None
        for low, high in ranges:
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise BadInput(f"{name} {text[:60]}: {low:g}:{high:g} is no range, the lower value comes first")
        return cls(ranges=ranges)

    def __str__(self) -> str:
        if self.percentiles:
            return "{:g},{:g}".format(*self.percentiles)
        return ",".join(f"{low:.9g}:{high:.9g}" for low, high in self.ranges)
