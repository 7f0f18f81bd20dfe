"""The seam between frames and the network: what computes a picture's roads, in this process or in another one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dlink.live.frame import Image
from dlink.runtime import EngineFailed, Spec
from dlink.runtime.segmenter import Views

MOST_VIEWS = 8


class Lost(EngineFailed):
    """An engine ended, was stuck or cannot go on: it must be opened again. The picture under way has no roads."""


@dataclass(frozen=True)
class About:
    """What an open engine says of itself."""

    spec: Spec
    halo: int  # px
    threshold: float
    engine: str  # name, version and precision, for reports
    seconds: float  # that one view of one tile took, once the engine was warm; of the large network, with a scout
    scout: float = 0.0  # seconds that a scout took for one tile; 0: there is none


@dataclass(frozen=True)
class Computed:
    """The roads of a picture."""

    levels: NDArray[np.uint8]  # (H, W), probability in 255 steps
    views: float  # a tile, a mean with adaptive views or a scout: skipped tiles have none
    doubtful: float  # share of tiles that adaptive views would give eight views
    seconds: float  # that the network took


def share_looked_at(views: Views, computed: Computed) -> float:
    """Share of a picture's tiles that a scout did not let skip, of what was computed with 8, 4, 1 or adaptive views."""
    if views == "adaptive":
        return min(1.0, max(0.0, computed.views - (MOST_VIEWS - 1) * computed.doubtful))
    return min(1.0, computed.views / float(views or MOST_VIEWS))


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
