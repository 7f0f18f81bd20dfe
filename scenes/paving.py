"""Draws roads as seen from above, and the exact mask of the carriageway.

A road has verges and sidewalks, a carriageway in one of six materials with wear and repairs, and painted markings.
Sidewalks and shoulders are not road in the mask. A median is road, as in hand labels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.scenes.canvas import (
    SHIFT,
    Bytes,
    Canvas,
    Colour,
    Points,
    as_bytes,
    blend,
    clip,
    fixed,
    headings,
    modulate,
    polygon,
    rectangle,
    resample,
    shifted,
    stroke,
)
from dlink.scenes.roadnet import LOOSE, Road
from dlink.scenes.terrain import DRY, GRASS, flat, noise, pick, vary

MATERIALS: dict[str, list[Colour]] = {
    "asphalt": [(92, 90, 86), (74, 74, 76), (110, 107, 102), (58, 58, 62), (100, 96, 88), (84, 82, 78)],
    "old": [(126, 122, 114), (138, 134, 128), (118, 112, 102), (104, 100, 92)],
    "concrete": [(164, 158, 146), (148, 144, 136), (180, 174, 162)],
    "dirt": [(150, 124, 92), (132, 110, 84), (170, 142, 108), (116, 96, 74), (186, 160, 124)],
    "gravel": [(156, 148, 136), (136, 130, 120), (176, 168, 154)],
    "laterite": [(160, 96, 64), (142, 90, 66), (176, 112, 76)],
}
STANDS_OUT = 22.0  # grey levels between a road and the ground beneath it, at least
WALKS: list[Colour] = [(150, 146, 136), (128, 124, 116), (172, 166, 154), (110, 108, 100)]


def pave(canvas: Canvas, roads: list[Road], extra: Bytes | None = None) -> None:
    """Draw all roads and their mask; `extra` (S, S) is further ground paved like the main roads (car parks)."""
    verges(canvas, roads)
    tone = np.full((canvas.size, canvas.size), 128, np.uint8)
    names = sorted({road.surface for road in roads})
    for name in sorted(names, key=lambda n: n not in LOOSE):
        group = [road for road in roads if road.surface == name]
        alpha = coverage(canvas, group, tone)
        if name in LOOSE:
            alpha = frayed(canvas, alpha)
        blend(canvas.image, material(canvas, name, tone, alpha), alpha)
    for road in roads:
        stroke(canvas.mask, [road.points], 255, canvas.px(road.width), smooth=False)
    cv2.max(canvas.taken, canvas.mask, dst=canvas.taken)


def verges(canvas: Canvas, roads: list[Road]) -> None:
    """Sidewalks, grass strips or bare shoulders on both sides of the roads, taken as ground."""
    rng = canvas.rng
    style = rng.random()
    walk, lawn, bare = pick(rng, WALKS), pick(rng, GRASS), pick(rng, DRY)
    layer = np.zeros((canvas.size, canvas.size), np.uint8)
    for road in roads:
        wide = canvas.px(road.width + 2 * road.verge)
        stroke(canvas.taken, [road.points], 255, wide, smooth=False)
        if road.rank == "alley" or (road.rank == "track" and rng.random() < 0.6):
            continue
        stroke(layer, [road.points], float(rng.uniform(90, 230)), wide)
    loose = sum(road.surface in LOOSE for road in roads) > len(roads) / 2
    first = bare if loose else walk if style < 0.75 else lawn
    paint = flat(canvas.size, first)
    modulate(paint, 1 + np.float32(0.07) * noise(rng, canvas.size, canvas.px(5), 3, 0.8))
    blend(canvas.image, paint, layer if not loose else frayed(canvas, layer))
    if not loose and style < 0.5:
        for road in roads:
            if road.rank in ("street", "avenue") and road.verge > 2:
                stroke(canvas.image, [road.points], lawn, canvas.px(road.width + 2 * road.verge - 2.6))
                edges = [shifted(road.points, side * canvas.px(road.width / 2)) for side in (-1, 1)]
                stroke(canvas.image, edges, walk, canvas.px(0.5))


def coverage(canvas: Canvas, group: list[Road], tone: Bytes) -> Bytes:
    """Anti-aliased cover (S, S) of some roads; writes each road's brightness step into `tone`."""
    alpha = np.zeros((canvas.size, canvas.size), np.uint8)
    for road in group:
        wide = canvas.px(road.width)
        low = 205 if road.rank == "track" else 240
        stroke(alpha, [road.points], float(canvas.rng.uniform(low, 255)), wide)
        stroke(tone, [road.points], float(np.clip(canvas.rng.normal(128, 9), 90, 166)), wide)
        wear(canvas, road, tone)
    return alpha


