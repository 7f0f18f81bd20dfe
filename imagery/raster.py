"""Segments a GeoTIFF into a GeoTIFF on the same grid, by windows. Memory does not grow with the scene. Needs rasterio.

The result has the source's size, CRS and transform (or ground control points, or RPCs). It is tiled and deflated and
has one band: uint8, 255 where there is road and 0 elsewhere, or float32 probabilities. An overlay has three bands.

A pixel without data in the source (by a nodata value, an alpha band or a mask) has no data in the result. An internal
mask band says so, and the pixel's value is 0. A nodata value cannot say so, because 0 means "no road" and 255 "road".
The network sees such pixels as they are stored, usually black, so that a road at the edge of the data has its context.

Colours are the bands that the file calls red, green and blue; else the first three bands that are not alpha; else, of
one or two bands, the first as grey. Only bands of 8 bits are accepted.
"""

import errno
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as Box

from dlink.imagery.images import Image
from dlink.imagery.jobs import Job, OutputOptions
from dlink.imagery.pictures import Doing, begin, mask_of, paint, pieces
from dlink.imagery.tiff import Checker
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.runtime.progress import Count, ignore
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.spec import RED_GREEN_BLUE
from dlink.runtime.windows import Span, Window

CACHE = 24 << 20  # bytes that GDAL may keep of decoded blocks
AHEAD = 24 << 20  # bytes that are read at once
BLOCK = 256  # side of the result's blocks, px
SIDECARS = (".aux.xml", ".msk", ".ovr")  # files that GDAL keeps beside a GeoTIFF

GDAL_ERRORS = (RasterioError, CPLE_BaseError)  # rasterio wraps most of GDAL's errors, not all

DECODER = re.compile(r"\b(\w*Decode|JPEGLib):")  # marks a warning about pixels, not about tags

Valid = NDArray[np.bool_]  # True where there is data


def segment_raster(job: Job, model: Segmenter, how: OutputOptions, tick: Count = ignore, doing: Doing = ignore) -> None:
    """Write the road mask or the probabilities of a GeoTIFF, and its overlay if the job has one.

    Args:
        job: The GeoTIFF and its outputs, from find_jobs.
        model: The open model.
        how: What to write.
        tick: Called with (windows done, all windows).
        doing: Called with the name of each long step of a scene of 50 megapixels or more.

    Raises:
        BadInput: The GeoTIFF is damaged, has no georeference, or its bands cannot be used.
        EngineFailed: The engine failed, or a result is not a probability.
        OSError: An output cannot be written.

    Example:
        >>> from pathlib import Path
        >>> import rasterio
        >>> from dlink.imagery.jobs import OutputOptions, find_jobs
        >>> from dlink.imagery.raster import segment_raster
        >>> from dlink.runtime import open_model
        >>> how = OutputOptions()
        >>> [job] = find_jobs([Path("scene.tif")], Path("roads.tif"), how)
        >>> with open_model("roads.onnx") as model:
        ...     segment_raster(job, model, how)
        >>> with rasterio.open("roads.tif") as roads:
        ...     print(roads.crs, roads.shape, int((roads.read(1) == 255).sum()))
        EPSG:32633 (100, 150) 3000
    """
    kind = {"dtype": "float32", "predictor": 3} if how.probability else {"dtype": "uint8"}
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_TIFF_INTERNAL_MASK=True))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # raised for RPCs and control points too
        warnings.simplefilter("ignore", NodataShadowWarning)
        source = stack.enter_context(opened(job.image, model.spec.tile))
        job.out.parent.mkdir(parents=True, exist_ok=True)
        out = stack.enter_context(writing(job.out, source, count=1, **kind))
        over = job.overlay and stack.enter_context(writing(job.overlay, source, count=3, dtype="uint8", predictor=2))
        for window, roads in pieces(model, source.read, source.shape, how, tick):
            image, valid = source.cores.pop(window)
            if valid is not None:
                roads = np.where(valid, roads, roads.dtype.type(0))
            out.put(window, roads[None], valid)
            if over:
                over.put(window, np.moveaxis(paint(image, mask_of(roads, model, how)), -1, 0), valid)
        begin(doing, "reading back", *source.shape)


@contextmanager
def opened(path: Path, tile: int) -> Iterator["Source"]:
    """An open GeoTIFF, once its bands and its georeference have been checked."""
    with ExitStack() as stack:
        try:
            dataset = stack.enter_context(rasterio.open(path, driver="GTiff"))
            source = Source(path, dataset, tile, Checker(path, stack.enter_context(path.open("rb"))))
            placed = dataset.crs or dataset.gcps[0] or dataset.rpcs or not dataset.transform.is_identity
        except (*GDAL_ERRORS, UnicodeDecodeError) as e:  # UnicodeDecodeError: names in damaged tags
            raise BadInput(f"{path}: can't be opened as a GeoTIFF; GDAL says: {why(e)}") from e
        except OSError as e:  # concerns this image only, unlike an output that can't be written
            raise BadInput(f"{path}: {e.strerror}") from e
        if not placed:
            raise BadInput(f"{path}: its georeference is damaged; restore it with gdal_edit.py -a_srs and -a_ullr")
        yield source


