"""The outlines of a mask's areas along its pixels, block by block, exactly as they are in the whole mask.

An area is what hangs together by the sides of its pixels; areas that touch at a corner alone are two. Each block is
labelled on its own. Pieces that reach its seams wait, and pieces of both sides of a seam are linked where two of their
pixels lie side by side. At the end linked pieces become one. All other areas are whole at once, so memory grows with
the areas and not with the mask. Corners of pixels are whole numbers, so nothing is rounded.

Needs rasterio, scipy, shapely.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.features import shapes
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dlink.maps.blocks import Probable, Read, cores
from dlink.maps.thinning import Mask
from dlink.runtime.progress import Tick, ignore

Pairs = list[NDArray[np.int64]]


@dataclass(frozen=True)
class Outline:
    """An area. Its shape is in pixels: x to the right and y down, (0, 0) is the corner of the first pixel."""

    shape: shapely.Polygon
    pixels: int
    probability: float  # the sum over its pixels


@dataclass
class Seams:
    """The pieces that reach a seam, and which of them are one area. Numbers count from 1; 0 is no piece."""

    above: NDArray[np.int64]  # of each column, the piece that ends in the row above
    pieces: dict[int, list[Outline]]
    pairs: Pairs  # (2, K) each

    def link(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Two lines of numbers lie side by side."""
        if (both := (one > 0) & (other > 0)).any():
            self.pairs.append(np.unique(np.stack([one[both], other[both]]), axis=1))


def outlines(
    read: Read, shape: tuple[int, int], side: int, least: float = 0.0, tick: Tick = ignore
) -> Iterator[Outline]:
    """The areas of a mask of this shape of at least so many pixels, in no certain order.

    Args:
        read: Gives the mask, and its probability if there is one, by rows and columns.
        shape: Rows and columns of the mask.
        side: Of a block, in pixels. The areas do not depend on it.
        least: Pixels; smaller areas are left out.
        tick: Called with (blocks done, all blocks, words).
    """
    seams = Seams(np.zeros(shape[1], np.int64), {}, [])
    blocks = list(cores(shape, side))
    left = below = np.zeros(0, np.int64)
    count = 1
    for i, (rows, cols) in enumerate(blocks):
        if not cols.start:
            left, below = np.zeros(rows.stop - rows.start, np.int64), np.zeros(shape[1], np.int64)
        road, probable = read(rows, cols)
        labels, pieces, waiting = block_of(road, probable, (rows, cols), shape, least)
        numbers = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        numbers[waiting] = np.arange(count, count + len(waiting))
        count += len(waiting)
        seams.link(seams.above[cols], numbers[labels[0]])
        seams.link(left, numbers[labels[:, 0]])
        left, below[cols] = numbers[labels[:, -1]], numbers[labels[-1]]
        for at, piece in pieces:
            if number := int(numbers[at]):
                seams.pieces[number] = [piece]
            else:
                yield piece
        if cols.stop == shape[1]:
            seams.above = below
        tick(i + 1, len(blocks), "blocks")
    yield from joined(seams, count, least)


def block_of(
    road: Mask, probable: Probable | None, core: tuple[slice, slice], shape: tuple[int, int], least: float
) -> tuple[NDArray[Any], list[tuple[int, Outline]], NDArray[np.int64]]:
    """A block's labels, its pieces by their labels, and the labels of those that reach a seam."""
    if not road.any():
        return np.zeros(road.shape, np.int32), [], np.zeros(0, np.int64)
    labels, count = label(road)
    labels = labels.astype(np.int32, copy=False)
    (rows, cols), (height, width) = core, shape
    sides = (
        (labels[0], rows.start > 0),
        (labels[-1], rows.stop < height),
        (labels[:, 0], cols.start > 0),
        (labels[:, -1], cols.stop < width),
    )
    waiting = np.unique(np.concatenate([np.zeros(1, np.int32), *(line for line, seam in sides if seam)]))[1:]
    flat = labels.reshape(-1)
    pixels = np.bincount(flat, minlength=count + 1)
    weights = None if probable is None else probable.reshape(-1)
    sums = np.zeros(count + 1) if weights is None else np.bincount(flat, weights, count + 1)
    kept = pixels >= least
    kept[waiting] = True
    kept[0] = False
    place = Affine.translation(cols.start, rows.start)
    pieces = []
    for found, value in shapes(labels, mask=kept[labels], connectivity=4, transform=place):
        at = int(value)
        pieces.append((at, Outline(polygon_of(found["coordinates"]), int(pixels[at]), float(sums[at]))))
    return labels, pieces, waiting.astype(np.int64)


def joined(seams: Seams, count: int, least: float) -> Iterator[Outline]:
    """The areas of the pieces that reach seams."""
    pairs = np.concatenate(seams.pairs, axis=1) if seams.pairs else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(pairs.shape[1], np.bool_), (pairs[0], pairs[1])), shape=(count, count))
    _, whole = connected_components(graph, directed=False)
    groups: dict[int, list[Outline]] = {}
    for number in sorted(seams.pieces):
        groups.setdefault(int(whole[number]), []).extend(seams.pieces.pop(number))
    for group in groups.values():
        if (pixels := sum(piece.pixels for piece in group)) >= least:
            yield Outline(union_of(group), pixels, sum(piece.probability for piece in group))


def union_of(group: Sequence[Outline]) -> shapely.Polygon:
    if len(group) == 1:
        return group[0].shape
    whole = shapely.union_all([piece.shape for piece in group])
    return polygon_of([shapely.get_coordinates(ring) for ring in (whole.exterior, *whole.interiors)])


def polygon_of(rings: Sequence[Any]) -> shapely.Polygon:
    """A valid polygon of closed rings, without points on straight lines, from its first corner on."""
    first, *holes = (corners(np.asarray(ring, np.float64)) for ring in rings)
    shape = shapely.Polygon(first, holes)
    if not shape.is_valid:  # a ring that touches itself at a corner becomes two
        shape = shapely.make_valid(shape)
    assert shape.geom_type == "Polygon", "an area whose pixels hang together by their sides is one polygon"
    return shapely.normalize(shape)


def corners(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed ring (K, 2) without the points where it does not turn, not closed."""
    points = ring[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return np.asarray(points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]])
