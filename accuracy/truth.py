"""Reads masks and graphs from disk and pairs them with their truths.

A mask is a label (labels.py): two values, of which 0 is no road. Pictures of 16 bits with values above 255, and of
float32, are probabilities, where 65535 and 1 are certain; road is above the threshold.

A graph is GeoJSON: line strings and multi line strings, in longitude and latitude (RFC 7946), or in a plane whose unit
is given in metres. Files are paired by id: 104 for `104_mask.png`, the whole stem for other names. `_sat`, `_prob` and
`_overlay` pictures beside masks are ignored.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlink.accuracy.pixels import Mask
from dlink.accuracy.road_graphs.graph import RoadGraph
from dlink.imagery.images import SUFFIXES
from dlink.imagery.kinds import georeferenced
from dlink.imagery.labels import WHITE, road_of, values_of
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.errors import BadInput

GEOJSON = (".geojson", ".json")
TIFF = (".tif", ".tiff")
BESIDE = ("_sat", "_prob", "_overlay")  # other files with the same id
DEGREE_M = 111_320.0  # metres a degree of latitude; times the cosine for longitude; at most 0.6 % off (WGS 84)
LON_LAT = ("crs84", "epsg::4326", "epsg:4326")
SHOWN = 5  # ids in a message
CERTAIN = 65535  # of probabilities in 16 bits


@dataclass(frozen=True)
class Pair:
    """A file to score, and its truth."""

    id: str
    mask: Path
    truth: Path

    @property
    def graphs(self) -> bool:
        return self.mask.suffix.lower() in GEOJSON


def find_pairs(masks: Path, truth: Path, common: bool = False) -> list[Pair]:
    """Pair the files of two folders by id, or two files. An id on one side only is an error unless `common`."""
    if masks.is_dir() != truth.is_dir():
        raise BadInput(f"{masks} and {truth}: give two folders or two files")
    if masks.is_file():
        mask_of, truth_of = {masks.stem: masks}, {masks.stem: truth}
    else:
        mask_of, truth_of = by_id(masks), by_id(truth)
    both = mask_of.keys() & truth_of.keys()
    if not both:
        raise BadInput(f"{masks} and {truth}: no id is in both; expected <id>_mask.png, .tif or .geojson in each")
    if not common:
        for folder, own, other in ((truth, mask_of, truth_of), (masks, truth_of, mask_of)):
            if missing := sorted(own.keys() - other.keys()):
                listed = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
                raise BadInput(
                    f"{folder}: nothing for {len(missing)} of {len(own)} ids: {listed}; add them, or give --common to "
                    f"score the {len(both)} that are in both"
                )
    pairs = [Pair(id, mask_of[id], truth_of[id]) for id in sorted(both)]
    for pair in pairs:
        if (pair.truth.suffix.lower() in GEOJSON) != pair.graphs:
            raise BadInput(f"{pair.mask} and {pair.truth}: a mask and a graph; give two of a kind")
    return pairs


def by_id(folder: Path) -> dict[str, Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in (*SUFFIXES, *GEOJSON) and p.name[0] != ".")
    files = [p for p in files if not p.stem.endswith(BESIDE)]
    if any(p.stem.endswith("_mask") for p in files):
        files = [p for p in files if p.stem.endswith("_mask")]
    found: dict[str, Path] = {}
    for path in files:
        id = path.stem.removesuffix("_mask")
        if id in found:
            raise BadInput(f"{path} and {found[id]}: two files of one id; move one away")
        found[id] = path
    return found


def read_mask(path: Path, threshold: float, how: Reading = RGB) -> Mask:
    """Read a mask or probabilities, bool (H, W), True where there is road. `how` names the values of road."""
    values = values_of(path)
    if values.dtype == np.uint16 and values.max(initial=0) > WHITE and not how.road_values:
        return np.asarray(values > threshold * CERTAIN)
    if values.dtype == np.float32 and not how.road_values:
        if not (values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
            raise BadInput(f"{path}: float32 values outside 0 .. 1, no probabilities")
        return np.asarray(values > threshold)
    return road_of(values, path, how)


def metres_a_pixel(pair: Pair) -> float | None:
    """Metres a pixel of two GeoTIFFs, which must lie on one grid; None for other pictures."""
    placed = [path for path in (pair.mask, pair.truth) if path.suffix.lower() in TIFF and georeferenced(path)]
    if len(placed) < 2:
        return None
    import rasterio

    with rasterio.open(pair.mask) as a, rasterio.open(pair.truth) as b:
        if a.crs != b.crs or not a.transform.almost_equals(b.transform, precision=abs(a.transform.a) / 100):
            raise BadInput(f"{pair.mask} and {pair.truth}: on different grids; warp one (gdalwarp -te -tr)")
        height, width = abs(a.transform.e), abs(a.transform.a)
        if a.crs and a.crs.is_geographic:
            latitude = a.transform.f + a.transform.d * a.width / 2 + a.transform.e * a.height / 2
            return float(DEGREE_M * (height + width * math.cos(math.radians(latitude))) / 2)
        return float((height + width) / 2 * (a.crs.linear_units_factor[1] if a.crs else 1.0))


def read_graphs(pair: Pair, unit_m: float | None) -> tuple[RoadGraph, RoadGraph]:
    """Both graphs in metres. `unit_m` is the length of a unit where coordinates are not degrees."""
    (lines, crs), (truth, truth_crs) = (read_geojson(path) for path in (pair.mask, pair.truth))
    if crs != truth_crs:
        raise BadInput(f"{pair.mask} is in {crs}, {pair.truth} in {truth_crs}: write both in one CRS (ogr2ogr -t_srs)")
    if unit_m is None and not crs.endswith(LON_LAT):
        raise BadInput(
            f"{pair.mask}: in {crs}; write it in longitude and latitude (ogr2ogr -t_srs EPSG:4326), or say with --gsd "
            f"how many metres a unit has"
        )
    if unit_m is not None:
        return RoadGraph.from_lines(lines).scaled(unit_m), RoadGraph.from_lines(truth).scaled(unit_m)
    points = np.array([point for line in (*lines, *truth) for point in line], np.float64).reshape(-1, 2)
    if (np.abs(points) > (180, 90)).any():
        raise BadInput(f"{pair.mask}: coordinates beyond 180 and 90 degrees; say with --gsd how many metres a unit has")
    middle = math.radians(float(points[:, 1].mean())) if len(points) else 0.0
    place = (DEGREE_M * math.cos(middle), 0.0, 0.0, 0.0, DEGREE_M, 0.0)
    return RoadGraph.from_lines(lines).placed(place), RoadGraph.from_lines(truth).placed(place)


def read_geojson(path: Path) -> tuple[list[list[Any]], str]:
    """The lines of a GeoJSON file and the name of its CRS."""
    try:
        data = json.loads(path.read_text())
        crs = data.get("crs")
        name = str(crs["properties"]["name"]).lower() if crs else LON_LAT[0]
        lines = [[point[:2] for point in line] for line in lines_of(data)]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as e:
        raise BadInput(f"{path}: not GeoJSON of line strings, or damaged: {type(e).__name__} {e}") from e
    try:
        RoadGraph.from_lines(lines)
    except BadInput as e:
        raise BadInput(f"{path}: {e}") from e
    return lines, "crs84" if name.endswith(LON_LAT) else name


def lines_of(data: Any) -> Iterator[list[Any]]:
    """The coordinates of every line in a GeoJSON object; points and areas are left out."""
    kind = data["type"]
    if kind == "FeatureCollection":
        for feature in data["features"]:
            yield from lines_of(feature)
    elif kind == "Feature":
        if data["geometry"]:
            yield from lines_of(data["geometry"])
    elif kind == "GeometryCollection":
        for geometry in data["geometries"]:
            yield from lines_of(geometry)
    elif kind == "LineString":
        yield data["coordinates"]
    elif kind == "MultiLineString":
        yield from data["coordinates"]
    elif kind not in ("Point", "MultiPoint", "Polygon", "MultiPolygon"):
        raise ValueError(f"type {kind!r}")
