"""The ground of a scene: multi-octave noise, colour-mapped soils, crop fields in patchworks, water and bare ground.

Every function works on the whole canvas with low-resolution noise enlarged by OpenCV, so its time does not depend on
how busy the scene is.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dlink.scenes.canvas import (
    Bytes,
    Canvas,
    Colour,
    Floats,
    Points,
    as_bytes,
    blend,
    clip,
    modulate,
    polygon,
    resample,
    stroke,
)

GRASS: list[Colour] = [(78, 92, 52), (96, 108, 66), (60, 78, 42), (110, 112, 74), (70, 84, 58), (52, 70, 46)]
DRY: list[Colour] = [(140, 126, 92), (158, 138, 104), (122, 108, 80), (116, 112, 84), (132, 116, 96)]
SOIL: list[Colour] = [(120, 96, 70), (104, 84, 64), (142, 112, 82), (128, 84, 58), (92, 78, 64), (112, 92, 76)]
SAND: list[Colour] = [(176, 146, 108), (154, 122, 84), (190, 166, 130), (128, 102, 72), (168, 128, 92)]
WOODS: list[Colour] = [(46, 62, 36), (58, 70, 44), (40, 54, 40), (70, 76, 48)]
URBAN: list[Colour] = [(96, 92, 84), (82, 84, 70), (110, 102, 90), (74, 78, 60), (124, 118, 108)]
CITY: list[Colour] = [(88, 84, 76), (72, 70, 63), (104, 99, 90), (60, 58, 52), (118, 113, 104), (84, 76, 64)]
CROPS: list[Colour] = [
    (52, 84, 48), (66, 104, 54), (84, 110, 62), (40, 66, 46), (104, 120, 70), (120, 100, 78), (146, 122, 94),
    (96, 82, 72), (170, 150, 112), (132, 126, 84), (74, 66, 60), (60, 92, 64), (188, 170, 120),
]  # fmt: skip


def noise(rng: np.random.Generator, size: int, cell: float, octaves: int = 3, fall: float = 0.55) -> Floats:
    """Smooth noise (size, size), about unit variance, whose largest features are `cell` pixels wide."""
    total = np.zeros((size, size), np.float32)
    weight, power = 1.0, 0.0
    for _ in range(octaves):
        side = max(3, int(size / max(cell, 1.0)) + 3)
        coarse = rng.standard_normal((min(side, size), min(side, size)), dtype=np.float32)
        layer = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.scaleAdd(layer, weight, total, dst=total)
        power += weight * weight
        weight, cell = weight * fall, cell / 2.1
    return np.asarray(total * np.float32(1.3 / np.sqrt(power)), np.float32)


def vary(rng: np.random.Generator, colour: Colour, spread: float = 12) -> Colour:
    """A colour near `colour`: a common brightness step plus a smaller step for each channel."""
    step = rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    red, green, blue = np.clip(np.asarray(colour) + step, 3, 252)
    return float(red), float(green), float(blue)


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 12) -> Colour:
    """One of the colours, varied."""
    return vary(rng, colours[int(rng.integers(len(colours)))], spread)


def ramp(values: Floats, colours: Sequence[Colour]) -> Bytes:
    """Noise (S, S) of unit variance mapped through a ramp of colours: (S, S, 3)."""
    at = np.linspace(0, 255, len(colours))
    table = np.stack([np.interp(np.arange(256), at, [c[i] for c in colours]) for i in range(3)], 1)
    index = as_bytes(values + np.float32(2), 64)
    return np.asarray(cv2.applyColorMap(index, table.astype(np.uint8).reshape(256, 1, 3)), np.uint8)


def flat(size: int, colour: Colour) -> Bytes:
    """A canvas of one colour, (size, size, 3)."""
    return np.full((size, size, 3), np.asarray(colour, np.uint8), np.uint8)


def ground(canvas: Canvas, colours: Sequence[Colour], rough: float) -> None:
    """Cover the canvas with a texture of two to four of the colours; `rough` is the grain's strength (0-1)."""
    rng, size = canvas.rng, canvas.size
    chosen = [pick(rng, colours, 9) for _ in range(int(rng.integers(2, 5)))]
    middle, spread = np.mean(chosen, 0), rng.uniform(0.2, 1)
    chosen = [tuple(middle + spread * (np.asarray(c) - middle)) for c in chosen]
    broad = noise(rng, size, canvas.px(rng.uniform(60, 250)), 4, rng.uniform(0.45, 0.75))
    canvas.image[:] = ramp(broad, chosen)
    fine = noise(rng, size, canvas.px(rng.uniform(4, 14)), 3, 0.75)
    if rng.random() < 0.5:
        fine += relief(fine + broad * 2, canvas.sun) * np.float32(rng.uniform(0.3, 1.5))
    modulate(canvas.image, 1 + np.float32(rough * 0.16) * fine)


