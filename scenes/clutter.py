"""Long things that look like roads and are not: railways, footpaths, dry river beds, hedges, bare strips.
They are drawn into the image alone, before the roads.
"""

from __future__ import annotations

import cv2
import numpy as np

from dlink.scenes.canvas import Canvas, Colour, Points, as_bytes, blend, modulate, polygon, resample, shifted, stroke
from dlink.scenes.roadnet import wander
from dlink.scenes.terrain import DRY, SAND, SOIL, WOODS, flat, noise, pick


def railway(canvas: Canvas) -> None:
    """One to four parallel tracks on a ballast bed; their ground is taken."""
    rng = canvas.rng
    line = resample(wander(canvas, rng.uniform(0.0, 0.03)), 6.0)
    count = int(rng.integers(1, 5))
    wide = canvas.px(4.6 * count + 2)
    layer = np.zeros_like(canvas.mask)
    stroke(layer, [line], 245, wide)
    bed = flat(canvas.size, pick(rng, [(112, 100, 90), (96, 90, 84), (130, 116, 102), (88, 74, 64)], 9))
    modulate(bed, 1 + np.float32(0.12) * noise(rng, canvas.size, canvas.px(3), 2, 0.9))
    blend(canvas.image, bed, layer)
    sleeper, rail = pick(rng, [(84, 76, 70), (134, 128, 120)], 6), pick(rng, [(70, 62, 58), (160, 156, 150)], 8)
    for track in range(count):
        middle = shifted(line, canvas.px(4.6) * (track - (count - 1) / 2))
        stroke(canvas.image, [middle], sleeper, canvas.px(2.4))
        stroke(canvas.image, [shifted(middle, side * canvas.px(0.75)) for side in (-1, 1)], rail, 1)
    stroke(canvas.taken, [line], 255, wide + 4, smooth=False)


def footpaths(canvas: Canvas, count: int) -> None:
    """Thin trodden paths, a metre or so wide."""
    rng = canvas.rng
    layer = np.zeros_like(canvas.mask)
    for _ in range(count):
        stroke(
            layer,
            [wander(canvas, rng.uniform(0.1, 0.4))],
            float(rng.uniform(60, 170)),
            canvas.px(rng.uniform(0.6, 1.2)),
        )
    blend(canvas.image, flat(canvas.size, pick(rng, SAND + DRY, 10)), layer)


def beds(canvas: Canvas, count: int) -> None:
    """Dry stream beds and gullies of changing width with dark, bushy or shaded banks."""
    rng = canvas.rng
    for _ in range(count):
        line = resample(wander(canvas, rng.uniform(0.25, 0.5)), 8.0)
        layer, bank = np.zeros_like(canvas.mask), np.zeros_like(canvas.mask)
        width = canvas.px(rng.uniform(2, 9) if rng.random() < 0.7 else rng.uniform(10, 40))
        swell = np.interp(np.arange(len(line)), np.linspace(0, len(line), 12), rng.uniform(0.4, 1.7, 12))
        for index in range(len(line) - 1):
            stroke(layer, [line[index : index + 2]], 255, width * swell[index], smooth=False)
            stroke(bank, [line[index : index + 2]], 255, width * swell[index] * 1.9 + 3, smooth=False)
        rough = 1 + np.float32(0.45) * noise(rng, canvas.size, canvas.px(7), 3, 0.7)
        dark = pick(rng, WOODS + SOIL, 8)
        tone = flat(canvas.size, (dark[0] * 0.7, dark[1] * 0.7, dark[2] * 0.7))
        soft = cv2.GaussianBlur(bank, (0, 0), max(1.0, canvas.px(1.5))).astype(np.float32) * rough
        blend(canvas.image, tone, as_bytes(soft, rng.uniform(0.2, 0.8)))
        sand = flat(canvas.size, pick(rng, SAND + DRY, 12))
        modulate(sand, 1 + np.float32(0.1) * noise(rng, canvas.size, canvas.px(12), 4, 0.8))
        core = cv2.GaussianBlur(layer, (0, 0), max(0.8, canvas.px(0.9))).astype(np.float32) * rough
        blend(canvas.image, sand, as_bytes(core, rng.uniform(0.3, 0.95)))


def hedges(canvas: Canvas, outlines: list[Points]) -> None:
    """Field borders: bushes, ditches or bare balks on some edges."""
    rng = canvas.rng
    layer = np.zeros_like(canvas.mask)
    colours: list[Colour] = WOODS if rng.random() < 0.5 else DRY + SOIL
    bushy = colours is WOODS
    for outline in outlines:
        if rng.random() < 0.6:
            stroke(layer, [outline], float(rng.uniform(80, 255)), canvas.px(rng.uniform(0.6, 2.2)))
        if bushy and rng.random() < 0.25:
            edge = resample(outline[: len(outline) // 2], canvas.px(4))
            sizes = canvas.px(1) * rng.uniform(1, 3.5, len(edge))
            keep = rng.random(len(edge)) < rng.uniform(0.2, 0.8)
            canvas.trees.extend(np.column_stack([edge, sizes])[keep])
    blend(canvas.image, flat(canvas.size, pick(rng, colours, 10)), layer)


def orchards(canvas: Canvas, outlines: list[Points]) -> None:
    """Small trees or bushes in a lattice over some of the fields."""
    rng, size = canvas.rng, canvas.size
    inside = np.zeros_like(canvas.mask)
    for outline in outlines:
        if rng.random() < 0.12:
            polygon(inside, outline, 255, smooth=False)
    gap, angle = canvas.px(rng.uniform(3, 9)), rng.uniform(0, np.pi)
    if len(outlines):
        edge = outlines[0][2] - outlines[0][0]
        angle = float(np.arctan2(edge[1], edge[0]))
    run = np.arange(-size, size, gap)
    spots = np.stack(np.meshgrid(run, run * rng.uniform(0.8, 1.4)), -1).reshape(-1, 2)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    spots = spots @ turn + size / 2
    spots = spots[((spots >= 0) & (spots < size)).all(1)]
    where = spots.astype(np.int64)
    spots = spots[(inside[where[:, 1], where[:, 0]] > 0) & (rng.random(len(spots)) < 0.9)]
    canvas.trees.extend(np.column_stack([spots, gap * rng.uniform(0.25, 0.5, len(spots))]))


def strips(canvas: Canvas, count: int) -> None:
    """Straight bare or mown strips with soft ends: fire breaks, pipelines, headlands."""
    rng = canvas.rng
    layer = np.zeros_like(canvas.mask)
    for _ in range(count):
        centre, angle = rng.uniform(0, canvas.size, 2), rng.uniform(0, np.pi)
        half = canvas.px(rng.uniform(20, 200)) * np.array([np.cos(angle), np.sin(angle)])
        stroke(
            layer,
            [np.stack([centre - half, centre + half])],
            float(rng.uniform(60, 150)),
            canvas.px(rng.uniform(4, 18)),
        )
    soft = cv2.GaussianBlur(layer, (0, 0), max(1.0, canvas.px(rng.uniform(0.5, 4)))).astype(np.float32)
    rough = soft * (1 + np.float32(0.4) * noise(rng, canvas.size, canvas.px(10), 3, 0.7))
    blend(
        canvas.image,
        flat(canvas.size, pick(rng, [*SOIL, *DRY, (112, 110, 106), (150, 146, 138)], 14)),
        as_bytes(rough),
    )
