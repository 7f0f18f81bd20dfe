"""A mask of any size becomes a file of polygons: outlines.py finds areas, shaping.py and squaring.py simplify them.

It is for what is not road, such as buildings. Memory grows with the areas and not with the mask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from dlink.imagery.notes import say
from dlink.imagery.reading import Reading
from dlink.imagery.resolution import WGS84
from dlink.maps.areas import ground_area
from dlink.maps.blocks import Metres, Read
from dlink.maps.mask import name_of, opened_mask
from dlink.maps.outlines import outlines
from dlink.maps.shaping import Shapes, Shaping, shaped, without_holes
from dlink.maps.write import IN_DEGREES, Layer, driver_of, ground_length, in_degrees, write_layer
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick, ignore
from dlink.runtime.words import counted

BLOCK = 1024  # px of a block's side
LAYER = "polygons"  # of a mask that does not say what it shows
FORMATS = ("gpkg", "fgb", "geojson", "geojsonl")
LINES_ALONE = (".osm", ".pmtiles")
DIGITS = 7  # of a degree in GeoJSON, as GDAL writes it by RFC 7946: 1 cm
SQUARE_KM = 1e6


@dataclass(frozen=True, kw_only=True)
class PolygonOptions:
    """What polygons are made of a mask. Lengths are metres, areas square metres.

    Raises:
        BadInput: A value is out of range.
    """

    threshold: float | None = None  # of probabilities: part of an area above it; None: 0.5 of real numbers
    min_area: float = 10.0  # smaller areas are left out, and smaller holes filled
    simplify: float = 1.0  # how far a simplified polygon may be from the outline along the pixels
    square: bool = False  # whether corners are squared
    gsd_m: float | None = None  # of a mask that does not say it
    block: int = BLOCK

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise BadInput(f"--threshold {self.threshold:g}: must be at least 0 and less than 1")


@dataclass(frozen=True)
class AreaSummary:
    """What a file of polygons holds."""

    polygons: int
    area_m2: float  # on the ground
    squared: int | None  # how many have squared corners; None: that was not asked for

    @property
    def words(self) -> str:
        large = self.area_m2 >= SQUARE_KM
        area = f"{self.area_m2 / SQUARE_KM:,.2f} km²" if large else f"{self.area_m2:,.0f} m²"
        return f"{counted(self.polygons, 'polygon')}, {area}" + (
            "" if self.squared is None else f", {self.squared:,} squared"
        )


@dataclass(frozen=True)
class Areas:
    """Polygons in the coordinates of `crs` (None: of no known system), and their fields in the order of the file."""

    name: str  # of the layer
    shapes: Shapes
    crs: Any
    fields: dict[str, NDArray[Any]]
    tags: Mapping[str, str] = field(default_factory=dict)  # of the layer, in a GeoPackage


class Ground(Protocol):
    """Where the pixels of a mask lie. A RoadMask is one."""

    path: Path  # for messages
    shape: tuple[int, int]
    metres: Metres
    crs: Any  # None: of no known system
    transform: Any
    probable: bool  # whether areas have probabilities
    target: str  # what the mask shows; empty: it does not say


def polygons(
    mask: Path, out: Path, how: PolygonOptions | None = None, reading: Reading | None = None, tick: Tick = ignore
) -> AreaSummary:
    """Write the areas of a mask as polygons.

    Args:
        mask: A raster that GDAL reads, of two values or of probabilities.
        out: .gpkg, .fgb, .geojson, or .geojsonl. An existing file is replaced.
        how: What polygons are made.
        reading: Its `road_value` says which values are meant.
        tick: Called with (blocks done, all blocks, words).

    Returns:
        What the file holds.

    Raises:
        BadInput: The mask is no mask, or `out` is of no known format.
        OSError: The mask cannot be read, or `out` not be written.

    Example:
        >>> from pathlib import Path
        >>> from dlink.maps.polygons import PolygonOptions, polygons
        >>> polygons(Path("mask.tif"), Path("buildings.gpkg"), PolygonOptions(square=True)).polygons
        1
    """
    how = how or PolygonOptions()
    with opened_mask(mask, reading or Reading(), how.threshold, how.gsd_m) as areas:
        check_format(out, areas.crs)
        if out.exists() and out.samefile(mask):
            raise BadInput(f"{out}: is the mask, and would be replaced; choose another output")
        say_system(areas)
        found = areas_of(areas.read, areas, how, tick)
    tick(0, 0, "writing")
    write_areas(out, found)
    return summary_of(found)


def check_format(path: Path, crs: Any) -> None:
    """Raise BadInput unless a file's name is that of a format of polygons, and the format can have this system."""
    if path.suffix.lower() in LINES_ALONE:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise BadInput(f"{path}: holds lines alone; expected for polygons {known}")
    driver_of(path, crs)