def relief(height: Floats, sun: Points) -> Floats:
    """Hill shading (S, S) of a height field: bright where it rises towards the sun."""
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=0.25)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=0.25)
    unit = sun / max(float(np.hypot(*sun)), 1e-6)
    return np.asarray(cv2.addWeighted(across, -float(unit[0]), down, -float(unit[1]), 0), np.float32) * -1


def patches(canvas: Canvas, colours: Sequence[Colour], share: float, scale_m: float, soft: float = 0.25) -> None:
    """Blend noise-shaped patches of one textured colour over about `share` of the canvas."""
    rng, size = canvas.rng, canvas.size
    shape = noise(rng, size, canvas.px(scale_m), 5, 0.6)
    level = np.float32(np.quantile(shape[::8, ::8], 1 - share))
    alpha = clip((shape - level) / np.float32(soft), 0, rng.uniform(0.5, 1))
    paint = flat(size, pick(rng, colours, 10))
    modulate(paint, 1 + np.float32(rng.uniform(0.04, 0.14)) * noise(rng, size, canvas.px(6), 3, 0.8))
    blend(canvas.image, paint, alpha)


def cells(rng: np.random.Generator, span: float, smallest: float) -> list[Points]:
    """Corners (4, 2) of the rectangles got by cutting a square of side `span` (centred on 0) at random."""
    todo = [(-span / 2, -span / 2, span, span)]
    done: list[Points] = []
    while todo:
        x, y, w, h = todo.pop()
        stop = rng.random() < 0.12 and max(w, h) < 3 * smallest
        if max(w, h) < 1.6 * smallest or stop:
            done.append(np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]))
            continue
        cut = rng.uniform(0.35, 0.65)
        if w > h * rng.uniform(0.7, 1.4):
            todo += [(x, y, w * cut, h), (x + w * cut, y, w * (1 - cut), h)]
        else:
            todo += [(x, y, w, h * cut), (x, y + h * cut, w, h * (1 - cut))]
    return done


def outline(corners: Points, step: float) -> Points:
    """The closed outline of a polygon with vertices every `step` pixels, its corners kept."""
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    return np.concatenate([resample(np.stack(side), step)[:-1] for side in sides] + [corners[:1]])


def stripes(canvas: Canvas, period_m: float, angle: float) -> Floats:
    """A wave (S, S) of amplitude 1 across direction `angle`, wobbling slightly: crop rows, plough lines."""
    axis = np.arange(canvas.size, dtype=np.float32) * np.float32(2 * np.pi / max(canvas.px(period_m), 2.2))
    x, y = axis * np.float32(np.cos(angle)), axis * np.float32(np.sin(angle))
    wave: Floats = np.outer(np.cos(y), np.cos(x)) - np.outer(np.sin(y), np.sin(x))
    return wave


