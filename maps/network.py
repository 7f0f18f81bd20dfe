"""Lines one pixel wide become roads that a mapper keeps. Lengths are metres on the ground.

In this order, all on the lines of the whole mask:

1. Spurs go: free ends that leave the road's own width by less than that width, or by less than STUB. Loops too small to
   be a roundabout go too.
2. Pieces that touch no other and are shorter than `min_length` go.
3. Junctions nearer than GATHER or than the road is wide become one node. Only so: a roundabout keeps its ring.
4. Within a road's half width from a node, thinning bends lines. These points go, and the node is put where the lines
   that come to it meet.
5. Lines are smoothed between their nodes, which do not move, and simplified (Douglas and Peucker).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dlink.maps.blocks import Metres, nodes_of
from dlink.maps.chains import Ends, along, chained

STUB = 6.0  # metres
LOOP = 40.0  # metres around; a roundabout's middle line is longer
GATHER = 12.0  # metres
SMOOTH = 3.0  # metres, sigma of the weights along a line
AHEAD = 12.0  # metres of a line that give its direction at a node
TRIMMED = 0.4  # of a line's length, which may be replaced at each of its ends
FORK = 3  # ends at a junction
ANCHORED = 0.05  # weight of a node's first place against a line that comes to it

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Net:
    """Lines between nodes, in metres from the mask's upper left corner, x to the right and y down."""

    at: Points  # (N, 2) the nodes
    half: NDArray[np.float64]  # (N,) half the road's width at a node
    border: NDArray[np.bool_]  # (N,) whether a node lies on the mask's edge
    ends: Ends  # (L, 2)
    lines: list[Points]  # (K, 4): x, y, half the road's width, probability

    @property
    def degrees(self) -> NDArray[np.int64]:
        return np.bincount(self.ends.reshape(-1), minlength=len(self.at))

    @property
    def lengths(self) -> NDArray[np.float64]:
        return np.array([length(line) for line in self.lines], np.float64)

    def only(self, kept: NDArray[np.bool_]) -> "Net":
        """Without some lines; where two ends are left they are joined."""
        return replace(
            self, ends=self.ends[kept], lines=[a for a, k in zip(self.lines, kept, strict=True) if k]
        ).merged()

    def merged(self) -> "Net":
        """Lines joined wherever exactly two ends meet."""
        through = self.degrees == 2
        if not through[self.ends].any():
            return self
        lines, ends = [], []
        flat = self.ends.reshape(-1)
        for path in chained(self.ends, through):
            lines.append(along(path, self.lines))
            ends.append((flat[path[0]], flat[path[-1] ^ 1]))
        return replace(self, ends=np.array(ends, np.int64).reshape(-1, 2), lines=lines)


def length(line: Points) -> float:
    steps = line[1:, :2] - line[:-1, :2]
    return float(np.sqrt((steps * steps).sum(1)).sum())


def net_of(chains: "Sequence[NDArray[np.float32]]", shape: tuple[int, int], metres: Metres) -> Net:
    """Lines of pixels as a net."""
    pixels, ends = nodes_of(chains)
    scale = np.array([metres[1], metres[0], 1, 1])
    shift = np.array([0.5, 0.5, 0, 0])
    lines = [(chain.astype(np.float64) + shift) * scale for chain in chains]
    half = np.zeros(len(pixels))
    for (first, last), line in zip(ends.tolist(), lines, strict=True):
        half[first], half[last] = line[0, 2], line[-1, 2]
    edge = (pixels == 0) | (pixels == np.array([shape[1] - 1, shape[0] - 1]))
    return Net((pixels + 0.5) * scale[:2], half, edge.any(axis=1), ends, lines)


def pruned(net: Net) -> Net:
    """Without spurs and small loops, in as many rounds as it takes."""
    while net.lines:
        lengths = net.lengths
        gone = loops_of(net, lengths)
        gone |= spurs_of(net, lengths, gone)
        if not gone.any():
            break
        net = net.only(~gone)
    return net


