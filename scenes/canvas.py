"""The drawing surface of a scene: image, road mask, occupancy and shadow layers, and the drawing primitives.

The primitives are anti-aliased and have sub-pixel precision. Points are (N, 2) arrays of (x, y) in pixels. `Canvas.px`
converts metres to pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Colour = tuple[float, float, float]
SHIFT = 4
CORNERS = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


@dataclass
class Canvas:
    """State of a scene being drawn: `image` (S, S, 3), the other layers (S, S), all uint8."""

    rng: np.random.Generator
    size: int
    gsd: float
    image: Bytes
    mask: Bytes
    taken: Bytes
    shade: Bytes
    sun: Points
    lean: Points
    dark: float
    trees: list[Points] = field(default_factory=list)

    def px(self, metres: float) -> float:
        """Metres to pixels."""
        return metres / self.gsd

    @property
    def metres(self) -> float:
        """Side of the scene in metres."""
        return self.size * self.gsd


def blank(rng: np.random.Generator, size: int, gsd: float) -> Canvas:
    """An empty canvas with one sun (shadow vector per metre of height, in metres) and one relief lean."""
    angle = rng.uniform(0, 2 * np.pi)
    length = rng.uniform(0.25, 1.3)
    lean = rng.normal(0, 0.12, 2) if rng.random() < 0.5 else np.zeros(2)
    layers = [np.zeros((size, size), np.uint8) for _ in range(3)]
    image = np.zeros((size, size, 3), np.uint8)
    sun = length * np.array([np.cos(angle), np.sin(angle)])
    return Canvas(rng, size, gsd, image, layers[0], layers[1], layers[2], sun, lean, float(rng.uniform(0.35, 0.7)))


def fixed(points: Points) -> NDArray[np.int32]:
    """Pixel coordinates as the fixed-point integers cv2 takes with `shift`."""
    return np.round(np.clip(points, -4e4, 4e4) * (1 << SHIFT)).astype(np.int32)


def stroke(layer: Bytes, lines: Sequence[Points], value: float | Colour, width: float, smooth: bool = True) -> None:
    """Draw open polylines `width` pixels wide."""
    kind = cv2.LINE_AA if smooth else cv2.LINE_8
    paint = value if isinstance(value, tuple) else (float(value),)
    shapes = [fixed(line) for line in lines]
    cv2.polylines(layer, shapes, False, paint, max(1, round(width)), kind, SHIFT)


def polygon(layer: Bytes, points: Points, value: float | Colour, smooth: bool = True) -> None:
    """Fill one polygon."""
    kind = cv2.LINE_AA if smooth else cv2.LINE_8
    paint = value if isinstance(value, tuple) else (float(value),)
    cv2.fillPoly(layer, [fixed(points)], paint, kind, SHIFT)


def rectangle(centre: Points, angle: float, length: float, width: float) -> Points:
    """Corners (4, 2) of a rectangle whose `length` lies along `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    axes = np.array([[cos * length, sin * length], [-sin * width, cos * width]])
    return np.asarray(centre + CORNERS @ axes)


def blend(image: Bytes, paint: Bytes, alpha: Bytes | Floats) -> None:
    """Mix `paint` (S, S, 3) into `image` in place; alpha is (S, S), uint8 0-255 or float32 0-1."""
    weight = alpha.astype(np.float32) / np.float32(255) if alpha.dtype == np.uint8 else alpha
    cv2.blendLinear(paint, image, weight, 1 - weight, dst=image)


def clip(values: Floats, low: float, high: float) -> Floats:
    """Values held between two bounds."""
    return np.asarray(np.clip(values, np.float32(low), np.float32(high)), np.float32)


def as_bytes(values: Floats, gain: float = 1.0) -> Bytes:
    """Values times `gain` as whole numbers held to 0-255."""
    return np.asarray(cv2.convertScaleAbs(np.maximum(values, 0), alpha=gain), np.uint8)


def modulate(image: Bytes, gain: Floats) -> None:
    """Multiply `image` in place by a (S, S) gain."""
    cv2.multiply(image, cv2.merge([gain, gain, gain]), dst=image, dtype=cv2.CV_8U)


def resample(points: Points, step: float) -> Points:
    """The polyline with vertices about every `step` pixels."""
    gaps = np.hypot(*np.diff(points, axis=0).T)
    run = np.concatenate([[0.0], np.cumsum(gaps)])
    count = max(2, int(run[-1] / step) + 1)
    at = np.linspace(0, run[-1], count)
    return np.stack([np.interp(at, run, points[:, 0]), np.interp(at, run, points[:, 1])], 1)


def rounded(points: Points, times: int = 3) -> Points:
    """The polyline with its corners cut (Chaikin), end points kept."""
    for _ in range(times):
        a, b = points[:-1], points[1:]
        cut = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], 1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut, points[-1:]])
    return points


def headings(points: Points) -> Points:
    """Unit direction (N, 2) at each vertex."""
    slope = np.gradient(points, axis=0)
    return slope / np.maximum(np.hypot(slope[:, 0], slope[:, 1]), 1e-9)[:, None]


def shifted(points: Points, distance: float) -> Points:
    """The polyline moved sideways by `distance` pixels (positive to the right of travel in image axes)."""
    direction = headings(points)
    return points + distance * np.stack([-direction[:, 1], direction[:, 0]], 1)


def free(taken: Bytes, points: Points) -> bool:
    """Whether all points that lie inside the layer are zero there, and at least one is inside."""
    x, y = np.rint(points.T).astype(np.int64)
    size = taken.shape[0]
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    if inside.all():
        return not taken[y, x].any()
    return bool(inside.any()) and not taken[y[inside], x[inside]].any()


def interior(corners: Points, count: int = 4) -> Points:
    """A (count * count, 2) lattice of points over a quadrilateral, its border included."""
    return np.asarray(lattice(count) @ corners)


@cache
def lattice(count: int) -> Points:
    """Weights (count * count, 4) of a quadrilateral's corners at the points of a lattice over it."""
    run = np.linspace(0, 1, count)
    u, v = np.tile(run, count), np.repeat(run, count)
    return np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], 1)


def crop_lines(points: Points, size: int, margin: float = 60) -> bool:
    """Whether any vertex lies within the canvas grown by `margin`."""
    return bool(((points > -margin) & (points < size + margin)).all(1).any())
