"""Reads lines and polygons: GeoJSON, GeoPackage, FlatGeobuf and Shapefile. All but GeoJSON need pyogrio and shapely.

GeoJSON is read here, because GDAL leaves out a line whose coordinates are damaged, without a word. GDAL reads the rest.
A system other than longitude and latitude needs rasterio, which converts. A GeoJSON file is in WGS 84 (RFC 7946) unless
it declares another system by the older member `crs`. Coordinates are x, y whatever the order of a system's axes, as
GDAL and GeoJSON have them. Heights are dropped, empty geometries are left out, and collections are taken apart.
"""

import json
import re
import sqlite3
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.straight import straight
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

GEOJSON = (".geojson", ".json")
DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
HEAD = 100  # bytes of a Shapefile's header
VECTORS = (*GEOJSON, *DRIVERS)
LON_LAT = re.compile("(?i).*(crs84|epsg:[^:]*:?4326)")
WGS84 = "CRS84"
MOST = (180, 90)  # degrees
WITHIN = 1e-6  # degrees that an edge may be off: 11 cm
FLOATS = (float, np.floating)
LINE, AREA = "LineString", "Polygon"
WORDS = {LINE: "lines", AREA: "polygons"}

Points: TypeAlias = NDArray[np.float64]  # (N, 2): x, y


