"""Vehicles: cars, vans and buses on roads, at kerbs and in car parks.

A car park has asphalt like a road's, but is not road in the mask.
"""

from __future__ import annotations

import numpy as np

from dlink.scenes.canvas import Canvas, Colour, Points, headings, polygon, rectangle, resample, stroke
from dlink.scenes.roadnet import LOOSE, Road
from dlink.scenes.terrain import pick, vary

BODIES: list[Colour] = [
    (230, 230, 230), (240, 240, 242), (30, 30, 34), (44, 46, 52), (150, 152, 156), (180, 182, 184), (96, 100, 106),
    (130, 30, 32), (36, 52, 96), (120, 112, 98), (210, 206, 196), (60, 66, 62), (52, 52, 56), (232, 232, 230),
    (112, 114, 116), (196, 196, 194), (84, 84, 88), (38, 38, 40), (180, 150, 60), (86, 34, 34), (222, 222, 224),
]  # fmt: skip


def vehicle(canvas: Canvas, centre: Points, angle: float, length: float = 4.5, width: float = 1.9) -> None:
    """One vehicle, sizes in metres, with its shadow and windows."""
    body = rectangle(centre, angle, canvas.px(length), canvas.px(width))
    colour = pick(canvas.rng, BODIES, 8)
    polygon(canvas.image, body + canvas.px(1.3) * canvas.sun, (34, 34, 36))
    polygon(canvas.image, body, colour)
    if canvas.gsd < 0.75:
        glass = rectangle(centre, angle, canvas.px(length * 0.55), canvas.px(width * 0.8))
        polygon(canvas.image, glass, (40, 44, 50))
        polygon(canvas.image, rectangle(centre, angle, canvas.px(length * 0.3), canvas.px(width * 0.8)), colour)


def drive_along(canvas: Canvas, roads: list[Road], parked_share: float, moving: float) -> None:
    """Cars parked at the kerbs (chance for each place) and moving in lanes (cars for each 100 m)."""
    rng = canvas.rng
    for road in roads:
        if road.rank == "track" or len(road.points) < 4:
            continue
        line = resample(road.points, max(2.0, canvas.px(6.2)))
        ways = headings(line)
        right = np.stack([-ways[:, 1], ways[:, 0]], 1)
        angles = np.arctan2(ways[:, 1], ways[:, 0])
        seen = ((line > -5) & (line < canvas.size + 5)).all(1)
        half = canvas.px(road.width) / 2
        kerb = road.rank in ("street", "avenue") and road.width > 6.5 and road.surface not in LOOSE
        density = parked_share * rng.uniform(0, 1.6) if kerb else 0.0
        for side in (-1, 1):
            chance = np.where(rng.random(len(line)) < density, 1, 0) * seen
            for index in np.flatnonzero(chance):
                spot = line[index] + right[index] * side * (half - canvas.px(1.3))
                vehicle(canvas, spot, float(angles[index]), float(rng.uniform(4, 5.2)))
        for index in np.flatnonzero((rng.random(len(line)) < moving * 0.06) & seen):
            spot = line[index] + right[index] * half * rng.choice([-0.3, 0.3]) * (0.6 if road.width < 6 else 1)
            big = rng.random() < 0.07
            vehicle(canvas, spot, float(angles[index]), 11.0 if big else 4.5, 2.6 if big else 1.9)


def parked(canvas: Canvas, centre: Points, angle: float, front: float, deep: float) -> None:
    """A car park (pixels) with stall lines and cars in rows."""
    rng = canvas.rng
    base = pick(rng, [(92, 90, 86), (72, 72, 74), (112, 108, 102), (130, 126, 116), (58, 58, 62), (150, 142, 128)], 9)
    polygon(canvas.image, rectangle(centre, angle, front, deep), base)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    for _ in range(int(rng.integers(0, 4))):
        spot = centre + along * front * rng.uniform(-0.4, 0.4) + across * deep * rng.uniform(-0.4, 0.4)
        polygon(
            canvas.image,
            rectangle(spot, angle, front * rng.uniform(0.05, 0.3), deep * rng.uniform(0.05, 0.3)),
            vary(rng, base, 6),
        )
    full, stall, row = rng.beta(1.2, 1.2), canvas.px(2.7), canvas.px(rng.choice([8.2, 11.5]))
    lines: list[Points] = []
    for v in np.arange(-deep / 2 + canvas.px(3.5), deep / 2 - canvas.px(3), row):
        for u in np.arange(-front / 2 + stall, front / 2 - stall, stall):
            spot = centre + along * u + across * v
            if rng.random() < full and (spot > -9).all() and (spot < canvas.size + 9).all():
                vehicle(canvas, spot + across * rng.normal(0, 0.6), angle + np.pi / 2)
            edge = spot + along * stall / 2
            lines.append(np.stack([edge - across * canvas.px(2.4), edge + across * canvas.px(2.4)]))
    if lines and rng.random() < 0.5:
        red, green, blue = base
        bright = (red * 0.6 + 90, green * 0.6 + 90, blue * 0.6 + 90)
        stroke(canvas.image, lines, vary(rng, base, 3) if rng.random() < 0.3 else bright, 1)
