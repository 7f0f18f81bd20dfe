"""The seam between frames and the network: what computes a picture's roads, in this process or in another one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlink.live.frame import Image
from dlink.runtime import EngineFailed, Spec
from dlink.runtime.segmenter import Views


class Lost(EngineFailed):
    """An engine ended, was stuck or cannot go on: it must be opened again. The picture under way has no roads."""


@dataclass(frozen=True)
class About:
    """What an open engine says of itself."""

    spec: Spec
    halo: int  # px
    threshold: float
    engine: str  # name, version and precision, for reports
    seconds: float  # that one view of one tile took, once the engine was warm


@dataclass(frozen=True)
class Computed:
    """The roads of a picture."""

    levels: NDArray[np.uint8]  # (H, W), probability in 255 steps
    views: float  # a tile, a mean with adaptive views
    doubtful: float  # share of tiles that adaptive views would give eight views
    seconds: float  # that the network took


class Engine(Protocol):
    """One open network. One thread uses it; any thread may close it."""

    about: About

    def levels(self, image: Image, views: Views, patience: float) -> Computed:
        """The roads of uint8 (H, W, C).

        Raises:
            Lost: The engine must be opened again; for instance, it took more than `patience` seconds.
            DlinkError: This picture has no roads, and the engine can go on.
        """
        ...

    def alive(self) -> bool:
        """Whether the engine can be used, as far as is known without using it."""
        ...

    def close(self) -> None:
        """Free the engine at once. A call under way ends with Lost or Closed, or is finished."""
        ...
