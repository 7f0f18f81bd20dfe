"""Average path length similarity (APLS) of two road graphs: are the shortest paths through them equally long?

The rules are those of the SpaceNet 3 challenge (Van Etten, Lindenbaum and Bacastow, SpaceNet: A Remote Sensing Dataset
and Challenge Series, 2018, section 5.4) and, in detail, of its scorer:

Control nodes are put along every edge: none if it is shorter than 0.75 x 50 m, one in the middle if shorter than 50 m,
else floor(length / 50 m) evenly. In one direction, each node of A gets the nearest point of B as its partner, if that
is within 4 m. For every two nodes that A connects by a shortest path dA, the cost is min(1, |dA - dB| / dA), where dB
is the shortest path between their partners; it is 1 where a partner or a path is missing. The score of the direction is
1 - the mean cost. APLS is the harmonic mean of both directions. Two empty graphs score 1, an empty and another one 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely

from dlink.accuracy.road_graphs.graph import Points, RoadGraph
from dlink.accuracy.road_graphs.paths import Floats, Ints, Paths, Places, Search
from dlink.runtime.errors import BadInput

SPACING_M = 50.0  # between control nodes along an edge
TOO_SHORT = 0.75  # share of the spacing: a shorter edge gets no control node
SNAP_M = 4.0  # the largest distance of a partner
SAME_M = 0.1 * 0.31  # a point nearer than this to a node is that node: the scorer distinguishes points 0.1 px apart

SEARCHED = 1 << 25  # path lengths kept of a search: 256 MiB for each graph
BLOCK = 1 << 20  # pairs compared at once


@dataclass(frozen=True)
class Apls:
    """Average path length similarity, from 0 to 1 (the same)."""

    score: float  # the harmonic mean of the next two
    forward: float  # the first graph's paths in the second
    back: float  # the second's in the first

    @classmethod
    def of(cls, forward: float, back: float) -> "Apls":
        return cls(2 * forward * back / (forward + back) if forward + back else 0.0, forward, back)


@dataclass(frozen=True)
class Direction:
    """One direction of the comparison: a graph's nodes in the order of x, their places on it and on the other one."""

    x: Floats
    own: Places
    partner: Places


@dataclass
class Cost:
    total: float = 0.0
    pairs: int = 0

    @property
    def score(self) -> float:
        return 1 - self.total / self.pairs if self.pairs else 1.0


