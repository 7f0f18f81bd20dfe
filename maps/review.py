"""What of new roads a person must look at: where they cross existing lines without a node, or run along them."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from dlink.maps.extract import ABOVE, BELOW, PATH, RAIL, ROAD, UNBUILT, Way
from dlink.maps.near import Points, Segments, Walk

AT_JOIN = 0.1  # metres from a join at which two ways meet there


def crossings(lines: Sequence[Points], joined: Sequence[Sequence[Points]], segments: Segments) -> list[list[str]]:
    """Of each line (K, 2) the existing ways that it crosses elsewhere than where it is joined."""
    found: list[dict[int, str]] = [{} for _ in lines]
    wanted = segments.which(may_cross)
    if lines and len(segments.a):
        shapes = shapely.linestrings(
            np.concatenate(lines), indices=np.repeat(np.arange(len(lines)), list(map(len, lines)))
        )
        line, segment = segments.tree.query(shapes, predicate="intersects")
        line, segment = line[wanted[segment]], segment[wanted[segment]]
        where = shapely.intersection(shapes[line], segments.tree.geometries[segment])
        for i, j, shape in zip(line.tolist(), segment.tolist(), where, strict=True):
            points = shapely.get_coordinates(shape)
            if any(all(np.hypot(*(point - join)) > AT_JOIN for join in joined[i]) for point in points):
                way = segments.ways[segments.way[j]]
                found[i][way.osm.id] = f"crosses {way}{LEVELS.get(way.level, '')}"
    return [[text for _, text in sorted(texts.items())] for texts in found]


LEVELS = {ABOVE: ", which is above", BELOW: ", which is below"}


def may_cross(way: Way) -> bool:
    return way.kind != UNBUILT and (way.level != BELOW or way.kind == ROAD)


def may_be_along(way: Way) -> bool:
    return way.kind in (ROAD, PATH, UNBUILT) or (way.kind == RAIL and way.level != BELOW)


def neighbours(lines: Sequence[Points], tolerance: NDArray[np.float64], segments: Segments) -> list[list[str]]:
    """Of each line the existing ways that it runs along, for at least its tolerance."""
    walk = Walk.along(lines)
    beside = walk.beside(segments, segments.which(may_be_along), tolerance[walk.line])
    metres: dict[tuple[int, int], float] = {}
    for piece in np.flatnonzero(beside >= 0).tolist():
        key = int(walk.line[piece]), int(segments.way[beside[piece]])
        metres[key] = metres.get(key, 0.0) + float(walk.length[piece])
    found: list[list[str]] = [[] for _ in lines]
    for (line, way), length in sorted(metres.items()):
        if length >= tolerance[line]:
            beside_it = segments.ways[way]
            found[line].append(f"runs along {beside_it}{LEVELS.get(beside_it.level, '')} for {length:.0f} m")
    return found
