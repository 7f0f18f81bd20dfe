"""Adaptive views: each tile gets one view, and the other seven only if the first leaves doubt.

Doubt is the mean over a tile's pixels of sqrt(p (1 - p)), the standard deviation of a pixel: 0 where the network is
sure of every pixel, 0.5 where it is sure of none. `python -m dlink.bench.adaptive` measures what a limit costs and
saves on your tiles; DESIGN.md has our figures.
"""

import threading
from collections.abc import Sequence

import numpy as np

from dlink.runtime.backend import Backend, OutputForm, Probs, Roads, Running, Tiles, check_tiles, to_form
from dlink.runtime.slotted import Slotted
from dlink.runtime.spec import Spec
from dlink.runtime.values import real
from dlink.runtime.views import ALL

DOUBT = 0.056  # see "Adaptive views" in DESIGN.md
MOST = 0.5
FIRST, REST = ALL[:1], ALL[1:]


class Adaptive:
    """A Backend that wraps another one. It ignores the `views` of a call."""

    def __init__(self, backend: Backend, doubt: float = DOUBT) -> None:
        self.backend = backend
        self.doubt = real("doubt", doubt, f"from 0 to {MOST}", lambda d: 0 <= d <= MOST)
        self.spec: Spec = backend.spec
        self.max_tiles = backend.max_tiles
        self.slots = backend.slots if isinstance(backend, Slotted) else 1
        self.engine, self.executed = backend.engine, backend.executed
        self.lock = threading.Lock()
        self.tiles = self.doubtful = 0  # counted so far

    @property
    def views_a_tile(self) -> float:
        """Mean number of views so far."""
        return len(FIRST) + len(REST) * self.doubtful / max(1, self.tiles)

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return self.backend.tiles_per_batch(FIRST)

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        def work(backend: Backend) -> Roads:
            return to_form(self.mean_by(backend, tiles), form, threshold)

        if isinstance(self.backend, Slotted):
            check_tiles(tiles, self.spec, self.max_tiles)
            tiles = np.array(tiles)  # a copy: the caller's may change
            return self.backend.on_a_slot(work)
        roads = work(self.backend)
        return lambda: roads

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        return self.mean_by(self.backend, tiles)

    def mean_by(self, backend: Backend, tiles: Tiles) -> Probs:
        """The mean over each tile's views, all computed by `backend`."""
        prob = backend.probabilities(tiles, FIRST)
        doubtful = [i for i, tile in enumerate(prob) if doubt_of(tile) > self.doubt]
        per_batch = backend.tiles_per_batch(REST)
        for i in range(0, len(doubtful), per_batch):
            batch = doubtful[i : i + per_batch]
            rest = backend.probabilities([tiles[k] for k in batch], REST)
            prob[batch] = (prob[batch] + rest * np.float32(len(REST))) / np.float32(len(ALL))
        with self.lock:
            self.tiles += len(tiles)
            self.doubtful += len(doubtful)
        return prob

    def close(self) -> None:
        self.backend.close()


def doubt_of(prob: Probs) -> float:
    """Mean of sqrt(p (1 - p))."""
    return float(np.sqrt(np.maximum(prob - prob * prob, 0)).mean())
