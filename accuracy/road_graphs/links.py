"""Connectivity: counts the pieces of roads, and the links that a mask breaks or bridges. Needs OpenCV.

Links are counted along the lines of one mask, in the other mask's road within 4 m of the line (APLS's snap distance).

Broken: along one line of the truth the candidate's road falls into pieces that do not touch. Every two consecutive
pieces are one broken link. The same is counted around each node, in the first 50 m of the lines that meet there. Road
that is missing at the end of a line breaks nothing; recall measures that.

Bridged: along one line of the candidate it is the truth's road that falls into pieces.

Only road beside the line can join the pieces; a way around the block cannot. Path measures such as APLS do count the
way around. Heipke et al. count the same as gaps per kilometre, apart from roads that are missing altogether (Evaluation
of Automatic Road Extraction, IAPRS 32-3-4W2, 1997).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from dlink.accuracy.pixels import Mask, check_pair, distance_to
from dlink.accuracy.road_graphs.graph import Points, RoadGraph, Traced, from_mask

WITHIN_M = 4.0  # distance from a line up to which the other mask's road counts
ARM_M = 50.0  # length of the lines looked at around a node: APLS's node spacing


@dataclass(frozen=True)
class Links:
    """The connectivity of a candidate's roads compared with the truth's."""

    components: int  # pieces of the candidate that do not touch, not even at a corner
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
        """Broken links a km; None without road in the truth."""
        return self.broken / self.km if self.km else None

    @property
    def bridged_per_km(self) -> float | None:
        return self.bridged / self.km if self.km else None


def links(candidate: Mask, truth: Mask, gsd_m: float) -> Links:
    """Compare the connectivity of two masks, bool (H, W) each."""
    check_pair(candidate, truth)
    return links_of(candidate, truth, (from_mask(candidate), from_mask(truth)), gsd_m)


def links_of(candidate: Mask, truth: Mask, traced: tuple[Traced, Traced], gsd_m: float) -> Links:
    """Like `links`, for masks that have been traced."""
    lines, true_lines = (t.graph for t in traced)
    return Links(
        components=components(candidate),
        broken=breaks(candidate, true_lines, gsd_m),
        bridged=breaks(truth, lines, gsd_m),
        km=float(true_lines.lengths.sum()) * gsd_m / 1000,
        truth_components=components(truth),
    )


def components(road: Mask) -> int:
    """The number of pieces that do not touch, not even at a corner."""
    return cv2.connectedComponents(road.view(np.uint8), connectivity=8)[0] - 1


def breaks(road: Mask, graph: RoadGraph, gsd_m: float) -> int:
    """How often the road (H, W) is interrupted along a graph's lines and around its nodes. The graph is in pixels."""
    if not road.any():
        return 0
    beside = Beside(road, WITHIN_M / gsd_m)
    along = sum(beside.breaks_along(line) for line in graph.lines)
    return along + sum(beside.breaks_around(arms) for arms in arms_of(graph, ARM_M / gsd_m))


class Beside:
    """The road within a distance of lines."""

    def __init__(self, road: Mask, within: float) -> None:
        self.road, self.within = road, within
        self.far = distance_to(road)

    def breaks_along(self, line: Points) -> int:
        """The number of consecutive pieces along a line, minus one. A piece beside a longer one is not counted."""
        pieces = self.pieces([line])[0]
        seen = np.flatnonzero(pieces)
        last = {int(p): int(i) for i, p in zip(seen, pieces[seen], strict=True)}
        count, reached = 0, -1
        for piece in dict.fromkeys(pieces[seen].tolist()):
            if last[piece] > reached:
                count, reached = count + 1, last[piece]
        return max(count - 1, 0)

    def breaks_around(self, arms: Sequence[Points]) -> int:
        """The number of different pieces nearest to a node along its arms, minus one. The arms begin at the node."""
        nearest = {int(pieces[pieces > 0][0]) for pieces in self.pieces(arms) if pieces.any()}
        return max(len(nearest) - 1, 0)

    def pieces(self, lines: Sequence[Points]) -> list[NDArray[np.int64]]:
        """For each line, the number of the nearest piece of road at each pixel along it; 0: none is near."""
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
        """The pixels within the distance of the lines, in a window that begins at `lo`."""
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
    """For each node where several lines meet, the beginnings of those lines, up to `reach`."""
    arms: dict[int, list[Points]] = {}
    for (first, last), line in zip(graph.ends.tolist(), graph.lines, strict=True):
        arms.setdefault(first, []).append(head(line, reach))
        arms.setdefault(last, []).append(head(line[::-1], reach))
    return (lines for lines in arms.values() if len(lines) > 1)


def head(line: Points, reach: float) -> Points:
    """The first `reach` of a line."""
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(line, axis=0).T))]
    if along[-1] <= reach:
        return line
    shape = shapely.linestrings(line)
    end = shapely.get_coordinates(shapely.line_interpolate_point(shape, reach))
    return np.concatenate([line[along < reach], end])
