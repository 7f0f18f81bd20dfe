"""Lines that are straight in one coordinate system, as lines of another where they are curved. Needs NumPy alone."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

HALVINGS = 14  # of an edge, at most
INSIDE = np.array([0.25, 0.5, 0.75])[:, None, None]  # where an edge is looked at
Points = NDArray[np.float64]  # (N, 2)


def straight(lines: Sequence[Points], project: Callable[[Points], Points], tolerance: float) -> list[Points]:
    """Lines or rings in another system, with points put in until their edges are right.

    Args:
        lines: Each (N, 2).
        project: Points (N, 2) in the other system.
        tolerance: How far an edge may be beside the place where it belongs, in the other system's unit.
    """
    if not lines:
        return []
    points, of = np.concatenate(lines), np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    there = project(points)
    open = of[:-1] == of[1:]  # edges that may need a point
    for _ in range(HALVINGS):
        at = np.flatnonzero(open)
        at = at[beside(points[at], points[at + 1], there[at], there[at + 1], project) > tolerance]
        if not len(at):
            break
        middle = (points[at] + points[at + 1]) / 2
        points, of = np.insert(points, at + 1, middle, axis=0), np.insert(of, at + 1, of[at])
        there = np.insert(there, at + 1, project(middle), axis=0)
        new = at + np.arange(len(at))  # the halves: edges `new` and `new + 1`
        open = np.zeros(len(points) - 1, np.bool_)
        open[new] = open[new + 1] = True
    return np.split(there, np.flatnonzero(np.diff(of)) + 1)


def beside(
    first: Points, last: Points, begin: Points, end: Points, project: Callable[[Points], Points]
) -> NDArray[np.float64]:
    """How far edges, from `first` to `last`, lie beside the straight ones from `begin` to `end`."""
    if not len(first):
        return np.empty(0)
    inner = project((first + INSIDE * (last - first)).reshape(-1, 2)).reshape(len(INSIDE), -1, 2)
    along, to = end - begin, inner - begin
    length = np.hypot(*along.T)
    across = np.abs(along[:, 0] * to[..., 1] - along[:, 1] * to[..., 0])
    flat = np.hypot(to[..., 0], to[..., 1])  # of an edge without length
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.where(length > 0, across / length, flat)
    return np.asarray(np.nan_to_num(off, nan=0.0, posinf=0.0).max(axis=0))
