"""The ground resolution of a raster: metres a pixel along its rows and columns. Needs rasterio.

It is measured at the raster's middle on the WGS 84 ellipsoid, so it is right in any coordinate system: degrees, feet,
or the web's Mercator, whose metres are none.
"""

import math
from pathlib import Path
from typing import Any

from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import from_gcps
from rasterio.warp import transform

from dlink.runtime.errors import BadInput

WGS84 = CRS.from_epsg(4326)
AXIS_M, FLATTENING = 6_378_137.0, 1 / 298.257223563  # WGS 84
ALIKE = 0.1  # ground resolutions that differ by less are one
ENLARGED = 16  # times, at most: from 8 m to 0.5 m a pixel
APART = 64.0  # pixels between the points that are measured; few, so that the ground is straight between them


def resolution(dataset: Any) -> tuple[float, float] | None:
    """Metres a pixel: down a column and along a row. None if the raster does not say it."""
    grid, crs = dataset.transform, dataset.crs
    gcps, gcps_crs = dataset.gcps
    if gcps and not crs:
        grid, crs = from_gcps(gcps), gcps_crs
    if not crs or grid.is_identity:
        return None
    return metres_a_pixel(grid, crs, dataset.height, dataset.width)


def metres_a_pixel(grid: Any, crs: Any, height: int, width: int) -> tuple[float, float] | None:
    """As `resolution`, for a grid. None where the coordinate system has no place on Earth."""
    row, col = height / 2, width / 2
    x, y = (float(a * col + b * row + c) for a, b, c in (grid[:3], grid[3:6]))
    points = [(x, y), (x + grid.b * APART, y + grid.e * APART), (x + grid.a * APART, y + grid.d * APART)]
    try:
        lon, lat = transform(crs, WGS84, [x for x, _ in points], [y for _, y in points])
    except (RasterioError, CPLE_BaseError):
        return None
    sizes = [distance(lon[0], lat[0], lon[i], lat[i]) / APART for i in (1, 2)]
    return (sizes[0], sizes[1]) if all(math.isfinite(size) and size > 0 for size in sizes) else None


def distance(lon: float, lat: float, other_lon: float, other_lat: float) -> float:
    """Metres between two near places, in degrees."""
    squared = FLATTENING * (2 - FLATTENING)  # eccentricity
    middle = math.radians((lat + other_lat) / 2)
    root = 1 - squared * math.sin(middle) ** 2
    north = AXIS_M * (1 - squared) / root**1.5 * math.radians(other_lat - lat)
    apart = (other_lon - lon + 180) % 360 - 180  # across the antimeridian too
    east = AXIS_M / math.sqrt(root) * math.cos(middle) * math.radians(apart)
    return math.hypot(north, east)


def refuse_coarse(path: Path, metres: tuple[float, float], wanted: float) -> None:
    """Raise BadInput for a raster that is too coarse to be read at the wanted metres a pixel."""
    if max(metres) > ENLARGED * (1 + ALIKE) * wanted:
        raise BadInput(
            f"{path}: has {max(metres):.3g} m a pixel, too coarse to be read at {wanted:g} m; "
            f"--gsd native reads it as it is"
        )
