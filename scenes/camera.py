"""The effects of sensor and archive: light and colour, haze, vignetting, blur, resampling, noise and JPEG.

They are mostly moderate and sometimes strong.
"""

from __future__ import annotations

import cv2
import numpy as np

from dlink.scenes.canvas import Bytes, Floats
from dlink.scenes.terrain import noise


def photograph(rng: np.random.Generator, image: Bytes) -> Bytes:
    """The image (S, S, 3) as a camera would deliver it; same shape."""
    strong = 2.0 if rng.random() < 0.1 else 1.0
    image = tone(rng, image, strong)
    image = lens(rng, image, strong)
    if rng.random() < 0.75:
        image = grain(rng, image, strong)
    if rng.random() < 0.6:
        quality = int(rng.integers(70, 97) if strong == 1 else rng.integers(35, 80))
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return image


def tone(rng: np.random.Generator, image: Bytes, strong: float) -> Bytes:
    """Saturation, exposure, contrast, gamma, colour cast and haze, by one matrix and three tables."""
    keep = float(np.clip(rng.normal(0.86, 0.2 * strong), 0.05, 1.6))
    if rng.random() < 0.04:
        keep = 0.05
    grey = np.full((3, 3), 1 / 3) * np.array([0.9, 1.2, 0.9])
    image = np.asarray(cv2.transform(image, keep * np.eye(3) + (1 - keep) * grey), np.uint8)
    level = np.arange(256) / 255.0
    gamma = np.exp(rng.normal(0, 0.16 * strong))
    contrast = rng.normal(1.13, 0.18 * strong)
    gain = np.exp(rng.normal(-0.02, 0.16 * strong))
    haze = rng.uniform(0, 0.12 * strong) if rng.random() < 0.45 else 0.0
    veil = np.array([0.62, 0.66, 0.7]) + rng.normal(0, 0.04, 3)
    cast = np.exp(rng.normal([0.02, 0.01, -0.05], 0.045 * strong, 3))
    pivot = float(np.clip(image[::8, ::8].mean() / 255, 0.15, 0.7))
    lit = pivot**gamma * gain
    gain *= np.clip(lit, 0.2, 0.58) / lit
    pivot = float(np.clip(pivot, 0.22, 0.6))
    curve = np.clip(pivot + ((level**gamma) * gain - pivot) * max(contrast, 0.55), 0, 1)
    table = np.clip((curve[:, None] * cast) * (1 - haze) + haze * veil, 0, 1) * 255
    return np.asarray(cv2.LUT(image, table.round().astype(np.uint8).reshape(256, 1, 3)), np.uint8)


def lens(rng: np.random.Generator, image: Bytes, strong: float) -> Bytes:
    """Blur, a loss of resolution, sharpening halos and vignetting."""
    size = image.shape[0]
    if rng.random() < 0.25:
        small = max(32, int(size / rng.uniform(1.1, 1.4 + 0.6 * (strong - 1))))
        down = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(down, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    elif rng.random() < 0.55:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.9 * strong)), np.uint8)
    if rng.random() < 0.4:
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.8, 1.6))
        part = rng.uniform(0.3, 1.3)
        image = np.asarray(cv2.addWeighted(image, 1 + part, soft, -part, 0), np.uint8)
    if rng.random() < 0.4:
        light = 1 + np.float32(rng.uniform(0.02, 0.06) * strong) * noise(rng, size, size, 1)
        image = np.asarray(cv2.multiply(image, cv2.merge([light] * 3), dtype=cv2.CV_8U), np.uint8)
    return image


def grain(rng: np.random.Generator, image: Bytes, strong: float) -> Bytes:
    """Sensor noise, grey or coloured, in whole grey levels."""
    shape = image.shape if rng.random() < 0.3 else image.shape[:2]
    level = np.float32(rng.uniform(0.8, 4.5) * strong)
    rough: Floats = rng.standard_normal(shape, dtype=np.float32) * level
    full = rough if rough.ndim == 3 else cv2.merge([rough] * 3)
    return np.asarray(cv2.add(image, full, dtype=cv2.CV_8U), np.uint8)
