"""Writes roads as PMTiles: one file of vector tiles for maps in a browser, by GDAL's driver (3.8). Needs pyogrio.

Tiles are squares of Web Mercator, from a zoom at which all roads fit into about one tile to one whose steps are finer
than half a pixel of the mask; browsers enlarge the last. A line that passes several tiles is cut at their edges, and
its pieces have the same fields. At the last zoom nothing is simplified; at others lines are simplified by up to half a
pixel of the screen, and a tile above 500 kB (GDAL's MAX_SIZE) has coarser lines, or fewer.
"""

import errno
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

from dlink.imagery.notes import say
from dlink.imagery.resolution import AXIS_M, WGS84
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing

DRIVER = "PMTiles"
WORLD_M = 2 * np.pi * AXIS_M  # the side of the tile of zoom 0, Web Mercator
STEPS = 4096  # of a tile's side; GDAL's EXTENT
FINEST, COARSEST = 16, 12  # the last zoom at most, and the first at most: a small map is found from there
SIMPLER = 4  # steps: half a pixel of a tile that is shown with 512 px
LIMIT = np.degrees(np.arctan(np.sinh(np.pi)))  # latitude at which Web Mercator ends, 85.05 degrees
HALF_TURN = 180

Points = NDArray[np.float64]


def check_pmtiles(path: object) -> None:
    """Raise BadInput unless the installed GDAL writes PMTiles; `path` is for the message."""
    if "w" not in pyogrio.list_drivers().get(DRIVER, ""):
        version = ".".join(map(str, pyogrio.__gdal_version__))
        raise BadInput(f"{path}: GDAL {version} of pyogrio does not write PMTiles; pip install 'pyogrio>=0.8'")


def write_pmtiles(path: Path, lines: list[Points], fields: Mapping[str, NDArray[Any]], metres: float | None) -> None:
    """Write roads as PMTiles, whole or not at all.

    Args:
        path: The file.
        lines: (K, 2) each, longitude and latitude.
        fields: Of the lines, with an `id`.
        metres: A pixel of the mask; None: half a metre.
    """
    points = checked(path, lines)
    first, last = zooms(points, metres or 0.5)
    geometry = np.empty(len(lines), object)
    geometry[:] = [shapely.to_wkb(shapely.LineString(line)) for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            pyogrio.raw.write(
                part, geometry, list(fields.values()), list(fields), layer="roads", driver=DRIVER,
                geometry_type="LineString", crs=WGS84.to_wkt(), dataset_options=options(path, first, last),
            )  # fmt: skip
            _, _, _, columns = pyogrio.raw.read(part, columns=["id"], read_geometry=False)
        except (RuntimeError, ValueError) as e:
            raise OSError(errno.EIO, f"can't be written, is the disk full? GDAL says: {e}", str(path)) from e
        finally:
            for left in path.parent.glob(f"{part.name}.*"):  # GDAL's own databases, after a failure
                left.unlink(missing_ok=True)
        check_whole(path, fields["id"], columns[0])
    if any("tile" in str(warning.message) for warning in told):
        say(path, f"has full tiles, in which lines are coarser or left out; every line is in zoom {last}")


def options(path: Path, first: int, last: int) -> dict[str, str]:
    return {
        "NAME": path.stem,
        "DESCRIPTION": "Roads as lines, by dlink",
        "TYPE": "overlay",
        "MINZOOM": str(first),
        "MAXZOOM": str(last),
        "SIMPLIFICATION": str(SIMPLER),
        "SIMPLIFICATION_MAX_ZOOM": "0",
    }


def checked(path: Path, lines: list[Points]) -> Points:
    """All points of the lines, if tiles can hold them."""
    if not lines:
        raise BadInput(f"{path}: there is no road, and PMTiles without any tile open nowhere; write .gpkg or .geojson")
    points = np.concatenate(lines)
    if np.abs(points[:, 1]).max() > LIMIT:
        raise BadInput(f"{path}: has roads beyond {LIMIT:.2f} degrees of latitude, where tiles end; write .gpkg")
    if max(np.abs(np.diff(line[:, 0])).max() for line in lines) > HALF_TURN:
        raise BadInput(f"{path}: a road crosses 180 degrees of longitude, where tiles end; write .gpkg or .geojson")
    return points


def zooms(points: Points, metres: float) -> tuple[int, int]:
    """The first and the last zoom of tiles of points in degrees, from a mask of so many metres a pixel."""
    lon, lat = np.radians(points).T
    nearest = np.cos(np.abs(lat).min())  # to the equator, where a step is longest on the ground
    last = int(np.clip(np.ceil(np.log2(WORLD_M * nearest / STEPS / (metres / 2))), 0, FINEST))
    side = max(np.ptp(lon), np.ptp(np.arcsinh(np.tan(lat)))) * AXIS_M
    first = int(np.clip(np.floor(np.log2(WORLD_M / max(side, 1.0))), 0, COARSEST))
    return min(first, last), last


def check_whole(path: Path, wanted: NDArray[Any], found: NDArray[Any]) -> None:
    """Raise OSError unless each line is in the last zoom's tiles."""
    if lost := len(np.setdiff1d(wanted, found)):
        raise OSError(
            errno.EIO,
            f"can't be written: {len(wanted) - lost} of {len(wanted)} lines; is the disk full, or a tile?",
            str(path),
        )
