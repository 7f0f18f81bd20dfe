"""The eight views of a square (four turns, each mirrored or not) and their inverses.

A view is a number from 0 to 7. Its bits are applied in this order: 1 turns by a quarter counter-clockwise, 2 flips top
to bottom, 4 flips left to right. The order 0 to 7 is the batch order of the authors' test.py.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput

T = TypeVar("T", bound=np.generic)

TURN, FLIP_V, FLIP_H = 1, 2, 4
ALL = tuple(range(8))
FLIPS = (0, FLIP_V, FLIP_H, FLIP_V | FLIP_H)
BY_COUNT = {8: ALL, 4: FLIPS, 1: (0,)}  # the views that a number of views means, in the API and on the command line


def apply_view(a: NDArray[T], view: int) -> NDArray[T]:
    """Apply a view to `a` (..., S, S). Returns a strided array on the same memory."""
    if view & TURN:
        a = np.rot90(a, 1, axes=(-2, -1))
    if view & FLIP_V:
        a = a[..., ::-1, :]
    if view & FLIP_H:
        a = a[..., ::-1]
    return a


def undo_view(a: NDArray[T], view: int) -> NDArray[T]:
    """Inverse of `apply_view`: undoes its steps in reverse order."""
    if view & FLIP_H:
        a = a[..., ::-1]
    if view & FLIP_V:
        a = a[..., ::-1, :]
    if view & TURN:
        a = np.rot90(a, -1, axes=(-2, -1))
    return a


def check_views(views: Any) -> None:
    """Raise BadInput unless these are different views, at least one."""
    if not views or not set(views) <= set(ALL) or len(set(views)) != len(views):
        raise BadInput(f"views must be different numbers from 0 to 7, got {views}")
