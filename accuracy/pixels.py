"""Compares masks with labels pixel by pixel, a tile at a time. Needs OpenCV.

For road pixels: precision TP / (TP + FP), recall TP / (TP + FN), F1 (their harmonic mean), IoU TP / (TP + FP + FN) as
in iou.py. To pool over tiles, the counts are added up first. 0 / 0 is None: precision without road in the masks, recall
without road in the labels.

Relaxed: a road pixel also counts as right where the other mask has road within a buffer (relaxed precision and recall
of Mnih and Hinton, Learning to Detect Roads in High-Resolution Aerial Images, ECCV 2010, section 4; correctness and
completeness of Heipke et al., Evaluation of Automatic Road Extraction, IAPRS 32-3-4W2, 1997). From these two, p and r,
the relaxed IoU is p r / (p + r - p r), Heipke's quality, which is the plain IoU where the buffer is 0.

Boundary error: the mean distance from a pixel on one mask's boundary to the other mask's boundary, over both
directions. Only pixels with the other boundary within 10 m count, as Heipke's RMS counts only what matches: recall and
precision measure missing and made-up roads. The tile's edge is not a boundary.
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.iou import Overlap
from dlink.runtime.errors import BadInput

REACH_M = 10.0  # boundaries farther apart belong to different roads

Mask = NDArray[np.bool_]


@dataclass
class PixelCounts:
    """Counts of road pixels in masks, labels and their overlap."""

    buffer: float | None = None  # px; None: relaxed measures are not counted
    overlap: Overlap = field(default_factory=Overlap)
    mask_road: int = 0
    label_road: int = 0
    mask_near: int = 0  # road pixels of masks with road of the label within the buffer
    label_near: int = 0  # road pixels of labels with road of the mask within the buffer

    def add(self, mask: Mask, label: Mask) -> None:
        """Count one tile's mask and label, bool (H, W) each."""
        check_pair(mask, label)
        self.overlap.add(mask, label)
        self.mask_road += int(np.count_nonzero(mask))
        self.label_road += int(np.count_nonzero(label))
        if self.buffer is not None:
            self.mask_near += int(np.count_nonzero(distance_to(label)[mask] <= self.buffer))
            self.label_near += int(np.count_nonzero(distance_to(mask)[label] <= self.buffer))

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        a, b = self.overlap, other.overlap
        return replace(
            self,
            overlap=Overlap(a.both + b.both, a.either + b.either, a.total + b.total, a.tiles + b.tiles),
            mask_road=self.mask_road + other.mask_road,
            label_road=self.label_road + other.label_road,
            mask_near=self.mask_near + other.mask_near,
            label_near=self.label_near + other.label_near,
        )

    @property
    def tp(self) -> int:
        return self.overlap.both

    @property
    def fp(self) -> int:
        return self.mask_road - self.overlap.both

    @property
    def fn(self) -> int:
        return self.label_road - self.overlap.both

    @property
    def precision(self) -> float | None:
        return ratio(self.tp, self.mask_road)

    @property
    def recall(self) -> float | None:
        return ratio(self.tp, self.label_road)

    @property
    def f1(self) -> float | None:
        return ratio(2 * self.tp, self.mask_road + self.label_road)

    @property
    def iou(self) -> float | None:
        """Pooled over the tiles."""
        return ratio(self.overlap.both, self.overlap.either)

    @property
    def mean_iou(self) -> float | None:
        """The mean of the tiles' own IoU, 1 where both masks are empty."""
        return ratio(self.overlap.total, self.overlap.tiles)

    @property
    def relaxed_precision(self) -> float | None:
        return None if self.buffer is None else ratio(self.mask_near, self.mask_road)

    @property
    def relaxed_recall(self) -> float | None:
        return None if self.buffer is None else ratio(self.label_near, self.label_road)

    @property
    def relaxed_iou(self) -> float | None:
        p, r = self.relaxed_precision, self.relaxed_recall
        if p is None or r is None:  # road in one of both: 0; in neither: 0 / 0
            return 0.0 if self.buffer is not None and (p is not None or r is not None) else None
        return p * r / (p + r - p * r) if p + r else 0.0


@dataclass(frozen=True)
class Boundary:
    """The distance between two masks' boundaries, where they belong to the same road."""

    total_m: float = 0.0  # sum of distances
    pixels: int = 0  # that were counted

    def __add__(self, other: "Boundary") -> "Boundary":
        return Boundary(self.total_m + other.total_m, self.pixels + other.pixels)

    @property
    def error_m(self) -> float | None:
        """The mean distance in metres; None if no boundaries are near each other."""
        return ratio(self.total_m, self.pixels)


def boundary(mask: Mask, label: Mask, gsd_m: float) -> Boundary:
    """The boundary error of one tile, bool (H, W) each."""
    check_pair(mask, label)
    edges = boundary_of(mask), boundary_of(label)
    far = np.concatenate([distance_to(edges[1])[edges[0]], distance_to(edges[0])[edges[1]]]) * gsd_m
    near = far[far <= REACH_M]
    return Boundary(float(near.sum(dtype=np.float64)), len(near))


def boundary_of(mask: Mask) -> Mask:
    """The mask's pixels with a neighbour above, below, left or right that is not road."""
    inner = cv2.erode(mask.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    edges: Mask = mask & (inner == 0)
    return edges


def distance_to(road: Mask) -> NDArray[np.float32]:
    """Distance (H, W) from each pixel to the nearest road pixel, in pixels; infinite without road."""
    if not road.any():
        return np.full(road.shape, np.inf, np.float32)
    far: NDArray[np.float32] = cv2.distanceTransform((~road).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # type: ignore[assignment]
    return far


def check_pair(mask: Mask, label: Mask) -> None:
    """Raise BadInput unless these are two masks of one size."""
    for name, a in (("mask", mask), ("label", label)):
        if a.dtype != np.bool_ or a.ndim != 2:
            raise BadInput(f"a {name} must be bool (H, W), got {a.dtype} {a.shape}: compare it with its threshold")
    if mask.shape != label.shape:
        raise BadInput(
            f"the mask is {mask.shape[1]} x {mask.shape[0]} px, its label {label.shape[1]} x {label.shape[0]}"
        )


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
