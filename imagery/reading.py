"""How pictures and labels are read: which bands, which stretch to 8 bits, at which ground resolution. Needs no library.

One `Reading` serves every command. It joins what the user asks for with what the network's Spec says.
"""

import re
from dataclasses import dataclass, replace

from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS, Spec
from dlink.runtime.stretch import Stretch

TARGET_TAG = "DLINK_TARGET"  # of a result: what it shows, such as road or building
NATIVE = "native"
MOST_METRES = 1000.0
COLOUR, GREYEST = 1 << 24, 255  # in a label of colours 0xRRGGBB counts as COLOUR + 0xRRGGBB
WHOLE = re.compile(r"-?[0-9]{1,5}")
RGB_VALUE = re.compile(r"#([0-9a-fA-F]{6})")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the pictures and the labels of a command are read. The defaults are those of a network of red, green, blue.

    Raises:
        BadInput: A value is out of range.

    Example:
        >>> from dlink.imagery.reading import Reading
        >>> reading = Reading(bands="5,3,2", stretch="200:1475")
        >>> reading.numbers, str(reading.stretched)
        ((5, 3, 2), '200:1475')
    """

    bands: str | None = None  # numbers of a raster's bands, in the order of `planes`, such as 5,3,2
    stretch: str | None = None  # see Stretch.of; None: samples of 8 bits as they are, others by 2,98
    gsd: str | None = None  # ground resolution to read at, metres a pixel, or native; None: the network's
    road_value: str | None = None  # values of a label that are road, such as 2 or 1,2 or #ff0000
    planes: tuple[str, ...] = COLOURS  # the names of an image's planes: the Spec's bands
    trained_m: float | None = None  # the network's ground resolution, metres a pixel; None: not known

    def __post_init__(self) -> None:
        _ = self.numbers, self.stretched, self.metres, self.road_values  # raise BadInput for a bad value

    def of_network(self, spec: Spec) -> "Reading":
        """The reading for a network: its bands, and where the user says nothing its stretch and ground resolution."""
        return replace(self, planes=spec.bands, stretch=self.stretch or spec.stretch or None, trained_m=spec.gsd_m)

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """The bands that the user names, counted from 1."""
        if self.bands is None:
            return None
        try:
            found = tuple(int(part) for part in self.bands.split(","))
        except ValueError:
            found = ()
        if not found or min(found) < 1:
            raise BadInput(f"--bands {self.bands[:60]}: expected numbers from 1 on, such as 5,3,2 for red, green, blue")
        return found

    @property
    def stretched(self) -> Stretch | None:
        return None if self.stretch is None else Stretch.of(self.stretch)

    @property
    def metres(self) -> float | None:
        """Metres a pixel at which pictures are read; None: as they are."""
        if self.gsd is None:
            return self.trained_m
        if self.gsd == NATIVE:
            return None
        try:
            metres = float(self.gsd)
        except ValueError:
            metres = 0.0
        if not 0 < metres <= MOST_METRES:
            raise BadInput(f"--gsd {self.gsd[:60]}: expected native, or metres a pixel such as 0.5")
        return metres

    @property
    def road_values(self) -> tuple[int, ...]:
        """The values of a label that are road, as labels.py counts them; empty if the user names none."""
        return tuple(v for part in (self.road_value or "").split(",") if part for v in values_of(part, self.road_value))


def values_of(part: str, text: str | None) -> list[int]:
    """A grey value in a grey label and as a colour, or a colour."""
    if WHOLE.fullmatch(part):
        grey = int(part)
        return [grey, COLOUR + grey * 0x010101] if 0 < grey <= GREYEST else [grey]
    if colour := RGB_VALUE.fullmatch(part):
        number = int(colour[1], 16)
        grey = number & GREYEST
        return [COLOUR + number, *([grey] if number == grey * 0x010101 else [])]
    raise BadInput(f"--road-value {str(text)[:60]}: expected values such as 2 or 1,2, or a colour such as '#ff0000'")


RGB = Reading()
