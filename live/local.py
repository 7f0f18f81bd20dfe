"""An engine in this process: a Segmenter, whose other images a frame overtakes."""

import time

import numpy as np

from dlink.live.engine import About, Computed, Lost
from dlink.live.frame import Image
from dlink.runtime import Closed, EngineFailed, NoProbability, Segmenter
from dlink.runtime.scout import ONE_VIEW, Scouted
from dlink.runtime.segmenter import Views
from dlink.runtime.windows import cover

PRIORITY = 100  # of frames, before an application's own images
EVERY = 8  # pixels: doubt is a mean, and so many pixels are enough for it
DOUBT_OF = np.sqrt(np.arange(256) / 255 * (1 - np.arange(256) / 255)).astype(np.float32)  # by level, see adaptive.py
EIGHT = 8


class Local:
    """A Segmenter as an Engine.

    Args:
        model: The Segmenter. Other threads may use it too.
        own: Whether to close it with this.
    """

    def __init__(self, model: Segmenter, own: bool = True) -> None:
        self.model, self.own = model, own
        self.lost = False
        spec = model.spec
        self.about = About(spec, model.halo, model.threshold, model.backend.engine, seconds=0.0)
        blank = np.zeros((spec.tile, spec.tile, len(spec.bands)), np.uint8)
        self.levels(blank, 1)  # the first run allocates memory
        large, scout = self.timed(blank)
        self.about = About(spec, model.halo, model.threshold, model.backend.engine, large, scout)

    def timed(self, blank: Image) -> tuple[float, float]:
        """Seconds of the network for one view of a tile, and of the scout, if there is one."""
        backend = self.model.backend
        if not isinstance(backend, Scouted):
            return self.levels(blank, 1).seconds, 0.0
        took = []
        for one in (backend.large, backend.scout):  # the scout would let the blank tile skip
            for _ in range(2):  # the first run allocates memory
                begun = time.monotonic()
                one.start([blank], ONE_VIEW, "level")()
            took.append(time.monotonic() - begun)
        return took[0], took[1]

    def levels(self, image: Image, views: Views, patience: float = 0.0) -> Computed:
        """As Engine.levels. A stuck engine cannot be killed here, so `patience` has no meaning."""
        adaptive = self.model.adaptive
        scouted = self.model.backend if isinstance(self.model.backend, Scouted) else None
        before = adaptive.tiles, adaptive.doubtful, *((scouted.tiles, scouted.skipped) if scouted else (0, 0))
        begun = time.monotonic()
        try:
            levels = self.model.submit(image, views, form="level", priority=PRIORITY, copy=False).result()
        except (NoProbability, Closed):
            raise
        except EngineFailed as e:
            self.lost = True
            raise Lost(str(e)) from e
        seconds = time.monotonic() - begun
        looked_at = 1.0
        if scouted:
            looked_at -= (scouted.skipped - before[3]) / max(1, scouted.tiles - before[2])
        if views == "adaptive":
            doubtful = looked_at * (adaptive.doubtful - before[1]) / max(1, adaptive.tiles - before[0])
            return Computed(levels, looked_at + (EIGHT - 1) * doubtful, doubtful, seconds)
        count = len(self.model.spec.views) if views is None else int(views)
        return Computed(levels, looked_at * count, self.doubtful(levels), seconds)

    def doubtful(self, levels: Image) -> float:
        """Share of tiles with more doubt than adaptive views' limit, judged by the cores in `levels`."""
        windows = cover(levels.shape[0], levels.shape[1], self.about.spec.tile, self.about.halo)
        doubts = [float(DOUBT_OF[levels[w.core][::EVERY, ::EVERY]].mean()) for w in windows]
        return sum(doubt > self.model.adaptive.doubt for doubt in doubts) / len(windows)

    def alive(self) -> bool:
        return not self.lost and not self.model.life.closed

    def close(self) -> None:
        if self.own:
            self.model.close(cancel=True)
