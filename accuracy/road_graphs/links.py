"""Connectivity: in how many pieces the roads are, and where a mask breaks or bridges what it should not. Needs OpenCV.

Both are counted along the lines of one mask, in the other's road that lies within 4 m of them (APLS's snap distance):

A link of the truth is broken where the truth has one line on whose course the candidate's road falls into pieces that
do not touch: one broken link for every two pieces that follow one another along the line. The same is looked for around
each node, in the first 50 m of the lines that meet there. Road missing at the end of a line breaks nothing: that is for
recall to tell.

A link is bridged where the candidate has a line on whose course it is the truth's road that falls into pieces.

Only what lies beside the line can join the pieces, so a way around the block does not. That differs from path measures
such as APLS, which see the way around; it is what Heipke et al. count as gaps per kilometre (Evaluation of Automatic
Road Extraction, IAPRS 32-3-4W2, 1997), told apart from roads that are missing altogether.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from dlink.accuracy.pixels import Mask, check_pair, distance_to
from dlink.accuracy.road_graphs.graph import Points, RoadGraph, Traced, from_mask

WITHIN_M = 4.0  # of a line: there the other's road can be this one, and can join its pieces
ARM_M = 50.0  # of a line that leaves a node: APLS's node spacing


@dataclass(frozen=True)
class Links:
    """How a candidate's roads hang together, beside the truth's."""

    components: int  # pieces of the candidate that do not touch, not even by a corner
    broken: int
    bridged: int
    km: float  # of road in the truth
    truth_components: int = 0

    def __add__(self, other: "Links") -> "Links":
        return Links(
            self.components + other.components,
            self.broken + other.broken,
            self.bridged + other.bridged,
            self.km + other.km,
            self.truth_components + other.truth_components,
        )

    @property
    def broken_per_km(self) -> float | None:
        """None without road in the truth."""
        return self.broken / self.km if self.km else None

    @property
    def bridged_per_km(self) -> float | None:
        return self.bridged / self.km if self.km else None


def links(candidate: Mask, truth: Mask, gsd_m: float) -> Links:
    """How the candidate's roads hang together, bool (H, W) each."""
    check_pair(candidate, truth)
    return links_of(candidate, truth, (from_mask(candidate), from_mask(truth)), gsd_m)


def links_of(candidate: Mask, truth: Mask, traced: tuple[Traced, Traced], gsd_m: float) -> Links:
    """The same, where both have been traced already."""
    lines, true_lines = (t.graph for t in traced)
    return Links(
        components=components(candidate),
        broken=breaks(candidate, true_lines, gsd_m),
        bridged=breaks(truth, lines, gsd_m),
        km=float(true_lines.lengths.sum()) * gsd_m / 1000,
        truth_components=components(truth),
    )


def components(road: Mask) -> int:
    """Pieces that do not touch, not even by a corner."""
    return cv2.connectedComponents(road.view(np.uint8), connectivity=8)[0] - 1


def breaks(road: Mask, graph: RoadGraph, gsd_m: float) -> int:
    """How often the road (H, W) is interrupted along a graph's lines, in pixels, and around its nodes."""
    if not road.any():
        return 0
    beside = Beside(road, WITHIN_M / gsd_m)
    along = sum(beside.breaks_along(line) for line in graph.lines)
    return along + sum(beside.breaks_around(arms) for arms in arms_of(graph, ARM_M / gsd_m))


class Beside:
    """The road beside lines."""

    def __init__(self, road: Mask, within: float) -> None:
        self.road, self.within = road, within
        self.far = distance_to(road)

    def breaks_along(self, line: Points) -> int:
        """The pieces that follow one another along a line, less one; one beside the course of another is none more."""
        pieces = self.pieces([line])[0]
        seen = np.flatnonzero(pieces)
        last = {int(p): int(i) for i, p in zip(seen, pieces[seen], strict=True)}
        count, reached = 0, -1
        for piece in dict.fromkeys(pieces[seen].tolist()):
            if last[piece] > reached:
                count, reached = count + 1, last[piece]
        return max(count - 1, 0)

    def breaks_around(self, arms: Sequence[Points]) -> int:
        """The pieces that lie nearest to a node along its arms, which begin there, less one."""
        nearest = {int(pieces[pieces > 0][0]) for pieces in self.pieces(arms) if pieces.any()}
        return max(len(nearest) - 1, 0)

    def pieces(self, lines: Sequence[Points]) -> list[NDArray[np.int64]]:
        """Which piece of the road beside these lines is nearest at each pixel's length along them; 0 where none is."""
        points = np.concatenate(lines)
        lo = np.maximum(np.floor(points.min(0) - self.within - 1).astype(int), 0)
        hi = np.ceil(points.max(0) + self.within + 1).astype(int)
        window = slice(lo[1], hi[1]), slice(lo[0], hi[0])
        road = self.road[window]
        near = self.near(lines, lo, road.shape) & road
        _, numbers = cv2.connectedComponents(near.view(np.uint8), connectivity=8)
        if not near.any():
            return [np.zeros(1, np.int64) for _ in lines]
        _, zone = cv2.distanceTransformWithLabels(
            (~near).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        piece_of_zone = np.zeros(int(zone.max()) + 1, np.int64)
        piece_of_zone[zone[near]] = numbers[near]
        found = []
        for line in lines:
            at = np.floor(samples(line) - lo).astype(int)
            x, y = np.clip(at, 0, np.array(road.shape)[::-1] - 1).T
            reached = self.far[window][y, x] <= self.within
            found.append(np.where(reached, piece_of_zone[zone[y, x]], 0))
        return found

    def near(self, lines: Sequence[Points], lo: NDArray[np.int64], shape: tuple[int, ...]) -> Mask:
        """What lies within the distance of lines, in a window that begins at `lo`."""
        free = np.ones(shape, np.uint8)
        for line in lines:
            cv2.polylines(free, [np.floor(line - lo).astype(np.int32)], isClosed=False, color=0)
        return cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= self.within


def samples(line: Points) -> Points:
    """Points along a line, about a pixel apart."""
    shape = shapely.linestrings(line)
    along = np.linspace(0, 1, int(shape.length) + 2)
    points: Points = shapely.get_coordinates(shapely.line_interpolate_point(shape, along, normalized=True))
    return points


def arms_of(graph: RoadGraph, reach: float) -> Iterator[list[Points]]:
    """The lines that leave each node where several meet, cut off at some length."""
    arms: dict[int, list[Points]] = {}
    for (first, last), line in zip(graph.ends.tolist(), graph.lines, strict=True):
        arms.setdefault(first, []).append(head(line, reach))
        arms.setdefault(last, []).append(head(line[::-1], reach))
    return (lines for lines in arms.values() if len(lines) > 1)


def head(line: Points, reach: float) -> Points:
    """The beginning of a line."""
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(line, axis=0).T))]
    if along[-1] <= reach:
        return line
    shape = shapely.linestrings(line)
    end = shapely.get_coordinates(shapely.line_interpolate_point(shape, reach))
    return np.concatenate([line[along < reach], end])
