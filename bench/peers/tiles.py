"""Reads the tiles of a folder as network input. It needs only NumPy and OpenCV, so it runs in every environment.

The preparation is that of the D-LinkNet authors: BGR, x = pixel / 255 * 3.2 - 1.6, of the upper left `side` pixels.
"""

from pathlib import Path

import cv2
import numpy as np


def inputs(folder: Path, side: int, first: int, last: int) -> list[np.ndarray]:
    """x float32 (1, 3, S, S) of the tiles [first, last) by name."""
    return [prepared(path, side) for path in sorted(folder.glob("*_sat.*"))[first:last]]


def labels(folder: Path, side: int, first: int, last: int) -> list[np.ndarray]:
    """The labels of the same tiles, bool (S, S)."""
    masks = [p.with_name(f"{p.stem.removesuffix('_sat')}_mask.png") for p in sorted(folder.glob("*_sat.*"))[first:last]]
    return [cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)[:side, :side] >= 128 for mask in masks]


def prepared(path: Path, side: int) -> np.ndarray:
    bgr = cv2.imread(str(path))[:side, :side]
    return (bgr.transpose(2, 0, 1)[None] / 255.0 * 3.2 - 1.6).astype(np.float32)
