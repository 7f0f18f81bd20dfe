"""Reads labels: two values, whatever they are, of which 0 is the background. Needs OpenCV.

A label's values are background and road: 0 and 255 as in DeepGlobe, 0 and 1, 0 and 65535, black and a colour. Grey
between 0 and 255 is what JPEG and smooth edges leave around both, and is road from 128 on. A label with a third value
is refused, because nobody can know which of them is road: `--road-value` says it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dlink.imagery.decoding import decode
from dlink.imagery.images import Image, TileFile, raster_source, read_image
from dlink.imagery.kinds import raster_reason
from dlink.imagery.notes import say
from dlink.imagery.reading import COLOUR, RGB, Reading
from dlink.runtime.errors import BadInput

ROAD = 128  # grey is road from this value on (DeepGlobe's convention)
NOISE = 32  # values this near to 0 and 255 are meant to be 0 and 255
THICK = 0.01  # of the road's pixels: as many may lie within an area of grey, at rough edges
MOSTLY = 0.5  # a greater share of road is unusual
INVERTED = "a label with road in most of its pixels; is it inverted? --road-value 0 takes what is 0 as road"
FEW = 8  # values of a label of classes; JPEG and smooth edges leave more
SHOWN = 6  # values in a message
MANY = 40  # values, of which to name the road's would help nobody

CHANNELS, TWO, WHITE = 3, 2, 255
EDGE, BLURRED = np.ones((3, 3), np.uint8), np.ones((7, 7), np.uint8)  # JPEG keeps colours in half the resolution

ROADS: dict[Path, tuple[float, str]] = {}  # by folder: the value of road in a label of it, and the label's name

Label = NDArray[np.bool_]
Values = NDArray[Any]


class UnclearLabel(BadInput):
    """Nobody can know which of a label's values are road; `--road-value` says it."""


def read_label(path: Path, how: Reading = RGB) -> Label:
    """Read a label.

    Args:
        path: The picture: two values, 0 for the background; or grey values, road from 128 on.
        how: Its `road_value` says which values are road.

    Returns:
        bool (H, W), True where there is road.

    Raises:
        BadInput: The file is not a picture, is damaged, or has more values than two.
        OSError: The file cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from dlink.imagery.labels import read_label
        >>> label = read_label(Path("tiles/104_mask.png"))
        >>> label.shape, int(label.sum())
        ((100, 150), 3000)
    """
    values = values_of(path, how.road_values)
    road = road_of(values, path, how)
    if not how.road_values and values.size:
        check_alike(path, float(values.max() or values.min()))
    if road.size and (share := float(road.mean())) > MOSTLY:
        say(path, INVERTED, f" (here in {share:.0%})")
    return road


def read_tile(tile: TileFile) -> tuple[Image, Label | None]:
    """A tile's image and its label, both at the ground resolution that the image is read at."""
    image = read_image(tile.image, tile.how)
    if tile.label is None:
        return image, None
    label = read_label(tile.label, tile.how)
    own = shape_of(tile.image, tile.how, image)
    if label.shape != own:
        raise BadInput(
            f"{tile.label}: {label.shape[1]} x {label.shape[0]} px, its image {tile.image.name} is {own[1]} x {own[0]}"
        )
    if own == image.shape[:2]:
        return image, label
    size = image.shape[1], image.shape[0]
    how = cv2.INTER_AREA if size[0] * size[1] < label.size else cv2.INTER_LINEAR
    return image, np.asarray(cv2.resize(label.astype(np.uint8) * 255, size, interpolation=how) >= ROAD)


def shape_of(path: Path, how: Reading, image: Image) -> tuple[int, int]:
    """Rows and columns of a picture as stored; `image` is what was read of it."""
    reason = raster_reason(path)
    if not reason or how.metres is None:
        return image.shape[0], image.shape[1]
    with raster_source(path, how, reason) as source:
        return source.native


