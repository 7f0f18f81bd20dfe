"""Moves and scales the place of a raster's pixels. The operators that Affine has for it differ between its versions."""

from rasterio import Affine


def shifted(transform: Affine, row: float, column: float) -> Affine:
    """The transform of a window that begins at a row and a column."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(a, b, a * column + b * row + c, d, e, d * column + e * row + f)


def scaled(transform: Affine, down: float, across: float) -> Affine:
    """The transform of pixels that are so many times as high and as wide."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(a * across, b * down, c, d * across, e * down, f)
