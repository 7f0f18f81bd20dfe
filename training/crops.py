"""Tiles on disk -> prepared random crops, the same for a seed, an epoch and a tile whoever loads them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from dlink.training.augment import augment
from dlink.trt_runtime.errors import BadInput
from dlink.trt_runtime.images import TileFile, read_tile
from dlink.trt_runtime.spec import Spec


@dataclass
class Crops(Dataset[tuple[Tensor, Tensor, int]]):
    """One augmented crop of each tile: float (3, crop, crop) as the network wants it, float (1, crop, crop), its index.

    A tile without a label has a target of zeros, for who does not look at it.
    """

    tiles: list[TileFile]
    spec: Spec  # its tile is the crop's side
    seed: int
    epoch: int = 0
    colours: str = "released"

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        image, label = read_tile(self.tiles[index])
        if label is None:
            label = np.zeros(image.shape[:2], np.bool_)
        side = self.spec.tile
        if min(label.shape) < side:
            raise BadInput(f"{self.tiles[index].image}: smaller than the crop of {side} px; lower --crop")
        y, x = (int(rng.integers(0, n - side + 1)) for n in label.shape)
        window = slice(y, y + side), slice(x, x + side)
        crop, target = augment(image[window], label[window].astype(np.uint8) * 255, rng, self.colours)
        return torch.from_numpy(self.spec.prepare(crop[None])[0]), as_target(target), index


def as_target(label: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(label[None] > 0, np.float32))


def labelled(tiles: list[TileFile]) -> list[TileFile]:
    """The tiles that have a label; at least one."""
    kept = [t for t in tiles if t.label]
    if not kept:
        raise BadInput(f"{tiles[0].image.parent}: no labels; training needs <id>_mask.png beside <id>_sat.jpg")
    return kept