def wear(canvas: Canvas, road: Road, tone: Bytes) -> None:
    """Tyre tracks, a worn or grassy middle, repaired patches and cracks, into `tone`."""
    rng, half = canvas.rng, canvas.px(road.width) / 2
    level = 128.0
    if road.width < 5.5:
        if rng.random() < 0.5:
            stroke(tone, [road.points], level - rng.uniform(-8, 22), half * 0.5)
        return
    if rng.random() < 0.5:
        tracks = [shifted(road.points, half * part) for part in (-0.7, -0.3, 0.3, 0.7)]
        stroke(tone, tracks, level + rng.normal(-4, 7), half * 0.16)
    for _ in range(int(rng.poisson(len(road.points) / 40))):
        index = int(rng.integers(len(road.points)))
        piece = road.points[index : index + int(rng.integers(2, 12))]
        if len(piece) > 1:
            side = rng.uniform(-0.7, 0.7) * half
            stroke(tone, [shifted(piece, side)], level + rng.normal(0, 16), half * rng.uniform(0.1, 0.6))


def frayed(canvas: Canvas, alpha: Bytes) -> Bytes:
    """Cover with uneven, soft edges, as loose surfaces have."""
    soft = cv2.GaussianBlur(alpha, (0, 0), max(0.7, canvas.px(0.5))).astype(np.float32)
    worn = 1 + np.float32(0.28) * noise(canvas.rng, canvas.size, canvas.px(9), 3, 0.75)
    return as_bytes(soft * worn)


def material(canvas: Canvas, name: str, tone: Bytes, alpha: Bytes) -> Bytes:
    """A canvas-wide surface (S, S, 3) of the material, brightness stepped by `tone` about 128.

    Its colour differs from the ground under its cover `alpha` by a minimum: invisible roads would teach only guessing.
    """
    rng, size = canvas.rng, canvas.size
    base = pick(rng, MATERIALS[name], 11)
    ground = canvas.image[::4, ::4][alpha[::4, ::4] > 127].astype(np.float32).reshape(-1, 3)
    if len(ground):
        if name in LOOSE and rng.random() < 0.3:
            red, green, blue = np.minimum(ground.mean(0) * rng.uniform(1.1, 1.4), 235)
            base = vary(rng, (float(red), float(green), float(blue)), 5)
        base = apart(base, ground, rng.uniform(STANDS_OUT, 2 * STANDS_OUT))
    gain = cv2.GaussianBlur(tone, (0, 0), 0.8).astype(np.float32) * np.float32(1 / 128)
    gain += np.float32(rng.uniform(0.02, 0.07)) * noise(rng, size, canvas.px(40), 3, 0.7)
    gain += np.float32(rng.uniform(0.01, 0.06)) * noise(rng, size, canvas.px(2.2), 2, 0.9)
    paint = flat(size, base)
    modulate(paint, gain)
    return paint


def apart(base: Colour, ground: NDArray[np.float32], least: float) -> Colour:
    """Move a colour away from the mean of the ground (N, 3), at least by `least` grey levels or the ground's spread.

    It becomes brighter where there is room, otherwise darker.
    """
    mean = ground.mean(0)
    least = max(least, float(ground.std(0).mean()))
    step = np.asarray(base, np.float32) - mean
    if float(np.abs(step).mean()) >= least:
        return base
    bright = mean.mean() + least < 215 and (step.mean() >= 0 or mean.mean() < 90)
    red, green, blue = np.clip(mean + (least if bright else -least) + (step - step.mean()) * 0.5, 8, 245)
    return float(red), float(green), float(blue)


def junctions(canvas: Canvas, roads: list[Road]) -> Bytes:
    """Where two or more roads overlap: (S, S), non-zero there."""
    count = np.zeros((canvas.size, canvas.size), np.uint8)
    one = np.zeros_like(count)
    for road in roads:
        one[:] = 0
        stroke(one, [road.points], 1, canvas.px(road.width + 1), smooth=False)
        cv2.add(count, one, dst=count)
    return (count > 1).astype(np.uint8)


def dashes(points: Points, on: float, off: float) -> list[Points]:
    """Pieces of the polyline `on` pixels long with gaps of `off`."""
    line = resample(points, (on + off) / 2)
    return [line[i : i + 2] for i in range(0, len(line) - 1, 2)]


