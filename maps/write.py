"""Writes roads as lines, and other things as polygons: GeoPackage, FlatGeobuf, GeoJSON, GeoJSON text sequences.

osm_file.py writes .osm, pmtiles.py PMTiles, and style.py the look of a GeoPackage in QGIS. Needs pyogrio, shapely,
rasterio.

The layer of roads is called `roads`. Its fields are id, length_m (on the ground), width_m, from_node and to_node, and
probability where the mask has it. Lines that meet have the same node and the same vertex there. GeoJSON is in longitude
and latitude (RFC 7946), the others are in the mask's system.
"""

import errno
import sqlite3
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform

from dlink.imagery.longitudes import wrapped
from dlink.imagery.resolution import AXIS_M, FLATTENING, WGS84
from dlink.maps.osm_file import ALONE, Beside, write_osm
from dlink.maps.pmtiles import check_pmtiles, write_pmtiles
from dlink.maps.style import add_style
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing

LAYER = "roads"
DRIVERS = {
    ".gpkg": "GPKG",
    ".fgb": "FlatGeobuf",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".geojsonl": "GeoJSONSeq",
    ".geojsons": "GeoJSONSeq",
    ".osm": "OSM",
    ".pmtiles": "PMTiles",
}
IN_DEGREES = ("GeoJSON", "GeoJSONSeq", "OSM", "PMTiles")
OPTIONS = {"GeoJSON": {"RFC7946": "YES"}}

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Roads:
    """Lines in the coordinates of `crs` (None: of no known system), and their fields in the order of the file."""

    lines: list[Points]  # (K, 2) each
    crs: Any
    fields: dict[str, NDArray[Any]]
    source: str = ""  # what they were made of, in words, for .osm
    tags: Mapping[str, str] = field(default_factory=dict)  # of the layer, in a GeoPackage
    beside: Beside = ALONE  # what of OpenStreetMap they join, for .osm
    metres: float | None = None  # a pixel of the mask, for .pmtiles


def driver_of(path: Path, crs: Any) -> str:
    """The format of a file by its name.

    Raises:
        BadInput: The name is of no known format, or the format needs a coordinate system.
    """
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; give a file's name, such as {path / 'roads.gpkg'}")
    driver = DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise BadInput(f"{path}: no format of lines by its name; expected {', '.join(DRIVERS)}")
    if driver in IN_DEGREES and not crs:
        raise BadInput(
            f"{path}: {path.suffix} is in longitude and latitude, and the mask has no coordinate system; give it one "
            f"(gdal_edit.py -a_srs EPSG:N), or write .gpkg"
        )
    if driver == "PMTiles":
        check_pmtiles(path)
    return driver


def write_roads(path: Path, roads: Roads) -> None:
    """Write roads, whole or not at all."""
    driver = driver_of(path, roads.crs)
    lines, crs = roads.lines, roads.crs
    if driver in IN_DEGREES:
        lines, crs = in_degrees(lines, crs, path), WGS84
    if driver == "OSM":
        write_osm(path, lines, roads.fields, roads.source, roads.beside)
        return
    if driver == "PMTiles":
        write_pmtiles(path, lines, roads.fields, roads.metres)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    geometry = np.empty(len(lines), object)
    geometry[:] = [shapely.to_wkb(shapely.LineString(line)) for line in lines]
    write_layer(path, Layer(LAYER, "LineString", geometry, crs, roads.fields, roads.tags))


@dataclass(frozen=True)
class Layer:
    """What a file holds: WKB of one kind, in the coordinates of `crs`, and its fields."""

    name: str
    kind: str  # LineString or Polygon
    geometry: NDArray[np.object_]
    crs: Any
    fields: dict[str, NDArray[Any]]
    tags: Mapping[str, str]  # of the layer, in a GeoPackage


def write_layer(path: Path, layer: Layer) -> None:
    """Write a layer, whole or not at all."""
    driver, all = driver_of(path, layer.crs), len(layer.geometry)
    with replacing(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no coordinate system, and GDAL's
        try:
            pyogrio.raw.write(
                part, layer.geometry, list(layer.fields.values()), list(layer.fields), layer=layer.name, driver=driver,
                geometry_type=layer.kind, crs=layer.crs.to_wkt() if layer.crs else None,
                layer_options=OPTIONS.get(driver, {}),
                layer_metadata=dict(layer.tags) if driver == "GPKG" and layer.tags else None,
            )  # fmt: skip
            count = pyogrio.read_info(part, force_feature_count=True)["features"]
            if driver == "GPKG" and layer.kind == "LineString":
                add_style(part, layer.name, layer.fields)
        except (RuntimeError, ValueError, sqlite3.Error) as e:
            raise OSError(errno.EIO, f"can't be written, is the disk full? GDAL says: {e}", str(path)) from e
        if count != all:
            what = f"{count} of {all} {'lines' if layer.kind == 'LineString' else 'polygons'}"
            raise OSError(errno.EIO, f"can't be written, is the disk full? {what}", str(path))


def in_degrees(lines: list[Points], crs: Any, path: Path) -> list[Points]:
    """Lines as longitude and latitude, within -180 to 180; `path` is for the message."""
    if not lines:
        return []
    points = np.concatenate(lines)
    try:
        lon, lat = transform(crs, WGS84, points[:, 0], points[:, 1])
    except (RasterioError, CPLE_BaseError) as e:
        raise BadInput(f"{path}: has places that are not in its coordinate system; GDAL says: {e}") from e
    degrees = np.column_stack([wrapped(np.array(lon)), lat])
    return np.split(degrees, np.cumsum([len(line) for line in lines])[:-1])


def ground_length(degrees: Points) -> float:
    """Metres along a line of longitude and latitude, on the ellipsoid of WGS 84."""
    lon, lat = np.radians(degrees).T
    squared = FLATTENING * (2 - FLATTENING)  # eccentricity
    middle = (lat[1:] + lat[:-1]) / 2
    root = 1 - squared * np.sin(middle) ** 2
    north = AXIS_M * (1 - squared) / root**1.5 * np.diff(lat)
    east = AXIS_M / np.sqrt(root) * np.cos(middle) * ((np.diff(lon) + np.pi) % (2 * np.pi) - np.pi)
    return float(np.hypot(north, east).sum())
