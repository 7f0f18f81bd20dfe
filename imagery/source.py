"""Reads any raster that GDAL knows, by windows: a network's bands as 8 bits, at its ground resolution.

Bands are found by colours.py. Palettes and CMYK become RGB, alpha is dropped, white is 255 also where the file counts
the other way. Samples that are not 8 bits are stretched by one range for the whole raster (stretching.py).

A raster that says its ground resolution is read at the network's, unless both are within a tenth: averaged where it is
finer, interpolated where it is coarser (of a palette the nearest pixel is taken). Rows and columns are then those of
that grid, not the file's.

A pixel has no data by a nodata value, an alpha band of any type (masks.py), a mask, NaN in one of the bands, or a block
of a TIFF that was never written. The network sees such pixels as they are stored, NaN as 0, so that a road at the edge
of the data has its context.

Needs rasterio.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window as Box

from dlink.imagery.colours import Bands, bands_of
from dlink.imagery.gdal_file import (
    GDAL_ERRORS,
    checker_of,
    decoder_warnings,
    gdal,
    open_file,
    why,
    with_colours,
    without_overviews,
)
from dlink.imagery.masks import Mask
from dlink.imagery.notes import say, unknown_resolution
from dlink.imagery.reading import Reading
from dlink.imagery.resolution import ALIKE, refuse_coarse, resolution
from dlink.imagery.stretching import Levels, Part, levels_of
from dlink.imagery.tiff import Checker
from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS

COUNTED = 4 << 20  # samples that a histogram takes at once
MOSTLY = 0.5
CMYK = [ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black]
WHITE, FULL = 255, 8
PARTLY = "its alpha band has other values than 0 and 255; where it is 0 there is no data, and elsewhere it is left out"

Image = NDArray[np.uint8]
Valid = NDArray[np.bool_]  # True where there is data


@contextmanager
def opened(path: Path, how: Reading) -> Iterator["Source"]:
    """An open raster. Its samples' range is found when it is first needed.

    Raises:
        BadInput: GDAL does not know the file, it is damaged, or a band is missing.
    """
    with ExitStack() as stack:
        stack.enter_context(gdal(path))
        try:
            checker = checker_of(path, stack)
            dataset = open_file(path, checker, stack)
            colours = with_colours(dataset, stack)
            source = Source(path, colours, dataset, how, checker)
            if source.scaled:
                source.reader = without_overviews(colours, stack)
        except (*GDAL_ERRORS, UnicodeDecodeError) as e:  # UnicodeDecodeError: names in damaged tags
            raise BadInput(f"{path}: can't be opened as a raster; GDAL says: {why(e)}") from e
        except OSError as e:  # concerns this image only, unlike an output that can't be written
            raise BadInput(f"{path}: {e.strerror}") from e
        yield source
        source.say_ends()


class Source:
    """An open raster as the network sees it: `shape` rows and columns of uint8 planes, and where there is data."""

    def __init__(self, path: Path, pixels: Any, dataset: Any, how: Reading, checker: Checker | None) -> None:
        self.path = path
        self.how = how
        self.pixels = self.reader = pixels  # what colours are read from: its bands' names, and its samples
        self.dataset = dataset  # the file: its place and its mask
        self.checker = checker
        roles = list(pixels.colorinterp)
        self.cmyk = roles[: len(CMYK)] == CMYK and how.planes == COLOURS and not how.numbers
        self.bands = self.find_bands(roles)
        self.dtype = np.dtype(np.result_type(*(pixels.dtypes[n - 1] for n in self.bands.numbers)))
        if self.dtype.kind not in "uif":
            raise BadInput(f"{path}: {self.dtype} samples; a picture's samples are whole or real numbers")
        self.mask = Mask.of(dataset, self.bands.numbers)
        self.sparse = checker is not None and checker.sparse
        self.masked = self.mask.there or self.sparse or self.dtype.kind == "f"
        self.white_is_least = "MINISWHITE" in pixels.tags(ns="IMAGE_STRUCTURE")
        self.native = (dataset.height, dataset.width)
        self.metres = resolution(dataset)
        self.counted = self.cut_off = 0  # samples that were stretched, and those that became 0 or 255
        self.shape = self.scaled_shape()

    def find_bands(self, roles: list[ColorInterp]) -> Bands:
        if self.cmyk:
            return Bands(tuple(range(1, len(CMYK) + 1)))
        try:
            bands = bands_of([role.name for role in roles], self.pixels.descriptions, self.how)
        except BadInput as e:
            raise BadInput(f"{self.path}: {e}") from e
        if bands.note:
            say(self.path, bands.note)
        return bands

    def scaled_shape(self) -> tuple[int, int]:
        """Rows and columns at the ground resolution to read at."""
        wanted = self.how.metres
        if wanted is None:
            return self.native
        if self.metres is None:
            say(self.path, unknown_resolution(wanted))
            return self.native
        if all(abs(own / wanted - 1) < ALIKE for own in self.metres):
            return self.native
        refuse_coarse(self.path, self.metres, wanted)
        own = " x ".join(dict.fromkeys(f"{m:.3g}" for m in reversed(self.metres)))
        say(self.path, f"has {own} m a pixel and is read at {wanted:g} m; --gsd native reads it as it is")
        height, width = (max(1, round(n * own / wanted)) for n, own in zip(self.native, self.metres, strict=True))
        return height, width

    @property
    def scaled(self) -> bool:
        return self.shape != self.native

    @property
    def placed(self) -> bool:
        """Whether the raster says where on Earth it lies."""
        data = self.dataset
        return bool(data.crs or data.gcps[0] or data.rpcs or not data.transform.is_identity)

    @property
    def planes(self) -> int:
        """Planes of what is read."""
        return len(self.how.planes)

    @property
    def levels_take_time(self) -> bool:
        """Whether the range of the samples depends on all of them."""
        stretch = self.how.stretched
        return self.dtype != np.uint8 and not (stretch and stretch.ranges)

    @cached_property
    def levels(self) -> Levels | None:
        """How samples become 8 bits; None if they are. May read the whole raster."""
        bits = int(self.pixels.tags(self.bands.numbers[0], ns="IMAGE_STRUCTURE").get("NBITS", WHITE))
        if self.dtype == np.uint8 and bits < FULL:
            return Levels(((0.0, float((1 << bits) - 1)),))  # samples of 1, 2 or 4 bits
        try:
            found = levels_of(self.dtype, self.how.stretched, len(self.bands.numbers), self.parts())
        except BadInput as e:
            raise e if str(e).startswith(str(self.path)) else BadInput(f"{self.path}: {e}") from e
        if found and found.note:
            say(self.path, found.note, f" (here {found.stretch})")
        return found

    def parts(self) -> Iterator[Part]:
        """All samples, some rows at a time, and where there is data. All bands 0 are none, as satellites mean it."""
        height, width = self.native
        across = min(width, COUNTED)
        rows = max(1, COUNTED // (across * len(self.bands.numbers)))
        for top in range(0, height, rows):
            for left in range(0, width, across):
                box = slice(top, min(top + rows, height)), slice(left, min(left + across, width))
                samples = self.samples(*box, self.native)
                lit: Valid = np.asarray(samples.any(axis=0))
                valid = self.valid(*box, self.native, samples)
                yield samples, lit if valid is None else valid & lit

    def read(self, rows: slice, cols: slice, native: bool = False) -> tuple[Image, Valid | None]:
        """Pixels (H, W, planes) of a part of `shape`, and where there is data (None: everywhere).

        native: rows and columns are the file's own.
        """
        grid = self.native if native else self.shape
        samples = self.samples(rows, cols, grid)
        valid = self.valid(rows, cols, grid, samples)
        return self.image_of(samples, valid), valid

    def image_of(self, samples: NDArray[Any], valid: Valid | None = None) -> Image:
        """Samples as stored (bands, H, W) as an image (H, W, planes)."""
        planes = samples
        if self.levels:
            planes = self.levels.bytes_of(samples)
            self.note_ends(planes, samples, valid)
        if self.cmyk:
            ink = WHITE - planes.astype(np.uint16)
            planes = ((ink[:3] * ink[3] + WHITE // 2) // WHITE).astype(np.uint8)
        planes = self.turned(planes)
        return np.stack(list(planes) * (self.planes // len(planes)), axis=-1)

    def note_ends(self, planes: Image, samples: NDArray[Any], valid: Valid | None) -> None:
        """Count samples with data, and those that a stretch cuts off."""
        lit = samples.any(axis=0) if valid is None else valid & samples.any(axis=0)
        self.counted += int(np.count_nonzero(lit)) * len(planes)
        self.cut_off += int(np.count_nonzero(((planes == 0) | (planes == WHITE)) & lit))

    def say_ends(self) -> None:
        """Say that a stretch fits badly, if most samples were cut off."""
        if self.counted and self.levels and self.cut_off > MOSTLY * self.counted:
            share = f"{self.cut_off / self.counted:.0%}"
            say(
                self.path,
                "most samples lie beyond the stretch, which leaves little to see",
                f" ({share}: {self.levels.stretch})",
            )

    def seen(self, rows: slice, cols: slice, image: bool) -> tuple[Image, Valid | None]:
        """As `read` of the file's own rows and columns; without pixels unless `image` is asked for."""
        if image:
            return self.read(rows, cols, native=True)
        needed = self.dtype.kind == "f"  # its NaN are no data
        samples = self.samples(rows, cols, self.native) if needed else np.empty((0, 0, 0), self.dtype)
        return np.empty((0, 0, self.planes), np.uint8), self.valid(rows, cols, self.native, samples)

    def samples(self, rows: slice, cols: slice, grid: tuple[int, int]) -> NDArray[Any]:
        """The bands' samples (bands, H, W) as stored."""
        box, shape, how = self.box(rows, cols, grid)
        self.check(box)
        try:
            with decoder_warnings() as messages:
                data: NDArray[Any] = self.reader.read(
                    list(self.bands.numbers), window=box, out_shape=(len(self.bands.numbers), *shape), resampling=how,
                )  # fmt: skip
        except GDAL_ERRORS as e:
            raise BadInput(f"{self.path}: damaged or cut short; GDAL says: {why(e)}; copy it again") from e
        if messages:
            raise BadInput(f"{self.path}: damaged; GDAL says: {messages[0]}; copy it again")
        return data.astype(self.dtype, copy=False)

    def valid(self, rows: slice, cols: slice, grid: tuple[int, int], samples: NDArray[Any]) -> Valid | None:
        """Where there is data, (H, W); None: everywhere."""
        valid: Valid | None = None
        if self.mask.there:
            box, shape, _ = self.box(rows, cols, grid)
            try:
                mask = self.mask.read(self.dataset, shape, box)
            except GDAL_ERRORS as e:
                raise BadInput(f"{self.path}: damaged or cut short; GDAL says: {why(e)}; copy it again") from e
            valid = mask > 0
            if self.mask.alpha and ((mask > 0) & (mask < WHITE)).any():
                say(self.path, f"{PARTLY}; if it is none, gdal_edit.py -colorinterp_{self.mask.alpha} undefined")
        if self.dtype.kind == "f":
            finite = ~np.isnan(samples).any(axis=0)
            valid = finite if valid is None else valid & finite
        if self.sparse:
            there = self.written(rows, cols, grid)
            valid = there if valid is None else valid & there
        return valid

    def written(self, rows: slice, cols: slice, grid: tuple[int, int]) -> Valid:
        """Where the file has a block, (H, W). One that was never written is no data."""
        assert self.checker and self.checker.blocks
        sides = self.checker.blocks.high, self.checker.blocks.wide
        down, along = (
            ((np.arange(s.start, s.stop) + 0.5) * own / other).astype(np.int64) // side
            for s, own, other, side in zip((rows, cols), self.native, grid, sides, strict=True)
        )
        return np.asarray(self.checker.there[down[:, None], along])

    def is_empty(self, rows: slice, cols: slice) -> bool:
        """Whether it is known without a read that there is no data in a part of the file's own rows and columns.

        So of a TIFF's blocks that were never written, which are 0.
        """
        if not self.sparse:
            return False
        assert self.checker and self.checker.blocks
        down, along = (
            slice(max(s.start, 0) // side, max(-(-s.stop // side), 0))
            for s, side in zip((rows, cols), (self.checker.blocks.high, self.checker.blocks.wide), strict=True)
        )
        return not self.checker.there[down, along].any()

    def raw(self) -> tuple[NDArray[Any], Valid | None]:
        """All samples (bands, H, W) as stored, white as the greatest, and where there is data."""
        everything = slice(0, self.native[0]), slice(0, self.native[1])
        samples = self.samples(*everything, self.native)
        valid = self.valid(*everything, self.native, samples)
        return self.turned(samples), valid

    def turned(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Samples of which the greatest is white, also where the file counts the other way."""
        turn = self.white_is_least and samples.dtype.kind == "u"
        return np.iinfo(samples.dtype).max - samples if turn else samples

    def box(self, rows: slice, cols: slice, grid: tuple[int, int]) -> tuple[Box, tuple[int, int], Resampling]:
        """The window of the file, the shape to read, and how it is resampled."""
        finer = self.native[0] * self.native[1] > grid[0] * grid[1]
        shape = rows.stop - rows.start, cols.stop - cols.start
        return box_on(self.native, rows, cols, grid), shape, Resampling.average if finer else Resampling.bilinear

    def check(self, box: Box) -> None:
        """Raise BadInput if a block of a TIFF that holds these pixels is damaged."""
        if self.checker is None:
            return
        height, width = self.native
        rows = slice(max(int(box.row_off) - 1, 0), min(int(box.row_off + box.height) + 2, height))
        cols = slice(max(int(box.col_off) - 1, 0), min(int(box.col_off + box.width) + 2, width))
        self.checker.check(rows, cols)

    def tags(self) -> dict[str, str]:
        """What of the reading is kept in a result's metadata."""
        said = {"DLINK_BANDS": ",".join(map(str, self.bands.numbers))}
        if self.levels:
            said["DLINK_STRETCH"] = str(self.levels.stretch)
        if self.scaled:
            said["DLINK_GSD_M"] = f"{self.how.metres:g}"
        return said


def box_on(shape: tuple[int, int], rows: slice, cols: slice, grid: tuple[int, int]) -> Box:
    """The window of a raster of `shape` that shows rows and columns of another grid of the same place."""
    down, right = (own / other for own, other in zip(shape, grid, strict=True))
    high, wide = rows.stop - rows.start, cols.stop - cols.start
    if grid == shape:
        return Box(cols.start, rows.start, wide, high)
    return Box(cols.start * right, rows.start * down, wide * right, high * down)
