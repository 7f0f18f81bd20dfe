"""Reads and writes pictures, and finds the tiles of a folder with their labels. Needs OpenCV.

A tile folder is like DeepGlobe's: flat, `<id>_sat.jpg` (or .png, .tif) beside `<id>_mask.png`; labels are optional. A
folder without any `_sat` names holds plain images without labels.

A picture becomes uint8 (H, W, 3) RGB. As in cv2.imread, grey is repeated, alpha is dropped and EXIF orientation is
applied. Pictures of more than 8 bits are refused, because the user must decide how to scale them.

A damaged picture is refused if its checksums are wrong (formats.py, tiff.py) or if a decoder complains, even where the
decoder returns pixels. Some damage cannot be seen: a changed bit in an uncompressed TIFF, and most single bits of a
JPEG or of an LZW or PackBits TIFF, decode to other valid pixels.
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

from dlink.imagery.captured_stderr import captured_stderr
from dlink.imagery.formats import check_format
from dlink.imagery.reading import RGB, Reading
from dlink.imagery.tiff import Checker
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ROWS = 256  # rows that are converted to RGB at once
LOG_ALL = 5  # OpenCV's LOG_LEVEL_DEBUG
LOGGED = re.compile(r"\[ ?[A-Z]+:\d+@|OpenCV TIFF: |> |\s*$")  # beginnings of lines of OpenCV's log
# Messages about damaged pixels: libjpeg's warnings (its jerror.h), libpng's errors, and libtiff's errors and decoder
# warnings in the forms of OpenCV 5 and 4. Messages about tags are left out.
DAMAGE = re.compile(
    r"^(Corrupt JPEG data: (?!bad ICC).*|Premature end of JPEG.*|Inconsistent progression.*)"
    r"|^libpng error: (.*)|TIFF_Error (.*)|TIFF_Warning ((?:(?!OJPEG)\w*Decode|JPEGLib)\b.*)"
    r"|^OpenCV TIFF: (?!TIFF(?:Read\w*Dir|Fetch|Advance)|OJPEG)\w*: Warning, (.*)"
)
ROAD = 128  # a label's pixel is road from this value on (DeepGlobe's convention)

Image: TypeAlias = NDArray[np.uint8]
Begin: TypeAlias = Callable[[int, int], None]  # called with a picture's height and width before decoding


@dataclass(frozen=True)
class TileFile:
    """One tile of a folder: the paths of its image and of its label, if it has one."""

    id: str
    image: Path
    label: Path | None
    how: Reading = RGB  # how both are read


def read_image(path: Path, begin: Begin | None = None) -> Image:
    """Read a picture: PNG, JPEG or TIFF of 8 bits.

    Args:
        path: The file.
        begin: Called with the height and width in pixels before the picture is decoded.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        BadInput: The file is not a picture, is damaged, or has more than 8 bits.
        OSError: The file cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.images import read_image
        >>> read_image(Path("tiles/104_sat.png")).shape
        (100, 150, 3)
    """
    pixels = decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, begin)
    if pixels.dtype != np.uint8:
        raise BadInput(f"{path}: {pixels.dtype} samples; convert it to 8 bits (gdal_translate -ot Byte -scale)")
    for top in range(0, len(pixels), ROWS):  # BGR to RGB in place: a copy of a large picture takes gigabytes
        rows = pixels[top : top + ROWS]
        rows[:] = cv2.cvtColor(rows, cv2.COLOR_BGR2RGB)
    return pixels


def read_label(path: Path) -> NDArray[np.bool_]:
    """Read a label.

    Args:
        path: The picture; road is where its grey value is 128 or more.

    Returns:
        bool (H, W), True where there is road.

    Raises:
        BadInput: The file is not a picture, or is damaged.
        OSError: The file cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.images import read_label
        >>> label = read_label(Path("tiles/104_mask.png"))
        >>> label.shape, int(label.sum())
        ((100, 150), 3000)
    """
    return read_grey(path) >= ROAD


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read a picture as grey, uint8 (H, W)."""
    return decode(path, cv2.IMREAD_GRAYSCALE)


