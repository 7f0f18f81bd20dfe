"""Outlines along pixels become simple polygons: valid each, and none over another. Needs shapely.

Each outline is tried in a few ways, from the simplest shape to the outline itself. Where two polygons came to lie over
each other, or one is not valid, these take the next way, until none does. The outlines themselves never overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from dlink.maps.squaring import squared
from dlink.runtime.progress import Tick, ignore

OVER = 1e-6  # square metres; rounding alone makes less
FINER = (1.0, 0.5, 0.25)  # of the wanted tolerance, one way after the other
TICK = 1000  # polygons

Shapes = NDArray[np.object_]


@dataclass(frozen=True)
class Shaping:
    """How outlines become polygons. Lengths are metres."""

    simplify: float  # how far a polygon's corners may be from the outline
    square: bool
    pixel: float  # the longer side of a pixel

    @property
    def ways(self) -> list[str | float]:
        """The ways to try: squared, then tolerances; 0 is the outline itself."""
        tolerances = [self.simplify * share for share in FINER] if self.simplify else []
        return [*(["squared"] if self.square else []), *tolerances, 0.0]


def shaped(raw: Sequence[shapely.Polygon], how: Shaping, tick: Tick = ignore) -> tuple[Shapes, NDArray[np.bool_]]:
    """The polygons of outlines (both in metres), and which of them are squared."""
    ways = how.ways
    way = np.zeros(len(raw), np.int64)
    shapes = np.empty(len(raw), object)
    again = np.arange(len(raw), dtype=np.int64)
    while len(again):
        for i in again.tolist():
            shapes[i], way[i] = formed(raw[i], ways, int(way[i]), how)
            if not i % TICK:
                tick(0, 0, f"{'squaring' if how.square else 'simplifying'}, {i:,} of {len(raw):,}")
        again = overlapping(shapes)
        again = again[way[again] < len(ways) - 1]
        way[again] += 1
    return shapes, way < int(how.square)


def formed(raw: shapely.Polygon, ways: Sequence[str | float], way: int, how: Shaping) -> tuple[shapely.Polygon, int]:
    """An outline as a polygon by the first of the ways, from this one on, that makes a valid one; and which it was."""
    for i in range(way, len(ways) - 1):
        tolerance = ways[i]
        if isinstance(tolerance, str):
            simple = simplified(raw, max(how.simplify, how.pixel))
            found = simple and squared(simple, raw, max(how.simplify, 2 * how.pixel))
        else:
            found = simplified(raw, tolerance)
        if found:
            return found, i
    return raw, len(ways) - 1


def simplified(raw: shapely.Polygon, tolerance: float) -> shapely.Polygon | None:
    found = shapely.simplify(raw, tolerance, preserve_topology=True)
    return found if found.geom_type == "Polygon" and not found.is_empty and found.is_valid else None


def overlapping(shapes: Shapes) -> NDArray[np.int64]:
    """The numbers of the polygons that lie over another."""
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = one < other
    one, other = one[pairs], other[pairs]
    over = shapely.area(shapely.intersection(shapes[one], shapes[other])) > OVER
    return np.unique(np.concatenate([one[over], other[over]])).astype(np.int64)


def without_holes(shape: shapely.Polygon, least: float) -> shapely.Polygon:
    """A polygon without holes of a smaller area than this."""
    if not len(shape.interiors):
        return shape
    kept = [ring for ring in shape.interiors if shapely.Polygon(ring).area >= least]
    return shapely.Polygon(shape.exterior, kept)
