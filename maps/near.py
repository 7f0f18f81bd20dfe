"""Distances on the ground between roads and the lines of a map: a frame in metres, segments, and walks along lines.

The frame is a transverse Mercator projection around the roads' middle, where a metre is one within 0.1 % up to 280 km
east and west. Metres are only compared with distances of some metres there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform

from dlink.imagery.resolution import WGS84
from dlink.maps.extract import BELOW, PATH, ROAD, Box, Way, eastward

METRES_A_DEGREE = 110_000.0  # of latitude, at least
STEP = 2.0  # metres of a piece of a walk, at most
AROUND = 6.0  # metres before and behind a place of a line that give its direction there
ALONG = np.cos(np.radians(30))  # lines whose directions differ by less run along each other
AT_ONCE = 100_000  # places that are compared with segments at once

Points = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """Metres east and north of a place."""

    lon: float
    lat: float

    @staticmethod
    def around(degrees: Points) -> "Frame":
        """That of the middle of some points (K, 2), also across the antimeridian."""
        east = eastward(degrees[:, 0], degrees[0, 0])
        lon = float(degrees[0, 0] + (east.min() + east.max()) / 2)
        return Frame((lon + 180) % 360 - 180, float(degrees[:, 1].min() + degrees[:, 1].max()) / 2)

    @cached_property
    def crs(self) -> Any:
        return CRS.from_proj4(f"+proj=tmerc +lat_0={self.lat!r} +lon_0={self.lon!r} +ellps=WGS84 +units=m")

    def metres(self, degrees: Points) -> Points:
        if not len(degrees):
            return np.empty((0, 2))
        return np.column_stack(transform(WGS84, self.crs, degrees[:, 0], degrees[:, 1]))

    def places(self, metres: Points, crs: Any) -> Points:
        """In another system."""
        if not len(metres):
            return np.empty((0, 2))
        return np.column_stack(transform(self.crs, crs, metres[:, 0], metres[:, 1]))

    def box(self, degrees: Points, margin: float) -> Box:
        """Around points, with so many metres more."""
        east = eastward(degrees[:, 0], self.lon)
        north = degrees[:, 1] - self.lat
        up = margin / METRES_A_DEGREE
        across = up / max(0.01, float(np.cos(np.radians(np.abs(degrees[:, 1]).max()))))
        return Box(self.lon, self.lat, east.min() - across, north.min() - up, east.max() + across, north.max() + up)


@dataclass(frozen=True)
class Segments:
    """The straight parts of a map's ways, in metres."""

    ways: Sequence[Way]
    a: Points  # (S, 2)
    b: Points  # (S, 2)
    way: Whole  # (S,) index in `ways`
    place: Whole  # (S,) index of a's node in its way

    @staticmethod
    def of(ways: Sequence[Way], frame: Frame) -> "Segments":
        sizes = [len(way.line) for way in ways]
        points = np.concatenate([way.line for way in ways]) if ways else np.empty((0, 2))
        there = ~np.isnan(points[:, 0])
        metres = np.full(points.shape, np.nan)
        metres[there] = frame.metres(points[there])
        way = np.repeat(np.arange(len(ways)), sizes)
        place = np.concatenate([np.arange(size) for size in sizes]) if ways else np.empty(0, np.int64)
        first = np.flatnonzero((way[1:] == way[:-1]) & there[1:] & there[:-1])
        return Segments(ways, metres[first], metres[first + 1], way[first], place[first])

    def which(self, wanted: Callable[[Way], bool]) -> Flags:
        """Those of some ways (S,). They all stay in one tree, because a tree is most of the memory."""
        return np.array([wanted(way) for way in self.ways], np.bool_)[self.way]

    @cached_property
    def roads(self) -> Flags:
        """Those that a picture may show and a road may join."""
        return self.which(lambda way: way.kind == ROAD and way.level != BELOW)

    @cached_property
    def paths(self) -> Flags:
        """Those that a picture may show as a road, and no road joins."""
        return self.which(lambda way: way.kind == PATH and way.level != BELOW)

    @cached_property
    def directions(self) -> Points:
        to = self.b - self.a
        size = np.hypot(*to.T)[:, None]
        found: Points = np.divide(to, size, out=np.zeros_like(to), where=size > 0)
        return found

    @cached_property
    def tree(self) -> Any:
        return shapely.STRtree(shapely.linestrings(np.stack([self.a, self.b], axis=1)))

    def pairs(self, points: Points, reach: NDArray[np.float64], wanted: Flags) -> "Iterator[Pairs]":
        """Points (P, 2) and the `wanted` segments (S,) within `reach` (P,) of them, some at once."""
        for start in range(0, len(points), AT_ONCE) if len(self.a) else ():
            some = slice(start, start + AT_ONCE)
            i, j = self.tree.query(shapely.points(points[some]), predicate="dwithin", distance=reach[some])
            i, j = i[wanted[j]], j[wanted[j]]
            point, a, to = points[some][i], self.a[j], self.b[j] - self.a[j]
            square = (to * to).sum(axis=1)
            t = np.divide(((point - a) * to).sum(axis=1), square, out=np.zeros(len(i)), where=square > 0).clip(0, 1)
            foot = a + t[:, None] * to
            yield Pairs(i + start, j, np.hypot(*(point - foot).T), t, foot)