@dataclass(frozen=True)
class Stretch:
    """Part of a GeoTIFF in memory: one row of windows, columns [left, right)."""

    top: int
    left: int
    right: int
    pixels: NDArray[np.uint8]  # (bands, H, W)
    valid: Valid | None  # (H, W); None: there is data everywhere

    def holds(self, window: Window) -> bool:
        return self.top == window.rows.start and self.left <= window.cols.start < window.cols.stop <= self.right


class Source:
    """The colours of an open GeoTIFF, and where it has data, window by window.

    Several windows of a row are read at once. A file whose blocks are whole lines would otherwise be decoded from side
    to side for every window. `cores` holds the pixels of each window's core until they are popped.
    """

    def __init__(self, path: Path, dataset: Any, tile: int, checker: Checker) -> None:
        self.path = path
        self.checker = checker
        self.dataset = dataset
        self.bands = colour_bands(path, dataset)
        self.masked = any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums)
        self.columns = max(tile, AHEAD // (tile * (len(self.bands) + self.masked)))
        self.shape = (dataset.height, dataset.width)
        self.cores: dict[Window, tuple[Image, Valid | None]] = {}
        self.stretch: Stretch | None = None

    def read(self, window: Window) -> Image:
        """A window's pixels, uint8 (H, W, 3) RGB."""
        if self.stretch is None or not self.stretch.holds(window):
            self.stretch = None  # frees its memory before the next one is read
            self.stretch = self.read_stretch(window)
        here = slice(window.cols.start - self.stretch.left, window.cols.stop - self.stretch.left)
        pixels, valid = self.stretch.pixels[:, :, here], self.stretch.valid
        image = np.stack(list(pixels) * (RED_GREEN_BLUE // len(pixels)), axis=-1)
        self.cores[window] = image[window.inner], None if valid is None else valid[:, here][window.inner].copy()
        return image

    def read_stretch(self, window: Window) -> Stretch:
        """Read a window and those to its right, up to AHEAD bytes."""
        top, left = window.rows.start, window.cols.start
        right = min(left + self.columns, self.dataset.width)
        box = Box(left, top, right - left, window.rows.stop - top)
        self.checker.check(slice(top, window.rows.stop), slice(left, right))
        try:
            with decoder_warnings() as messages:
                pixels = self.dataset.read(self.bands, window=box)
                valid = self.dataset.dataset_mask(window=box) > 0 if self.masked else None
        except GDAL_ERRORS as e:
            raise BadInput(f"{self.path}: damaged or cut short; GDAL says: {why(e)}") from e
        if messages:
            raise BadInput(f"{self.path}: damaged; GDAL says: {messages[0]}; copy it again")
        return Stretch(top, left, right, pixels, valid)


def colour_bands(path: Path, dataset: Any) -> list[int]:
    """The numbers of the three colours' bands, or of the grey band, as the module's docstring says."""
    roles: list[ColorInterp] = list(dataset.colorinterp)
    if ColorInterp.palette in roles:
        raise BadInput(f"{path}: its colours are a palette; make RGB of it: gdal_translate -expand rgb IN.tif OUT.tif")
    rgb = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    if set(rgb) <= set(roles):
        bands = [roles.index(colour) + 1 for colour in rgb]
    else:
        opaque = [i for i, role in enumerate(roles, 1) if role != ColorInterp.alpha]
        bands = opaque[: RED_GREEN_BLUE if len(opaque) >= RED_GREEN_BLUE else 1]
    for band in bands:
        if (dtype := dataset.dtypes[band - 1]) != "uint8":
            raise BadInput(
                f"{path}: {dtype} samples; make 8 bits of them: gdal_translate -ot Byte -scale IN.tif OUT.tif"
            )
    return bands


@contextmanager
def writing(path: Path, source: Source, **kind: Any) -> Iterator["BlockWriter"]:
    """A new GeoTIFF on the source's grid. It is read back once and gets its name only if every block is right."""
    with replacing(path) as part:
        try:
            with rasterio.open(part, "w", **grid(source.dataset), **kind) as dataset:
                blocks = BlockWriter(dataset, source.masked)
                yield blocks
            check_sums(part, blocks.sums)  # GDAL reports no error of closing, such as a full disk
            remove_sidecars(path)  # those of the replaced file
            if (aux := sidecar(part, ".aux.xml")).exists():  # a CRS that GeoTIFF cannot express, like a rotated pole
                aux.replace(sidecar(path, ".aux.xml"))
        except GDAL_ERRORS as e:
            raise OSError(errno.EIO, f"can't be written, is the disk full? GDAL says: {why(e)}", str(path)) from e
        finally:
            remove_sidecars(part)


def grid(dataset: Any) -> dict[str, Any]:
    """Options to create a GeoTIFF on the grid of another one."""
    gcps, gcps_crs = dataset.gcps
    place = {"gcps": gcps, "crs": gcps_crs} if gcps else {"crs": dataset.crs, "transform": dataset.transform}
    form = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    size = {"width": dataset.width, "height": dataset.height}
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


@contextmanager
def decoder_warnings() -> Iterator[list[str]]:
    """Collects the warnings of GDAL's decoders, which rasterio only logs. After one the pixels are wrong."""
    messages: list[str] = []
    log, handler = logging.getLogger("rasterio"), logging.Handler(logging.WARNING)
    handler.addFilter(lambda record: bool(DECODER.search(record.getMessage())))
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    try:
        yield messages
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


def why(e: BaseException) -> str:
    """GDAL's own message, which rasterio keeps in the cause."""
    return str(e.__cause__ or e)
