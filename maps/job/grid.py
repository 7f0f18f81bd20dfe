"""The one grid that all rasters of a map are read on: coordinate system, place and size of its pixels. Needs rasterio.

Where the rasters agree on a grid at the network's ground resolution, it is theirs, so that their pixels are read as
they are. Otherwise it is a grid of that resolution in the coordinate system that covers most of the ground.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rasterio import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from dlink.imagery.affine import scaled, shifted
from dlink.imagery.longitudes import HALF_TURN, TURN, Bounds, unwrapped
from dlink.imagery.resolution import ALIKE, WGS84, metres_a_pixel
from dlink.runtime.errors import BadInput

MOST_SIDE = 4_000_000  # px; 2,000 km at 0.5 m
MULTIPLE = 0.02  # of a ground resolution, by which whole numbers of pixels may differ from it
SIZE, PHASE = 9, 1  # digits of a pixel's size, and of where in a pixel a grid begins
IN_PLACE = 0.02  # px that a raster's corners may be off the grid and still be on it


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Pixels on the ground: x = a * column + b * row + c, y = d * column + e * row + f, with b = d = 0."""

    crs: str  # WKT
    transform: tuple[float, ...]  # a, b, c, d, e, f
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def affine(self) -> Affine:
        return Affine(*self.transform)

    @property
    def system(self) -> CRS:
        return CRS.from_wkt(self.crs)

    @property
    def metres(self) -> tuple[float, float]:
        """Metres a pixel on the ground, down and across, at the grid's middle."""
        found = metres_a_pixel(self.affine, self.system, *self.shape)
        if found is None:
            raise BadInput(f"{self.system.to_string()[:60]}: the grid's middle is no place on Earth")
        return found

    @property
    def bounds(self) -> Bounds:
        found: Bounds = array_bounds(self.rows, self.columns, self.affine)
        return found

    def degrees(self) -> Bounds:
        """West, south, east, north."""
        return in_system(self.bounds, self.system, WGS84)

    def part(self, rows: slice, cols: slice) -> Affine:
        """The transform of a window."""
        return shifted(self.affine, rows.start, cols.start)

    def pixels(self, bounds: Bounds) -> tuple[slice, slice]:
        """Rows and columns that hold these bounds; they may lie beyond the grid."""
        a, _, c, _, e, f = self.transform
        left, bottom, right, top = bounds
        rows = slice(floor((top - f) / e), ceil((bottom - f) / e))
        return rows, slice(floor((left - c) / a), ceil((right - c) / a))


def floor(value: float) -> int:
    return math.floor(value + IN_PLACE)


def ceil(value: float) -> int:
    return math.ceil(value - IN_PLACE)


@dataclass(frozen=True)
class Footprint:
    """Where a raster lies, and its own grid."""

    name: str
    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    metres: tuple[float, float]  # a pixel, down and across

    @property
    def upright(self) -> bool:
        """Whether its rows run east and its columns south."""
        return bool(self.transform.b == self.transform.d == 0 and self.transform.a > 0 > self.transform.e)

    @property
    def ground(self) -> float:
        """Square metres."""
        return self.shape[0] * self.metres[0] * self.shape[1] * self.metres[1]

    def bounds(self, crs: CRS) -> Bounds:
        """Its bounds in a coordinate system."""
        (height, width), (a, b, c, d, e, f) = self.shape, tuple(self.transform)[:6]
        corners = [(x, y) for x in (0, width) for y in (0, height)]
        xs, ys = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
        try:
            return in_system((min(xs), min(ys), max(xs), max(ys)), self.crs, crs)
        except BadInput as e:
            raise BadInput(f"{self.name}: {e}") from e

    def is_alike(self, wanted: float | None) -> bool:
        """Whether its ground resolution is the wanted one (None: any)."""
        return wanted is None or all(abs(own / wanted - 1) < ALIKE for own in self.metres)

    def on(self, grid: Grid) -> tuple[int, int] | None:
        """The row and column of the grid at which its own pixels begin; None if they are not the grid's pixels."""
        if not self.upright or self.crs != grid.system:
            return None
        a, _, c, _, e, f = grid.transform
        row, col = round((self.transform.f - f) / e), round((self.transform.c - c) / a)
        height, width = self.shape
        off = [
            (self.transform.f - f) / e - row,
            (self.transform.c - c) / a - col,
            (self.transform.f + height * self.transform.e - f) / e - row - height,
            (self.transform.c + width * self.transform.a - c) / a - col - width,
        ]
        return (row, col) if max(map(abs, off)) < IN_PLACE else None


