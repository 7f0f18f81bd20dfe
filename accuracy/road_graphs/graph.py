"""Roads as a graph: from line strings, or from a mask by thinning and tracing. Needs scikit-image, SciPy and shapely.

A node is where roads end or meet. Equal points are one node; lines that cross without a common point do not meet. Lines
that pass through a point of degree 2 are one edge, which keeps its geometry. A ring that meets nothing keeps all its
points as nodes. The SpaceNet 3 challenge reads line strings in this way (https://github.com/CosmiQ/apls).

A mask is thinned to lines one pixel wide (Zhang and Suen, A fast parallel algorithm for thinning digital patterns,
Communications of the ACM 27, 1984). The pixels become points that are joined to their neighbours. Artefacts of thinning
are pruned and counted. Coordinates are pixels from the mask's upper left corner, x to the right and y down; a pixel's
centre is at halves. `placed` converts them to ground coordinates.
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

# In pixels. SpaceNet 3's winner (albu) dropped terminal edges under 10 px, simplified by 2 px and joined gaps up to
# 20 px, or 100 px in line. The limit of loops is ours: a hole about 5 px wide makes a loop of 20 px.
SPUR, LOOP, SIMPLIFY = 10.0, 20.0, 2.0
IN_LINE = 5.0  # a gap may be this many times longer where both ends point at each other
POINTING = np.cos(np.pi / 6)  # within 30 degrees
HEADING = 10  # points at the end of a line that give its direction
MARGIN = 16  # px by which roads are prolonged at the mask's edge, because thinning shortens them by half their width

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
        """The graph of line strings, each (K, 2). Segments drawn twice count once; single points are left out."""
        drawn = [as_points(line) for line in lines]
        points, of = same_points(np.concatenate(drawn) if drawn else np.empty((0, 2)))
        starts = np.cumsum([len(line) for line in drawn])[:-1]
        pairs = [np.stack([i[:-1], i[1:]], axis=1) for i in np.split(of, starts)]
        segments = np.sort(np.concatenate(pairs), axis=1) if pairs else np.empty((0, 2), np.int64)
        segments = np.unique(segments[segments[:, 0] != segments[:, 1]], axis=0)
        return cls.from_edges(merge(list(points[segments])))

    @classmethod
    def from_edges(cls, lines: Sequence[Points]) -> "RoadGraph":
        """The graph of lines that meet only at their ends. Rings that meet nothing are cut at every point."""
        _, ends = ends_of(lines)
        degrees = np.bincount(ends.ravel())
        edges: list[Points] = []
        for line, (first, last) in zip(lines, ends, strict=True):
            isolated_ring = first == last and degrees[first] == 2
            edges += list(np.stack([line[:-1], line[1:]], axis=1)) if isolated_ring else [line]
        return cls(*ends_of(edges), tuple(edges))

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        """The number of edge ends at each node."""
        return np.bincount(self.ends.ravel(), minlength=len(self.nodes))

    @cached_property
    def lengths(self) -> NDArray[np.float64]:
        """The edges' lengths, in the graph's unit."""
        return np.array([length(line) for line in self.lines], np.float64)

    @cached_property
    def shapes(self) -> "NDArray[np.object_]":
        """The edges as shapely line strings."""
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
    """A line as float64 (K, 2); anything else raises BadInput."""
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
    """The distinct points, and each point's index among them."""
    distinct, index = np.unique(points + 0.0, axis=0, return_inverse=True)  # + 0.0 makes -0.0 equal to 0.0
    return distinct, index.reshape(-1)


def ends_of(lines: Sequence[Points]) -> tuple[Points, NDArray[np.int64]]:
    """The nodes (N, 2) at the ends of lines, and the indices of each line's two nodes (E, 2)."""
    ends = np.array([(line[0], line[-1]) for line in lines], np.float64).reshape(-1, 2)
    nodes, index = same_points(ends)
    return nodes, index.reshape(-1, 2)


def merge(lines: Sequence[Points]) -> list[Points]:
    """Join lines wherever exactly two ends meet. Rings stay whole as closed lines."""
    if not lines:
        return []
    parts = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(linestrings(lines))))
    return [shapely.get_coordinates(part) for part in parts]


def linestrings(lines: Sequence[Points]) -> "NDArray[np.object_]":
    """The lines as shapely line strings."""
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
    """The roads of a mask as a graph, and what was changed."""

    graph: RoadGraph
    spurs: int  # how many were dropped
    loops: int  # how many were dropped
    bridged: int  # how many gaps were joined


def from_mask(
    mask: NDArray[np.bool_], *, spur: float = SPUR, loop: float = LOOP, simplify: float = SIMPLIFY, gap: float = 0.0
) -> Traced:
    """Trace the roads of a mask (H, W). The graph and all lengths are in pixels.

    Free ends shorter than `spur` are dropped, and so are loops shorter than `loop`: closed lines, and the longer of two
    lines between the same nodes. Lines are simplified by up to `simplify`. Free ends up to `gap` apart are joined, or
    up to five times that where they point at each other.
    """
    check_mask(mask)
    lines, spurs, loops = prune(trace(thin(mask)), spur, loop)
    bridges = bridge(lines, gap) if gap > 0 else []
    lines = merge([*lines, *bridges])
    simple = shapely.simplify(linestrings(lines), simplify, preserve_topology=False)
    return Traced(RoadGraph.from_lines([shapely.get_coordinates(line) for line in simple]), spurs, loops, len(bridges))


def check_mask(mask: NDArray[np.bool_]) -> None:
    """Raise BadInput unless the mask is bool (H, W); the message says how to convert it."""
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
    """Lines one pixel wide, bool (H, W), as polylines through the pixels' centres that meet only at their ends.

    Pixels that touch at a corner are joined only if they have no common neighbour. Otherwise every bend would become a
    triangle.
    """
    a, b, c, d = lines[:-1, :-1], lines[:-1, 1:], lines[1:, :-1], lines[1:, 1:]
    steps = (  # where the steps begin, offset of the first pixel, rows and columns of the step
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
    """Drop short ends and loops until none is left. Returns the rest, and how many of each were dropped."""
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
    """Indices of short lines with a free end. At one node the shortest go first, and the road's last line stays."""
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
    """Indices of short closed lines, and of the longer of two lines between the same nodes that are short together."""
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
    """Straight lines across gaps between free ends, the shortest first. Each end is joined at most once."""
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