def fields(canvas: Canvas, place: Frame, smallest_m: float, share: float) -> list[Points]:
    """Paint a patchwork of crop fields; returns their outlines (N, 2) in pixels."""
    rng, size = canvas.rng, canvas.size
    shapes = [place(outline(corners, canvas.px(20))) for corners in cells(rng, size * 1.5, canvas.px(smallest_m))]
    paint, alpha = canvas.image.copy(), np.zeros((size, size), np.uint8)
    rows = [np.zeros((size, size), np.uint8) for _ in range(2)]
    palette = [pick(rng, CROPS, 14) for _ in range(int(rng.integers(3, 8)))]
    for shape in shapes:
        if rng.random() > share:
            continue
        polygon(paint, shape, pick(rng, palette, 6))
        polygon(alpha, shape, float(rng.uniform(170, 255)))
        polygon(rows[int(rng.integers(2))], shape, float(rng.choice([0, 20, 50, 110, 160])))
    gain = 1 + np.float32(rng.uniform(0.04, 0.12)) * noise(rng, size, canvas.px(rng.uniform(10, 60)), 5, 0.75)
    for index, layer in enumerate(rows):
        wave = stripes(canvas, rng.uniform(1.2, 7), place.angle + index * np.pi / 2 + rng.normal(0, 0.02))
        gain += wave * layer.astype(np.float32) * np.float32(1 / 1000)
    modulate(paint, gain)
    blend(canvas.image, paint, alpha)
    return shapes


class Frame:
    """A rotated, smoothly warped coordinate frame: takes centred plan points (pixels) to canvas points."""

    def __init__(self, canvas: Canvas, angle: float, bend_m: float, wave_m: float = 300) -> None:
        rng = canvas.rng
        self.angle = angle
        self.middle = canvas.size * rng.uniform(0.35, 0.65, 2)
        self.bend = canvas.px(bend_m)
        self.waves = rng.normal(0, 1, (3, 2)) * (2 * np.pi / max(canvas.px(wave_m), 40.0)) * 0.6
        self.phases = rng.uniform(0, 2 * np.pi, (3, 2))

    def __call__(self, points: Points) -> Points:
        turn = np.array([[np.cos(self.angle), np.sin(self.angle)], [-np.sin(self.angle), np.cos(self.angle)]])
        out = points @ turn
        for wave, phase in zip(self.waves, self.phases, strict=True):
            out = out + self.bend / 3 * np.sin((points @ wave)[:, None] + phase)
        return np.asarray(out + self.middle)


def water(canvas: Canvas, lines: Sequence[Points], width: float, lake: bool) -> None:
    """Draw water along lines (`width` pixels) or in noise-shaped lakes, with a muddy bank, and take its ground."""
    rng, size = canvas.rng, canvas.size
    shape = np.zeros((size, size), np.uint8)
    if lake:
        height = noise(rng, size, size / rng.uniform(1.2, 3), 4, 0.4)
        shape[height > np.quantile(height[::8, ::8], 1 - rng.uniform(0.03, 0.2))] = 255
    stroke(shape, lines, 255, width) if lines else None
    bank = np.asarray(cv2.GaussianBlur(shape, (0, 0), max(1.0, canvas.px(rng.uniform(1, 6)))), np.uint8)
    blend(canvas.image, flat(size, pick(rng, SOIL + GRASS, 10)), cv2.add(bank, bank // 2).astype(np.uint8))
    tones: list[Colour] = [
        (34, 46, 46),
        (52, 66, 58),
        (40, 58, 78),
        (88, 92, 72),
        (20, 26, 30),
        (66, 96, 60),
        (120, 110, 84),
    ]
    deep = pick(rng, tones, 8)
    paint = ramp(noise(rng, size, canvas.px(60), 3), [deep, vary(rng, deep, 5)])
    blend(canvas.image, paint, np.asarray(cv2.GaussianBlur(shape, (0, 0), 0.8), np.uint8))
    cv2.max(canvas.taken, bank, dst=canvas.taken)
