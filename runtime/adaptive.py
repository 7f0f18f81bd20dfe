"""Eight views where they are worth it: one first, the other seven only where it leaves doubt.

Doubt is the mean of sqrt(p (1 - p)) over a tile's pixels, each one's deviation: 0 where the network is sure of all of
them, 1/2 where of none. What a limit costs and saves on tiles of yours, `python -m dlink.bench.adaptive` says;
DESIGN.md has ours.
"""

import threading
from collections.abc import Sequence

import numpy as np

from dlink.runtime.backend import Backend, OutputForm, Probs, Running, Tiles, formed
from dlink.runtime.spec import Spec
from dlink.runtime.values import real
from dlink.runtime.views import ALL

DOUBT = 0.056  # see "Adaptive views" in DESIGN.md
MOST = 0.5
FIRST, REST = ALL[:1], ALL[1:]


class Adaptive:
    """A Backend around another one; `views` of a call mean nothing to it."""

    def __init__(self, backend: Backend, doubt: float = DOUBT) -> None:
        self.backend = backend
        self.doubt = real("doubt", doubt, f"from 0 to {MOST}", lambda d: 0 <= d <= MOST)
        self.spec: Spec = backend.spec
        self.max_tiles, self.slots = backend.max_tiles, 1
        self.engine, self.executed = backend.engine, backend.executed
        self.lock = threading.Lock()
        self.tiles = self.doubtful = 0  # how many so far

    @property
    def views_a_tile(self) -> float:
        """How many views it has taken so far, on average."""
        return len(FIRST) + len(REST) * self.doubtful / max(1, self.tiles)

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return self.backend.tiles_per_batch(FIRST)

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        roads = formed(self.probabilities(tiles), form, threshold)
        return lambda: roads

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        prob = self.backend.probabilities(tiles, FIRST)
        unsure = [i for i, each in enumerate(prob) if doubt_of(each) > self.doubt]
        most = self.backend.tiles_per_batch(REST)
        for i in range(0, len(unsure), most):
            some = unsure[i : i + most]
            rest = self.backend.probabilities([tiles[at] for at in some], REST)
            prob[some] = (prob[some] + rest * np.float32(len(REST))) / np.float32(len(ALL))
        with self.lock:
            self.tiles += len(tiles)
            self.doubtful += len(unsure)
        return prob

    def close(self) -> None:
        self.backend.close()


def doubt_of(prob: Probs) -> float:
    """Mean of sqrt(p (1 - p))."""
    return float(np.sqrt(np.maximum(prob - prob * prob, 0)).mean())