def apls(a: RoadGraph, b: RoadGraph, metres_per_unit: float) -> Apls:
    """APLS of graphs in a common unit, such as pixels. Memory does not grow with the number of pairs of nodes."""
    if not (np.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise BadInput(f"metres_per_unit must be positive, got {metres_per_unit}")
    if not a.lines or not b.lines:
        return Apls.of(*[float(len(a.lines) == len(b.lines))] * 2)
    paths = (Paths(a), Paths(b))
    directions = (direction(*paths, metres_per_unit), direction(*paths[::-1], metres_per_unit))
    costs = (Cost(), Cost())
    for strip in strips(directions, max(paths[0].core, paths[1].core)):
        # Both directions start in the same strip of ground, so each graph's paths are searched once for both.
        on_a, on_b = (Search(p, sources(directions, strip, i)) for i, p in enumerate(paths))
        for one, cost, span, own, other in zip(directions, costs, strip, (on_a, on_b), (on_b, on_a), strict=True):
            add_costs(cost, one, span, own, other)
    return Apls.of(costs[0].score, costs[1].score)


def direction(a: Paths, b: Paths, metres_per_unit: float) -> Direction:
    """The nodes of A and its control nodes, with their partners on B."""
    edge, along, points = control_points(a.graph, SPACING_M / metres_per_unit)
    order = np.argsort(points[:, 0], kind="stable")
    edge, along, points = edge[order], along[order], points[order]
    return Direction(points[:, 0], Places(a, edge, along), Places(b, *nearest(b.graph, points, metres_per_unit)))


def control_points(graph: RoadGraph, spacing: float) -> tuple[Ints, Floats, Points]:
    """A graph's nodes and control nodes: each one's edge, distance along the edge, and coordinates."""
    lengths, counts = graph.lengths, put_along(graph, spacing)
    edge = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    along = number * lengths[edge] / (counts[edge] + 1)
    nodes, at = np.unique(graph.ends.ravel(), return_index=True)  # one edge's end for each node
    put = shapely.get_coordinates(shapely.line_interpolate_point(graph.shapes[edge], along))
    ends = np.where(at % 2, lengths[at // 2], 0)
    return np.r_[at // 2, edge], np.r_[ends, along], np.concatenate([graph.nodes[nodes], put])


def put_along(graph: RoadGraph, spacing: float) -> Ints:
    """The number of control nodes along each edge."""
    counts = np.floor(graph.lengths / spacing).astype(np.int64)
    counts[graph.lengths < spacing] = 1
    counts[graph.lengths < TOO_SHORT * spacing] = 0
    return counts


def nearest(graph: RoadGraph, points: Points, metres_per_unit: float) -> tuple[Ints, Floats]:
    """The edge nearest to each point (-1: none is near enough) and the distance along it, snapped to a near node."""
    shapes = graph.shapes
    dots = shapely.points(points)
    (point, edge), far = shapely.STRtree(shapes).query_nearest(dots, return_distance=True)
    order = np.lexsort((edge, point))  # the first of equally near edges
    point, first = np.unique(point[order], return_index=True)
    edge, far = edge[order][first], far[order][first]
    along = shapely.line_locate_point(shapes[edge], dots[point])
    step = graph.lengths[edge] / (put_along(graph, SPACING_M / metres_per_unit)[edge] + 1)
    node = np.rint(along / step) * step
    along = np.where(np.abs(along - node) * metres_per_unit < SAME_M, node, along)
    return np.where(far * metres_per_unit <= SNAP_M, edge, -1), along


def strips(directions: tuple[Direction, Direction], searched: int) -> Iterator[tuple[slice, slice]]:
    """Both directions' nodes in common strips of ground, so narrow that the search from one strip fits in memory."""
    count = -(-searched // max(1, SEARCHED // searched))
    at = np.sort(np.concatenate([one.x for one in directions]))
    cuts = at[[len(at) * i // count for i in range(1, count)]]
    bounds = [np.r_[0, np.searchsorted(one.x, cuts), len(one.x)] for one in directions]
    for i in range(count):
        yield slice(bounds[0][i], bounds[0][i + 1]), slice(bounds[1][i], bounds[1][i + 1])


def sources(directions: tuple[Direction, Direction], strip: tuple[slice, slice], graph: int) -> Ints:
    """The nodes of one graph through which paths of either direction leave a strip's places."""
    own, other = directions[graph].own.nodes[strip[graph]], directions[1 - graph].partner.nodes[strip[1 - graph]]
    return np.unique(np.concatenate([own, other]))


def add_costs(cost: Cost, one: Direction, span: slice, own: Search, other: Search) -> None:
    """Add the costs of the pairs that start in a span of the nodes. Paths are symmetric: each pair is computed once."""
    size = max(1, BLOCK // max(len(one.x), len(own.paths.kept), len(other.paths.kept)))
    for lo in range(span.start, span.stop, size):
        hi = min(lo + size, span.stop)
        a = own.between(one.own, lo, hi)
        b = other.between(one.partner, lo, hi)
        a[np.tri(*a.shape, dtype=np.bool_)] = np.inf
        joined = np.isfinite(a)
        with np.errstate(invalid="ignore"):  # inf - inf, which is not counted
            np.abs(np.subtract(b, a, out=b), out=b)
            np.divide(b, a, out=b)
        cost.total += 2 * float(np.minimum(b, 1, out=b).sum(where=joined))
        cost.pairs += 2 * int(np.count_nonzero(joined))