def in_system(bounds: Bounds, crs: CRS, other: CRS) -> Bounds:
    """Bounds in another coordinate system. Across 180 degrees longitudes go on.

    Raises:
        BadInput: They are no place there.
    """
    if crs == other:
        return bounds
    try:
        found: Bounds = transform_bounds(crs, other, *bounds)
    except (RasterioError, CPLE_BaseError) as e:
        raise BadInput(f"its bounds are no place in {other.to_string()[:60]}; GDAL says: {e}") from e
    if not np.isfinite(found).all():
        raise BadInput(f"its bounds are no place in {other.to_string()[:60]}")
    return unwrapped(found, other)


def grid_of(prints: Sequence[Footprint], wanted: float | None, crs: CRS | None = None) -> Grid:
    """The grid of a map.

    Args:
        prints: The rasters, at least one.
        wanted: Ground resolution in metres a pixel; None: that of the rasters.
        crs: The coordinate system; None: the one that covers most of the ground.

    Raises:
        BadInput: The rasters lie too far apart for one grid, or its resolution varies too much over them.
    """
    crs = crs or most_ground(prints)
    grids: dict[tuple[float, ...], tuple[float, Affine]] = {}  # ground that has a grid, and a transform of it
    for each in prints:
        if each.crs == crs and (own := own_grid(each, wanted)):
            ground, first = grids.get(key_of(own), (0.0, own))
            grids[key_of(own)] = ground + each.ground, first
    bounds = [each.bounds(crs) for each in prints]
    left, bottom, right, top = (f(b[i] for b in bounds) for i, f in enumerate((min, min, max, max)))
    check_one_side(bounds, crs)
    if grids:
        own = max(grids.values(), key=lambda item: item[0])[1]
    else:
        metres = wanted or min(max(prints, key=lambda each: each.ground).metres)
        own = fitting(crs, metres, (left, bottom, right, top))
    x, y = own.a, own.e
    start = own.c + floor((left - own.c) / x) * x, own.f + floor((top - own.f) / y) * y
    size = ceil((bottom - start[1]) / y), ceil((right - start[0]) / x)
    if max(size) > MOST_SIDE:
        west, south, east, north = in_system((left, bottom, right, top), crs, WGS84)
        raise BadInput(
            f"the rasters lie from {west:.4g}, {south:.4g} to {east:.4g}, {north:.4g} degrees, {size[1]:,} x "
            f"{size[0]:,} px; a map has at most {MOST_SIDE:,} a side: make several"
        )
    grid = Grid(crs=crs.to_wkt(), transform=(x, 0.0, start[0], 0.0, y, start[1]), rows=size[0], columns=size[1])
    check_even(grid)
    return grid


def check_one_side(bounds: Sequence[Bounds], crs: CRS) -> None:
    """Raise BadInput for rasters on both sides of 180 degrees in a system of degrees, which begins anew there."""
    if not crs.is_geographic:
        return
    west, east = min(b[0] for b in bounds), max(b[2] for b in bounds)
    turned = [(b[0] + TURN, b[2] + TURN) if b[0] < 0 else (b[0], b[2]) for b in bounds]
    first, last = min(left for left, _ in turned), max(right for _, right in turned)
    if east - west > HALF_TURN and last - first < east - west:
        south, north = min(b[1] for b in bounds), max(b[3] for b in bounds)
        raise BadInput(
            f"the rasters lie on both sides of 180 degrees of longitude, where {crs.to_string()[:60]} begins anew; "
            f"name a system that goes on there, such as --crs {utm(first + last, south + north)}"
        )


