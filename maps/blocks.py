"""The lines of a mask, block by block, exactly as they are in the whole mask.

Every step from the mask to its lines looks at pixels within a known distance, and the distances add up to the halo: the
context that a block is read with (`Reach`). So all pixels that a block owns are as in the whole mask.

1. Holes of the mask that fit into a small square (parked cars, their shadows) are filled.
2. Areas wider than any road (lakes, car parks) are taken away: where a disk of that width fits in, with its
   corners. A road ends there.
3. The rest is thinned by a fixed number of passes (thinning.py).
4. Pixels become steps to their neighbours. A step at a corner counts only if no pixel touches both. A block owns the
   steps that begin in its core, and joins them up to where a line ends, forks or changes its owner.

`join` joins the blocks' lines where exactly two ends meet at a pixel. A block says how many ends there must be at each
end of its lines; if one is missing, a block is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, label

from dlink.maps.chains import Ends, Points, along, chained, rolled, turned
from dlink.maps.thinning import REACH, Mask, thin
from dlink.runtime.errors import DlinkError

BLOCK = 1024  # side of a block's core, px
HOLE = 6.0  # metres; a car is 5 m long
CORNER = 1.42  # of an area's half width, which goes around where a disk fits in: right angles too
SLANTED = 1.5  # passes a pixel of half width: at a slanted edge a pass takes away less than one
TRACED = 2  # px that the steps of a pixel depend on
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))

Metres = tuple[float, float]  # a pixel down and across
Probable = NDArray[np.float32]
Read = Callable[[slice, slice], tuple[Mask, "Probable | None"]]  # road and its probability; also beyond the mask


class LostBlock(DlinkError):
    """Lines of neighbouring blocks do not fit together."""


@dataclass(frozen=True)
class Reach:
    """How far the steps from a mask to its lines look, in pixels, for roads up to `widest` metres wide."""

    metres: Metres
    widest: float

    @property
    def half(self) -> int:
        """Half the width of the widest road."""
        return math.ceil(self.widest / 2 / min(self.metres))

    @property
    def hole(self) -> tuple[int, int]:
        """Rows and columns of the largest hole that is filled."""
        down, across = self.metres
        return max(1, round(HOLE / down)), max(1, round(HOLE / across))

    @property
    def passes(self) -> int:
        return math.ceil(SLANTED * self.half) + 2

    @property
    def halo(self) -> int:
        filling = max(self.hole) + 1
        areas = self.half + 1 + math.ceil(CORNER * self.half) + 1
        return filling + areas + REACH * self.passes + TRACED


@dataclass(frozen=True)
class Part:
    """The lines of a block, and how many ends of lines there are at each of their ends in the whole mask."""

    lines: list[Points]
    meeting: NDArray[np.int64]  # (L, 2)
    areas: bool = False  # whether something wider than a road was taken away


def cores(shape: tuple[int, int], side: int) -> Iterator[tuple[slice, slice]]:
    """The blocks of a mask, row by row."""
    for top in range(0, shape[0], side):
        for left in range(0, shape[1], side):
            yield slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1]))


def lines_of(read: Read, core: tuple[slice, slice], shape: tuple[int, int], reach: Reach) -> Part:
    """The lines of one block of a mask of this shape."""
    rows, cols = core
    halo = reach.halo
    road, probable = read(slice(rows.start - halo, rows.stop + halo), slice(cols.start - halo, cols.stop + halo))
    if not road.any():
        return Part([], np.empty((0, 2), np.int64))
    road = filled(road, reach.hole)
    half = distance_transform_edt(np.pad(road, 1), sampling=reach.metres)[1:-1, 1:-1]
    kept, areas = without_areas(road, half, reach)
    inside = (slice(halo - TRACED, -halo + TRACED or None),) * 2
    pixels = thin(kept, reach.passes)[inside] & within(core, shape)
    values = [half[inside], np.ones(pixels.shape, np.float32) if probable is None else probable[inside]]
    lines, meeting = traced(pixels, (rows.start - TRACED, cols.start - TRACED), values)
    return Part(lines, meeting, areas)


def within(core: tuple[slice, slice], shape: tuple[int, int]) -> Mask:
    """Which pixels of a core, and of those around it that steps depend on, are in the mask."""
    down, across = (
        (np.arange(s.start - TRACED, s.stop + TRACED) >= 0) & (np.arange(s.start - TRACED, s.stop + TRACED) < length)
        for s, length in zip(core, shape, strict=True)
    )
    return down[:, None] & across


def filled(road: Mask, hole: tuple[int, int]) -> Mask:
    """The mask without holes of up to so many rows and columns. What touches the edge is no hole: it may be larger."""
    numbers, count = label(~road)
    if not count:
        return road
    height, width = road.shape
    small = np.zeros(count + 1, np.bool_)
    for number, (rows, cols) in enumerate(find_objects(numbers), 1):
        fits = rows.stop - rows.start <= hole[0] and cols.stop - cols.start <= hole[1]
        small[number] = fits and rows.start > 0 and cols.start > 0 and rows.stop < height and cols.stop < width
    return np.asarray(road | small[numbers])


def without_areas(road: Mask, half: NDArray[np.float64], reach: Reach) -> tuple[Mask, bool]:
    """The mask without what is wider than a road, and whether there is such. `half`: metres to the nearest edge."""
    radius = min(reach.half * min(reach.metres), reach.widest / 2)
    inner = half > radius
    if not inner.any():
        return road, False
    around = distance_transform_edt(~inner, sampling=reach.metres)
    return np.asarray(road & (around > CORNER * radius)), True


def traced(
    pixels: Mask, origin: tuple[int, int], values: Sequence[NDArray[np.floating]]
) -> tuple[list[Points], NDArray[np.int64]]:
    """The lines that a block owns, and how many ends meet at theirs.

    pixels: those of its core, with TRACED more on each side. values: what the points carry beside their place.
    """
    height, width = pixels.shape
    first, second, degree = steps_of(pixels)
    rows, cols = np.divmod(first, width)
    own = (rows >= TRACED) & (rows < height - TRACED) & (cols >= TRACED) & (cols < width - TRACED)
    places, ends = np.unique(np.stack([first[own], second[own]], axis=1), return_inverse=True)
    ends = ends.reshape(-1, 2)
    owned = np.bincount(ends.reshape(-1), minlength=len(places))
    at = np.stack(
        [places % width + origin[1], places // width + origin[0], *(v.reshape(-1)[places] for v in values)], axis=1
    ).astype(np.float32)
    heads = ends[:, ::-1].reshape(-1)  # of each half edge
    flat = ends.reshape(-1)
    lines, meeting = [], []
    for path in chained(ends, (owned == 2) & (degree[places] == 2)):
        nodes = [flat[path[0]], *heads[path]]
        lines.append(at[nodes])
        meeting.append((degree[places[nodes[0]]], degree[places[nodes[-1]]]))
    return lines, np.array(meeting, np.int64).reshape(-1, 2)


def steps_of(pixels: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The steps between neighbouring pixels, as the numbers of both, and the number of steps at each pixel."""
    a, b, c, d = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1], pixels[1:, 1:]
    found = (
        (pixels[:, :-1] & pixels[:, 1:], (0, 0)),
        (pixels[:-1] & pixels[1:], (0, 0)),
        (a & d & ~b & ~c, (0, 0)),
        (b & c & ~a & ~d, (0, 1)),
    )
    width = pixels.shape[1]
    starts, stops = [], []
    for (there, (down, right)), step in zip(found, STEPS, strict=True):
        rows, cols = np.nonzero(there)
        start = (rows + down) * width + cols + right
        starts.append(start)
        stops.append(start + step[0] * width + step[1])
    first, second = np.concatenate(starts), np.concatenate(stops)
    return first, second, np.bincount(np.concatenate([first, second]), minlength=pixels.size)


