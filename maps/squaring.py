"""Squares the corners of a polygon, as buildings have them. Needs shapely. All lengths are metres.

Each edge of the simplified polygon stands for a piece of the outline along the pixels. A line is fitted to that piece,
which is nearer to the wall than its two end points are. The main direction is that to which, or across which, most of
the length runs. Edges within NEAR of it or of its right angle are turned to it, others keep their own line; edges too
short to say a direction go. Neighbouring lines meet in the new corners.

The result is used only if it covers what the polygon covers: SAME of both together, at least. Otherwise, or if less
than MOSTLY of the length runs near right angles (a round tank), the polygon stays as it is. Nothing is random.
"""

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

NEAR = math.radians(20)
MOSTLY = 0.7  # of the length; of directions by chance it is 20 / 45 = 0.44
SAME = 0.8  # intersection over union
CUT = 1 / (math.sin(NEAR) * math.cos(NEAR))  # the longest line across a right corner whose height is 1, not near it
FLAT = math.sin(math.radians(10))  # lines that are more alike meet too far away
QUARTER = math.pi / 2
CORNERS = 4

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A wall: its angle, a point on it, its length, and where it begins. `axis`: 0 along, 1 across, None: its own."""

    angle: float
    point: complex
    length: float
    start: complex
    axis: int | None

    @property
    def offset(self) -> float:
        """The distance from the origin, to the left."""
        return (self.point * complex(math.cos(self.angle), -math.sin(self.angle))).imag


def squared(shape: shapely.Polygon, outline: shapely.Polygon, step: float) -> shapely.Polygon | None:
    """A polygon with squared corners; None if it has none to square.

    Args:
        shape: The simplified polygon; its corners are corners of the outline.
        outline: The polygon along the pixels.
        step: Shorter walls are no walls.
    """
    middle = complex(*shapely.get_coordinates(outline.exterior).mean(axis=0))
    walls = walls_of(shape.exterior, outline.exterior, middle)
    theta, share = direction(walls)
    if share < MOSTLY:
        return None
    exterior = ring_of(walls, theta, step, middle)
    if exterior is None:
        return None
    holes = []
    for hole in shape.interiors:
        ring = next((r for r in outline.interiors if holds(r, hole)), None)
        made = None if ring is None else ring_of(walls_of(hole, ring, middle), theta, step, middle)
        holes.append(shapely.get_coordinates(hole) if made is None else made)
    found = shapely.Polygon(exterior, holes)
    if not found.is_valid:
        return None
    both = shapely.union(found, shape).area
    return found if both and shapely.intersection(found, shape).area >= SAME * both else None


def holds(outline: shapely.LinearRing, ring: shapely.LinearRing) -> bool:
    """Whether a ring's corners are corners of an outline."""
    corners = {*map(tuple, shapely.get_coordinates(outline).tolist())}
    return all(tuple(point) in corners for point in shapely.get_coordinates(ring).tolist())


def walls_of(ring: shapely.LinearRing, outline: shapely.LinearRing, middle: complex) -> list[Line]:
    """The line of each edge of a ring, fitted to the outline between its ends; from `middle`."""
    points = shapely.get_coordinates(outline)[:-1]
    index = {tuple(point): i for i, point in enumerate(points.tolist())}
    used = np.unique([index[tuple(point)] for point in shapely.get_coordinates(ring)[:-1].tolist()])
    sums = moments(points - (middle.real, middle.imag))
    total, count = sums[len(points)], len(points)
    walls = []
    for one, other in zip(used, np.roll(used, -1), strict=True):
        weight, x, y, xx, xy, yy = sums[other] - sums[one] + (total if other <= one else 0)
        x, y = x / weight, y / weight
        xx, xy, yy = xx / weight - x * x, xy / weight - x * y, yy / weight - y * y
        start, end = (complex(*points[i % count]) - middle for i in (one, other))
        angle = 0.5 * math.atan2(2 * xy, xx - yy)
        walls.append(Line(angle, complex(x, y), abs(end - start), start, None))
    return walls


