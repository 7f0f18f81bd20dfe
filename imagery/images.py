"""Reads pictures of any kind, writes pictures, and finds the tiles of a folder with their labels. Needs OpenCV.

A tile folder is like DeepGlobe's: flat, `<id>_sat.jpg` (or .png, .tif) beside `<id>_mask.png`; labels are optional. A
folder without any `_sat` names holds plain images without labels.

A picture becomes uint8 (H, W, 3) RGB, or the planes that a network takes. Plain pictures are read by OpenCV: grey is
repeated, alpha is dropped, and EXIF orientation is applied. All others are rasters, which GDAL reads (source.py).
"""

import struct
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.colours import bands_of
from dlink.imagery.decoding import Begin, decode
from dlink.imagery.kinds import SUFFIXES, raster_reason
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.runtime.spec import COLOURS, Spec

if TYPE_CHECKING:
    from dlink.imagery.source import Source

ROWS = 256  # rows that are converted to RGB at once
HEADER = 33  # bytes of a PNG's signature and first chunk

Image: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class TileFile:
    """One tile of a folder: the paths of its image and of its label, if it has one."""

    id: str
    image: Path
    label: Path | None
    how: Reading = RGB  # how both are read


def read_image(path: Path, how: Reading = RGB, begin: Begin | None = None) -> Image:
    """Read a picture of any kind, whole.

    Args:
        path: The file.
        how: Which bands are read, how they become 8 bits, and at which ground resolution.
        begin: Called with the height and width in pixels before the picture is decoded.

    Returns:
        uint8 (H, W, 3) RGB, or the planes of `how`.

    Raises:
        BadInput: The file is not a picture, is damaged, lacks a band, or needs GDAL, which is not installed.
        OSError: The file cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.images import read_image
        >>> read_image(Path("tiles/104_sat.png")).shape
        (100, 150, 3)
    """
    return read_with_tags(path, how, begin)[0]


def read_with_tags(path: Path, how: Reading, begin: Begin | None = None) -> tuple[Image, dict[str, str]]:
    """As read_image, with what of the reading belongs in the metadata of a result."""
    if reason := raster_reason(path):
        with raster_source(path, how, reason) as source:
            if begin:
                begin(*source.shape)
            image, _ = source.read(slice(0, source.shape[0]), slice(0, source.shape[1]))
            return image, source.tags()
    pixels = decode(path, cv2.IMREAD_COLOR, begin)
    for top in range(0, len(pixels), ROWS):  # BGR to RGB in place: a copy of a large picture takes gigabytes
        rows = pixels[top : top + ROWS]
        rows[:] = cv2.cvtColor(rows, cv2.COLOR_BGR2RGB)
    if how.planes == COLOURS and not how.bands:
        return pixels, {}
    try:
        bands = bands_of(COLOURS, (None,) * len(COLOURS), how).numbers
    except BadInput as e:
        raise BadInput(f"{path}: {e}") from e
    chosen = [number - 1 for number in bands] * (len(how.planes) // len(bands))
    return np.ascontiguousarray(pixels[..., chosen]), {"DLINK_BANDS": ",".join(map(str, bands))}


def raster_source(path: Path, how: Reading, reason: str) -> AbstractContextManager["Source"]:
    """The open raster. BadInput if rasterio is not installed."""
    try:
        from dlink.imagery.source import opened
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "rasterio":
            raise
        raise BadInput(f"{path}: a picture {reason}, which GDAL must read: pip install 'dlink[geo]'") from e
    return opened(path, how)


def shown(image: Image) -> Image:
    """An image of any planes (H, W, C) as three that a screen shows: its first three, or its first one as grey."""
    if image.shape[2] == len(COLOURS):
        return image
    return image[..., :3] if image.shape[2] > len(COLOURS) else image[..., [0, 0, 0]]


def write_image(
    path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16], tags: Mapping[str, str] | None = None
) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: The file. Its suffix names the format.
        pixels: uint8 or uint16, (H, W) or RGB (H, W, 3).
        tags: Words for a PNG's metadata, by name.

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
            part.write_bytes(with_tags(data.tobytes(), tags or {}))
    except OSError as e:  # the error of a full disk names no file
        raise OSError(e.errno, e.strerror, str(path)) from e


def with_tags(png: bytes, tags: Mapping[str, str]) -> bytes:
    """A PNG's bytes with a tEXt chunk for each tag behind the header (PNG specification, 11.3.3.2)."""
    chunks = b""
    for name, value in tags.items():
        body = b"tEXt" + name.encode("latin-1") + b"\0" + value.encode("latin-1")
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", crc32(body))
    return png[:HEADER] + chunks + png[HEADER:]


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Read a plain picture as grey, uint8 (H, W)."""
    return decode(path, cv2.IMREAD_GRAYSCALE)


def for_network(tiles: Iterable[TileFile], spec: Spec) -> list[TileFile]:
    """The tiles, read as a network takes them: its bands, stretch and ground resolution where the user names none."""
    return [replace(tile, how=tile.how.of_network(spec)) for tile in tiles]


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
