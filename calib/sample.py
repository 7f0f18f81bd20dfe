"""Chooses the tiles for calibration, and those kept back as the holdout.

Tiles are sorted by the amount of road in their label (without labels by brightness) and taken at even steps from a
seeded start, so the sample has tiles with roads and tiles without. An image larger than the network's tile gives
several tiles. An image smaller than half a tile gives none, because the network would mostly see mirrored margins.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.images import Image, TileFile, find_tiles
from dlink.imagery.labels import UnclearLabel, read_tile
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.errors import BadInput
from dlink.runtime.windows import square
from dlink.runtime.words import counted

FEWEST = 4  # tiles in all; fewer would show nothing
LOOKED_AT = 4  # candidates for every tile that is taken
HELD_BACK = 0.25  # the holdout's share if there are not enough tiles for both

Label = NDArray[np.bool_]


@dataclass(frozen=True)
class Tile:
    """An image (S, S, 3), and its label (S, S) if it has one."""

    id: str
    image: Image
    label: Label | None


@dataclass(frozen=True)
class Sample:
    """Tiles for calibration, and other tiles as the holdout."""

    tiles: tuple[Tile, ...]
    holdout: tuple[Tile, ...]
    skipped: tuple[str, ...]  # a line for each image that could not be used
    sha256: str  # of the pixels of `tiles`


@dataclass(frozen=True)
class Position:
    """Where a tile can be cut, and its sort key."""

    file: TileFile
    row: int
    column: int
    key: tuple[float, float]


def sample(folder: Path, side: int, count: int, held: int, seed: int, how: Reading = RGB) -> Sample:
    """`count` tiles of a folder (or of one large image) for calibration, and `held` tiles as the holdout.

    Both are fewer if there are not enough tiles. `how` says how pictures and labels are read.
    """
    files = [TileFile(folder.stem, folder, None, how)] if folder.is_file() else find_tiles(folder, how)
    rng = np.random.default_rng(seed)
    skipped: list[str] = []
    places = look_around([files[i] for i in rng.permutation(len(files))], side, count + held, skipped)
    if len(places) < FEWEST:
        why = f"; first: {skipped[0]}" if skipped else ""
        found = f"{counted(len(places), 'usable tile')} of {counted(len(files), 'image')}"
        raise BadInput(
            f"{folder}: {found}; calibration needs {FEWEST} or more of the kind that the network will see, "
            f"{side} x {side} px or larger{why}"
        )
    wanted = min(count + held, len(places))
    places.sort(key=lambda place: place.key)
    step = len(places) / wanted
    chosen = [places[int((i + rng.random()) * step)] for i in range(wanted)]
    back = held if wanted == count + held else min(held, max(1, math.ceil(wanted * HELD_BACK)))
    kept = set(np.linspace(0, wanted - 1, back + 2).round().astype(int)[1:-1].tolist())
    tiles = [cut(place, side) for place in chosen]
    calibrated = tuple(tile for i, tile in enumerate(tiles) if i not in kept)
    holdout = tuple(tile for i, tile in enumerate(tiles) if i in kept)
    return Sample(calibrated, holdout, tuple(skipped), digest(calibrated))


def look_around(files: list[TileFile], side: int, wanted: int, skipped: list[str]) -> list[Position]:
    """Candidates from the first files that have enough in all, spread evenly over the files."""
    most = LOOKED_AT * wanted
    each = math.ceil(most / len(files))
    places: list[Position] = []
    for file in files:
        if len(places) >= most:
            break
        try:
            places += list(places_of(file, side))[:each]
        except UnclearLabel:  # of all labels alike, not of a damaged file
            raise
        except (BadInput, OSError) as e:
            skipped.append(str(e))
    return places


def places_of(file: TileFile, side: int) -> Iterator[Position]:
    """The tiles of an image, those nearest to its middle first; an image of at least half a tile gives one."""
    image, label = read_tile(file)
    height, width = image.shape[:2]
    if min(height, width) < side / 2:
        raise BadInput(f"{file.image}: {width} x {height} px is too small for a tile of {side} x {side}")
    corners = [(r, c) for r in starts(height, side) for c in starts(width, side)]
    middle = ((height - side) / 2, (width - side) / 2)
    for row, column in sorted(corners, key=lambda at: math.dist(at, middle)):
        seen = image[row : row + side, column : column + side]
        road = float(label[row : row + side, column : column + side].mean()) if label is not None else -1.0
        yield Position(file, row, column, (road, float(seen.mean())))


def starts(length: int, side: int) -> list[int]:
    """The starts of tiles along one axis, without overlap."""
    room = max(length // side, 1)
    margin = max(length - room * side, 0) // 2
    return [margin + i * side for i in range(room)]


def cut(place: Position, side: int) -> Tile:
    image, label = read_tile(place.file)
    box = slice(place.row, place.row + side), slice(place.column, place.column + side)
    cropped = None if label is None else square(label[box][..., None], side)[..., 0]
    name = f"{place.file.image.name} at {place.column}, {place.row}"
    return Tile(name, square(image[box], side), cropped)


def digest(tiles: tuple[Tile, ...]) -> str:
    whole = hashlib.sha256()
    for tile in tiles:
        whole.update(tile.image.tobytes())
    return whole.hexdigest()