def say_system(ground: Ground) -> None:
    if not ground.crs:
        where = "pixels, x to the right and y down" if ground.transform.is_identity else "world file's coordinates"
        say(ground.path, f"has no coordinate system; the polygons are in its {where}")


def areas_of(read: Read, ground: Ground, how: PolygonOptions, tick: Tick = ignore) -> Areas:
    """The areas of a mask as polygons with their fields, from top to bottom. They do not depend on the blocks."""
    down, across = ground.metres
    least = how.min_area / (down * across)
    found = list(outlines(read, ground.shape, how.block, least, tick))
    found.sort(key=lambda each: shapely.get_coordinates(each.shape)[0, ::-1].tolist())
    inside = np.array([each.probability / each.pixels for each in found])
    raw = [without_holes(scaled(each.shape, across, down), how.min_area) for each in found]
    del found
    shapes, squared = shaped(raw, Shaping(how.simplify, how.square, max(down, across)), tick)
    tick(0, 0, "measuring")
    placed = moved(shapes, ground)
    for i in np.flatnonzero(~shapely.is_valid(placed)):  # by rounding, where a polygon touches itself
        [placed[i]], squared[i] = moved(np.array([raw[i]], object), ground), False
    return Areas(
        name_of(ground.target) or LAYER, placed, ground.crs, fields_of(inside, placed, shapes, squared, ground, how)
    )


def scaled(shape: shapely.Polygon, across: float, down: float) -> shapely.Polygon:
    return shapely.transform(shape, lambda points: points * (across, down))


def moved(shapes: Shapes, ground: Ground) -> Shapes:
    """Shapes in metres from the mask's corner, in the mask's coordinates."""
    a, b, c, d, e, f = tuple(ground.transform)[:6]
    down, across = ground.metres
    matrix = np.array([[a / across, d / across], [b / down, e / down]])
    return np.asarray(shapely.transform(shapes, lambda points: points @ matrix + (c, f)))


def fields_of(
    inside: NDArray[np.float64],
    placed: Shapes,
    plane: Shapes,
    squared: NDArray[np.bool_],
    ground: Ground,
    how: PolygonOptions,
) -> dict[str, NDArray[Any]]:
    """The fields of polygons in the mask's coordinates; `plane`: the same in metres, `inside`: mean probabilities."""
    if ground.crs:
        degrees = shapes_in_degrees(placed, ground.crs, ground.path)
        measures = [(ground_area(rings), sum(map(ground_length, rings))) for rings in map(rings_of, degrees)]
        areas, around = [one for one, _ in measures], [other for _, other in measures]
    else:
        areas, around = shapely.area(plane).tolist(), shapely.length(plane).tolist()
    fields: dict[str, NDArray[Any]] = {
        "id": np.arange(1, len(placed) + 1),
        "area_m2": np.round(np.array(areas, np.float64), 2),
        "perimeter_m": np.round(np.array(around, np.float64), 2),
    }
    if how.square:
        fields["squared"] = squared.astype(np.int32)
    if ground.probable:
        fields["probability"] = np.round(inside, 4)
    return fields


def rings_of(shape: shapely.Polygon) -> list[NDArray[np.float64]]:
    return [shapely.get_coordinates(ring) for ring in (shape.exterior, *shape.interiors)]


def shapes_in_degrees(shapes: Shapes, crs: Any, path: Path) -> Shapes:
    if not len(shapes):
        return shapes
    [points] = in_degrees([shapely.get_coordinates(shapes)], crs, path)
    return np.asarray(shapely.set_coordinates(shapes.copy(), points))


def write_areas(path: Path, areas: Areas) -> None:
    """Write polygons, whole or not at all."""
    shapes, crs = areas.shapes, areas.crs
    if driver_of(path, crs) in IN_DEGREES:
        shapes, crs = rounded(shapes_in_degrees(shapes, crs, path)), WGS84
    path.parent.mkdir(parents=True, exist_ok=True)
    geometry = np.empty(len(shapes), object)
    geometry[:] = shapely.to_wkb(shapes)
    write_layer(path, Layer(areas.name, "Polygon", geometry, crs, areas.fields, areas.tags))


def rounded(degrees: Shapes) -> Shapes:
    """Polygons as they are written with few digits; where that makes one invalid, it loses what is thinner."""
    shapes = np.asarray(shapely.transform(degrees, lambda points: points.round(DIGITS)))
    for i in np.flatnonzero(~shapely.is_valid(shapes)):
        parts = shapely.get_parts(shapely.set_precision(degrees[i], 10.0**-DIGITS))
        if len(parts):
            shapes[i] = max(parts, key=shapely.area)
    return shapes


def summary_of(areas: Areas) -> AreaSummary:
    squared = areas.fields.get("squared")
    count = None if squared is None else int(squared.sum())
    return AreaSummary(len(areas.shapes), float(areas.fields["area_m2"].sum()), count)
