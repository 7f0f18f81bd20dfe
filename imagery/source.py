"""Reads any raster that GDAL knows, by windows: a network's bands as 8 bits, at its ground resolution.

Bands are found by colours.py. Palettes and CMYK become RGB, alpha is dropped, white is 255 also where the file counts
the other way. Samples that are not 8 bits are stretched by one range for the whole raster (stretching.py).

A raster that says its ground resolution is read at the network's, unless both are within a tenth: averaged where it is
finer, interpolated where it is coarser. Rows and columns are then those of that grid, not the file's.

A pixel has no data by a nodata value, an alpha band, a mask, or NaN in one of the bands. The network sees such pixels
as they are stored, NaN as 0, so that a road at the edge of the data has its context.

The internet is never asked: a path of GDAL's /vsi systems is opened only when it is given. Needs rasterio.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as Box

from dlink.imagery.colours import Bands, bands_of
from dlink.imagery.formats import check_format
from dlink.imagery.kinds import TIFFS, remote
from dlink.imagery.notes import say, unknown_resolution
from dlink.imagery.reading import Reading
from dlink.imagery.resolution import resolution
from dlink.imagery.stretching import Levels, Part, levels_of
from dlink.imagery.tiff import Checker
from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS

CACHE = 24 << 20  # bytes that GDAL may keep of decoded blocks
COUNTED = 4 << 20  # samples that a histogram takes at once
ALIKE = 0.1  # ground resolutions that differ by less are one
GDAL_ERRORS = (RasterioError, CPLE_BaseError)  # rasterio wraps most of GDAL's errors, not all
DECODER = re.compile(r"\b(\w*Decode|JPEGLib):")  # marks a warning about pixels, not about tags
NETWORK = {"DAAS", "EEDA", "EEDAI", "HTTP", "PLMOSAIC", "STACIT", "STACTA", "WCS", "WMS", "WMTS"}  # drivers
OFFLINE = {"CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{none}"}  # so that a VRT does not lead to the network
CMYK = [ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black]
PATIENT = {"GDAL_HTTP_CONNECTTIMEOUT": 20, "GDAL_HTTP_TIMEOUT": 120}  # seconds, of a server that does not answer
WHITE = 255

Image = NDArray[np.uint8]
Valid = NDArray[np.bool_]  # True where there is data


@contextmanager
def gdal(path: Path) -> Iterator[None]:
    """GDAL's settings while a raster is read, without rasterio's warnings."""
    offline = PATIENT if remote(path) else OFFLINE
    with rasterio.Env(GDAL_CACHEMAX=CACHE, GDAL_TIFF_INTERNAL_MASK=True, **offline), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # raised for RPCs and control points too
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield


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
            dataset = stack.enter_context(DatasetReader(name_of(path, stack), driver=drivers(checker)))
            source = Source(path, with_colours(dataset, stack), dataset, how, checker)
        except (*GDAL_ERRORS, UnicodeDecodeError) as e:  # UnicodeDecodeError: names in damaged tags
            raise BadInput(f"{path}: can't be opened as a raster; GDAL says: {why(e)}") from e
        except OSError as e:  # concerns this image only, unlike an output that can't be written
            raise BadInput(f"{path}: {e.strerror}") from e
        yield source


def checker_of(path: Path, stack: ExitStack) -> Checker | None:
    """What checks the blocks of a TIFF before GDAL reads them. A PNG or a JPEG is checked here as a whole."""
    if remote(path):
        return None
    file = stack.enter_context(path.open("rb"))
    head = file.read(4)
    if head in TIFFS:
        return Checker(path, file)
    if head.startswith((b"\x89PNG", b"\xff\xd8")):
        check_format(path, path.read_bytes())
    return None


def drivers(tiff: Checker | None) -> list[str]:
    """The drivers that may open a file: TIFF's, or all without those that ask a network."""
    if tiff:
        return ["GTiff"]
    with rasterio.Env() as env:
        return sorted(set(env.drivers()) - NETWORK)


def name_of(path: Path, stack: ExitStack) -> str:
    """The file's name for GDAL. One that is not UTF-8 is linked, with the files beside it, under another name."""
    if remote(path):
        return remote_name(path)
    if is_utf_8(path):
        return str(path)
    folder = Path(stack.enter_context(TemporaryDirectory()))
    for beside in path.parent.iterdir():
        if beside.name.startswith(path.stem):
            (folder / f"picture{beside.name.removeprefix(path.stem)}").symlink_to(beside.absolute())
    return str(folder / f"picture{path.suffix}")


