"""Describes the results of a map as a STAC item (STAC 1.1): `item.json` beside them. Needs rasterio and shapely.

Its extensions are projection 2.0, file 2.1 and processing 1.1. Addresses are relative, so that the folder can move.
`datetime` is when the map was made unless it is told when the pictures were taken, and the description says so.
`dlink:model` and `dlink:model_sha256` name the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

from dlink.imagery.longitudes import HALF_TURN, TURN
from dlink.imagery.resolution import WGS84
from dlink.runtime.files import FileMark

VERSION = "1.1.0"
EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
]
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
KINDS = {  # of files: the asset's name, its media type, its role
    ".tif": ("mask", COG, "data"),
    ".gpkg": ("lines-gpkg", "application/geopackage+sqlite3", "data"),
    ".fgb": ("lines-fgb", "application/vnd.flatgeobuf", "data"),
    ".geojson": ("lines-geojson", "application/geo+json", "data"),
    ".geojsonl": ("lines-geojsonl", "application/geo+json-seq", "data"),
    ".pmtiles": ("lines-pmtiles", "application/vnd.pmtiles", "data"),
    ".osm": ("lines-osm", "application/vnd.openstreetmap.data+xml", "data"),
    ".html": ("report", "text/html", "metadata"),
}
POINTS = 16  # of each edge of the footprint, as straight edges of a grid are curved in degrees
STRAIGHT = 5e-7  # degrees that an outline may be off: 5 cm
DIGITS = 7  # of degrees: a centimetre


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a map is, for its item."""

    id: str
    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    gsd_m: float
    dlink: str  # the version
    model: FileMark
    files: Mapping[Path, str]  # results in one folder: what each is, in words
    created: datetime
    found: str = "roads"  # by the network; anything else is drawn as polygons
    taken: tuple[datetime, datetime] | None = None  # when the first and the last picture were taken; None: unknown


def item(made: Made) -> dict[str, Any]:
    """The item, ready for json.dumps."""
    geometry, bbox = footprint(made)
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": EXTENSIONS,
        "id": made.id,
        "geometry": geometry,
        "bbox": bbox,
        "properties": {
            "title": f"{made.found.capitalize()} of {made.id}",
            "description": f"{made.found.capitalize()} that a network found in pictures."
            + ("" if made.taken else UNKNOWN),
            **times(made),
            "created": in_utc(made.created),
            "gsd": round(made.gsd_m, 6),
            **system(made.crs),
            "processing:software": {"dlink": made.dlink},
            "dlink:model": made.model.name,
            "dlink:model_sha256": made.model.sha256,
        },
        "links": [],
        "assets": assets(made),
    }


UNKNOWN = " `datetime` is when the map was made, as it is not known when the pictures were taken."


def times(made: Made) -> dict[str, str | None]:
    if made.taken is None:
        return {"datetime": in_utc(made.created)}
    first, last = (in_utc(each) for each in made.taken)
    if first == last:
        return {"datetime": first}
    return {"datetime": None, "start_datetime": first, "end_datetime": last}


def in_utc(when: datetime) -> str:
    """RFC 3339."""
    return f"{when.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def system(crs: CRS) -> dict[str, str | None]:
    """The coordinate system: its code, or without one its WKT."""
    if authority := crs.to_authority():
        return {"proj:code": ":".join(authority)}
    return {"proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}


def assets(made: Made) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path, words in made.files.items():
        if path.suffix in KINDS:
            name, kind, role = KINDS[path.suffix]
            name = name if made.found == "roads" else name.replace("lines-", "polygons-")
            found[name] = {"href": f"./{path.name}", "type": kind, "title": words, "roles": [role]}
            found[name]["file:size"] = path.stat().st_size
    if "mask" in found:
        found["mask"] |= {"proj:shape": list(made.shape), "proj:transform": [float(v) for v in made.transform]}
    return found


def footprint(made: Made) -> tuple[dict[str, Any], list[float]]:
    """The grid's outline in longitude and latitude as GeoJSON, and its west, south, east and north.

    One that passes 180 degrees is in two parts, and its west is more than its east (RFC 7946, 3.1.9 and 5.2).
    """
    high, wide = made.shape
    steps = np.linspace(0, 1, POINTS, endpoint=False)
    ones, zeros = np.ones(POINTS), np.zeros(POINTS)
    columns = np.concatenate([zeros, steps, ones, 1 - steps]) * wide
    rows = np.concatenate([steps, ones, 1 - steps, zeros]) * high  # counter-clockwise where rows run south
    a, b, c, d, e, f = tuple(made.transform)[:6]
    lon, lat = map(np.array, transform(made.crs, WGS84, a * columns + b * rows + c, d * columns + e * rows + f))
    if np.ptp(lon) > HALF_TURN:
        lon = lon % TURN
    lon = lon - TURN * np.floor((lon.min() + HALF_TURN) / TURN)  # its west within -180 to 180
    if lon.max() <= HALF_TURN:
        whole = polygon(lon, lat)
        return mapping(whole), list(whole.bounds)
    whole = shapely.Polygon(np.column_stack([lon, lat]))
    one = shapely.intersection(whole, shapely.box(0, -90, HALF_TURN, 90))
    other = shapely.intersection(whole, shapely.box(HALF_TURN, -90, TURN, 90))
    parts = shapely.MultiPolygon(
        [polygon(*shapely.get_coordinates(one).T), polygon(*(shapely.get_coordinates(other) - (TURN, 0)).T)]
    )
    west, east = parts.geoms[0].bounds[0], parts.geoms[1].bounds[2]
    return mapping(parts), [west, parts.bounds[1], east, parts.bounds[3]]


def polygon(lon: Any, lat: Any) -> Any:
    """Counter-clockwise, as GeoJSON has it."""
    whole = shapely.Polygon(np.column_stack([lon, lat])).simplify(STRAIGHT)
    return orient(shapely.transform(whole, lambda points: points.round(DIGITS)))
