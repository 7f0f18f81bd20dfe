"""Reads what lies around some roads from an OpenStreetMap extract, by pyosmium: .osm, .osm.pbf, .osm.gz, .osm.bz2.

One pass goes through all ways that may matter, and keeps those in the box. Another reads the nodes of the few ways that
are joined, for their versions and tags. Memory: pyosmium's table of node locations, and what lies in the box.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import osmium
from numpy.typing import NDArray

from dlink.imagery.highways import FEET, is_street
from dlink.maps.osm_file import OsmNode, OsmWay
from dlink.runtime.errors import BadInput

SUFFIXES = (".osm", ".osm.pbf", ".pbf", ".osm.gz", ".osm.bz2")
ROAD, PATH, UNBUILT, RAIL, WATER = "road", "path", "unbuilt", "rail", "water"
PATHS = (FEET - {"corridor", "crossing", "elevator", "escalator"}) | {"bus_guideway", "busway", "raceway"}
PLANNED = {"construction", "planned", "proposed"}
RAILS = {"light_rail", "monorail", "narrow_gauge", "preserved", "rail", "subway", "tram", "funicular"}
WATERS = {"canal", "ditch", "drain", "river", "stream"}
GROUND, ABOVE, BELOW = "ground", "above", "below"
NOWHERE = (np.nan, np.nan)
HALF_ROUND = 180  # degrees; what is wider has no west and east

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """Around `lon`, `lat` (degrees): so far west, south, east and north of it, also across the antimeridian."""

    lon: float
    lat: float
    west: float
    south: float
    east: float
    north: float

    def meets(self, points: Points) -> bool:
        """Whether the box of points (K, 2) has a place in common with this one."""
        x, y = eastward(points[:, 0], self.lon), points[:, 1] - self.lat
        beside = x.min() > self.east or x.max() < self.west
        return not (beside or y.min() > self.north or y.max() < self.south)

    def __str__(self) -> str:
        ends = (self.lon + self.west, self.lat + self.south, self.lon + self.east, self.lat + self.north)
        return in_words(*ends)


def eastward(lon: Points, of: float) -> Points:
    """Degrees east of a longitude, -180 to 180."""
    east: Points = (lon - of + 180) % 360 - 180
    return east


def in_words(west: float, south: float, east: float, north: float) -> str:
    return f"{west:.4f}, {south:.4f} to {east:.4f}, {north:.4f}"


@dataclass(frozen=True)
class Way:
    """A line of the map: its kind, its level, and its nodes' places in degrees (K, 2), NaN where one is missing."""

    osm: OsmWay
    line: Points
    kind: str
    level: str

    @property
    def whole(self) -> bool:
        return not np.isnan(self.line).any()

    def __str__(self) -> str:
        key = next(key for key in ("highway", "railway", "waterway") if key in self.osm.tags)
        return f"{key}={self.osm.tags[key]} (way {self.osm.id})"


@dataclass(frozen=True)
class Existing:
    """What an extract has in a box. `extent` is where all its lines lie, in degrees."""

    path: Path
    ways: list[Way]
    extent: tuple[float, float, float, float]  # west, south, east, north


def kind_of(tags: Mapping[str, str]) -> str | None:
    """What a way is for roads; None: nothing."""
    highway = tags.get("highway")
    if tags.get("area") == "yes":
        return None
    if is_street(tags):
        return ROAD
    if highway in PATHS:
        return PATH
    if highway in PLANNED:
        return UNBUILT
    if tags.get("railway") in RAILS:
        return RAIL
    return WATER if tags.get("waterway") in WATERS else None


def level_of(tags: Mapping[str, str]) -> str:
    """Where a way lies by its tags. What is covered or in a tunnel no picture shows."""
    if tags.get("tunnel", "no") != "no" or tags.get("covered", "no") != "no":
        return BELOW
    if tags.get("bridge", "no") != "no":
        return ABOVE
    layer = tags.get("layer", "0").strip()
    if layer in ("", "0", "+0", "-0"):
        return GROUND
    return BELOW if layer.startswith("-") else ABOVE


def check_extract(path: Path) -> None:
    """Raise BadInput for a name that is no extract's."""
    if not path.name.lower().endswith(SUFFIXES):
        raise BadInput(f"{path}: no OpenStreetMap extract by its name; expected {', '.join(SUFFIXES)}")


