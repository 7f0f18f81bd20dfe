"""Cuts an image of any size into windows: where each tile is read, and which core of it is kept.

Every pixel of the image is in exactly one core, so nothing is blended and memory stays bounded. A core has `halo`
pixels of context on every side that is not the image's edge.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.errors import BadInput, NoProbability

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Span:
    """One axis of a window, in pixels of the image: read [start, stop), keep [lo, hi)."""

    start: int
    stop: int
    lo: int
    hi: int

    @property
    def core(self) -> slice:
        """The kept pixels, counted in the image."""
        return slice(self.lo, self.hi)

    @property
    def inner(self) -> slice:
        """The kept pixels, counted in the tile."""
        return slice(self.lo - self.start, self.hi - self.start)


@dataclass(frozen=True)
class Window:
    """Where a tile is read and which core of it is kept."""

    rows: Span
    cols: Span

    @property
    def outer(self) -> tuple[slice, slice]:
        """The pixels to read, (rows, columns) of the image; smaller than the tile if the image is."""
        return slice(self.rows.start, self.rows.stop), slice(self.cols.start, self.cols.stop)

    @property
    def core(self) -> tuple[slice, slice]:
        """The kept pixels, (rows, columns) of the image."""
        return self.rows.core, self.cols.core

    @property
    def inner(self) -> tuple[slice, slice]:
        """The kept pixels, (rows, columns) of the tile."""
        return self.rows.inner, self.cols.inner


def spans(length: int, tile: int, halo: int) -> list[Span]:
    """Cover [0, length) with reads of `tile` pixels that keep `halo` pixels of context at inner edges."""
    if not 0 <= 2 * halo < tile:
        raise BadInput(f"a halo of {halo} px leaves nothing of a {tile} px tile; it must be from 0 to {tile // 2 - 1}")
    out, lo = [], 0
    while lo < length:
        # The last read moves back into the image instead of past its edge: real pixels are better than padding.
        start = max(0, min(lo - halo, length - tile))
        stop = min(start + tile, length)
        hi = length if stop == length else stop - halo
        out.append(Span(start, stop, lo, hi))
        lo = hi
    return out


def cover(height: int, width: int, tile: int, halo: int) -> list[Window]:
    """The windows of an image, row by row."""
    columns = spans(width, tile, halo)
    return [Window(rows, cols) for rows in spans(height, tile, halo) for cols in columns]


def fault_of(window: Window, error: NoProbability) -> NoProbability:
    """The error of a bad tile, which says where it lies in its image. `error` is that of its call."""
    rows, cols = window.rows, window.cols
    where = f"the tile at rows {rows.start} to {rows.stop}, columns {cols.start} to {cols.stop}"
    return NoProbability(where, network=error.network)


def square(image: NDArray[T], tile: int) -> NDArray[T]:
    """Pad an image (H, W, C) to (tile, tile, C) by mirroring its right and bottom edges."""
    down, right = tile - image.shape[0], tile - image.shape[1]
    if not down and not right:
        return image
    return np.pad(image, ((0, down), (0, right), (0, 0)), mode="symmetric")