def join(parts: Sequence[Part]) -> list[Points]:
    """The lines of all blocks as those of the whole mask, sorted, each turned the same way however it was cut.

    Raises:
        LostBlock: An end of a line lacks its other side.
    """
    lines = [line for part in parts for line in part.lines]
    if not lines:
        return []
    nodes, ends = nodes_of(lines)
    count = np.bincount(ends.reshape(-1))
    meeting = np.concatenate([part.meeting for part in parts])
    if (lost := count[ends] != meeting).any():
        x, y = nodes[ends[lost][0]].astype(int)
        raise LostBlock(
            f"the lines of the block at row {y}, column {x} do not fit together: {count[ends[lost][0]]} of "
            f"{meeting[lost][0]} ends are there, so a block's result is lost; run it again"
        )
    whole = []
    for path in chained(ends, count == 2):
        line = along(path, lines)
        ring = bool((line[0, :2] == line[-1, :2]).all()) and count[ends[path[0] >> 1, path[0] & 1]] == 2
        whole.append(turned(rolled(line) if ring else line))
    order = np.lexsort(np.array([line[:2, :2].reshape(-1) for line in whole]).T[[2, 3, 0, 1]])
    return [whole[i] for i in order]


def nodes_of(lines: Sequence[Points]) -> tuple[NDArray[np.float32], Ends]:
    """The distinct pixels (N, 2) at the ends of lines, sorted by row, and each line's two."""
    ends = np.array([(line[0, :2], line[-1, :2]) for line in lines], np.float32).reshape(-1, 2)
    keys = ends[:, 1].astype(np.int64) << 32 | ends[:, 0].astype(np.int64)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    return ends[first], index.reshape(-1, 2).astype(np.int64)
