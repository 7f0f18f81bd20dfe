"""Lots with houses in rows along roads, large flat roofs, car parks, gardens, pools and courts.

Lots are planned on free ground of the occupancy layer, then drawn in order: ground, shadows, walls, roofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dlink.scenes.canvas import (
    Bytes,
    Canvas,
    Colour,
    Points,
    free,
    headings,
    interior,
    polygon,
    rectangle,
    resample,
    stroke,
)
from dlink.scenes.roadnet import Road
from dlink.scenes.terrain import GRASS, SOIL, URBAN, noise, pick, vary
from dlink.scenes.traffic import parked

ROOFS: list[Colour] = [
    (150, 150, 150), (112, 110, 108), (84, 80, 76), (126, 100, 82), (98, 76, 62), (146, 84, 66), (172, 110, 84),
    (70, 72, 78), (186, 182, 172), (120, 126, 134), (96, 92, 84), (160, 140, 116), (64, 60, 58), (118, 78, 72),
]  # fmt: skip
GREYS: list[Colour] = [
    (84, 82, 80), (104, 102, 100), (70, 68, 68), (126, 124, 122), (92, 82, 70), (148, 146, 144), (112, 98, 80),
    (58, 56, 54), (164, 162, 160), (80, 68, 58), (134, 118, 98), (96, 98, 104),
]  # fmt: skip
BRIGHT: list[Colour] = [(236, 236, 234), (214, 212, 206), (244, 244, 246), (196, 192, 184)]
FLAT: list[Colour] = [
    (92, 90, 86), (110, 108, 104), (76, 76, 78), (132, 128, 120), (150, 146, 136), (176, 168, 150), (62, 60, 60),
    (240, 240, 238), (224, 222, 218), (246, 246, 246), (206, 202, 196), (120, 104, 88),
]  # fmt: skip


@dataclass
class Roof:
    """A building: footprint corners (4, 2) in pixels, height in metres, roof colour and form."""

    corners: Points
    height: float
    colour: Colour
    form: str


@dataclass
class Style:
    """How a place is built: lot front and depth (m), building share, heights, palettes and habits."""

    front: tuple[float, float]
    depth: tuple[float, float]
    fill: tuple[float, float]
    height: tuple[float, float]
    setback: tuple[float, float]
    chance: float
    flat: float
    park: float = 0.05
    yard: float = 0.6
    jitter: float = 0.03
    courts: float = 0.0
    green: float = 0.65


def palette(rng: np.random.Generator, base: Sequence[Colour], count: int) -> list[Colour]:
    """A few roof colours that this place uses."""
    return [pick(rng, base, 10) for _ in range(count)]


def lots_along(canvas: Canvas, roads: list[Road], style: Style, kinds: list[Colour]) -> list[Roof]:
    """Line both sides of the roads with lots; draws their ground and returns the buildings to raise."""
    rng = canvas.rng
    roofs: list[Roof] = []
    order = rng.permutation(len(roads))
    usual, deep = rng.uniform(*style.front), rng.uniform(*style.depth)
    for road in (roads[i] for i in order):
        line = resample(road.points, 2.0)
        ways = headings(line)
        seen = np.asarray(((line > -40) & (line < canvas.size + 40)).all(1))
        for side in (-1.0, 1.0):
            at = rng.uniform(0, 6)
            while at < len(line):
                same = rng.random() < 0.7
                front = usual * rng.uniform(0.92, 1.08) if same else rng.uniform(*style.front)
                depth = deep * rng.uniform(0.9, 1.1) if same else rng.uniform(*style.depth)
                index = min(int(at + canvas.px(front) / 4), len(line) - 1)
                if seen[index] and rng.random() < style.chance:
                    roofs += lot(canvas, line[index], ways[index], side, road, front, depth, style, kinds)
                at += canvas.px(front) / 2 * rng.uniform(1.0, 1.1)
    return roofs


def lot(canvas: Canvas, point: Points, way: Points, side: float, road: Road, front: float, depth: float, style: Style,
        kinds: list[Colour]) -> list[Roof]:  # fmt: skip
    """One lot of `front` by `depth` metres beside a road point, if its ground is free."""
    rng = canvas.rng
    out = np.array([-way[1], way[0]]) * side
    near = canvas.px(road.width / 2 + road.verge + 0.8)
    angle = float(np.arctan2(way[1], way[0]))
    if canvas.taken[inside(canvas, point + out * (near + canvas.px(4)))]:
        return []
    for trial in (1.0, 0.75, 0.5):
        deep = canvas.px(depth * trial)
        centre = point + out * (near + deep / 2)
        corners = rectangle(centre, angle, canvas.px(front), deep)
        if not ((centre > -deep) & (centre < canvas.size + deep)).all():
            return []
        if free(canvas.taken, interior(rectangle(centre, angle, canvas.px(front) * 0.92, deep - 2), 5)):
            break
    else:
        return []
    polygon(canvas.taken, corners, 255, smooth=False)
    if rng.random() < style.park:
        parked(canvas, centre, angle, canvas.px(front), deep)
        return []
    return furnish(canvas, centre, angle, out, canvas.px(front), deep, style, kinds)


def inside(canvas: Canvas, point: Points) -> tuple[int, int]:
    """Row and column of a point, moved into the canvas where it lies outside."""
    x, y = (min(max(int(value), 0), canvas.size - 1) for value in point)
    return y, x


def furnish(canvas: Canvas, centre: Points, angle: float, out: Points, front: float, deep: float, style: Style,
            kinds: list[Colour]) -> list[Roof]:  # fmt: skip
    """Ground, drive, house, outbuilding and trees of a lot; front and deep are in pixels."""
    rng = canvas.rng
    if rng.random() < style.yard:
        polygon(
            canvas.image,
            rectangle(centre, angle, front, deep),
            pick(rng, GRASS if rng.random() < style.green else SOIL + URBAN, 12),
        )
    share = rng.uniform(*style.fill)
    wide = front * min(0.97, rng.uniform(0.75, 0.97) * max(1.0, share))
    long = min(deep * 0.95, deep * share * front / wide)
    back = min(canvas.px(rng.uniform(*style.setback)), max(0.0, deep - long))
    middle = centre + out * (back + long / 2 - deep / 2)
    turn = angle + rng.normal(0, style.jitter)
    if rng.random() < 0.4 and style.yard > 0.3:
        drive(canvas, centre, angle, out, front, deep)
    form = "flat" if rng.random() < style.flat else str(rng.choice(["gable", "gable", "hip"]))
    colour = vary(rng, kinds[int(rng.integers(len(kinds)))], 6)
    height = float(rng.uniform(*style.height))
    roofs = [Roof(rectangle(middle, turn, wide, long), height, colour, form)]
    if rng.random() < 0.25:
        part = rectangle(middle + rng.normal(0, 0.3, 2) * min(wide, long), turn, wide * 0.5, long * 0.6)
        roofs.append(Roof(part, height * rng.uniform(0.7, 1.3), vary(rng, colour, 8), form))
    rest = deep - back - long
    if rest > canvas.px(8) and rng.random() < 0.5:
        shed = (
            centre
            + out * (deep / 2 - canvas.px(3.5))
            + np.array([np.cos(angle), np.sin(angle)]) * front * rng.uniform(-0.2, 0.2)
        )
        roofs.append(
            Roof(
                rectangle(shed, turn, canvas.px(rng.uniform(4, 7)), canvas.px(rng.uniform(4, 6.5))),
                3.0,
                pick(rng, kinds, 10),
                "gable",
            )
        )
    garden(canvas, centre, angle, out, front, deep, rest)
    return roofs


def drive(canvas: Canvas, centre: Points, angle: float, out: Points, front: float, deep: float) -> None:
    """A driveway or footpath from the road into the lot: looks like a road, is not one."""
    rng = canvas.rng
    place = centre + np.array([np.cos(angle), np.sin(angle)]) * front * rng.uniform(-0.48, 0.48)
    start = place - out * (deep / 2 + canvas.px(2))
    end = place + out * deep * rng.uniform(-0.3, 0.5)
    colour = pick(rng, [(160, 156, 146), (120, 118, 112), (98, 96, 92), (140, 120, 96)], 12)
    stroke(canvas.image, [np.stack([start, end])], colour, canvas.px(rng.choice([1.0, 1.4, 3.0])))


def garden(canvas: Canvas, centre: Points, angle: float, out: Points, front: float, deep: float, rest: float) -> None:
    """Yard trees, and rarely a pool, behind the house."""
    rng = canvas.rng
    along = np.array([np.cos(angle), np.sin(angle)])
    for _ in range(int(rng.poisson(0.7))):
        spot = centre + along * front * rng.uniform(-0.5, 0.5) + out * deep * rng.uniform(-0.5, 0.5)
        canvas.trees.append(np.array([*spot, canvas.px(rng.uniform(1.2, 4.5))]))
    if rest > canvas.px(7) and rng.random() < 0.05:
        pool = centre + out * (deep / 2 - rest * 0.5)
        polygon(canvas.image, rectangle(pool, angle, canvas.px(8), canvas.px(4)), (206, 204, 196))
        polygon(canvas.image, rectangle(pool, angle, canvas.px(6.5), canvas.px(3)), vary(rng, (84, 168, 186), 12))


def infill(canvas: Canvas, angle: float, count: int, style: Style, kinds: list[Colour],
           near: list[Road] | None = None) -> list[Roof]:  # fmt: skip
    """Large buildings, car parks, courts and lawns on ground that is still free, near the roads `near` or anywhere."""
    rng = canvas.rng
    roofs: list[Roof] = []
    for _ in range(count):
        centre = about(canvas, near) if near else rng.uniform(0, canvas.size, 2)
        front, deep = canvas.px(rng.uniform(*style.front)), canvas.px(rng.uniform(*style.depth))
        turn = angle + rng.choice([0, np.pi / 2])
        if not free(canvas.taken, interior(rectangle(centre, turn, front, deep), 6)):
            continue
        polygon(canvas.taken, rectangle(centre, turn, front, deep), 255, smooth=False)
        fate = rng.random()
        if fate < style.park:
            parked(canvas, centre, turn, front, deep)
        elif fate < style.park + style.courts:
            court(canvas, centre, turn)
        elif fate < style.park + style.courts + 0.1:
            polygon(canvas.image, rectangle(centre, turn, front, deep), pick(rng, GRASS + SOIL, 12))
        else:
            out = np.array([-np.sin(turn), np.cos(turn)])
            roofs += furnish(canvas, centre, turn, out, front, deep, style, kinds)
    return roofs


def about(canvas: Canvas, roads: list[Road]) -> Points:
    """A random point within some tens of metres of one of the roads."""
    rng = canvas.rng
    points = roads[int(rng.integers(len(roads)))].points
    return np.asarray(points[int(rng.integers(len(points)))] + rng.normal(0, canvas.px(28), 2))


def court(canvas: Canvas, centre: Points, angle: float) -> None:
    """A tennis court with its lines."""
    rng = canvas.rng
    polygon(
        canvas.image,
        rectangle(centre, angle, canvas.px(34), canvas.px(17)),
        pick(rng, [(70, 110, 76), (150, 88, 68), (90, 92, 90)], 12),
    )
    inner = rectangle(centre, angle, canvas.px(23.8), canvas.px(11))
    polygon(canvas.image, inner, pick(rng, [(64, 96, 140), (80, 120, 84), (160, 96, 76), (104, 104, 102)], 10))
    stroke(canvas.image, [np.vstack([inner, inner[:1]])], (206, 208, 204), 1)


def cast(canvas: Canvas, roofs: list[Roof]) -> None:
    """Add the buildings' shadows on the ground to the shadow layer."""
    for roof in roofs:
        tip = roof.corners + canvas.px(roof.height) * canvas.sun
        hull = cv2.convexHull(np.vstack([roof.corners, tip]).astype(np.float32))
        polygon(canvas.shade, hull.reshape(-1, 2).astype(np.float64), 255)


