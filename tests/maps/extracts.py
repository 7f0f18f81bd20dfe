"""OpenStreetMap extracts for the tests, drawn in metres and written by pyosmium; .osm files read back by it."""

from dataclasses import dataclass, field

import numpy as np
import osmium
from rasterio.crs import CRS
from rasterio.warp import transform

from dlink.imagery.resolution import WGS84

UTM = CRS.from_epsg(32633)
ORIGIN = (500_000.0, 5_400_000.0)  # of the drawings: UTM's middle meridian, where the map is 0.04 % small


def degrees(points, origin=ORIGIN, crs=UTM):
    """Drawn places (x to the east, y to the north) as longitude and latitude, as OpenStreetMap rounds them."""
    points = np.asarray(points, float) + origin
    return np.round(np.column_stack(transform(crs, WGS84, *points.T)), 7)


def drawn(lonlat, origin=ORIGIN, crs=UTM):
    return np.column_stack(transform(WGS84, crs, *np.asarray(lonlat, float).T)) - origin


@dataclass
class Drawing:
    """Ways of named nodes. A node is a place, and ways that name the same place share its node."""

    origin: tuple = ORIGIN
    crs: object = UTM
    version: int = 3
    ids: dict = field(default_factory=dict)  # place -> id
    ways: list = field(default_factory=list)

    def node(self, place):
        return self.ids.setdefault(tuple(map(float, place)), len(self.ids) + 101)

    def way(self, *places, id=None, **tags):
        nodes = [self.node(place) for place in places]
        self.ways.append((id or len(self.ways) + 1, nodes, tags or {"highway": "residential"}))
        return self

    def write(self, path, missing=(), node_tags=None):
        """As an extract, which may lack some nodes."""
        known = {"version": self.version} if self.version else {}
        places = degrees(list(self.ids), self.origin, self.crs) if self.ids else []
        with osmium.SimpleWriter(str(path), overwrite=True) as writer:
            for (place, id), at in zip(self.ids.items(), places, strict=True):
                if place not in missing:
                    tags = (node_tags or {}).get(place, {})
                    writer.add_node(osmium.osm.mutable.Node(id=id, location=tuple(at), tags=tags, **known))
            for id, nodes, tags in self.ways:
                writer.add_way(osmium.osm.mutable.Way(id=id, nodes=nodes, tags=tags, **known))
        return path


@dataclass
class Read:
    """A file as pyosmium reads it: nodes as (lon, lat, version), ways as (nodes, tags, version)."""

    nodes: dict
    ways: dict

    @property
    def new(self):
        return {id: way for id, way in self.ways.items() if id < 0}

    @property
    def old(self):
        return {id: way for id, way in self.ways.items() if id > 0}

    def line(self, id):
        return np.array([self.nodes[node][:2] for node in self.ways[id][0]])


def read_osm(path):
    nodes, ways = {}, {}
    for thing in osmium.FileProcessor(str(path)):
        if thing.is_node():
            assert thing.id not in nodes
            nodes[thing.id] = (thing.location.lon, thing.location.lat, thing.version)
        else:
            assert thing.id not in ways
            ways[thing.id] = ([node.ref for node in thing.nodes], dict(thing.tags), thing.version)
    return Read(nodes, ways)
