"""Prepared random crops of tiles on disk. Seed, epoch and tile determine a crop, in any process."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dlink.imagery.images import TileFile, read_grey, read_image
from dlink.imagery.labels import read_tile
from dlink.runtime.errors import BadInput, DlinkError
from dlink.runtime.spec import Spec
from dlink.training.augment import Pair, augment, turn


@dataclass
class Crops(Dataset[tuple[Tensor, Tensor, int]]):
    """A crop of each tile: prepared float (3, crop, crop), its target float (1, crop, crop), and the tile's index.

    The target is the tile's label, and both are augmented. With `levels` the target is the probability in those files,
    in 255 steps, and both are only turned and flipped. A `share` of the label is mixed into it; for cross-entropy this
    mixes the losses.
    """

    tiles: list[TileFile]
    spec: Spec  # spec.tile is the crop's side
    seed: int
    epoch: int = 0
    colours: str = "released"
    levels: list[Path] | None = None  # one for each tile
    share: float = 0.0  # of a label in the target, where there are both

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        image, levels = self.read(index)
        side = self.spec.tile
        check_size(self.tiles[index], levels.shape, side)
        y, x = (int(rng.integers(0, n - side + 1)) for n in levels.shape)
        crop, target = image[y : y + side, x : x + side], levels[y : y + side, x : x + side]
        crop, target = turn(crop, target, rng) if self.levels else augment(crop, target, rng, self.colours)
        return torch.from_numpy(self.spec.prepare(crop[None])[0]), as_target(target), index

    def read(self, index: int) -> Pair:
        """A tile's image and its target, uint8 (H, W)."""
        tile = self.tiles[index]
        if self.levels and not (self.share and tile.label):
            return read_image(tile.image, tile.how), read_grey(self.levels[index])
        image, label = read_tile(tile)
        assert label is not None  # `labelled` has only such tiles
        if self.levels:
            mixed = (1 - self.share) * read_grey(self.levels[index]) + self.share * 255 * label
            return image, mixed.round().astype(np.uint8)
        return image, label.astype(np.uint8) * 255


@dataclass
class ErrorsAsItems(Dataset[Any]):
    """Crops for a loader. Errors are returned as items, since a loader's process would turn one into a traceback."""

    crops: Crops

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.crops[index]
        except (DlinkError, OSError) as e:
            return e


def collate(items: list[Any]) -> Any:
    """A batch, or the first error among its items."""
    return next((item for item in items if isinstance(item, Exception)), None) or default_collate(items)


def batches(loader: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches of a loader of ErrorsAsItems. Errors are raised."""
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch[0], batch[1], batch[2]


def as_target(levels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(levels[None].astype(np.float32) / 255)


def check_size(tile: TileFile, shape: tuple[int, ...], side: int) -> None:
    """Raise BadInput for a tile that is smaller than the crop."""
    if min(shape[:2]) < side:
        raise BadInput(f"{tile.image}: smaller than the crop of {side} px; lower --crop")


def labelled(tiles: list[TileFile]) -> list[TileFile]:
    """The tiles that have a label; at least one."""
    kept = [t for t in tiles if t.label]
    if not kept:
        raise BadInput(f"{tiles[0].image.parent}: no labels; training needs <id>_mask.png beside <id>_sat.jpg")
    return kept
