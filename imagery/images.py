"""Pictures on disk, and folders of tiles with their labels. Needs OpenCV.

A tile folder is DeepGlobe's: flat, `<id>_sat.jpg` (or .png, .tif) beside `<id>_mask.png`, labels optional. A folder
without any `_sat` names is taken as plain images without labels.

What is read becomes uint8 (H, W, 3) RGB: grey is repeated, alpha is dropped, EXIF orientation is applied, as cv2.imread
does. Pictures of more than 8 bits are refused: how to squeeze them is the user's to say.

A damaged picture is refused: by its checksums (formats.py, tiff.py), and by what OpenCV's libraries complain of while
they give pixels all the same. What can't be known: a bit of an uncompressed TIFF, and most single bits of a JPEG or of
an LZW or PackBits TIFF, which then hold other pixels that are as valid.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.formats import check_format
from dlink.imagery.overheard import overheard
from dlink.imagery.tiff import Checker
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ROWS = 256  # that change their order of colours at once
LOG_ALL = 5  # OpenCV's LOG_LEVEL_DEBUG
LOGGED = re.compile(r"\[ ?[A-Z]+:\d+@|OpenCV TIFF: |> |\s*$")  # how lines of OpenCV's log begin
# Of the warnings of libjpeg (its jerror.h) those that touch pixels; libpng's errors; of libtiff's words, in OpenCV 5's
# form and 4's, errors and what its decoders warn of, but nothing of tags.
DAMAGE = re.compile(
    r"^(Corrupt JPEG data: (?!bad ICC).*|Premature end of JPEG.*|Inconsistent progression.*)"
    r"|^libpng error: (.*)|TIFF_Error (.*)|TIFF_Warning ((?:(?!OJPEG)\w*Decode|JPEGLib)\b.*)"
    r"|^OpenCV TIFF: (?!TIFF(?:Read\w*Dir|Fetch|Advance)|OJPEG)\w*: Warning, (.*)"
)
ROAD = 128  # a label is road where it is at least this (DeepGlobe's convention)

Image: TypeAlias = NDArray[np.uint8]
Begin: TypeAlias = Callable[[int, int], None]  # called with a picture's height and width before it is decoded


@dataclass(frozen=True)
class TileFile:
    """One tile of a folder: where its image is, and its label if it has one."""

    id: str
    image: Path
    label: Path | None


def read_image(path: Path, begin: Begin | None = None) -> Image:
    """uint8 (H, W, 3) RGB."""
    pixels = decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, begin)
    if pixels.dtype != np.uint8:
        raise BadInput(f"{path}: {pixels.dtype} samples; convert it to 8 bits (gdal_translate -ot Byte -scale)")
    for top in range(0, len(pixels), ROWS):  # BGR to RGB in place: a second copy of a large picture is gigabytes
        rows = pixels[top : top + ROWS]
        rows[:] = cv2.cvtColor(rows, cv2.COLOR_BGR2RGB)
    return pixels


def read_label(path: Path) -> NDArray[np.bool_]:
    """Road or not, bool (H, W)."""
    return read_grey(path) >= ROAD


def read_grey(path: Path) -> NDArray[np.uint8]:
    """uint8 (H, W)."""
    return decode(path, cv2.IMREAD_GRAYSCALE)


def decode(path: Path, flags: int, begin: Begin | None = None) -> Image:
    """Every pixel of a picture as OpenCV gives them, or BadInput. This is the one place where files become pixels."""
    data = path.read_bytes()
    if not data:
        raise BadInput(f"{path}: an empty file, not a picture")
    shape = check_format(path, data)
    tiff = Checker(path, BytesIO(data))
    if begin and (known := shape or (tiff.blocks and tiff.blocks.shape)):
        begin(*known)
    tiff.check()
    try:
        with listening() as said:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as e:  # a header that claims more pixels than OpenCV takes
        raise BadInput(f"{path}: can't be decoded as a picture; OpenCV says: {e.err or e}") from e
    reason = next(filter(None, map(damage, said)), "")
    if pixels is None:
        why = f"; OpenCV says: {reason}" if reason else ""
        raise BadInput(f"{path}: no picture, or a damaged one; PNG, JPEG and TIFF of 1 to 4 bands are read{why}")
    if reason:
        raise BadInput(f"{path}: damaged, {reason}; copy it again, or save it anew to take what is left as it is")
    return pixels  # type: ignore[return-value]


@contextmanager
def listening() -> Iterator[list[str]]:
    """Lines in which OpenCV's libraries complain: libjpeg to stderr, libtiff to OpenCV's log, if all is logged."""
    log: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5, OpenCV 4
    with overheard(lambda line: bool(LOGGED.match(line) or damage(line))) as said:
        before = log.setLogLevel(LOG_ALL)
        try:
            yield said
        finally:
            log.setLogLevel(before)


def damage(line: str) -> str:
    """What a line says of damaged pixels; nothing where it says anything else."""
    found = DAMAGE.search(line)
    return next(filter(None, found.groups()), "").rstrip(". ") if found else ""


def write_image(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write (H, W) or RGB (H, W, 3) in the format that the name says, whole or not at all."""
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(bgr))
    if not ok:
        raise BadInput(f"{path}: OpenCV can't encode {pixels.dtype} {pixels.shape} as {path.suffix}")
    try:
        with replacing(path) as part:
            part.write_bytes(data.tobytes())
    except OSError as e:  # a full disk's names no file
        raise OSError(e.errno, e.strerror, str(path)) from e


def find_images(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: not a folder")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def find_tiles(folder: Path) -> list[TileFile]:
    """The tiles of a folder by id; at least one."""
    images = find_images(folder)
    sat = [p for p in images if p.stem.endswith("_sat")]
    labels = {p.stem.removesuffix("_mask"): p for p in images if p.stem.endswith("_mask")}
    if sat:
        tiles = [TileFile(i, p, labels.get(i)) for p in sat for i in [p.stem.removesuffix("_sat")]]
    else:
        tiles = [TileFile(p.stem, p, None) for p in images if not p.stem.endswith("_mask")]
    if not tiles:
        raise BadInput(f"{folder}: no tiles; expected <id>_sat.jpg with <id>_mask.png, or pictures")
    return tiles


def read_tile(tile: TileFile) -> tuple[Image, NDArray[np.bool_] | None]:
    """A tile's image and its label, which must be of one size."""
    image = read_image(tile.image)
    if tile.label is None:
        return image, None
    label = read_label(tile.label)
    if label.shape != image.shape[:2]:
        raise BadInput(
            f"{tile.label}: {label.shape[1]} x {label.shape[0]} px, its image {tile.image.name} is "
            f"{image.shape[1]} x {image.shape[0]}"
        )
    return image, label
