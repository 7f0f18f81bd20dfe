"""Teach one view what eight give: the mean of a network's eight views is the target of its own one view.

Then a drone runs an eighth of the work. Tiles need no labels. The eight views are drawn once, of the pictures as they
are, at the size of the crops; what is learned from them is only cropped and turned, since what eight views would make
of another colour or scale is not known.
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
    """Inside, the crops' targets are what the eight views of `net` gave before; they lie in `folder` until the end.

    half: of mixed precision; float32 where None. drawing: called with the tiles that are done, and all.
    """
    levels = [folder / f"{i}.png" for i in range(len(crops.tiles))]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model = segmenter(net, crops.spec, half)
        for i in range(world.rank, len(levels), world.size):
            image = read_image(crops.tiles[i].image)
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
            with suppress(OSError):  # somebody else's files are in it
                folder.rmdir()