def raise_roofs(canvas: Canvas, roofs: list[Roof]) -> None:
    """Draw walls and roofs, low buildings first; roofs share one noise texture."""
    layer = canvas.image.copy()
    cover = np.zeros_like(canvas.shade)
    for roof in sorted(roofs, key=lambda r: r.height):
        top = roof.corners + canvas.px(roof.height) * canvas.lean
        if float(np.abs(canvas.lean).max()) * canvas.px(roof.height) > 1:
            hull = cv2.convexHull(np.vstack([roof.corners, top]).astype(np.float32)).reshape(-1, 2).astype(np.float64)
            polygon(layer, hull, vary(canvas.rng, (120, 114, 106), 18))
            polygon(cover, hull, 255, smooth=False)
        polygon(cover, top, 255, smooth=False)
        (level if roof.form == "flat" else pitched)(canvas, layer, top, roof)
    rng, size = canvas.rng, canvas.size
    grain = np.float32(rng.uniform(0.02, 0.06)) * noise(rng, size, canvas.px(rng.uniform(3, 12)), 3, 0.85)
    cv2.multiply(layer, cv2.merge([1 + grain] * 3), dst=layer, dtype=cv2.CV_8U)
    cv2.copyTo(layer, cover, canvas.image)


def scaled(colour: Colour, gain: float) -> Colour:
    """The colour made brighter or darker."""
    return min(255.0, colour[0] * gain), min(255.0, colour[1] * gain), min(255.0, colour[2] * gain)


