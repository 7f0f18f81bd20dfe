"""The area of a map: the polygons of a file on the map's grid.

Edges are straight in the file's own system. On the grid they are curved to within a quarter of a pixel. What lies far
from the rasters is cut off before, because it may have no place in the grid's system. A file in longitude and latitude
may be split at 180 degrees, as RFC 7946 asks, or cross it.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from dlink.imagery.longitudes import TURN, Bounds, near, unwrapped_ring
from dlink.imagery.notes import say
from dlink.imagery.resolution import WGS84
from dlink.imagery.straight import straight
from dlink.imagery.vectors import AREA, Shape, Vectors, read_vectors
from dlink.maps.job.grid import Grid, in_system, near_degrees
from dlink.runtime.errors import BadInput

WITHIN = 0.25  # px that an edge may be off
MARGIN = 0.1  # of the rasters' extent, around which polygons are cut off

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Area:
    """The polygons of a file in a grid's system, and a hash of the file's own."""

    polygons: tuple[str, ...]  # WKT
    mark: str
    bounds: Bounds


def area_of(file: Path, grid: Grid) -> Area:
    """The polygons of a file that lie near the rasters of a grid.

    Raises:
        BadInput: The file has none there, or they have no place in the grid's system.
    """
    vectors = read_areas(file)
    system = system_of(vectors)
    shapes = [each for shape in vectors.areas for each in polygons_of(shape, system, file)]
    reach = around(grid, system)
    near_by = [part for shape in shapes for part in cut_to(shape, reach, system)]
    if not near_by:
        there = near_degrees(bounds_of(shapes), system)
        here = near_degrees(grid.bounds, grid.system)
        raise BadInput(f"{file}: no raster lies in it; it is at {there}, they at {here}")
    made = [on_grid(shape, system, grid, file) for shape in near_by]
    return Area(tuple(shapely.to_wkt(each, rounding_precision=-1) for each in made), mark_of(vectors), bounds_of(made))


def area_mark(file: Path) -> str:
    """A hash of the polygons of a file."""
    return mark_of(read_areas(file))


def read_areas(file: Path) -> Vectors:
    vectors = read_vectors(file, kind=AREA)
    if not vectors.areas:
        raise BadInput(f"{file}: has no polygons; an area is one or several")
    return vectors


def mark_of(vectors: Vectors) -> str:
    found = hashlib.sha256(vectors.system.encode())
    for shape in vectors.areas:
        for part in shape.parts:
            found.update(f"{len(part)} ".encode() + part.astype("<f8").tobytes())
    return found.hexdigest()[:16]


def system_of(vectors: Vectors) -> CRS:
    """The coordinate system of a file.

    Raises:
        BadInput: It is not known, or the coordinates are none of it.
    """
    if vectors.in_degrees:
        vectors.check_degrees(np.concatenate([part for shape in vectors.areas for part in shape.parts]))
        return WGS84
    try:
        return CRS.from_user_input(vectors.crs)
    except CRSError as e:
        named = vectors.crs[:80]
        raise BadInput(f"{vectors.path}: its coordinate system {named} is not known; GDAL says: {e}") from e


def polygons_of(shape: Shape, system: CRS, file: Path) -> Iterator[shapely.Polygon]:
    """A shape in its own coordinates, across 180 degrees without a jump."""
    rings = list(shape.parts)
    if system.is_geographic:
        whole = [unwrapped_ring(ring) for ring in rings]
        if any(not np.array_equal(one, other) for one, other in zip(rings, whole, strict=True)):
            say(file, "has edges of more than 180 degrees, which are taken the short way, across 180 degrees")
        middle = float(whole[0][:, 0].mean())
        rings = [beside(ring, middle) for ring in whole]
    yield from parts_of(shapely.Polygon(rings[0], rings[1:]))


def beside(ring: Points, middle: float) -> Points:
    """A ring of the turn that a longitude is of."""
    turn = near(ring[:1, 0], middle) - ring[:1, 0]
    return np.column_stack([ring[:, 0] + turn, ring[:, 1]])


def parts_of(shape: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """The polygons of a shape, each valid."""
    for part in shapely.get_parts(shapely.make_valid(shape)):
        if part.geom_type == AREA and not part.is_empty:
            yield part
        elif part.geom_type not in (AREA, "Point", "LineString"):
            yield from parts_of(part)


def around(grid: Grid, system: CRS) -> shapely.Polygon | None:
    """The rasters' extent and something around it, in a system; None: it has none there."""
    try:
        left, bottom, right, top = in_system(grid.bounds, grid.system, system)
    except BadInput:
        return None
    wide, high = MARGIN * (right - left), MARGIN * (top - bottom)
    return shapely.box(left - wide, bottom - high, right + wide, top + high)


def cut_to(shape: shapely.Polygon, reach: shapely.Polygon | None, system: CRS) -> Iterator[shapely.Polygon]:
    """What of a polygon is within reach, whichever turn its longitudes are of."""
    if reach is None:
        yield shape
        return
    for turn in (-TURN, 0.0, TURN) if system.is_geographic else (0.0,):
        turned = shapely.transform(shape, lambda points, by=turn: np.add(points, (by, 0)))
        yield from parts_of(shapely.intersection(turned, reach))


def on_grid(shape: shapely.Polygon, system: CRS, grid: Grid, file: Path) -> shapely.Geometry:
    """A polygon in the grid's system."""
    left, _, right, _ = grid.bounds

    def project(points: Points) -> Points:
        x, y = (np.array(values) for values in transform(system, grid.system, *points.T))
        return np.column_stack([near(x, (left + right) / 2) if grid.system.is_geographic else x, y])

    a, _, _, _, e, _ = grid.transform
    rings = [shapely.get_coordinates(ring) for ring in (shape.exterior, *shape.interiors)]
    try:
        made = straight(rings, project, WITHIN * min(abs(a), abs(e)))
        if not all(np.isfinite(ring).all() for ring in made):
            raise RasterioError("not finite")
    except (RasterioError, CPLE_BaseError) as error:
        named = grid.system.to_string()[:60]
        raise BadInput(f"{file}: lies partly where {named} has no place; GDAL says: {error}") from error
    return shapely.make_valid(shapely.Polygon(made[0], made[1:]))


def bounds_of(shapes: Sequence[shapely.Geometry]) -> Bounds:
    left, bottom, right, top = shapely.total_bounds(np.array(shapes, object)).tolist()
    return left, bottom, right, top