def remote_name(path: Path) -> str:
    """The name of a file in GDAL's file systems with the double slashes that pathlib makes single."""
    name = re.sub(r"^(/vsi\w+/(?:https?|ftp)):/+", r"\1://", path.as_posix())
    _, system, *rest = path.parts
    if "://" not in name and Path("/", *rest[:1]).exists() and not Path(*rest[:1]).exists():
        return f"/{system}//{'/'.join(rest)}"  # an archive by its absolute path
    return name


def is_utf_8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def with_colours(dataset: Any, stack: ExitStack) -> Any:
    """The dataset; of a palette a dataset of its red, green and blue."""
    if ColorInterp.palette not in dataset.colorinterp:
        return dataset
    band = dataset.colorinterp.index(ColorInterp.palette) + 1
    height, width = dataset.height, dataset.width
    block = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><ColorInterp>{name}</ColorInterp><ComplexSource><SourceFilename>'
        f"{escape(dataset.name)}</SourceFilename><SourceBand>{band}</SourceBand><ColorTableComponent>{i}"
        f'</ColorTableComponent><SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/><DstRect xOff="0" '
        f'yOff="0" xSize="{width}" ySize="{height}"/></ComplexSource></VRTRasterBand>'
        for i, name in enumerate(("Red", "Green", "Blue"), 1)
    )
    xml = f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{block}</VRTDataset>'
    return stack.enter_context(rasterio.open(xml))


class Source:
    """An open raster as the network sees it: `shape` rows and columns of uint8 planes, and where there is data."""

    def __init__(self, path: Path, pixels: Any, dataset: Any, how: Reading, checker: Checker | None) -> None:
        self.path = path
        self.how = how
        self.pixels = pixels  # what colours are read from
        self.dataset = dataset  # the file: its place and its mask
        self.checker = checker
        roles = list(pixels.colorinterp)
        self.cmyk = roles[: len(CMYK)] == CMYK and how.planes == COLOURS and not how.numbers
        self.bands = self.find_bands(roles)
        self.dtype = np.dtype(np.result_type(*(pixels.dtypes[n - 1] for n in self.bands.numbers)))
        if self.dtype.kind not in "uif":
            raise BadInput(f"{path}: {self.dtype} samples; a picture's samples are whole or real numbers")
        masked = any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums)
        self.masked = masked or self.dtype.kind == "f"
        self.has_mask = masked
        self.white_is_least = "MINISWHITE" in pixels.tags(ns="IMAGE_STRUCTURE")
        self.native = (dataset.height, dataset.width)
        self.metres = resolution(dataset)
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
        try:
            found = levels_of(self.dtype, self.how.stretched, len(self.bands.numbers), self.parts())
        except BadInput as e:
            raise BadInput(f"{self.path}: {e}") from e
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
        planes = samples if self.levels is None else self.levels.bytes_of(samples)
        if self.cmyk:
            ink = WHITE - planes.astype(np.uint16)
            planes = ((ink[:3] * ink[3] + WHITE // 2) // WHITE).astype(np.uint8)
        if self.white_is_least:
            planes = WHITE - planes
        return np.stack(list(planes) * (self.planes // len(planes)), axis=-1), valid

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
                data: NDArray[Any] = self.pixels.read(
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
        if self.has_mask:
            box, shape, _ = self.box(rows, cols, grid)
            try:
                valid = self.dataset.dataset_mask(window=box, out_shape=shape) > 0
            except GDAL_ERRORS as e:
                raise BadInput(f"{self.path}: damaged or cut short; GDAL says: {why(e)}; copy it again") from e
        if self.dtype.kind == "f":
            finite = ~np.isnan(samples).any(axis=0)
            valid = finite if valid is None else valid & finite
        return valid

    def raw(self) -> NDArray[Any]:
        """All samples (bands, H, W) as stored, 0 where there is no data."""
        everything = slice(0, self.native[0]), slice(0, self.native[1])
        samples = self.samples(*everything, self.native)
        if self.white_is_least and samples.dtype == np.uint8:
            samples = WHITE - samples
        valid = self.valid(*everything, self.native, samples)
        return samples if valid is None else np.where(valid, samples, samples.dtype.type(0))

    def box(self, rows: slice, cols: slice, grid: tuple[int, int]) -> tuple[Box, tuple[int, int], Resampling]:
        """The window of the file, the shape to read, and how it is resampled."""
        down, right = (own / other for own, other in zip(self.native, grid, strict=True))
        high, wide = rows.stop - rows.start, cols.stop - cols.start
        box = Box(cols.start * right, rows.start * down, wide * right, high * down)
        if grid == self.native:
            box = Box(cols.start, rows.start, wide, high)
        return box, (high, wide), Resampling.average if down * right > 1 else Resampling.bilinear

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
