"""Roads as a graph: from line strings, or from a mask by thinning and tracing. Needs scikit-image, SciPy and shapely.

A node is where roads end or meet. Points are the same node where they are equal; lines that cross without a shared
point do not meet. What passes through a point of degree 2 is one edge that keeps its geometry; a ring that nothing
meets keeps all its points as nodes, since no one of them is special. That is how the SpaceNet 3 challenge read line
strings (https://github.com/CosmiQ/apls).

A mask is thinned to lines one pixel wide (Zhang and Suen, A fast parallel algorithm for thinning digital patterns,
Communications of the ACM 27, 1984), whose pixels become points joined to their neighbours. What thinning leaves beside
the roads is then pruned, and counted. Coordinates are pixels from the mask's upper left corner, x to the right and y
down; a pixel's centre is at halves. `placed` takes them to the ground.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from dlink.runtime.errors import BadInput

# In pixels, after the recipe of SpaceNet 3's winner (albu), which dropped terminal edges under 10 px, simplified by 2
# px and joined gaps up to 20 px, or 100 px in line. Loops are ours: a hole some 5 px across makes one of 20 px around.
SPUR, LOOP, SIMPLIFY = 10.0, 20.0, 2.0
IN_LINE = 5.0  # times the gap is bridged where both ends point at each other
POINTING = np.cos(np.pi / 6)  # within 30 degrees
HEADING = 10  # points of a line's end that tell where it points
MARGIN = 16  # px that roads are prolonged beyond the mask's edge: thinning shortens them by half of their width

Points = NDArray[np.float64]  # (N, 2) x, y
Transform = tuple[float, float, float, float, float, float]  # x' = a x + b y + c, y' = d x + e y + f


@dataclass(frozen=True)
class RoadGraph:
    """Roads as nodes and the edges between them, in one unit: pixels or metres."""

    nodes: Points
    ends: NDArray[np.int64]  # (E, 2) each edge's nodes; twice the same for a loop
    lines: tuple[Points, ...]  # each edge's geometry, from its first node to its second

    @classmethod
    def from_lines(cls, lines: Iterable[ArrayLike]) -> "RoadGraph":
        """The graph of line strings, each (K, 2). What is drawn twice counts once; a single point is no road."""
        drawn = [as_points(line) for line in lines]
        points, of = same_points(np.concatenate(drawn) if drawn else np.empty((0, 2)))
        starts = np.cumsum([len(line) for line in drawn])[:-1]
        pairs = [np.stack([i[:-1], i[1:]], axis=1) for i in np.split(of, starts)]
        segments = np.sort(np.concatenate(pairs), axis=1) if pairs else np.empty((0, 2), np.int64)
        segments = np.unique(segments[segments[:, 0] != segments[:, 1]], axis=0)
        return cls.from_edges(merge(list(points[segments])))

    @classmethod
    def from_edges(cls, lines: Sequence[Points]) -> "RoadGraph":
        """The graph of lines that meet at their ends alone; rings that nothing meets are taken apart."""
        _, ends = ends_of(lines)
        degrees = np.bincount(ends.ravel())
        edges: list[Points] = []
        for line, (first, last) in zip(lines, ends, strict=True):
            alone = first == last and degrees[first] == 2
            edges += list(np.stack([line[:-1], line[1:]], axis=1)) if alone else [line]
        return cls(*ends_of(edges), tuple(edges))

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        """How many ends of edges each node has."""
        return np.bincount(self.ends.ravel(), minlength=len(self.nodes))

    @cached_property
    def lengths(self) -> NDArray[np.float64]:
        """Of the edges, in the graph's unit."""
        return np.array([length(line) for line in self.lines], np.float64)

    @cached_property
    def shapes(self) -> "NDArray[np.object_]":
        """The edges as shapely's line strings."""
        return linestrings(self.lines)

    def placed(self, transform: Transform) -> "RoadGraph":
        """The same graph in other coordinates, such as a raster's on the ground."""
        a, b, c, d, e, f = transform
        matrix, shift = np.array([[a, b], [d, e]]), np.array([c, f])
        return RoadGraph(
            self.nodes @ matrix.T + shift, self.ends, tuple(line @ matrix.T + shift for line in self.lines)
        )

    def scaled(self, factor: float) -> "RoadGraph":
        """The same graph in another unit."""
        return self.placed((factor, 0, 0, 0, factor, 0))