def most_ground(prints: Sequence[Footprint]) -> CRS:
    """The coordinate system with most of the ground; of equal ones the first."""
    systems: list[tuple[CRS, float]] = []
    for each in prints:
        for i, (crs, ground) in enumerate(systems):
            if crs == each.crs:
                systems[i] = crs, ground + each.ground
                break
        else:
            systems.append((each.crs, each.ground))
    return max(systems, key=lambda item: item[1])[0]


def own_grid(each: Footprint, wanted: float | None) -> Affine | None:
    """A raster's own pixels, or whole numbers of them, if they have the wanted ground resolution; None if not."""
    if not each.upright:
        return None
    if each.is_alike(wanted):
        return each.transform
    assert wanted is not None
    times = round(wanted / min(each.metres))
    if times < 1 or max(abs(times * own / wanted - 1) for own in each.metres) > MULTIPLE:
        return None
    return scaled(each.transform, times, times)


def key_of(grid: Affine) -> tuple[float, ...]:
    """Equal for transforms whose pixels are the same, and nearly only for those: sizes, and where a pixel begins."""
    begins = [round(at / size % 1, PHASE) % 1 for at, size in ((grid.c, grid.a), (grid.f, grid.e))]
    return float(f"{grid.a:.{SIZE}g}"), float(f"{grid.e:.{SIZE}g}"), *begins


def fitting(crs: CRS, metres: float, bounds: Bounds) -> Affine:
    """A transform with so many metres a pixel in the middle of the bounds, beginning at whole pixels."""
    left, bottom, right, top = bounds
    unit = max(right - left, top - bottom) / 1000 or 1.0
    trial = Affine(unit, 0, (left + right) / 2 - unit / 2, 0, -unit, (top + bottom) / 2 + unit / 2)
    found = metres_a_pixel(trial, crs, 1, 1)
    if found is None:
        raise BadInput(f"{crs.to_string()[:60]}: the middle of the rasters is no place in it; --crs names another")
    down, across = found
    return Affine(unit * metres / across, 0, 0, 0, -unit * metres / down, 0)


def check_even(grid: Grid) -> None:
    """Raise BadInput if the ground resolution varies by more than a tenth over the grid, as in Mercator's maps."""
    middle, (down, across) = grid.metres, grid.shape
    places = [(0, 0), (0, across), (down, 0), (down, across)]
    found = [metres_a_pixel(grid.part(slice(y, y), slice(x, x)), grid.system, 1, 1) for y, x in places]
    ratios = [own / mid for each in found if each for own, mid in zip(each, middle, strict=True)]
    if ratios and max(ratios) - min(ratios) > ALIKE:
        west, south, east, north = grid.degrees()
        least, most = min(ratios) * middle[1], max(ratios) * middle[1]
        raise BadInput(
            f"{grid.system.to_string()[:60]}: a pixel has {least:.3g} to {most:.3g} m over the rasters; name "
            f"a system that is even there, such as --crs {utm(west + east, south + north)}"
        )


def utm(lon2: float, lat2: float) -> str:
    """The UTM zone of a place, given twice its longitude and latitude."""
    zone = int((lon2 / 2 + 180) % 360 // 6) + 1
    return f"EPSG:{326 if lat2 >= 0 else 327}{zone:02}"


def near_degrees(bounds: Bounds, crs: CRS) -> str:
    """Bounds in words: longitude and latitude of two corners."""
    west, south, east, north = in_system(bounds, crs, WGS84)
    return f"{west:.5g}, {south:.5g} to {east:.5g}, {north:.5g} degrees"