def markings(canvas: Canvas, roads: list[Road]) -> None:
    """Centre, lane and edge lines, crossings and planted medians, broken off at junctions and worn."""
    rng = canvas.rng
    paint, alpha = canvas.image.copy(), np.zeros_like(canvas.mask)
    white, yellow = vary(rng, (222, 222, 214), 12), vary(rng, (200, 168, 70), 14)
    for road in roads:
        if road.median:
            planted(canvas, road, paint, alpha)
        if road.marked:
            lined(canvas, road, paint, alpha, white, yellow)
    crossed = junctions(canvas, roads)
    alpha[crossed > 0] = 0
    if rng.random() < 0.6:
        for road in roads:
            if road.rank in ("street", "avenue") and road.surface not in LOOSE and road.width > 6:
                zebras(canvas, road, crossed, paint, alpha, white)
    worn = np.float32(rng.uniform(0.45, 1.0)) + np.float32(0.25) * noise(rng, canvas.size, canvas.px(25), 3, 0.8)
    weight = clip(worn, 0, 1)
    blend(canvas.image, paint, weight * alpha.astype(np.float32) / np.float32(255))
    islands(canvas, roads)


def lined(canvas: Canvas, road: Road, paint: Bytes, alpha: Bytes, white: Colour, yellow: Colour) -> None:
    """Lane lines of one road."""
    rng, half = canvas.rng, canvas.px(road.width) / 2
    thin = max(1.0, canvas.px(0.2))
    strength = min(255.0, 255 * max(0.35, canvas.px(0.16)))
    lanes = max(2, round(road.width / 3.4 / 2) * 2)
    sets: list[tuple[Points, Colour, bool]] = []
    for lane in range(1, lanes):
        place = -half + 2 * half * lane / lanes
        middle = lane == lanes // 2
        if middle and road.median:
            continue
        sets.append(
            (shifted(road.points, place), yellow if middle and rng.random() < 0.4 else white, not middle or lanes == 2)
        )
    if rng.random() < 0.6:
        sets += [(shifted(road.points, side * (half - canvas.px(0.5))), white, False) for side in (-1, 1)]
    for points, colour, broken in sets:
        pieces = dashes(points, canvas.px(3.5), canvas.px(5)) if broken else [points]
        stroke(paint, pieces, colour, thin)
        stroke(alpha, pieces, strength, thin)


def islands(canvas: Canvas, roads: list[Road]) -> None:
    """The planted middle of roundabouts, which is not road."""
    for road in roads:
        if road.rank != "ring":
            continue
        middle = road.points.mean(0)
        radius = float(np.hypot(*(road.points[0] - middle))) - canvas.px(road.width) / 2
        spot = fixed(middle[None])[0]
        size = max(1, round(radius * (1 << SHIFT)))
        centre = (int(spot[0]), int(spot[1]))
        cv2.circle(canvas.image, centre, size, pick(canvas.rng, GRASS + DRY + WALKS), -1, cv2.LINE_AA, SHIFT)
        cv2.circle(canvas.mask, centre, size, (0,), -1, cv2.LINE_8, SHIFT)


def planted(canvas: Canvas, road: Road, paint: Bytes, alpha: Bytes) -> None:
    """A median strip of grass, earth or concrete."""
    rng = canvas.rng
    colour = pick(rng, GRASS + DRY + WALKS)
    width = canvas.px(rng.uniform(0.6, min(4.0, road.width * 0.2)))
    stroke(paint, [road.points], colour, width)
    stroke(alpha, [road.points], 240, width)


def zebras(canvas: Canvas, road: Road, crossed: Bytes, paint: Bytes, alpha: Bytes, white: Colour) -> None:
    """Striped crossings on the road just before its junctions."""
    rng, line = canvas.rng, resample(road.points, 4.0)
    ways = headings(line)
    spots = np.clip(np.round(line).astype(np.int64), 0, canvas.size - 1)
    inside = crossed[spots[:, 1], spots[:, 0]] > 0
    for index in np.flatnonzero(inside[1:] != inside[:-1]):
        if rng.random() < 0.5:
            continue
        way = ways[index] * (-1.0 if inside[index + 1] else 1.0)
        centre = line[index] + way * canvas.px(3.0)
        across = np.array([-way[1], way[0]])
        angle = float(np.arctan2(way[1], way[0]))
        for place in np.arange(-0.42, 0.43, 1.2 / road.width):
            bar = rectangle(centre + across * place * canvas.px(road.width), angle, canvas.px(2.8), canvas.px(0.5))
            polygon(paint, bar, white)
            polygon(alpha, bar, 255)
