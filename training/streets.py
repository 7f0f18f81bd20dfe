"""Reads OpenStreetMap's roads from an extract (.osm, .osm.pbf by pyosmium; GeoJSON, GeoPackage and others by
imagery/vectors.py), or fetches them by osmnx.

A road is its centre line and tags. Its width follows PP-LinkNet's rule, in metres.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.highways import is_street
from dlink.imagery.vectors import VECTORS, read_vectors
from dlink.runtime.errors import BadInput

LANE_M = 4.0  # PP-LinkNet: 8 px a lane in tiles of 0.5 m a pixel
LANES = {  # used where the `lanes` tag is not a whole number
    **dict.fromkeys(("motorway", "trunk", "primary", "secondary", "tertiary"), 1.5),
    **dict.fromkeys((f"{kind}_link" for kind in ("motorway", "trunk", "primary", "secondary", "tertiary")), 1.5),
    **dict.fromkeys(("residential", "service", "unclassified"), 1.0),
    **dict.fromkeys(("track", "living_street"), 0.5),
}
OTHER = 1.0  # lanes of all other kinds
OTHER_TAGS = re.compile(r'"((?:[^"\\]|\\.)*)"=>"((?:[^"\\]|\\.)*)"')  # PostgreSQL's hstore
MOST_LANES = 20  # more is a mistake in the map


@dataclass(frozen=True)
class Street:
    """A centre line: longitude and latitude in degrees (WGS 84), float64 (N, 2), and its tags."""

    line: NDArray[np.float64]
    tags: Mapping[str, str]

    @property
    def lanes(self) -> float:
        tag = self.tags.get("lanes", "")
        if tag.isascii() and tag.isdigit() and 0 < int(tag[:4]) <= MOST_LANES:
            return float(int(tag[:4]))
        return LANES.get(self.tags.get("highway", ""), OTHER)

    @property
    def width_m(self) -> float:
        return LANE_M * self.lanes

    def has(self, name: str) -> bool:
        """Whether --skip NAME applies: a tag that is set and not "no" (tunnel, bridge), or a kind of highway."""
        return self.tags.get(name, "no") != "no" or self.tags.get("highway") == name


def read_streets(path: Path) -> list[Street]:
    """The roads of an extract; at least one."""
    if path.suffix.lower() in VECTORS:
        found = list(of_vectors(path))
    elif path.name.lower().endswith((".osm", ".osm.pbf", ".pbf", ".osm.bz2", ".osm.gz")):
        found = list(of_extract(path))
    else:
        raise BadInput(f"{path}: expected .osm, .osm.pbf, {', '.join(VECTORS)}")
    if not found:
        raise BadInput(f"{path}: has no roads, which are lines with the tag or attribute `highway`")
    return found


def of_extract(path: Path) -> Iterator[Street]:
    import osmium

    try:
        for way in osmium.FileProcessor(str(path)).with_locations().with_filter(osmium.filter.KeyFilter("highway")):
            if not isinstance(way, osmium.osm.Way):
                continue
            tags = dict(way.tags)
            line = [(n.lon, n.lat) for n in way.nodes if n.location.valid()]  # extracts cut ways at their edge
            if is_street(tags) and len(line) > 1:
                yield Street(np.array(line, np.float64), tags)
    except (RuntimeError, ValueError) as e:
        raise BadInput(f"{path}: not an OpenStreetMap extract, or a damaged one; pyosmium says: {e}") from e


def of_vectors(path: Path) -> Iterator[Street]:
    for shape in read_vectors(path, having="highway").degrees().lines:
        # GDAL's own conversion of an extract keeps the rarer tags in one attribute.
        tags = {**dict(OTHER_TAGS.findall(shape.tags.get("other_tags", ""))), **shape.tags}
        if is_street(tags):
            yield Street(shape.parts[0], tags)


def fetch_streets(bounds: tuple[float, float, float, float]) -> list[Street]:
    """The roads within west, south, east, north (degrees) from OpenStreetMap's servers, by osmnx."""
    import osmnx
    from requests.exceptions import RequestException

    try:
        found = osmnx.features_from_bbox(bounds, {"highway": True})
    except osmnx._errors.InsufficientResponseError:
        return []
    except (RequestException, osmnx._errors.ResponseStatusCodeError) as e:
        raise BadInput(f"OpenStreetMap's servers do not answer: {str(e)[:120]}; give an extract in a file") from e
    return list(of_frame(found))


def of_frame(frame: Any) -> Iterator[Street]:
    """The lines of osmnx's table."""
    for _, row in frame.iterrows():
        tags = {str(k): v for k, v in row.items() if isinstance(v, str)}
        if is_street(tags) and row.geometry.geom_type == "LineString":
            yield Street(np.asarray(row.geometry.coords, np.float64)[:, :2], tags)


def skipped(streets: Iterable[Street], skip: Iterable[str]) -> list[Street]:
    """The streets without those that --skip names."""
    names = list(skip)
    return [street for street in streets if not any(street.has(name) for name in names)]