def values_of(path: Path, named: Sequence[int] = ()) -> Values:
    """A label's values (H, W): grey values as they are, black as 0, other colours as COLOUR + 0xRRGGBB.

    Where there is no data, the value becomes 0 if there are more than two, unless values of road are `named`.
    """
    if reason := raster_reason(path):
        with raster_source(path, Reading(), reason) as source:
            samples, valid = source.raw()
        pixels = np.moveaxis(samples, 0, -1)
        # A label of two values may declare one of them as no data; of more, no data is one too many.
        if valid is not None and not valid.all() and not named and len(distinct(samples)) > TWO:
            pixels = np.where(valid[..., None], pixels, pixels.dtype.type(0))
    else:
        pixels = decode(path, cv2.IMREAD_UNCHANGED)
        pixels = pixels[..., 2::-1] if pixels.ndim == CHANNELS and pixels.shape[2] >= CHANNELS else pixels
    if pixels.ndim < CHANNELS:
        return pixels
    if pixels.shape[2] < CHANNELS or (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    red, green, blue = (pixels[..., i].astype(np.int64) for i in range(CHANNELS))
    colours = (red << 16) + (green << 8) + blue
    return np.where(colours > 0, colours + COLOUR, 0)


def road_of(values: Values, path: Path, how: Reading) -> Label:
    """Where the values (H, W) are road."""
    if how.road_values:
        road = np.isin(values, how.road_values)
        if values.any() and not road.any():
            say(path, f"has no pixel of --road-value {how.road_value}", f"; its values are {listed(distinct(values))}")
        return road
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    there = distinct(values)
    if len(there) <= 1 or (len(there) == TWO and 0 in there):
        return np.asarray(values != 0)
    coloured = there[-1] >= COLOUR
    grey = one_colour(values) if coloured else values
    if only_noise(grey, distinct(grey) if coloured else there, BLURRED if coloured else EDGE):
        return np.asarray(grey >= ROAD)
    mend = f"say which are road, such as --road-value {words_of(there[there != 0][0])}"
    if len(there) > MANY:
        mend = "make two values of it"
    raise UnclearLabel(f"{path}: a label has two values, 0 and the road's; this one has {listed(there)}; {mend}")


def distinct(values: Values) -> Values:
    """The values that there are, in order."""
    if values.dtype == np.uint8:
        counts = cv2.calcHist([np.ascontiguousarray(values).reshape(1, -1)], [0], None, [WHITE + 1], [0, WHITE + 1])
        return np.flatnonzero(counts)
    return np.unique(values)


def check_alike(path: Path, value: float) -> None:
    """Raise UnclearLabel if the road of another label in the folder has another value: both are classes then."""
    if not value or value >= COLOUR:
        return
    value = WHITE if WHITE - NOISE < value <= WHITE else value
    other, name = ROADS.setdefault(path.parent, (value, path.name))
    if other == value:
        return
    if holds(path.with_name(name), other):
        raise UnclearLabel(
            f"{path}: its road is {words_of(value)}, that of {name} is {words_of(other)}; say which are road: "
            f"--road-value {words_of(other)},{words_of(value)} if both are"
        )
    ROADS[path.parent] = value, path.name  # that file has changed since


def holds(path: Path, value: float) -> bool:
    """Whether a label still has this value of road; 255 stands for all values near it."""
    if not path.exists():
        return False
    there = distinct(values_of(path))
    return bool((there > WHITE - NOISE).any() if value == WHITE else (there == value).any())


def one_colour(values: Values) -> Values:
    """Colours as grey, by their brightest part, if the insides of all that is bright have one hue; else as they are."""
    parts = np.stack([values >> 16 & 255, values >> 8 & 255, values & 255])
    brightest = parts.max(axis=0)
    inside = cv2.erode((brightest >= ROAD).astype(np.uint8), EDGE) > 0
    hues = (2 * parts[:, inside] > brightest[inside]).astype(np.int64)  # which of red, green and blue are strong
    counts = np.bincount(hues[0] * 4 + hues[1] * 2 + hues[2]) if inside.any() else np.zeros(1)
    return brightest if counts.max() > (1 - THICK) * counts.sum() else values


def only_noise(values: Values, there: Values, edge: NDArray[np.uint8]) -> bool:
    """Whether all values that are there but 0 and 255 are what JPEG and smooth edges leave around both.

    Those lie along edges, beside the road. A class covers an area, of which something is left when its edge is taken
    off, or has lines of its own.
    """
    if there[0] >= NOISE or not WHITE - NOISE < there[-1] <= WHITE:
        return False
    others = [v for v in there if v not in (0, WHITE)]
    few = len(others) <= FEW
    between = (values >= NOISE) & (values <= WHITE - NOISE)
    most = THICK * np.count_nonzero(values >= ROAD)
    if any(inside(area, edge) > most for area in ([values == v for v in others] if few else [between])):
        return False
    beside = cv2.dilate((values > WHITE - NOISE).astype(np.uint8), edge, iterations=3) > 0
    return not few or bool(np.count_nonzero(between & ~beside) <= most)


def inside(area: Label, edge: NDArray[np.uint8]) -> int:
    """Pixels that are left of an area when its edge is taken off."""
    return int(np.count_nonzero(cv2.erode(area.astype(np.uint8), edge)))


def listed(values: Values) -> str:
    return ", ".join(map(words_of, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")


def words_of(value: object) -> str:
    number = float(value)  # type: ignore[arg-type]
    return f"#{int(number) - COLOUR:06x}" if number >= COLOUR else f"{number:g}"
