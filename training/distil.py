"""Distillation: the mean of a network's eight views is the target of its one view.

A drone then runs an eighth of the work. Tiles need no labels. The eight views are computed once, of the unchanged
pictures, in tiles of the crop's size. The crops are only turned and flipped, because the result of eight views for
other colours or scales is not known.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dlink.imagery.images import read_image, write_image
from dlink.nets.network import RoadNet
from dlink.runtime.progress import Count
from dlink.runtime.views import ALL
from dlink.training.crops import Crops, check_size
from dlink.training.validate import segmenter
from dlink.training.world import World

DIGITS = 32  # of a SHA-256 that names a file


@contextmanager
def taught(
    crops: Crops,
    net: RoadNet,
    folder: Path,
    world: World,
    half: torch.dtype | None = None,
    drawing: Count = lambda done, total: None,
    keep: bool = False,
) -> Iterator[None]:
    """Within the block, the crops' targets are the means of eight views of `net`, in files of `folder`.

    half: the type of mixed precision; None: float32. drawing: called with (tiles done, all tiles). A file is named by
    all that it depends on, so those that a killed training left are not drawn again. They are removed at the end,
    unless `keep` leaves them for further trainings.
    """
    levels: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model, teacher = segmenter(net, crops.spec, half), mark_of(net, crops.spec.to_json(), str(half))
        for i, tile in enumerate(crops.tiles):
            image = read_image(tile.image, tile.how)
            check_size(tile, image.shape, crops.spec.tile)
            levels.append(folder / f"{teacher}-{marked(image)}.png")
            if i % world.size == world.rank and not levels[i].exists():
                write_image(levels[i], model.levels(image, len(ALL)))
            if world.first:
                drawing(i + 1, len(crops.tiles))
        world.wait()
        crops.levels = levels
        yield
    finally:
        if world.first and not keep:
            for path in levels:
                path.unlink(missing_ok=True)
            with suppress(OSError):  # it holds other files too
                folder.rmdir()


def mark_of(net: RoadNet, *how: str) -> str:
    """Identifies a network's values and how they are used."""
    digest = hashlib.sha256(" ".join(how).encode())
    for key, value in net.state_dict().items():
        digest.update(key.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def marked(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()[:DIGITS]