def level(canvas: Canvas, layer: Bytes, top: Points, roof: Roof) -> None:
    """A flat roof: parapet, plain surface, parts of another tone, boxes with small shadows."""
    rng = canvas.rng
    polygon(layer, top, scaled(roof.colour, rng.uniform(0.7, 1.25)))
    middle = top.mean(0)
    size = np.hypot(*(top[1] - top[0])), np.hypot(*(top[2] - top[1]))
    inset = 1 - canvas.px(0.8) / max(2.0, float(min(size)) / 2)
    polygon(layer, middle + (top - middle) * max(0.5, inset), roof.colour)
    large = min(size) > canvas.px(12)
    if large and rng.random() < 0.5:
        u, v = sorted(rng.uniform(0.05, 0.95, 2))
        part = np.stack(
            [
                top[0] + (top[1] - top[0]) * u,
                top[0] + (top[1] - top[0]) * v,
                top[3] + (top[2] - top[3]) * v,
                top[3] + (top[2] - top[3]) * u,
            ]
        )
        polygon(layer, part, scaled(roof.colour, rng.uniform(0.75, 1.15)))
    for _ in range(int(rng.poisson(6 if large else 0.6))):
        u, v = rng.uniform(0.12, 0.88, 2)
        spot = top[0] + (top[1] - top[0]) * u + (top[3] - top[0]) * v
        angle = float(np.arctan2(*(top[1] - top[0])[::-1]))
        box = rectangle(spot, angle, canvas.px(rng.uniform(0.8, 3.5)), canvas.px(rng.uniform(0.8, 3)))
        polygon(layer, box + canvas.px(1.5) * canvas.sun, scaled(roof.colour, 0.55))
        polygon(layer, box, pick(rng, BRIGHT + FLAT, 10))


def pitched(canvas: Canvas, layer: Bytes, top: Points, roof: Roof) -> None:
    """A gabled or hipped roof, its slopes lit by the sun."""
    if np.hypot(*(top[1] - top[0])) < np.hypot(*(top[2] - top[1])):
        top = np.roll(top, 1, axis=0)
    a, b, c, d = top
    inset = 0.0 if roof.form == "gable" else 0.5 * float(np.hypot(*(d - a)) / max(1e-6, np.hypot(*(b - a))))
    left, right = (a + d) / 2 + (b - a) * inset, (b + c) / 2 - (b - a) * inset
    for slope in ([a, b, right, left], [d, c, right, left], [a, d, left], [b, c, right]):
        face = np.stack(slope)
        facing = face.mean(0) - top.mean(0)
        light = -float(facing @ canvas.sun) / max(1e-6, float(np.hypot(*facing) * np.hypot(*canvas.sun)))
        if inset or len(slope) == 4:
            polygon(layer, face, scaled(roof.colour, 1 + 0.22 * light))
    stroke(layer, [np.stack([left, right])], scaled(roof.colour, 1.15), max(1.0, canvas.px(0.3)))
