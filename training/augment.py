"""The authors' augmentation: each step has probability one half and changes image and label alike.

The amounts are those of the released code, which PP-LinkNet uses too (hue +-30 of OpenCV's 180, saturation +-5, value
+-15; shift, scale and aspect +-0.1 with a black border), or for colours those of the slides. Two slips of the released
code are corrected: hue wraps at 180, and aspect changes the two sides in opposite directions.
"""

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Pair: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]

COLOURS = {"released": (30, 5, 15), "slides": (11, 15, 30)}  # of H (OpenCV's 0..180; the slides' 15 are of 256), S, V
SHIFT = SCALE = ASPECT = 0.1


def augment(
    image: NDArray[np.uint8], label: NDArray[np.uint8], rng: np.random.Generator, colours: str = "released"
) -> Pair:
    """uint8 RGB (S, S, 3) and 0/255 (S, S) -> the same shapes, changed by what `rng` draws."""
    if rng.random() < 0.5:
        image = shift_colours(image, rng, COLOURS[colours])
    if rng.random() < 0.5:
        image, label = warp(image, label, rng)
    return turn(image, label, rng)


def turn(image: NDArray[np.uint8], label: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
    """Turn and flip into one of the eight views, all equally likely."""
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    if rng.random() < 0.5:
        image, label = image[::-1], label[::-1]
    if rng.random() < 0.5:
        image, label = np.rot90(image), np.rot90(label)
    return image, label


def shift_colours(image: NDArray[np.uint8], rng: np.random.Generator, most: tuple[int, int, int]) -> NDArray[np.uint8]:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv += np.array([rng.integers(-s, s + 1) for s in most], np.int16)
    hsv[..., 0] %= 180
    return cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)  # type: ignore[return-value]


def warp(image: NDArray[np.uint8], label: NDArray[np.uint8], rng: np.random.Generator) -> Pair:
    """Shift, scale and stretch about the centre. What lies outside becomes black, without road."""
    side = image.shape[0]
    scale, aspect = 1 + rng.uniform(-SCALE, SCALE), np.sqrt(1 + rng.uniform(-ASPECT, ASPECT))
    stretch = np.array([scale * aspect, scale / aspect])
    centre = np.array([side, side]) / 2
    offset = centre - stretch * centre + rng.uniform(-SHIFT, SHIFT, 2) * side
    matrix = np.column_stack([np.diag(stretch), offset])
    warped = [cv2.warpAffine(a, matrix, (side, side), flags=cv2.INTER_LINEAR) for a in (image, label)]
    return warped[0].astype(np.uint8), np.where(warped[1] >= 128, 255, 0).astype(np.uint8)
