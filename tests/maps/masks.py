"""Masks for the tests of lines: drawn, random, and written as rasters."""

import warnings

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning
from scipy.ndimage import gaussian_filter

from dlink.maps.blocks import cores, join, lines_of
from dlink.maps.mask import beyond

UTM = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)}


def blobs(seed, shape, smooth, level=0.0):
    """A random mask: noise, smoothed so far, above a level."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smoothed = gaussian_filter(noise, smooth) if smooth else noise
    return smoothed > level * smoothed.std()


def reader(mask, probable=None):
    """Reads windows of an array as RoadMask does of a file."""

    def read(rows, cols):
        both = list(zip((rows, cols), mask.shape, strict=True))
        inside = tuple(slice(max(s.start, 0), min(s.stop, n)) for s, n in both)
        lacking = [(max(-s.start, 0), max(s.stop - n, 0)) for s, n in both]
        return beyond(mask[inside], lacking), None if probable is None else beyond(probable[inside], lacking)

    return read


def parts_of(mask, side, reach):
    return [lines_of(reader(mask), core, mask.shape, reach) for core in cores(mask.shape, side)]


def lines_by_blocks(mask, side, reach):
    return join(parts_of(mask, side, reach))


def write_mask(path, mask, **kind):
    """A mask (or probabilities) as a GeoTIFF, 0.5 m a pixel in UTM unless `kind` says otherwise."""
    pixels = mask.astype(np.uint8) * 255 if mask.dtype == bool else mask
    place = {name: value for name, value in (UTM | kind).items() if value is not None}
    form = {"driver": "GTiff", "height": mask.shape[-2], "width": mask.shape[-1], "dtype": pixels.dtype}
    bands = pixels if pixels.ndim == 3 else pixels[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **form, count=len(bands), **place) as file:
            file.write(bands)
    return path


def cross(side=400, half=8):
    """Two straight roads that cross in the middle."""
    mask = np.zeros((side, side), bool)
    middle = side // 2
    mask[middle - half : middle + half + 1] = True
    mask[:, middle - half : middle + half + 1] = True
    return mask


def ring(side=400, radius=60, half=8):
    """A round road that meets nothing."""
    y, x = np.mgrid[:side, :side] - side // 2
    return np.abs(np.hypot(x, y) - radius) <= half


def rectangle(shape, centre, sides, degrees):
    """A rectangle: its centre (x, y) and its sides in pixels, the first side turned by so many degrees."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    turn = np.radians(degrees)
    x, y = x - centre[0], y - centre[1]
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return (np.abs(along) < sides[0] / 2) & (np.abs(across) < sides[1] / 2)


def town(side=600, apart=60, seed=1):
    """Houses at all angles, some of two rectangles."""
    random = np.random.default_rng(seed)
    mask = np.zeros((side, side), bool)
    for top in range(0, side, apart):
        for left in range(0, side, apart):
            degrees, long, wide = *random.uniform(0, 90, 1), *random.uniform(18, 46, 2)
            house = rectangle((apart, apart), (apart / 2, apart / 2), (long, wide), degrees)
            if random.random() < 0.5:
                house |= rectangle((apart, apart), (apart / 2 + 9, apart / 2 - 6), (long, wide / 2), degrees)
            mask[top : top + apart, left : left + apart] |= house
    return mask
