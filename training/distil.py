"""Distillation: the mean of a network's eight views is the target of its one view.

A drone then runs an eighth of the work. Tiles need no labels. The eight views are computed once, of the unchanged
pictures, in tiles of the crop's size. The crops are only turned and flipped, because the result of eight views for
other colours or scales is not known.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from dlink.imagery.images import read_image, write_image
from dlink.nets.network import RoadNet
from dlink.runtime.progress import Count
from dlink.runtime.views import ALL
from dlink.training.crops import Crops, check_size
from dlink.training.validate import segmenter
from dlink.training.world import World


@contextmanager
def taught(
    crops: Crops,
    net: RoadNet,
    folder: Path,
    world: World,
    half: torch.dtype | None = None,
    drawing: Count = lambda done, total: None,
) -> Iterator[None]:
    """Within the block, the crops' targets are the means of eight views of `net`, kept in `folder` until the end.

    half: the type of mixed precision; None: float32. drawing: called with (tiles done, all tiles).
    """
    levels = [folder / f"{i}.png" for i in range(len(crops.tiles))]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model = segmenter(net, crops.spec, half)
        for i in range(world.rank, len(levels), world.size):
            image = read_image(crops.tiles[i].image, crops.tiles[i].how)
            check_size(crops.tiles[i], image.shape, crops.spec.tile)
            write_image(levels[i], model.levels(image, len(ALL)))
            if world.first:
                drawing(i + 1, len(levels))
        world.wait()
        crops.levels = levels
        yield
    finally:
        if world.first:
            for path in levels:
                path.unlink(missing_ok=True)
            with suppress(OSError):  # it holds other files too
                folder.rmdir()