def as_points(line: ArrayLike) -> Points:
    """float64 (K, 2); what else a line holds is refused."""
    try:
        points = np.asarray(line, np.float64)
    except (ValueError, TypeError) as e:
        raise BadInput(f"a line must be pairs of numbers, got {line!r:.60}") from e
    if points.ndim != 2 or points.shape[1] != 2:
        raise BadInput(f"a line must be (K, 2) coordinates, got {points.shape}")
    if not np.isfinite(points).all():
        raise BadInput("a line has coordinates that are not finite numbers; leave such points out")
    return points


def same_points(points: Points) -> tuple[Points, NDArray[np.int64]]:
    """The different points, and which of them each point is."""
    different, of = np.unique(points + 0.0, axis=0, return_inverse=True)  # + 0.0: -0.0 is 0.0
    return different, of.reshape(-1)


def ends_of(lines: Sequence[Points]) -> tuple[Points, NDArray[np.int64]]:
    """The nodes (N, 2) at the ends of lines, and each line's two (E, 2)."""
    ends = np.array([(line[0], line[-1]) for line in lines], np.float64).reshape(-1, 2)
    nodes, of = same_points(ends)
    return nodes, of.reshape(-1, 2)


def merge(lines: Sequence[Points]) -> list[Points]:
    """Join lines wherever just two ends meet. Rings stay whole: closed lines."""
    if not lines:
        return []
    parts = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(linestrings(lines))))
    return [shapely.get_coordinates(part) for part in parts]


def linestrings(lines: Sequence[Points]) -> "NDArray[np.object_]":
    """The lines as shapely has them."""
    if not lines:
        return np.empty(0, object)
    sizes = [len(line) for line in lines]
    made: NDArray[np.object_] = shapely.linestrings(
        np.concatenate(lines), indices=np.repeat(np.arange(len(lines)), sizes)
    )
    return made


def length(line: Points) -> float:
    return float(np.hypot(*np.diff(line, axis=0).T).sum())


@dataclass(frozen=True)
class Traced:
    """The roads of a mask as a graph, and what was done to get it."""

    graph: RoadGraph
    spurs: int  # dropped
    loops: int  # dropped
    bridged: int  # gaps joined


def from_mask(
    mask: NDArray[np.bool_], *, spur: float = SPUR, loop: float = LOOP, simplify: float = SIMPLIFY, gap: float = 0.0
) -> Traced:
    """Trace the roads of a mask (H, W). All lengths are in pixels, as is the graph.

    Dropped are ends shorter than `spur`, and loops shorter than `loop` around: closed lines, and the longer one of two
    ways between the same nodes. Lines are simplified by up to `simplify`. Free ends up to `gap` apart are joined, and
    up to five times that where they point at each other.
    """
    check_mask(mask)
    lines, spurs, loops = prune(trace(thin(mask)), spur, loop)
    bridges = bridge(lines, gap) if gap > 0 else []
    lines = merge([*lines, *bridges])
    simple = shapely.simplify(linestrings(lines), simplify, preserve_topology=False)
    return Traced(RoadGraph.from_lines([shapely.get_coordinates(line) for line in simple]), spurs, loops, len(bridges))