@dataclass(frozen=True)
class Pairs:
    """Points that are near segments."""

    point: Whole
    segment: Whole
    distance: NDArray[np.float64]  # metres
    along: NDArray[np.float64]  # where on the segment: 0 at a, 1 at b
    foot: Points  # the segment's nearest place


@dataclass(frozen=True)
class Walk:
    """Lines cut into pieces of at most STEP, each within one straight part of its line."""

    line: Whole  # (P,) of each piece
    start: NDArray[np.float64]  # (P,) metres from the line's begin
    length: NDArray[np.float64]  # (P,)
    middle: Points  # (P, 2)
    direction: Points  # (P, 2) of length 1

    @staticmethod
    def along(lines: Sequence[Points]) -> "Walk":
        """Lines (K, 2) in metres."""
        parts = [pieces_of(line) for line in lines]
        of = np.repeat(np.arange(len(lines)), [len(start) for start, _, _, _ in parts])
        empty = [(np.empty(0), np.empty(0), np.empty((0, 2)), np.empty((0, 2)))]
        start, length, middle, direction = (np.concatenate(all) for all in zip(*(parts or empty), strict=True))
        return Walk(of, start, length, middle, direction)

    def beside(self, segments: Segments, wanted: Flags, within: NDArray[np.float64]) -> Whole:
        """Of each piece the nearest `wanted` segment along which it runs, all of it `within` metres (P,); -1: none."""
        nearest = np.full(len(self.line), -1)
        for near in segments.pairs(self.middle, within, wanted):
            along = np.abs((self.direction[near.point] * segments.directions[near.segment]).sum(axis=1)) >= ALONG
            fits = along & (near.distance + self.length[near.point] / 2 <= within[near.point])
            # The nearest comes first, of equally near ones the first of the map.
            order = np.lexsort((near.segment[fits], near.distance[fits], near.point[fits]))
            point, first = np.unique(near.point[fits][order], return_index=True)
            nearest[point] = near.segment[fits][order][first]
        return nearest


def distances(line: Points) -> NDArray[np.float64]:
    """Of each vertex from the line's begin."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])


def places_on(line: Points, done: NDArray[np.float64], where: NDArray[np.float64]) -> Points:
    """Places so far along a line, whose `distances` are `done`."""
    x, y = (np.interp(where, done, line[:, k]) for k in (0, 1))
    return np.stack([x, y], axis=1)


def pieces_of(line: Points) -> tuple[NDArray[np.float64], NDArray[np.float64], Points, Points]:
    """Begin, length, middle and direction of each piece of a line."""
    done = distances(line)
    sizes = np.diff(done)
    counts = np.maximum(1, np.ceil(sizes / STEP)).astype(np.int64) * (sizes > 0)
    of = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    length = sizes[of] / counts[of]
    start = done[of] + number * length
    middle = start + length / 2
    ahead = places_on(line, done, middle + AROUND) - places_on(line, done, middle - AROUND)
    size = np.hypot(*ahead.T)[:, None]
    direction = np.divide(ahead, size, out=np.zeros_like(ahead), where=size > 0)
    return start, length, places_on(line, done, middle), direction
