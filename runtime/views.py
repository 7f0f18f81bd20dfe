"""The eight views of a square, and the way back.

A view is a number whose bits say what is done, in this order: 1 a quarter turn counter-clockwise, 2 top to bottom,
4 left to right. Counting from 0 to 7 is the batch order of the authors' test.py.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput

T = TypeVar("T", bound=np.generic)

TURN, FLIP_V, FLIP_H = 1, 2, 4
ALL = tuple(range(8))
FLIPS = (0, FLIP_V, FLIP_H, FLIP_V | FLIP_H)
BY_COUNT = {8: ALL, 4: FLIPS, 1: (0,)}  # what a number of views stands for on the command line


def apply_view(a: NDArray[T], view: int) -> NDArray[T]:
    """See `a` (..., S, S) through a view. Returns a strided view of the same memory."""
    if view & TURN:
        a = np.rot90(a, 1, axes=(-2, -1))
    if view & FLIP_V:
        a = a[..., ::-1, :]
    if view & FLIP_H:
        a = a[..., ::-1]
    return a


def undo_view(a: NDArray[T], view: int) -> NDArray[T]:
    """Inverse of `look`: the same steps undone in reverse order."""
    if view & FLIP_H:
        a = a[..., ::-1]
    if view & FLIP_V:
        a = a[..., ::-1, :]
    if view & TURN:
        a = np.rot90(a, -1, axes=(-2, -1))
    return a


def check_views(views: Any) -> None:
    """Refuse what is not a choice of different views."""
    if not views or not set(views) <= set(ALL) or len(set(views)) != len(views):
        raise BadInput(f"views must be different numbers from 0 to 7, got {views}")
