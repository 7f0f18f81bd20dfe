"""Thins masks to lines one pixel wide, by a given number of passes, so that it is known how far a pixel's fate reaches.

The method is A1 of Guo and Hall (Parallel thinning with two-subiteration algorithms, Communications of the ACM 32,
1989), which scikit-image has too (`thin`). Zhang and Suen's, which is better known, erases slanted roads of an even
width. A pass has two halves, and each looks at a pixel's eight neighbours as they were before it. So after `passes`
passes a pixel depends on those within `2 * passes` pixels and on no other: a block with so much context gets the pixels
of the whole mask. Thinning until nothing changes has no such bound.
"""

import numpy as np
from numpy.typing import NDArray

REACH = 2  # pixels that one pass looks at around a pixel
AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # clockwise from north

Mask = NDArray[np.bool_]


def tables() -> tuple[Mask, Mask]:
    """For each half of a pass: whether a pixel is removed, by the bits of its neighbours."""
    n, ne, e, se, s, sw, w, nw = (np.arange(256) >> k & 1 > 0 for k in range(8))
    runs = sum(
        (~side & (corner | after)).astype(int)
        for side, corner, after in ((n, ne, e), (e, se, s), (s, sw, w), (w, nw, n))
    )
    pairs = [(nw | n, ne | e, se | s, sw | w), (n | ne, e | se, s | sw, w | nw)]
    ends = np.minimum(*(np.sum(four, axis=0) for four in pairs))
    edge = (runs == 1) & (ends >= 2) & (ends <= 3)
    return edge & ~((n | ne | ~se) & e), edge & ~((s | sw | ~nw) & w)


HALVES = tables()


def thin(mask: Mask, passes: int) -> Mask:
    """The mask (H, W) after so many passes, or fewer if no further one would change it. Outside it there is no road."""
    road = np.pad(mask, 1)
    shape, across = road.shape, road.shape[1]
    bits = neighbours(road).reshape(-1)
    road = road.reshape(-1)
    offsets = np.array([down * across + right for down, right in AROUND])
    edge = np.flatnonzero(road & (bits != 255))
    once = np.empty(road.shape, np.int32)  # finds the pixels that are listed twice
    changed = [edge, edge]  # the pixels that each half has yet to look at
    for half in range(2 * passes):
        look = changed[half % 2]
        gone = look[HALVES[half % 2][bits[look]] & road[look]]
        once[gone] = np.arange(len(gone))
        gone = gone[once[gone] == np.arange(len(gone))]
        road[gone] = False
        for k, offset in enumerate(offsets):
            bits[gone - offset] &= np.uint8(255 ^ 1 << k)
        near = (gone[:, None] + offsets).reshape(-1)
        near = near[road[near]]
        changed[half % 2] = near
        changed[1 - half % 2] = np.concatenate([changed[1 - half % 2], near])
        if not changed[0].size and not changed[1].size:
            break
    return road.reshape(shape)[1:-1, 1:-1]


def neighbours(road: Mask) -> NDArray[np.uint8]:
    """The bits of each pixel's neighbours, in the order of AROUND; the outermost pixels have none."""
    bits = np.zeros(road.shape, np.uint8)
    height, width = road.shape
    for k, (down, right) in enumerate(AROUND):
        there = road[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        bits[1:-1, 1:-1] |= there.astype(np.uint8) << np.uint8(k)
    return bits
