"""Trees: crowns around scattered points, made by distance transforms, with lumpy outlines, shading and shadows.

They cover roads in the image but not in the mask.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from dlink.scenes.canvas import Canvas, Colour, Floats, Points, blend, clip, resample, shifted
from dlink.scenes.roadnet import Road
from dlink.scenes.terrain import noise, pick, relief, vary

CROWNS: list[Colour] = [
    (62, 84, 44),
    (50, 70, 40),
    (78, 98, 48),
    (44, 60, 38),
    (88, 104, 62),
    (70, 80, 52),
    (98, 118, 54),
]
BARE: list[Colour] = [(92, 86, 74), (104, 92, 78), (84, 82, 70), (112, 88, 62)]


def rows(canvas: Canvas, roads: list[Road], chance: float) -> None:
    """Plant trees along both sides of some roads."""
    rng = canvas.rng
    for road in roads:
        if len(road.points) < 3:
            continue
        for side in (-1, 1):
            if rng.random() > chance:
                continue
            away = canvas.px(road.width / 2 + rng.uniform(0.3, 4))
            line = resample(shifted(road.points, side * away), canvas.px(rng.uniform(6, 16)))
            line = line[rng.random(len(line)) < rng.uniform(0.3, 0.95)]
            plant(canvas, line + rng.normal(0, canvas.px(0.8), line.shape), rng.uniform(2, 4), rng.uniform(3, 7))


def plant(canvas: Canvas, spots: Points, small_m: float, large_m: float) -> None:
    """Add trees at (N, 2) spots with crown radii between the two sizes in metres."""
    low, high = sorted((small_m, large_m))
    sizes = canvas.px(1) * canvas.rng.uniform(low, high, len(spots))
    canvas.trees.extend(np.column_stack([spots, sizes]))


def scattered(canvas: Canvas, share: float, spacing_m: float, scale_m: float, small_m: float, large_m: float) -> None:
    """Trees every `spacing_m` or so inside noise-shaped clumps that cover about `share` of the canvas."""
    rng, size = canvas.rng, canvas.size
    count = int((canvas.metres / spacing_m) ** 2)
    spots = rng.uniform(0, size, (count, 2))
    shape = noise(rng, size, canvas.px(scale_m), 3, 0.6)
    where = spots.astype(np.int64)
    height = shape[where[:, 1], where[:, 0]]
    spots = spots[height > np.quantile(shape[::8, ::8], 1 - share)]
    plant(canvas, spots, small_m, large_m)


def grow(canvas: Canvas, avoid_roads: float, clear_m: float) -> None:
    """Draw all planted trees. First remove a share `avoid_roads` of those within `clear_m` metres of a carriageway."""
    rng, size = canvas.rng, canvas.size
    if not canvas.trees:
        return
    trees = np.stack(canvas.trees)
    spots = np.clip(trees[:, :2].astype(np.int64), 0, size - 1)
    inside = ((trees[:, :2] > -20) & (trees[:, :2] < size + 20)).all(1)
    reach = 2 * round(canvas.px(clear_m)) + 1
    near = cv2.dilate(canvas.mask, np.ones((reach, reach), np.uint8)) if clear_m else canvas.mask
    on_road = near[spots[:, 1], spots[:, 0]] > 0
    trees = trees[inside & ~(on_road & (rng.random(len(trees)) < avoid_roads))]
    if not len(trees):
        return
    lumps = noise(rng, size, canvas.px(rng.uniform(1.8, 3.5)), 2, 0.8)
    bounds = np.quantile(trees[:, 2], [0, 0.4, 0.75, 1]) if len(trees) > 8 else [0.0, np.inf]
    groups = [trees[(trees[:, 2] >= a) & (trees[:, 2] <= b)] for a, b in pairwise(bounds)]
    crowns = [crown(canvas, group, lumps) for group in groups if len(group)]
    for dome, radius in crowns:
        shadow(canvas, dome, radius)
    darken(canvas)
    leafless, hue = rng.choice([0, 0, 0, 0.3, 0.8]), pick(rng, CROWNS, 8)
    for dome, radius in crowns:
        bare = bool(rng.random() < leafless)
        tint = pick(rng, BARE, 8) if bare else vary(rng, hue, 8) if rng.random() < 0.7 else pick(rng, CROWNS, 8)
        foliage(canvas, dome, radius, lumps, bare, tint)


def crown(canvas: Canvas, group: Points, lumps: Floats) -> tuple[Floats, float]:
    """Dome heights (S, S), 0 off the crowns and up to 1, of one size class, and its radius in pixels."""
    size, radius = canvas.size, float(np.median(group[:, 2]))
    seeds = np.full((size, size), 255, np.uint8)
    spots = np.clip(np.round(group[:, :2]).astype(np.int64), 0, size - 1)
    seeds[spots[:, 1], spots[:, 0]] = 0
    away = cv2.distanceTransform(seeds, cv2.DIST_L2, 3)
    part = away * np.float32(1 / max(radius, 1.0)) + np.float32(0.2) * lumps
    dome = np.maximum(1 - part * np.abs(part), 0)
    return np.asarray(np.sqrt(dome), np.float32), radius


def shadow(canvas: Canvas, reach: Floats, radius: float) -> None:
    """Cast the crowns' shadow into the shadow layer."""
    solid = cv2.convertScaleAbs(reach, alpha=420)
    for height in (0.9, 1.8):
        move = canvas.sun * radius * height
        matrix = np.array([[1, 0, move[0]], [0, 1, move[1]]], np.float32)
        moved = cv2.warpAffine(solid, matrix, (canvas.size, canvas.size))
        cv2.max(canvas.shade, np.asarray(moved, np.uint8), dst=canvas.shade)


def foliage(canvas: Canvas, reach: Floats, radius: float, lumps: Floats, bare: bool, colour: Colour) -> None:
    """Blend one size class of crowns into the image."""
    rng, size = canvas.rng, canvas.size
    light = relief(reach * np.float32(radius * 0.55) + lumps * np.float32(0.5), canvas.sun)
    tint = noise(rng, size, canvas.px(9), 2, 0.9)
    gain = (
        np.maximum(0.62 + 0.35 * reach + np.float32(rng.uniform(0.2, 0.5)) * light, np.float32(0.3))
        + np.float32(0.09) * tint
    )
    paint = np.empty_like(canvas.image)
    paint[:] = np.asarray(colour, np.uint8)
    cv2.multiply(paint, cv2.merge([gain * (1 + np.float32(0.08) * tint), gain, gain]), dst=paint, dtype=cv2.CV_8U)
    alpha = clip(reach * 3, 0, 1)
    if bare:
        alpha = clip(alpha * (0.5 + np.float32(0.35) * lumps), 0, 1)
    blend(canvas.image, paint, alpha)


def darken(canvas: Canvas) -> None:
    """Apply the shadow layer to the image, bluish as sky light is, and clear it."""
    soft = cv2.GaussianBlur(canvas.shade, (0, 0), 0.8).astype(np.float32) * np.float32(1 / 255)
    gains = [1 - soft * np.float32(canvas.dark * part) for part in (1.05, 1.0, 0.92)]
    cv2.multiply(canvas.image, cv2.merge(gains), dst=canvas.image, dtype=cv2.CV_8U)
    canvas.shade[:] = 0
