"""Writes a GeoTIFF on the grid of another raster, block by block, whole or not at all. Needs rasterio.

The file has the raster's size, CRS and transform (or ground control points, or RPCs). It is tiled and deflated. An
internal mask band says where there is no data, if the raster has such pixels.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as Box

from dlink.imagery.captured_stderr import captured_stderr
from dlink.imagery.gdal_file import GDAL_ERRORS, is_utf_8, why
from dlink.imagery.source import Valid
from dlink.runtime.files import replacing
from dlink.runtime.windows import Span, Window

BLOCK = 256  # side of the blocks, px
SIDECARS = (".aux.xml", ".msk", ".ovr")  # files that GDAL keeps beside a GeoTIFF


@contextmanager
def writing(
    path: Path,
    like: Any,
    masked: bool,
    tags: Mapping[str, str],
    shape: tuple[int, int] | None = None,
    lasting: bool = False,
    **kind: Any,
) -> Iterator["BlockWriter"]:
    """A new GeoTIFF on the grid of the raster `like`. It is read back once, and gets its name only if it is right.

    masked: whether pixels may have no data. tags: metadata. shape: rows and columns; None: those of `like`. lasting: as
    of `replacing`.
    """
    with replacing(path, lasting) as renamed, in_utf_8(renamed) as part:
        try:
            with without_words():
                dataset = rasterio.open(part, "w", **(grid(like, shape or like.shape) | kind))
            try:
                dataset.update_tags(**tags)
                blocks = BlockWriter(dataset, masked)
                yield blocks
            finally:
                with without_words():
                    dataset.close()
            check_sums(part, blocks.sums)  # GDAL reports no error of closing, such as a full disk
            remove_sidecars(path)  # those of the replaced file
            if (aux := sidecar(part, ".aux.xml")).exists():  # a CRS that GeoTIFF cannot express, like a rotated pole
                aux.replace(sidecar(path, ".aux.xml"))
            if part != renamed:
                part.replace(renamed)
        except GDAL_ERRORS as e:
            raise OSError(errno.EIO, f"can't be written, is the disk full? GDAL says: {why(e)}", str(path)) from e
        finally:
            remove_sidecars(part)


def without_words() -> AbstractContextManager[Any]:
    """Keeps what GDAL's TIFF driver prints of a full disk by itself from stderr: the error says it."""
    return captured_stderr(lambda line: line.startswith("_tiff"))


@contextmanager
def in_utf_8(path: Path) -> Iterator[Path]:
    """A name of the same folder that GDAL can take, which is UTF-8; `path` itself if it is."""
    if is_utf_8(path):
        yield path
        return
    with TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.parent.absolute())
        part = link / f".{os.getpid()}{path.suffix}"
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


def grid(dataset: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """Options to create a GeoTIFF on the grid of another raster."""
    gcps, gcps_crs = dataset.gcps
    place = {"gcps": gcps, "crs": gcps_crs} if gcps else {"crs": dataset.crs, "transform": dataset.transform}
    form = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    size = {"width": shape[1], "height": shape[0]}
    return {"driver": "GTiff", **size, **place, **({"rpcs": dataset.rpcs} if dataset.rpcs else {}), **form}


class BlockWriter:
    """Gathers cores into the blocks of a file, and writes each block once, when it is complete.

    Cores and blocks do not line up. GDAL's cache alone would compress half a block, read it back and compress it again.
    About one row of blocks is held here at a time.
    """

    def __init__(self, dataset: Any, masked: bool) -> None:
        self.dataset = dataset
        self.masked = masked
        self.waiting: dict[Box, tuple[NDArray[Any], Valid]] = {}
        self.missing: dict[Box, int] = {}  # pixels that a block still lacks
        self.sums: dict[Box, int] = {}  # checksums of the written blocks

    def put(self, window: Window, pixels: NDArray[Any], valid: Valid | None) -> None:
        """Add a window's core: (bands, H, W), and where it has data."""
        for top, high, row, from_row in cuts(window.rows, self.dataset.height):
            for left, wide, col, from_col in cuts(window.cols, self.dataset.width):
                box = Box(left, top, wide, high)
                block, has_data = self.block(box, pixels)
                block[:, row, col] = pixels[:, from_row, from_col]
                has_data[row, col] = True if valid is None else valid[from_row, from_col]
                self.missing[box] -= has_data[row, col].size
                if not self.missing[box]:
                    self.write(box)

    def block(self, box: Box, like: NDArray[Any]) -> tuple[NDArray[Any], Valid]:
        if box not in self.waiting:
            shape = (box.height, box.width)
            self.waiting[box] = np.empty((len(like), *shape), like.dtype), np.empty(shape, np.bool_)
            self.missing[box] = box.height * box.width
        return self.waiting[box]

    def write(self, box: Box) -> None:
        pixels, valid = self.waiting.pop(box)
        del self.missing[box]
        with without_words():
            self.dataset.write(pixels, window=box)
            if self.masked:
                self.dataset.write_mask(valid, window=box)
        self.sums[box] = checksum(pixels, valid)


def cuts(span: Span, length: int) -> Iterator[tuple[int, int, slice, slice]]:
    """Cut a core's span at the blocks: each block's start and size, the part of the block, and the part of the core."""
    for start in range(span.lo // BLOCK * BLOCK, span.hi, BLOCK):
        size = min(BLOCK, length - start)
        lo, hi = max(start, span.lo), min(start + size, span.hi)
        yield start, size, slice(lo - start, hi - start), slice(lo - span.lo, hi - span.lo)


def checksum(pixels: NDArray[Any], valid: Valid) -> int:
    return crc32(valid.tobytes(), crc32(pixels.tobytes()))


def check_sums(path: Path, sums: dict[Box, int]) -> None:
    """Raise a RasterioError unless a file holds exactly what was written."""
    with rasterio.open(path) as dataset:
        for box, sum in sums.items():
            if checksum(dataset.read(window=box), dataset.dataset_mask(window=box) > 0) != sum:
                raise RasterioError(f"the block at row {box.row_off}, column {box.col_off} is not what was written")


def sidecar(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def remove_sidecars(path: Path) -> None:
    for suffix in SIDECARS:
        sidecar(path, suffix).unlink(missing_ok=True)