def check_mask(mask: NDArray[np.bool_]) -> None:
    """Refuse what is not bool (H, W), with the way to make it so."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2:
        got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise BadInput(f"a mask must be bool (H, W), got {got}: compare it with its threshold (mask >= 128)")


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's lines, one pixel wide."""
    if not mask.any():
        return np.zeros_like(mask)
    wider = skeletonize(np.pad(mask, MARGIN, mode="edge"))
    lines: NDArray[np.bool_] = wider[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return lines


def trace(lines: NDArray[np.bool_]) -> list[Points]:
    """Lines one pixel wide, bool (H, W), as polylines through the pixels' centres that meet at their ends alone.

    Pixels that touch by a corner are joined where they have no neighbour in common: else every bend is a triangle.
    """
    a, b, c, d = lines[:-1, :-1], lines[:-1, 1:], lines[1:, :-1], lines[1:, 1:]
    steps = (  # where a step begins, and by how many rows and columns it goes
        (lines[:, :-1] & lines[:, 1:], (0, 0), (0, 1)),
        (lines[:-1] & lines[1:], (0, 0), (1, 0)),
        (a & d & ~b & ~c, (0, 0), (1, 1)),
        (b & c & ~a & ~d, (0, 1), (1, -1)),
    )
    segments = []
    for found, start, step in steps:
        first = np.argwhere(found) + start
        segments.append(np.stack([first, first + step], axis=1))
    return merge(list(np.concatenate(segments)[..., ::-1] + 0.5))


def prune(lines: list[Points], spur: float, loop: float) -> tuple[list[Points], int, int]:
    """Drop short ends and loops until none is left; what remains, and how many of each were dropped."""
    spurs = loops = 0
    while lines:
        _, ends = ends_of(lines)
        lengths = np.array([length(line) for line in lines])
        short_loops = loops_of(ends, lengths, loop)
        short_ends = spurs_of(ends, lengths, spur) - short_loops
        if not short_loops and not short_ends:
            break
        spurs, loops = spurs + len(short_ends), loops + len(short_loops)
        lines = merge([line for i, line in enumerate(lines) if i not in short_loops and i not in short_ends])
    return lines, spurs, loops


def spurs_of(ends: NDArray[np.int64], lengths: NDArray[np.float64], shorter_than: float) -> set[int]:
    """Short lines with a free end. Of those at one node the shortest go first, and the road's last one stays."""
    degrees = np.bincount(ends.ravel())
    found = set()
    for i in np.argsort(lengths, kind="stable"):
        if lengths[i] >= shorter_than:
            break
        there = sorted(degrees[ends[i]])
        if there[0] == 1 and there[1] != 2:
            found.add(int(i))
            degrees[ends[i]] -= 1
    return found


def loops_of(ends: NDArray[np.int64], lengths: NDArray[np.float64], shorter_than: float) -> set[int]:
    """Closed lines that are short, and the longer of two lines that are short together."""
    found = set()
    shortest: dict[tuple[int, int], float] = {}
    for i in np.argsort(lengths, kind="stable"):
        first, last = sorted(ends[i].tolist())
        closed_by = 0.0 if first == last else shortest.setdefault((first, last), np.inf)
        if lengths[i] + closed_by < shorter_than:
            found.add(int(i))
        elif first != last and not np.isfinite(closed_by):
            shortest[first, last] = float(lengths[i])
    return found


def bridge(lines: Sequence[Points], gap: float) -> list[Points]:
    """Straight lines over gaps between free ends, the shortest first; each end is joined once."""
    nodes, ends = ends_of(lines)
    free = np.bincount(ends.ravel(), minlength=len(nodes)) == 1
    tips = [(i, line[0], line[:HEADING][-1]) for i, line in enumerate(lines) if free[ends[i, 0]]]
    tips += [(i, line[-1], line[-HEADING:][0]) for i, line in enumerate(lines) if free[ends[i, 1]]]
    if not tips:
        return []
    at, behind = np.array([tip[1] for tip in tips]), np.array([tip[2] for tip in tips])
    heading = (at - behind) / np.hypot(*(at - behind).T)[:, None]
    pairs = cKDTree(at).query_pairs(IN_LINE * gap, output_type="ndarray")
    over = at[pairs[:, 1]] - at[pairs[:, 0]]
    far = np.hypot(*over.T)
    towards = (over * heading[pairs[:, 0]]).sum(1), -(over * heading[pairs[:, 1]]).sum(1)
    use = (far <= gap) | (np.minimum(*towards) >= POINTING * far)
    joined: set[int] = set()
    bridges = []
    for k in np.argsort(far, kind="stable"):
        i, j = pairs[k].tolist()
        if use[k] and not joined & {i, j} and tips[i][0] != tips[j][0]:
            joined |= {i, j}
            bridges.append(at[[i, j]])
    return bridges
