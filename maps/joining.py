"""Where the ends of new roads join existing ways.

Only a road on the ground is joined. The end takes an existing node within NODE_NEAR of its place on the way. If there
is none, a new node is put into the way there: the only change that is ever made to what exists. A way is changed only
if all of it is known: its version, and each node with its version. Else the end is only put onto the way, and a word
for review says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.resolution import WGS84
from dlink.maps.extract import ABOVE, GROUND, Existing, read_nodes
from dlink.maps.near import STEP, Frame, Points, Segments
from dlink.maps.osm_file import DECIMALS, MOST_NODES, OsmNode, OsmWay

NODE_NEAR = 5.0  # metres to a node that is used instead of a new one; or to a road beside the end of a bridge
MOTORWAYS = ("motorway", "motorway_link")


@dataclass(frozen=True)
class End:
    """A node of new roads that may join."""

    node: int
    place: Points  # (2,) metres
    reach: float  # metres
    touching: bool  # a covered stretch ends here


@dataclass(frozen=True)
class Join:
    """Where a node of new roads goes. `osm`: the node that it becomes, negative if new; None: none."""

    place: Points  # (2,) metres
    osm: int | None
    name: str  # "node 5" or "way 7"; empty if not joined
    review: str = ""


@dataclass
class Joiner:
    """Finds joins one after another, so that ends that are near each other share a node."""

    existing: Existing
    segments: Segments  # of all ways, in metres
    frame: Frame
    nodes: dict[int, OsmNode] = field(default_factory=dict)  # of the ways that may be joined
    put_in: dict[int, list[tuple[int, float, OsmNode, Points]]] = field(default_factory=dict)  # by way: index, where
    count: int = 0

    def joins(self, ends: Sequence[End]) -> dict[int, Join]:
        """By node. An end that stays as it is has none."""
        if not ends:
            return {}
        all = self.segments
        places, reach = np.array([end.place for end in ends]), np.array([end.reach for end in ends])
        road, path = (nearest(all, places, reach, wanted) for wanted in (all.roads, all.paths))
        ways = {int(all.way[segment]) for (_, level), (_, segment, *_) in road.items() if level == GROUND}
        self.nodes = read_nodes(self.existing.path, {id for way in ways for id in all.ways[way].osm.nodes})
        found: dict[int, Join] = {}
        for i, end in enumerate(ends):
            ground, above = road.get((i, GROUND)), road.get((i, ABOVE))
            if above and (ground is None or above[0] < ground[0] - NODE_NEAR):
                found[end.node] = Join(end.place, None, "", f"meets {all.ways[all.way[above[1]]]}, which is a bridge")
            elif ground:
                found[end.node] = self.join(end, *ground[1:])
            elif end.touching and (along := path.get((i, GROUND)) or path.get((i, ABOVE))):
                found[end.node] = Join(end.place, None, "", f"goes on as {all.ways[all.way[along[1]]]}")
        return found

    def join(self, end: End, segment: int, foot: Points, t: float) -> Join:
        """The join of an end at a place of a segment."""
        all = self.segments
        number, place = int(all.way[segment]), int(all.place[segment])
        way = all.ways[number]
        ids = way.osm.nodes[place : place + 2]
        corners = [(id, at) for id, at in zip(ids, (all.a[segment], all.b[segment]), strict=True) if self.usable(id)]
        at_node = sorted((float(np.hypot(*(at - foot))), k) for k, (_, at) in enumerate(corners))
        if at_node and at_node[0][0] <= NODE_NEAR:
            return self.at_node(way.osm, *corners[at_node[0][1]])
        for _, _, node, at in self.put_in.get(number, []):
            if np.hypot(*(at - foot)) <= NODE_NEAR:
                return Join(at, node.id, f"way {way.osm.id}", motorway(way.osm))
        if not (why := self.unchangeable(number, way.osm, way.whole)):
            return self.insert(number, place, t, foot)
        to_end = sorted((float(np.hypot(*(at - end.place))), k) for k, (_, at) in enumerate(corners))
        if to_end and to_end[0][0] <= end.reach:
            return self.at_node(way.osm, *corners[to_end[0][1]])
        return Join(foot, None, "", f"lies on {way} and is not joined: {why}")

    def usable(self, id: int) -> bool:
        return id > 0 and id in self.nodes and self.nodes[id].version > 0

    def at_node(self, way: OsmWay, id: int, place: Points) -> Join:
        return Join(place, id, f"node {id}", motorway(way))

    def unchangeable(self, number: int, way: OsmWay, whole: bool) -> str:
        """Why a way must not be changed; empty if it may."""
        if way.id <= 0:
            return "the way is not in OpenStreetMap yet"
        if not way.version:
            return "the extract has no versions"
        if not whole:
            return "the extract cuts the way"
        if len(way.nodes) + len(self.put_in.get(number, [])) >= MOST_NODES:
            return f"the way has {MOST_NODES} nodes"
        return "" if all(map(self.usable, way.nodes)) else "the extract has no versions of its nodes"

    def insert(self, number: int, place: int, t: float, foot: Points) -> Join:
        """A new node in a way, behind its node number `place`."""
        way = self.segments.ways[number].osm
        lon, lat = np.round(self.frame.places(foot[None], WGS84)[0], DECIMALS).tolist()
        self.count += 1
        node = OsmNode(-self.count, 0, lon, lat)
        at = self.frame.metres(np.array([[lon, lat]]))[0]
        self.put_in.setdefault(number, []).append((place, t, node, at))
        return Join(at, node.id, f"way {way.id}", motorway(way))

    def changed(self, used: set[int]) -> tuple[list[OsmNode], list[OsmWay]]:
        """The new nodes that are used, and the ways with them."""
        nodes: list[OsmNode] = []
        ways: list[OsmWay] = []
        for number, all in sorted(self.put_in.items()):
            put = sorted((place, t, node.id) for place, t, node, _ in all if node.id in used)
            if not put:
                continue
            way = self.segments.ways[number].osm
            ids = list(way.nodes)
            for place, _, id in reversed(put):
                ids.insert(place + 1, id)
            nodes += [node for _, _, node, _ in all if node.id in used]
            ways.append(replace(way, nodes=tuple(ids)))
        return sorted(nodes, key=lambda node: -node.id), ways


def motorway(way: OsmWay) -> str:
    kind = way.tags.get("highway", "")
    return f"joins highway={kind} (way {way.id}) on its level" if kind in MOTORWAYS else ""


Found = dict[tuple[int, str], tuple[float, int, Points, float]]


def nearest(segments: Segments, places: Points, reach: NDArray[np.float64], wanted: NDArray[np.bool_]) -> Found:
    """By place and level: distance, segment, its nearest place, and where on it."""
    found: Found = {}
    for near in segments.pairs(places, reach, wanted):
        for k in np.lexsort((near.segment, near.distance)).tolist():
            key = int(near.point[k]), segments.ways[segments.way[near.segment[k]]].level
            found.setdefault(key, (float(near.distance[k]), int(near.segment[k]), near.foot[k], float(near.along[k])))
    return found


def ends_of(
    nodes: dict[int, Points], degrees: dict[int, int], touching: set[int], reach: dict[int, float]
) -> list[End]:
    """The nodes that may join: free ends, junctions, and those where a covered stretch ends."""
    return [
        End(node, nodes[node], reach[node] + STEP, node in touching)
        for node in sorted(nodes)
        if node in touching or degrees[node] != 2
    ]
