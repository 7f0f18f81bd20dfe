"""Whether a mask becomes lines or polygons: as asked, else as the mask says what it shows, else lines."""

from dataclasses import dataclass, replace
from pathlib import Path

from dlink.imagery.notes import say
from dlink.imagery.reading import Reading
from dlink.imagery.source import opened
from dlink.maps.mask import ROAD, target_of
from dlink.maps.polygons import PolygonOptions
from dlink.maps.vectorize import LineOptions
from dlink.runtime.errors import BadInput

OF_LINES = ("min_length", "smooth", "bridge", "widest")  # fields of LineOptions, and options


@dataclass(frozen=True, kw_only=True)
class AreaOptions:
    """What is asked for beside the options of lines. None: the default of PolygonOptions."""

    polygons: bool | None = None  # None: as the mask says
    min_area: float | None = None  # square metres
    square: bool = False


def polygons_of(mask: Path, lines: LineOptions, areas: AreaOptions, reading: Reading) -> PolygonOptions | None:
    """How a mask becomes polygons; None: it becomes lines.

    Raises:
        BadInput: An option is of the other kind.
    """
    if not (areas.polygons if areas.polygons is not None else shows_areas(mask, reading)):
        if areas.square or areas.min_area is not None:
            option = "--square" if areas.square else "--min-area"
            raise BadInput(f"{option}: is of polygons; --polygons draws them")
        return None
    refuse_others(lines, "the result is polygons; leave it out, or draw --lines")
    how = PolygonOptions(threshold=lines.threshold, simplify=lines.simplify, gsd_m=lines.gsd_m, square=areas.square)
    return how if areas.min_area is None else replace(how, min_area=areas.min_area)


def refuse_others(lines: LineOptions, why: str) -> None:
    """Raise BadInput if an option is given that only lines have."""
    usual = LineOptions()
    if given := [name for name in OF_LINES if getattr(lines, name) != getattr(usual, name)]:
        option = "--no-smooth" if given[0] == "smooth" else f"--{given[0].replace('_', '-')}"
        raise BadInput(f"{option}: is of lines, and {why}")


def shows_areas(mask: Path, reading: Reading) -> bool:
    """Whether a mask says that it shows something else than road, which is noted."""
    if mask.is_dir():
        return False
    with opened(mask, reading) as source:
        target = target_of(source)
    if target in ("", ROAD):
        return False
    say(mask, f"shows {target}, by its metadata, and becomes polygons; --lines draws lines")
    return True
