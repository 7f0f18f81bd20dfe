"""Reads a raster on the grid of another one: warped to its coordinate system, its pixels and its place. Needs rasterio.

Samples are averaged where the raster is finer than the grid, and interpolated elsewhere. Its overviews are not used.
What is stored under no data is lost: such pixels take no part, and are 0.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window as Box

from dlink.imagery.affine import scaled, shifted
from dlink.imagery.gdal_file import GDAL_ERRORS, checker_of, decoder_warnings, gdal, open_file, why, with_colours
from dlink.imagery.longitudes import continued, unwrapped
from dlink.imagery.reading import Reading
from dlink.imagery.resolution import ALIKE
from dlink.imagery.source import Source, Valid, box_on
from dlink.imagery.tiff import Checker
from dlink.runtime.errors import BadInput

WARP_MB = 64  # memory for one piece of warping
BESIDE = 4  # px of the raster around a window, which interpolation and the curve of its edges reach


@dataclass(frozen=True)
class Onto:
    """A grid to read a raster on, of its own extent."""

    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    metres: float  # a pixel


@contextmanager
def opened_onto(path: Path, how: Reading, onto: Onto) -> Iterator["Warped"]:
    """An open raster whose rows and columns are those of `onto`.

    Raises:
        BadInput: GDAL does not know the file, it is damaged, a band is missing, or it cannot be warped.
    """
    with ExitStack() as stack:
        stack.enter_context(gdal(path))
        try:
            checker = checker_of(path, stack)
            dataset = open_file(path, checker, stack)
            warped = Warped(path, with_colours(dataset, stack), dataset, how, checker)
            warped.lay(onto, stack)
        except (*GDAL_ERRORS, UnicodeDecodeError) as e:
            raise BadInput(f"{path}: can't be opened as a raster; GDAL says: {why(e)}") from e
        except OSError as e:
            raise BadInput(f"{path}: {e.strerror}") from e
        yield warped
        warped.say_ends()


class Warped(Source):
    """A raster on another grid. Where it does not reach there is no data."""

    def __init__(self, path: Path, pixels: Any, dataset: Any, how: Reading, checker: Checker | None) -> None:
        super().__init__(path, pixels, dataset, how, checker)
        try:
            self.place = continued(dataset.crs, dataset.transform, dataset.shape)
        except BadInput as e:
            raise BadInput(f"{path}: {e}") from e
        self.masks = dataset
        self.mask_band = 0
        self.seen_mask: tuple[Box, NDArray[Any]] | None = None  # read with the samples, which are warped once

    def lay(self, onto: Onto, stack: ExitStack) -> None:
        """Lay the raster on a grid."""
        finer = self.metres is not None and min(self.metres) < onto.metres * (1 - ALIKE)
        kind: dict[str, Any] = {
            "src_crs": self.place[0],
            "src_transform": self.place[1],
            "crs": onto.crs,
            "transform": onto.transform,
            "height": onto.shape[0],
            "width": onto.shape[1],
            "resampling": Resampling.average if finer else Resampling.bilinear,
            "warp_mem_limit": WARP_MB,
        }
        dataset = self.mask.for_warping(self.dataset, stack)
        alpha = self.mask.alpha if dataset is self.dataset else 0  # one that GDAL warps as the mask
        if self.dtype.kind == "f" and not self.mask.there:
            kind["src_nodata"] = np.nan  # or it would be mixed into the pixels around it
        self.mask_band = alpha or self.dataset.count + 1
        self.masks = stack.enter_context(WarpedVRT(dataset, **kind, add_alpha=not alpha))
        self.reader = self.masks
        if self.pixels is not self.dataset:  # the colours of a palette
            self.reader = stack.enter_context(WarpedVRT(self.pixels, **kind))
        self.onto = onto
        self.native = self.shape = onto.shape
        self.masked = True

    def samples(self, rows: slice, cols: slice, grid: tuple[int, int]) -> NDArray[Any]:
        """The bands' samples (bands, H, W) as stored."""
        box = box_on(self.native, rows, cols, grid)
        self.check(box)
        numbers = list(self.bands.numbers)
        try:
            with decoder_warnings() as messages:
                if self.reader is self.masks:
                    data: NDArray[Any] = self.reader.read([*numbers, self.mask_band], window=box)
                    data, mask = data[:-1], data[-1]
                else:
                    data, mask = self.reader.read(numbers, window=box), self.masks.read(self.mask_band, window=box)
        except GDAL_ERRORS as e:
            raise BadInput(f"{self.path}: damaged or cut short; GDAL says: {why(e)}; copy it again") from e
        if messages:
            raise BadInput(f"{self.path}: damaged; GDAL says: {messages[0]}; copy it again")
        self.seen_mask = box, mask
        return data.astype(self.dtype, copy=False)

    def valid(self, rows: slice, cols: slice, grid: tuple[int, int], samples: NDArray[Any]) -> Valid | None:
        """Where there is data, (H, W)."""
        box = box_on(self.native, rows, cols, grid)
        if self.seen_mask is None or self.seen_mask[0] != box:
            self.samples(rows, cols, grid)
        assert self.seen_mask
        valid = self.seen_mask[1] > 0
        if self.sparse:
            valid &= self.written(rows, cols, grid)
        return valid & ~np.isnan(samples).any(axis=0) if self.dtype.kind == "f" else valid

    def written(self, rows: slice, cols: slice, grid: tuple[int, int]) -> Valid:
        """Where the file has a block, (H, W): its blocks as pixels, warped."""
        assert self.checker and self.checker.blocks
        out = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
        reproject(
            self.checker.there.astype(np.uint8),
            out,
            src_transform=scaled(self.place[1], self.checker.blocks.high, self.checker.blocks.wide),
            src_crs=self.place[0],
            dst_transform=shifted(self.onto.transform, rows.start, cols.start),
            dst_crs=self.onto.crs,
            resampling=Resampling.nearest,
        )
        return out > 0

    def is_empty(self, rows: slice, cols: slice) -> bool:
        """Whether it is known without a read that there is no data."""
        return self.sparse and not self.written(rows, cols, self.shape).any()

    def check(self, box: Box) -> None:
        """Raise BadInput if a block of a TIFF is damaged that a window of the grid is made of."""
        if self.checker is None:
            return
        bounds = array_bounds(
            int(box.height), int(box.width), shifted(self.onto.transform, int(box.row_off), int(box.col_off))
        )
        found = transform_bounds(self.onto.crs, self.dataset.crs, *bounds)
        left, bottom, right, top = unwrapped(found, self.dataset.crs)
        a, b, c, d, e, f = tuple(~self.dataset.transform)[:6]
        columns = [a * x + b * y + c for x in (left, right) for y in (bottom, top)]
        lines = [d * x + e * y + f for x in (left, right) for y in (bottom, top)]
        height, width = self.dataset.shape
        rows = slice(max(int(min(lines)) - BESIDE, 0), min(int(max(lines)) + BESIDE, height))
        cols = slice(max(int(min(columns)) - BESIDE, 0), min(int(max(columns)) + BESIDE, width))
        if rows.start < rows.stop and cols.start < cols.stop:
            self.checker.check(rows, cols)