@dataclass(frozen=True)
class Shape:
    """A line, or a polygon as its outer ring and its holes, with its attributes as text."""

    kind: str  # LINE or AREA
    parts: tuple[Points, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Vectors:
    """The lines and polygons of a file, in the file's coordinates."""

    path: Path
    crs: str  # the declared system; empty: none is declared
    shapes: tuple[Shape, ...]

    @property
    def system(self) -> str:
        """The name of the coordinates' system, the same for all names of longitude and latitude."""
        return WGS84 if not self.crs or LON_LAT.fullmatch(self.crs) else self.crs

    @property
    def in_degrees(self) -> bool:
        """Whether the coordinates are longitude and latitude of WGS 84."""
        return self.system == WGS84

    @property
    def lines(self) -> list[Shape]:
        return [shape for shape in self.shapes if shape.kind == LINE]

    @property
    def areas(self) -> list[Shape]:
        return [shape for shape in self.shapes if shape.kind == AREA]

    def degrees(self) -> "Vectors":
        """The same in longitude and latitude (WGS 84). Edges that are curved there get points."""
        every = [part for shape in self.shapes for part in shape.parts]
        if not self.in_degrees:
            every = straight(every, self.projected, WITHIN)
        self.check_degrees(np.concatenate(every) if every else np.empty((0, 2)))
        pieces = iter(every)
        shapes = [replace(s, parts=tuple(next(pieces) for _ in s.parts)) for s in self.shapes]
        return replace(self, crs=WGS84, shapes=tuple(shapes))

    def projected(self, points: Points) -> Points:
        from rasterio import Env
        from rasterio._err import CPLE_BaseError  # raised for a point outside the projection; rasterio.errors lacks it
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
        from rasterio.warp import transform

        named = self.crs[:80]
        try:
            with Env():  # without it GDAL's errors go to stderr
                degrees = np.column_stack(transform(CRS.from_user_input(self.crs), "EPSG:4326", *points.T))
        except CRSError as e:
            raise BadInput(f"{self.path}: its coordinate system {named} is not known; GDAL says: {e}") from e
        except CPLE_BaseError as e:
            farthest = points[np.abs(points).max(1).argmax()]
            raise BadInput(f"{self.path}: {shown(farthest)} is no place in {named}, which it declares") from e
        if (lost := ~np.isfinite(degrees).all(1)).any():
            raise BadInput(f"{self.path}: {shown(points[lost][0])} is no place in {named}, which it declares")
        return degrees

    def check_degrees(self, points: Points) -> None:
        if not (beyond := (np.abs(points) > MOST).any(1)).any():
            return
        why = f"though it declares {self.crs[:80]}" if self.crs else "and it declares no system"
        raise BadInput(
            f"{self.path}: the coordinates {shown(points[beyond][0])} are beyond 180 and 90 degrees, {why}; write it "
            f"in longitude and latitude (ogr2ogr -s_srs EPSG:N -t_srs EPSG:4326, where N is its system)"
        )


def shown(point: Points) -> str:
    return f"{point[0]:.10g}, {point[1]:.10g}"


def read_vectors(path: Path, kind: str = LINE, having: str = "") -> Vectors:
    """The lines and polygons of a file.

    Args:
        path: GeoJSON, or a file that GDAL reads; its name says which.
        kind: LINE or AREA. It selects the layer of a file that has several.
        having: An attribute that the layer must have.

    Raises:
        BadInput: The file is damaged or of another kind, or several layers have such shapes.
    """
    if path.suffix.lower() in GEOJSON:
        return of_geojson(path)
    if path.suffix.lower() in DRIVERS:
        return of_gdal(path, kind, having)
    raise BadInput(f"{path}: expected a file of lines or polygons, {', '.join(VECTORS)}")


def of_geojson(path: Path) -> Vectors:
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
        return Vectors(path, declared(data), tuple(shapes_of(data)))
    except BadInput as e:
        raise BadInput(f"{path}: {e}") from e
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as e:
        raise BadInput(f"{path}: not GeoJSON of lines or polygons, or damaged: {type(e).__name__} {e}") from e


def declared(data: Mapping[str, Any]) -> str:
    """The system that the member `crs` names; empty where there is none."""
    if not (crs := data.get("crs")):
        return ""
    names = crs["properties"]
    return str(names["name"]) if "name" in names else f"EPSG:{names['code']}"


def shapes_of(data: Any, tags: Mapping[str, str] | None = None) -> Iterator[Shape]:
    """The shapes in a GeoJSON object; points are left out."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{data!r:.40} where an object is expected")
    if "features" in data:
        for feature in data["features"]:
            yield from shapes_of(feature)
    elif "geometry" in data:
        if data["geometry"]:
            yield from shapes_of(data["geometry"], tags_of(data.get("properties") or {}))
    elif "geometries" in data:
        for geometry in data["geometries"]:
            yield from shapes_of(geometry, tags)
    else:
        yield from of_coordinates(data["type"], data.get("coordinates") or [], tags or {})


def of_coordinates(type: str, found: list[Any], tags: Mapping[str, str]) -> Iterator[Shape]:
    """The shapes of a geometry that is no collection."""
    single = type.removeprefix("Multi")
    if single not in (LINE, AREA, "Point"):
        raise ValueError(f"type {type!r}")
    for part in [] if single == "Point" else [found] if single == type else found:
        yield from shape(single, [part] if single == LINE else part, tags)


def shape(kind: str, parts: list[Any], tags: Mapping[str, str]) -> Iterator[Shape]:
    """One shape; none if it is empty."""
    points = [points_of(part) for part in parts]
    if points and len(points[0]) > 1:
        yield Shape(kind, tuple(part for part in points if len(part) > 1), tags)


def points_of(line: Any) -> Points:
    """The points of a line or a ring, without heights."""
    try:
        points = np.array([point[:2] for point in line], np.float64)
    except (ValueError, TypeError, IndexError) as e:
        raise BadInput(f"a line must be pairs of numbers, got {line!r:.60}") from e
    if not len(points):
        return points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise BadInput(f"a line must be pairs of numbers, got {line!r:.60}")
    if not np.isfinite(points).all():
        raise BadInput("a line has coordinates that are not finite numbers; leave such points out")
    return points


def tags_of(properties: Mapping[str, Any]) -> dict[str, str]:
    """Attributes as text. Those without a value are left out: None, and NaN, which GDAL gives for it."""
    known = {k: v for k, v in properties.items() if v is not None and not (isinstance(v, FLOATS) and v != v)}
    # GDAL gives a column of whole numbers as floats if one of them is missing.
    return {k: str(int(v)) if isinstance(v, FLOATS) and v.is_integer() else str(v) for k, v in known.items()}


def of_gdal(path: Path, kind: str, having: str) -> Vectors:
    import pyogrio
    import shapely

    check_shapefile(path, first_bytes(path))  # or the system's own error for what cannot be opened
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GDAL's
            driver = str(pyogrio.read_info(path, layer=0)["driver"])
            if driver not in DRIVERS.values():
                raise BadInput(f"{path}: is {driver} by its content; give it the name of its kind")
            read = {name: read_layer(path, name) for name in layers(path, kind, having)}
    except (RuntimeError, ValueError, sqlite3.Error, shapely.errors.ShapelyError) as e:
        raise BadInput(f"{path}: can't be read as {path.suffix}; GDAL says: {' '.join(str(e).split())[:200]}") from e
    fit = {name: found for name, found in read.items() if any(s.kind == kind for s in found.shapes)}
    if len(fit) > 1:
        raise BadInput(
            f"{path}: has {len(fit)} layers with {WORDS[kind]}: {', '.join(fit)}; write one to a file of its own "
            f"(ogr2ogr one.gpkg {path.name} {next(iter(fit))})"
        )
    return next(iter((fit or read).values()), Vectors(path, "", ()))


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def check_shapefile(path: Path, head: bytes) -> None:
    """Raise BadInput if a Shapefile or its table is cut short: GDAL gives shapes without points for what is lost."""
    if path.suffix.lower() != ".shp" or len(head) < HEAD:  # GDAL refuses a shorter one
        return
    table = path.with_suffix(".dbf")
    needed = {path: 2 * struct.unpack_from(">i", head, 24)[0]}  # its length in words of 16 bits
    if table.exists() and len(start := first_bytes(table)) >= 12:
        rows, first, row = struct.unpack_from("<IHH", start, 4)
        needed[table] = first + rows * row
    for file, size in needed.items():
        if (there := file.stat().st_size) < size:
            raise BadInput(f"{file}: can't be read as .shp; it is cut short, {there} of {size} bytes; copy it again")


def layers(path: Path, kind: str, having: str) -> Iterator[str]:
    """The layers that may hold shapes of this kind."""
    import pyogrio

    other = AREA if kind == LINE else LINE
    for name, type in pyogrio.list_layers(path):
        fits = type and "Point" not in type and other not in type
        if fits and (not having or having in pyogrio.read_info(path, layer=name)["fields"]):
            yield str(name)


def read_layer(path: Path, name: str) -> Vectors:
    import pyogrio
    import shapely

    meta, _, geometries, columns = pyogrio.raw.read(path, layer=name, force_2d=True)
    if path.suffix.lower() == ".gpkg" and any(geometry is None for geometry in geometries):
        check_geopackage(path, name, sum(geometry is None for geometry in geometries))
    found = []
    for i, geometry in enumerate(shapely.from_wkb(geometries)):
        tags = tags_of({str(field): column[i] for field, column in zip(meta["fields"], columns, strict=True)})
        found += [made for each in simple(geometry) for made in of_shapely(each, tags)]
    return Vectors(path, meta["crs"] or "", tuple(found))


def check_geopackage(path: Path, layer: str, without: int) -> None:
    """Raise BadInput if more rows are read without a geometry than have none: GDAL gives none for a damaged one."""
    import pyogrio

    table, column = (name.replace('"', '""') for name in (layer, pyogrio.read_info(path, layer=layer)["geometry_name"]))
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
        [(empty,)] = file.execute(f'SELECT COUNT(*) FROM "{table}" WHERE "{column}" IS NULL')
    if without > empty:
        lost = counted(without - empty, "geometry is", "geometries are")
        raise BadInput(f"{path}: damaged, {lost} not what was written in its layer {layer}; copy it again")


def simple(geometry: Any) -> Iterator[Any]:
    """The geometries in a collection, and in collections within it."""
    if geometry is None:
        return
    if hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from simple(part)
    else:
        yield geometry


def of_shapely(geometry: Any, tags: Mapping[str, str]) -> Iterator[Shape]:
    if geometry.geom_type == AREA and not geometry.is_empty:
        yield from shape(AREA, [ring.coords for ring in (geometry.exterior, *geometry.interiors)], tags)
    elif geometry.geom_type in (LINE, "LinearRing"):
        yield from shape(LINE, [geometry.coords], tags)