def moments(points: Points) -> Points:
    """The sums up to each corner (K + 1, 6) of the outline's length, and of x, y, xx, xy, yy along it."""
    after = np.roll(points, -1, axis=0)
    step, half = after - points, (after + points) / 2
    long = np.hypot(*step.T)
    (x, y), (dx, dy) = half.T, step.T
    each = (np.ones(len(points)), x, y, x * x + dx * dx / 12, x * y + dx * dy / 12, y * y + dy * dy / 12)
    return np.concatenate([np.zeros((1, 6)), np.cumsum(np.column_stack(each) * long[:, None], axis=0)])


def direction(walls: list[Line]) -> tuple[float, float]:
    """The main direction, and the share of the length that runs near it or near its right angle."""
    angles, lengths = (np.array(values) for values in zip(*((w.angle, w.length) for w in walls), strict=True))
    first = float(np.angle((lengths**2 * np.exp(4j * angles)).sum())) / 4
    beside = turn(angles, first)
    near = np.abs(beside) <= NEAR
    weight = lengths**3 * near  # how well a line of this length says its direction
    theta = first + float((weight * beside).sum() / weight.sum()) if near.any() else first
    return theta, float(lengths[near].sum() / lengths.sum())


def turn(angles: NDArray[np.float64], theta: float) -> NDArray[np.float64]:
    """How far angles are from a direction or its right angle, up to 45 degrees to both sides."""
    return np.asarray((angles - theta + QUARTER / 2) % QUARTER - QUARTER / 2)


def ring_of(walls: list[Line], theta: float, step: float, middle: complex) -> Points | None:
    """The corners (K, 2) where squared walls meet; None if they do not make a ring."""
    lines = merged([wall for wall in (turned(each, theta) for each in walls) if long_enough(wall, step)], theta, step)
    if len(lines) < CORNERS:
        return None
    corners = []
    for before, line in zip((lines[-1], *lines[:-1]), lines, strict=True):
        if (place := crossing(before, line)) is None:
            return None
        corners.append(place + middle)
    return np.array([(corner.real, corner.imag) for corner in corners])


def turned(wall: Line, theta: float) -> Line:
    beside = float(turn(np.array(wall.angle), theta))
    if abs(beside) > NEAR:
        return wall
    axis = round((wall.angle - beside - theta) / QUARTER) % 2
    return Line(theta + axis * QUARTER, wall.point, wall.length, wall.start, axis)


def long_enough(wall: Line, step: float) -> bool:
    """Whether a wall is one. Simplifying cuts a corner by a short line of a direction of its own."""
    return wall.length >= (step if wall.axis is not None else CUT * step)


def merged(lines: list[Line], theta: float, step: float) -> list[Line]:
    """The lines of a ring with no two of one axis side by side: they are one, or a wall across joins them."""
    lines = list(lines)
    i = 0
    while len(lines) > 1 and i < len(lines):
        one, other = lines[i - 1], lines[i]
        if one.axis is None or one.axis != other.axis:
            i += 1
        elif abs(one.offset - other.offset) < step:
            whole = one.length + other.length
            point = (one.point * one.length + other.point * other.length) / whole
            lines[i - 1] = Line(one.angle, point, whole, one.start, one.axis)
            del lines[i]
            i = max(i - 1, 0)
        else:
            axis = 1 - one.axis
            across = Line(theta + axis * QUARTER, other.start, abs(one.offset - other.offset), other.start, axis)
            lines.insert(i, across)
            i += 2
    return lines


def crossing(one: Line, other: Line) -> complex | None:
    """Where two lines meet; None if they are nearly parallel."""
    sine = math.sin(other.angle - one.angle)
    if abs(sine) < FLAT:
        return None
    along = complex(math.cos(one.angle), math.sin(one.angle))
    across = complex(math.cos(other.angle), math.sin(other.angle))
    apart = other.point - one.point
    return one.point + along * ((apart * across.conjugate()).imag / (along * across.conjugate()).imag)
