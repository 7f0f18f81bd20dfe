"""The SpaceNet score of buildings: footprints that are found, by IoU >= 0.5. Needs OpenCV and shapely.

As SpaceNet's building challenges evaluate (evalTools.py of https://github.com/SpaceNetChallenge/utilities): each
proposed footprint, in its order, takes the true one with which it has the greatest IoU, of those that none before it
has taken. If that IoU is at least 0.5, it is a hit and the true footprint is taken; else it is a false one. A true
footprint that nobody has taken is missed. Precision is hits / proposed, recall hits / true, and F1 2 hits / (proposed +
true), with the counts of all tiles added up first; 0 / 0 is None.

A footprint of a mask is a connected component, by the four sides of a pixel: buildings that touch at a corner are two,
and buildings that share a side are one. Of a file of polygons each polygon is one, also in a multipolygon; a polygon
that crosses itself is the area within its outline, and one without an area is none. Proposed footprints have no
confidence here, so their order is that of the file, or from the top left of a mask. It matters only where proposed
footprints overlap each other, or where an IoU is exactly 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import shapely

from dlink.accuracy.pixels import Mask
from dlink.imagery.vectors import Shape

LEAST = 0.5
ROUNDING = 1e-9  # of polygons' areas


@dataclass(frozen=True)
class Found:
    """How many footprints there are, and how many proposed ones are hits."""

    hits: int
    proposed: int
    true: int


Overlaps = Sequence[Sequence[tuple[int, float]]]  # of each proposed footprint: true footprints and the IoU with them


def of_masks(mask: Mask, truth: Mask) -> Found:
    """Compare the connected components of two masks of one size, bool (H, W)."""
    proposed, of_mask = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    true, of_truth = cv2.connectedComponents(truth.view(np.uint8), connectivity=4)
    areas, true_areas = np.bincount(of_mask.ravel()), np.bincount(of_truth.ravel())
    both = mask & truth
    pairs, common = np.unique(of_mask[both].astype(np.int64) * true + of_truth[both], return_counts=True)
    overlaps: list[list[tuple[int, float]]] = [[] for _ in range(proposed)]
    for pair, shared in zip(pairs.tolist(), common.tolist(), strict=True):
        own, other = divmod(pair, true)
        overlaps[own].append((other, shared / (areas[own] + true_areas[other] - shared)))
    return Found(hits_of(overlaps), proposed - 1, true - 1)  # component 0 is the background


def of_polygons(proposed: Sequence[Shape], true: Sequence[Shape]) -> Found:
    """Compare polygons in one coordinate system."""
    own, other = (np.array([p for p in map(polygon_of, shapes) if p.area], object) for shapes in (proposed, true))
    tree = shapely.STRtree(other)
    overlaps = []
    for polygon in own:
        near = tree.query(polygon)
        shared = shapely.area(shapely.intersection(polygon, other[near]))
        union = polygon.area + shapely.area(other[near]) - shared
        overlaps.append(list(zip(near.tolist(), (shared / union + ROUNDING).tolist(), strict=True)))
    return Found(hits_of(overlaps), len(own), len(other))


def polygon_of(shape: Shape) -> Any:
    polygon = shapely.Polygon(shape.parts[0], shape.parts[1:]) if len(shape.parts[0]) > 2 else shapely.Polygon()
    return polygon if polygon.is_valid else shapely.make_valid(polygon)


def hits_of(overlaps: Overlaps) -> int:
    """The proposed footprints that take a true one, each in its turn."""
    taken: set[int] = set()
    for each in overlaps:
        free = [(iou, -true) for true, iou in each if true not in taken]
        best, true = max(free, default=(0.0, 0))  # of equal ones the first
        if best >= LEAST:
            taken.add(-true)
    return len(taken)
