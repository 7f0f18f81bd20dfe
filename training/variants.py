"""More pictures of few tiles: each tile in other colours, sizes and places.

The original's views of a picture are known for that picture alone, so the crops of a distillation are only turned and
flipped. What training changes in each crop is therefore drawn here once, before the eight views are.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from dlink.imagery.images import TileFile, read_image, write_image
from dlink.imagery.labels import read_tile
from dlink.imagery.reading import RGB
from dlink.training.augment import COLOURS, shift_colours, warp


@contextmanager
def varied(tiles: list[TileFile], count: int, folder: Path, seed: int) -> Iterator[list[TileFile]]:
    """The tiles, and `count` variants of each as PNG files in `folder`, which are removed after the block."""
    made: list[TileFile] = []
    if count:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        made += (variant(tile, i, folder, seed) for tile in tiles for i in range(count))
        yield [*tiles, *made]
    finally:
        for path in [path for tile in made for path in (tile.image, tile.label) if path]:
            path.unlink(missing_ok=True)
        if count:
            with suppress(OSError):  # it holds other files too
                folder.rmdir()


def variant(tile: TileFile, number: int, folder: Path, seed: int) -> TileFile:
    """One variant of a tile: its colours shifted, then itself shifted, scaled and stretched."""
    rng = np.random.default_rng((seed, number, *tile.id.encode()))
    image, label = read_tile(tile) if tile.label else (read_image(tile.image, tile.how), None)
    mask = np.zeros(image.shape[:2], np.uint8) if label is None else label.astype(np.uint8) * 255
    image, mask = warp(shift_colours(image, rng, COLOURS["released"]), mask, rng)
    name = f"{tile.id}-{number + 1}"
    made = TileFile(name, folder / f"{name}_sat.png", folder / f"{name}_mask.png" if tile.label else None, RGB)
    write_image(made.image, image)
    if made.label:
        write_image(made.label, mask)
    return made