def spurs_of(net: Net, lengths: NDArray[np.float64], gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lines with one free end that are too short. At a node the shortest goes first, and its last two lines stay."""
    degrees = np.bincount(net.ends[~gone].reshape(-1), minlength=len(net.at))
    free = degrees[net.ends] == 1
    root = net.ends[np.arange(len(net.ends)), free[:, 0].astype(int)]
    half = net.half[root]
    goes_on = (free & net.border[net.ends]).any(axis=1)  # a road that the mask's edge cuts
    short = ~gone & free.any(axis=1) & (lengths < half + np.where(goes_on, 0, np.maximum(half, STUB)))
    found = np.zeros(len(lengths), np.bool_)
    for i in np.flatnonzero(short)[np.argsort(lengths[short], kind="stable")].tolist():
        if degrees[root[i]] >= FORK:
            found[i] = True
            degrees[root[i]] -= 1
    return found


def loops_of(net: Net, lengths: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Closed lines shorter than LOOP, and the longer of two lines between the same nodes that are shorter together."""
    found = np.zeros(len(lengths), np.bool_)
    shortest: dict[tuple[int, int], float] = {}
    for i in np.argsort(lengths, kind="stable").tolist():
        pair = (int(net.ends[i].min()), int(net.ends[i].max()))
        own = float(lengths[i])
        if pair[0] == pair[1]:
            found[i] = own < LOOP
        elif pair in shortest:
            found[i] = own + shortest[pair] < LOOP
        else:
            shortest[pair] = own
    return found


def without_pieces(net: Net, shorter_than: float) -> Net:
    """Without pieces that touch no other and are short in all."""
    if not net.lines:
        return net
    ones = np.ones(len(net.ends), np.int8)
    _, piece = connected_components(coo_array((ones, net.ends.T), shape=(len(net.at),) * 2), directed=False)
    of_line = piece[net.ends[:, 0]]
    total = np.bincount(of_line, weights=net.lengths)
    return net.only(total[of_line] >= shorter_than)


def gathered(net: Net) -> Net:
    """Junctions that are nearer to each other than GATHER, or than the road is wide there, as one.

    The nearest are joined first, and all that become one must be so near to each other.
    """
    lengths, fork = net.lengths, net.degrees >= FORK
    limit = np.maximum(GATHER, net.half[net.ends].sum(axis=1)) if len(net.ends) else np.empty(0)
    between = fork[net.ends].all(axis=1) & (net.ends[:, 0] != net.ends[:, 1]) & (lengths < limit)
    into = np.arange(len(net.at))
    members = {int(node): [int(node)] for node in np.unique(net.ends[between])}
    for i in np.flatnonzero(between)[np.argsort(lengths[between], kind="stable")].tolist():
        one, other = sorted(into[net.ends[i]].tolist())
        if one == other:
            continue
        both = members[one] + members[other]
        if np.hypot(*np.ptp(net.at[both], axis=0)) < limit[i]:
            members[one] = both
            into[members.pop(other)] = one
    if not between.any():
        return net
    at, half = net.at.copy(), net.half.copy()
    for node, those in members.items():
        at[node] = net.at[those].mean(axis=0)
        half[node] = net.half[those].max() + np.hypot(*np.ptp(net.at[those], axis=0)) / 2
    ends = into[net.ends]
    inner = (ends[:, 0] == ends[:, 1]) & (net.ends[:, 0] != net.ends[:, 1]) & (lengths < LOOP)
    return replace(net, at=at, half=half, ends=ends).only(~inner)


def straightened(net: Net) -> Net:
    """Lines that come to their junctions straight, and junctions where they meet."""
    fork = net.degrees >= FORK
    cut = [
        trimmed(line, net.at[ends], np.where(fork[ends], net.half[ends], 0.0))
        for line, ends in zip(net.lines, net.ends, strict=True)
    ]
    at = net.at.copy()
    for line, ends, forks in zip(cut, net.ends.tolist(), fork[net.ends].tolist(), strict=True):
        for node, is_fork, k in zip(ends, forks, (0, -1), strict=True):
            at[node] = at[node] if is_fork else line[k, :2]
    arriving: dict[int, list[tuple[Points, Points]]] = {}
    for line, (first, last) in zip(cut, net.ends.tolist(), strict=True):
        for node, way in ((first, line), (last, line[::-1])):
            if fork[node] and len(way) > 1:
                arriving.setdefault(node, []).append((way[0, :2], ahead(way)))
    for node, ways in arriving.items():
        at[node] = meeting(net.at[node], ways, float(net.half[node]))
    lines = []
    for line, (first, last) in zip(cut, net.ends.tolist(), strict=True):
        begin, end = (np.r_[at[node], line[k, 2:]] for node, k in ((first, 0), (last, -1)))
        keep = line[(line[:, :2] != begin[:2]).any(axis=1) & (line[:, :2] != end[:2]).any(axis=1)]
        lines.append(np.vstack([begin, keep, end]))
    return replace(net, at=at, lines=lines)


def trimmed(line: Points, places: Points, radii: NDArray[np.float64]) -> Points:
    """A line without its points within `radii` of its two nodes; at least its middle is left."""
    steps = np.hypot(*np.diff(line[:, :2], axis=0).T)
    done = np.concatenate([[0], np.cumsum(steps)])
    start, stop = 0, len(line)
    if radii[0]:
        outside = np.hypot(*(line[:, :2] - places[0]).T) >= radii[0]
        start = int(np.argmax(outside | (done >= TRIMMED * done[-1])))
    if radii[1]:
        outside = np.hypot(*(line[:, :2] - places[1]).T) >= radii[1]
        stop -= int(np.argmax((outside | (done <= (1 - TRIMMED) * done[-1]))[::-1]))
    return line[start : max(stop, start + 1)]


def ahead(way: Points) -> Points:
    """The direction of a line from its first point on, of length 1."""
    far = np.hypot(*(way[:, :2] - way[0, :2]).T)
    to = way[int(np.argmax(far >= AHEAD)) if far.max() >= AHEAD else -1, :2] - way[0, :2]
    size = float(np.hypot(*to))
    return to / size if size else np.array([0.0, 0.0])


def meeting(place: Points, ways: list[tuple[Points, Points]], reach: float) -> Points:
    """The point nearest to all lines (each a point and a direction) by least squares; not farther off than `reach`."""
    a, b = ANCHORED * np.eye(2), ANCHORED * place
    for point, (x, y) in ways:
        across = np.array([[y * y, -x * y], [-x * y, x * x]])
        a, b = a + across, b + across @ point
    move = np.linalg.solve(a, b) - place
    size = float(np.hypot(*move))
    return place + move * min(1.0, reach / size if size else 1.0)


def smoothed(line: Points, spacing: float) -> Points:
    """A line (K, 2) as a smooth one with points `spacing` apart and the same ends."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    done = np.concatenate([[0], np.cumsum(steps)])
    count = max(2, round(done[-1] / spacing) + 1)
    where = np.linspace(0, done[-1], count)
    even = np.stack([np.interp(where, done, line[:, k]) for k in (0, 1)], axis=1)
    sigma = min(SMOOTH / spacing, count / 4)
    # A straight line stays as it is; what is left beside it is 0 at both ends, and is continued by its own negative.
    straight = even[0] + (even[-1] - even[0]) * np.linspace(0, 1, count)[:, None]
    beside = (even - straight)[1:-1]
    if len(beside):
        zero = np.zeros((1, 2))
        wave = np.concatenate([zero, beside, zero, -beside[::-1]])
        beside = gaussian_filter1d(wave, sigma, axis=0, mode="wrap")[1:-1][: len(beside)]
    return np.concatenate([even[:1], straight[1:-1] + beside, even[-1:]])


def smoothed_ring(ring: Points, spacing: float) -> Points:
    """A ring without a junction as a smooth one."""
    done = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    count = max(4, round(done[-1] / spacing))
    where = np.arange(count) * done[-1] / count
    even = np.stack([np.interp(where, done, ring[:, k]) for k in (0, 1)], axis=1)
    even = gaussian_filter1d(even, min(SMOOTH / spacing, count / 8), axis=0, mode="wrap")
    return np.concatenate([even, even[:1]])


def simplified(lines: list[Points], by: float) -> list[Points]:
    """Lines with fewer points, nowhere farther off than `by`. A ring keeps at least three sides."""
    if not lines:
        return []
    sizes = [len(line) for line in lines]
    made = shapely.linestrings(np.concatenate(lines), indices=np.repeat(np.arange(len(lines)), sizes))
    simple = [shapely.get_coordinates(line) for line in shapely.simplify(made, by, preserve_topology=False)]
    return [
        whole if (whole[0] == whole[-1]).all() and len(short) < 4 else short
        for whole, short in zip(lines, simple, strict=True)
    ]
