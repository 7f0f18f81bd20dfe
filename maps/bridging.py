"""Joins free ends of lines to what lies ahead of them: another free end, or the side of a road.

A gap is measured from the end to the edge of the other road. The nearest are joined first, and an end only once. A
bridge stays a line of its own, so that a mapper can look at it.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import shapely

from dlink.maps.network import Net, Points, ahead

TOWARDS = np.cos(np.pi / 4)  # what is within 45 degrees of an end's direction lies ahead


@dataclass(frozen=True, order=True)
class Gap:
    """A way from a free end to a point of a line."""

    far: float  # metres between the middle lines
    node: int  # the free end
    line: int
    point: int


def bridged(net: Net, gap: float) -> Net:
    """The net with bridges over gaps up to so many metres. They are the lines at the end."""
    degrees = net.degrees
    joined: set[int] = set()  # free ends
    bridges: list[tuple[int, int, int]] = []  # node, line, point
    for found in gaps(net, gap):
        ends = {0: net.ends[found.line, 0], len(net.lines[found.line]) - 1: net.ends[found.line, 1]}
        both = {found.node} | {int(node) for point, node in ends.items() if point == found.point and degrees[node] == 1}
        if not joined & both:
            joined |= both
            bridges.append((found.node, found.line, found.point))
    return with_bridges(net, bridges)


def gaps(net: Net, gap: float) -> list[Gap]:
    """The nearest way ahead of every free end, the shortest first."""
    if not net.lines:
        return []
    tree = shapely.STRtree([shapely.LineString(line[:, :2]) for line in net.lines])
    widest = max(float(line[:, 2].max()) for line in net.lines)
    free = (net.degrees == 1) & ~net.border
    found = []
    for i, (line, ends) in enumerate(zip(net.lines, net.ends.tolist(), strict=True)):
        for node, way in zip(ends, (line, line[::-1]), strict=True):
            if free[node]:
                near = tree.query(shapely.Point(way[0, :2]), predicate="dwithin", distance=gap + widest)
                ways = [nearest(net, node, way, int(j), gap) for j in near if j != i]
                found += sorted(each for each in ways if each is not None)[:1]
    return sorted(found)


def nearest(net: Net, node: int, way: Points, line: int, gap: float) -> Gap | None:
    """The way from the beginning of a line to the nearest point of another that lies ahead."""
    to = net.lines[line][:, :2] - way[0, :2]
    far = np.hypot(*to.T)
    fits = (far > 0) & (far - net.lines[line][:, 2] <= gap) & (to @ -ahead(way) >= TOWARDS * far)
    if not fits.any():
        return None
    point = int(np.argmin(np.where(fits, far, np.inf)))
    return Gap(float(far[point]), node, line, point)


def with_bridges(net: Net, bridges: list[tuple[int, int, int]]) -> Net:
    """The net with lines cut where a bridge arrives, and with the bridges."""
    cuts: dict[tuple[int, int], int] = {}  # line and point: the node there
    for i, (whole, (first, last)) in enumerate(zip(net.lines, net.ends.tolist(), strict=True)):
        cuts[i, 0], cuts[i, len(whole) - 1] = first, last
    at, half = [*net.at], [*net.half]
    for _, line, point in bridges:
        if (line, point) not in cuts:
            cuts[line, point] = len(at)
            at.append(net.lines[line][point, :2])
            half.append(net.lines[line][point, 2])
    lines, ends = [], []
    for (line, start), (same, stop) in pairwise(sorted(cuts)):
        if line == same:
            lines.append(net.lines[line][start : stop + 1])
            ends.append((cuts[line, start], cuts[line, stop]))
    for node, line, point in bridges:
        other = net.lines[line][point]
        begin = np.r_[at[node], half[node], np.nan]
        lines.append(np.vstack([begin, np.r_[at[cuts[line, point]], other[2], np.nan]]))
        ends.append((node, cuts[line, point]))
    border = np.concatenate([net.border, np.zeros(len(at) - len(net.at), np.bool_)])
    return replace(
        net, at=np.array(at).reshape(-1, 2), half=np.array(half), border=border,
        ends=np.array(ends, np.int64).reshape(-1, 2), lines=lines,
    )  # fmt: skip