def decode(path: Path, flags: int, begin: Begin | None = None) -> Image:
    """Decode a picture by OpenCV; damage raises BadInput. All pictures but GeoTIFFs are decoded here."""
    data = path.read_bytes()
    if not data:
        raise BadInput(f"{path}: an empty file, not a picture")
    shape = check_format(path, data)
    tiff = Checker(path, BytesIO(data))
    if begin and (known := shape or (tiff.blocks and tiff.blocks.shape)):
        begin(*known)
    tiff.check()
    try:
        with decoder_messages() as messages:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as e:  # the header claims more pixels than OpenCV takes
        raise BadInput(f"{path}: can't be decoded as a picture; OpenCV says: {e.err or e}") from e
    reason = next(filter(None, map(damage, messages)), "")
    if pixels is None:
        why = f"; OpenCV says: {reason}" if reason else ""
        raise BadInput(f"{path}: no picture, or a damaged one; PNG, JPEG and TIFF of 1 to 4 bands are read{why}")
    if reason:
        raise BadInput(f"{path}: damaged, {reason}; copy it again, or save it anew to take what is left as it is")
    return pixels  # type: ignore[return-value]


@contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """The messages of OpenCV's decoders: libjpeg writes to stderr, libtiff to OpenCV's log at the level of LOG_ALL."""
    log: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5, OpenCV 4
    with captured_stderr(lambda line: bool(LOGGED.match(line) or damage(line))) as messages:
        before = log.setLogLevel(LOG_ALL)
        try:
            yield messages
        finally:
            log.setLogLevel(before)


def damage(line: str) -> str:
    """The part of a line that reports damaged pixels; empty for any other line."""
    found = DAMAGE.search(line)
    return next(filter(None, found.groups()), "").rstrip(". ") if found else ""


def write_image(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: The file. Its suffix names the format.
        pixels: uint8 or uint16, (H, W) or RGB (H, W, 3).

    Raises:
        BadInput: OpenCV cannot encode such pixels in this format.
        OSError: The file cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.images import read_image, write_image
        >>> write_image(Path("copy.png"), image)
        >>> bool((read_image(Path("copy.png")) == image).all())
        True
    """
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(bgr))
    if not ok:
        raise BadInput(f"{path}: OpenCV can't encode {pixels.dtype} {pixels.shape} as {path.suffix}")
    try:
        with replacing(path) as part:
            part.write_bytes(data.tobytes())
    except OSError as e:  # the error of a full disk names no file
        raise OSError(e.errno, e.strerror, str(path)) from e


def find_images(folder: Path) -> list[Path]:
    """The pictures directly in a folder, sorted by name."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: not a folder")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def find_tiles(folder: Path, how: Reading = RGB) -> list[TileFile]:
    """Find the tiles of a folder, `<id>_sat.*` with `<id>_mask.*`, or plain pictures.

    Args:
        folder: The folder; subfolders are not searched.
        how: How pictures and labels are read.

    Returns:
        The tiles, sorted by the image's name; at least one. A tile without a label has None for it.

    Raises:
        BadInput: The folder does not exist or holds no tiles.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.images import find_tiles
        >>> [(tile.id, tile.image.name, tile.label.name) for tile in find_tiles(Path("tiles"))]
        [('104', '104_sat.png', '104_mask.png')]
    """
    images = find_images(folder)
    sat = [p for p in images if p.stem.endswith("_sat")]
    labels = {p.stem.removesuffix("_mask"): p for p in images if p.stem.endswith("_mask")}
    if sat:
        tiles = [TileFile(i, p, labels.get(i), how) for p in sat for i in [p.stem.removesuffix("_sat")]]
    else:
        tiles = [TileFile(p.stem, p, None, how) for p in images if not p.stem.endswith("_mask")]
    if not tiles:
        raise BadInput(f"{folder}: no tiles; expected <id>_sat.jpg with <id>_mask.png, or pictures")
    return tiles


def read_tile(tile: TileFile) -> tuple[Image, NDArray[np.bool_] | None]:
    """A tile's image and its label. Both must have the same size."""
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
