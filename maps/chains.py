"""Joins steps or lines wherever exactly two of their ends meet."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]  # (K, 4): column and row of a pixel, half the road's width in metres, probability
Line = TypeVar("Line", Points, NDArray[np.float64])
Ends = NDArray[np.int64]  # (E, 2): the nodes at an edge's ends


def chained(ends: Ends, through: NDArray[np.bool_]) -> list[list[int]]:
    """Paths of edges: all edges, each once, in paths that end where a node is not `through`, or close.

    A path is a list of half edges: 2 * e is edge e from its first end to its second, and 2 * e + 1 the way back. A node
    may be `through` only if exactly two ends are there.
    """
    tails = ends.reshape(-1)
    order = np.argsort(tails, kind="stable")
    first = np.searchsorted(tails[order], np.flatnonzero(through))
    one, other = order[first], order[first + 1]
    following = np.full(len(tails), -1, np.int64)
    following[one ^ 1] = other
    following[other ^ 1] = one
    after, used = following.tolist(), bytearray(len(ends))
    paths = []
    for start in [*np.flatnonzero(~through[tails]).tolist(), *range(0, len(tails), 2)]:  # the rest are rings
        if used[start >> 1]:
            continue
        path, half = [], start
        while half >= 0 and not used[half >> 1]:
            path.append(half)
            used[half >> 1] = 1
            half = after[half]
        paths.append(path)
    return paths


def along(path: list[int], lines: list[Line]) -> Line:
    """The points of a path of lines, those where two lines meet once."""
    parts: list[Line] = [lines[half >> 1][:: -1 if half & 1 else 1] for half in path]
    return parts[0] if len(parts) == 1 else np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


def turned(line: Points) -> Points:
    """The line in the one direction that does not depend on how it was found; a ring also begins at its least pixel."""
    keys = [tuple(point) for point in line[:, 1::-1].tolist()]
    if keys[0] != keys[-1]:
        return line if keys[0] < keys[-1] else line[::-1]
    return line if keys[1] <= keys[-2] else line[::-1]


def rolled(ring: Points) -> Points:
    """A ring without a junction, from its uppermost and then leftmost pixel on."""
    start = int(np.lexsort((ring[:-1, 0], ring[:-1, 1]))[0])
    return np.concatenate([ring[start:-1], ring[: start + 1]])
