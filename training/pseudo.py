"""Pseudo masks for PP-LinkNet's first stage: OpenStreetMap's roads drawn on a tile's grid."""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.training.places import Place
from dlink.training.streets import Street

SHIFT = 4  # bits of a pixel's fraction that OpenCV draws with
FAR = 1e6  # px; points farther away are left out


def draw(streets: Iterable[Street], place: Place) -> NDArray[np.uint8]:
    """A mask, uint8 (H, W), 255 where there is road. Each line is as wide as its lanes, without soft edges."""
    mask = np.zeros((place.height, place.width), np.uint8)
    gsd = place.gsd_m
    for street in streets:
        points = place.pixels(street.line)
        points = points[np.isfinite(points).all(1) & (np.abs(points) < FAR).all(1)]
        thickness = max(round(street.width_m / gsd), 1)
        margin = thickness / 2 + 1
        if len(points) < 2 or not touches(points, place, margin):
            continue
        fixed = np.rint((points - 0.5) * 2**SHIFT).astype(np.int32)  # OpenCV's whole numbers are pixels' centres
        cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_8, SHIFT)
    return mask


def touches(points: NDArray[np.float64], place: Place, margin: float) -> bool:
    """Whether the bounding box of a line overlaps the tile."""
    low, high = points.min(0) - margin, points.max(0) + margin
    return bool((low < (place.width, place.height)).all() and (high > 0).all())