def read_existing(path: Path, box: Box) -> Existing:
    """The lines in a box.

    Raises:
        BadInput: The file is no extract, is damaged, has no lines, or none of its lines is anywhere near.
    """
    check_extract(path)
    try:
        ways, extent = ways_of(path, box)
    except (RuntimeError, ValueError) as e:
        raise BadInput(f"{path}: not an OpenStreetMap extract, or a damaged one; pyosmium says: {e}") from e
    if extent is None:
        raise BadInput(f"{path}: has no roads, which are ways with the tag `highway`, or lacks their nodes")
    if not ways and extent[2] - extent[0] < HALF_ROUND and not box.meets(np.array(extent).reshape(2, 2)):
        raise BadInput(
            f"{path}: does not cover the roads: it has {in_words(*extent)} (longitude, latitude), "
            f"the roads are in {box}"
        )
    return Existing(path, ways, extent)


def ways_of(path: Path, box: Box) -> tuple[list[Way], tuple[float, float, float, float] | None]:
    """The ways in a box, and the extent of all with that of the file's header."""
    found: list[Way] = []
    lowest, highest = np.full(2, np.inf), np.full(2, -np.inf)
    reader, places = reader_of(path), Places(path)
    for way, line in lines_of(reader, places):
        ground = line[~np.isnan(line[:, 0])]
        if len(ground) < 2:
            continue
        np.minimum(lowest, ground.min(axis=0), out=lowest)
        np.maximum(highest, ground.max(axis=0), out=highest)
        if not box.meets(ground):
            continue
        tags = dict(way.tags)
        if kind := kind_of(tags):
            ids = tuple(node.ref for node in way.nodes)
            exact = line if len(line) == len(ids) else places.of(way)
            found.append(Way(OsmWay(way.id, way.version, ids, tags), exact, kind, level_of(tags)))
    if lowest[0] > highest[0]:
        return [], None
    corners = reader.header.box()
    if corners.valid():
        lowest = np.minimum(lowest, at(corners.bottom_left))
        highest = np.maximum(highest, at(corners.top_right))
    return found, (float(lowest[0]), float(lowest[1]), float(highest[0]), float(highest[1]))


def reader_of(path: Path) -> Any:
    """Gives the ways that may matter, with the places of their nodes."""
    both = osmium.osm.NODE | osmium.osm.WAY
    reader = osmium.FileProcessor(str(path), both).with_locations()
    reader.with_filter(osmium.filter.EntityFilter(osmium.osm.WAY))
    return reader.with_filter(osmium.filter.KeyFilter("highway", "railway", "waterway"))


@dataclass(frozen=True)
class Places:
    """Where the nodes of an extract are. pyosmium keeps no place of a negative id, which JOSM gives to what is new."""

    path: Path

    def of(self, way: Any) -> Points:
        """Degrees (K, 2) of a way's nodes, NaN where the extract lacks one."""
        found = [at(node.location) if node.ref > 0 else self.new.get(node.ref, NOWHERE) for node in way.nodes]
        return np.array(found, np.float64).reshape(-1, 2)

    @cached_property
    def new(self) -> dict[int, tuple[float, float]]:
        """Those of negative ids. All nodes are read for them, but only a file that has some asks for it."""
        reader: Any = osmium.FileProcessor(str(self.path), osmium.osm.NODE)
        return {node.id: at(node.location) for node in reader if node.id < 0}


def lines_of(reader: Any, places: Places) -> Iterator[tuple[Any, Points]]:
    """Each way with the places of its nodes, of which it may skip those that repeat."""
    maker = osmium.geom.WKBFactory()  # four times as fast as a loop over the nodes
    for way in reader:
        try:
            line = np.frombuffer(bytes.fromhex(maker.create_linestring(way))[9:], "<f8").reshape(-1, 2)
        except (osmium.InvalidLocationError, RuntimeError, ValueError):  # an extract cuts ways at its edge
            line = places.of(way)
        yield way, line


def at(location: Any) -> tuple[float, float]:
    return (location.lon, location.lat) if location.valid() else NOWHERE


def read_nodes(path: Path, wanted: set[int]) -> dict[int, OsmNode]:
    """Nodes by their ids. What is new has no version, and is left out."""
    wanted = {id for id in wanted if id > 0}
    if not wanted:
        return {}
    try:
        reader: Any = osmium.FileProcessor(str(path), osmium.osm.NODE).with_filter(osmium.filter.IdFilter(wanted))
        return {node.id: OsmNode(node.id, node.version, *at(node.location), dict(node.tags)) for node in reader}
    except RuntimeError as e:
        raise BadInput(f"{path}: an OpenStreetMap extract that changed or is damaged; pyosmium says: {e}") from e
