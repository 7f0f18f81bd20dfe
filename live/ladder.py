"""Fewer views where time is short: eight, adaptive, four, one, so that roads are in time.

The network's seconds are tiles x views x the cost of one tile and view, and that cost is measured with every frame. So
one measurement predicts every rung. It goes down at once where the next frame would be late, and up after some time in
which a better rung would have been in time with something to spare. A rung that was left soon after it was taken is
not tried again for twice as long.
"""

import math
from collections import deque
from collections.abc import Sequence

from dlink.runtime import BadInput
from dlink.runtime.segmenter import Views

RUNGS: tuple[Views, ...] = (8, "adaptive", 4, 1)
SPARE = 1.15  # a better rung is taken if it would need so many times less than there is
HOLD, LONGEST_HOLD = 2.0, 64.0  # seconds that a better rung must fit
SOON = 10.0  # seconds after a climb; a descent within them doubles the hold
CALM = 60.0  # seconds without a change that end a longer hold
REMEMBERED = 5.0  # seconds of measurements
FEWEST, MOST = 8, 256  # measurements
RARE = 0.95  # of the measured costs are not greater than the predicted one
MARGIN = 0.005  # seconds kept for what wakes late


class Ladder:
    """Chooses the views of each frame.

    Args:
        rungs: Numbers of views and "adaptive", the best first.
        deadline: Seconds from capture to roads. None: always the first rung.
        seconds: That one view of one tile took, measured before.
        scout: That a scout took for one tile. It looks at every tile, and is counted as a part of a view, because a
            busy machine slows both alike. 0: there is none.
    """

    def __init__(self, rungs: Sequence[Views], deadline: float | None, seconds: float, scout: float = 0.0) -> None:
        self.rungs, self.deadline = tuple(rungs), deadline
        self.look = scout / seconds if scout else 0.0  # views that a look of the scout costs
        self.shares: deque[tuple[float, float]] = deque(maxlen=MOST)  # when, share of tiles that did not skip
        self.costs: deque[tuple[float, float]] = deque([(-math.inf, seconds)], MOST)  # when, seconds a tile and view
        self.extras: deque[tuple[float, float]] = deque(maxlen=MOST)  # when, seconds beside the network's
        self.doubts: deque[tuple[float, float]] = deque(maxlen=MOST)  # when, share of doubtful tiles
        self.rung: int | None = None  # its place in `rungs`
        self.changes = 0
        self.hold = HOLD
        self.climbed = self.changed = -math.inf
        self.fits_since: float | None = None  # a better rung

    @property
    def views(self) -> Views:
        return self.rungs[self.rung or 0]

    def choose(self, now: float, age: float, tiles: int) -> tuple[Views, float]:
        """The views of a frame of so many tiles and seconds of age, and the seconds that it takes at most.

        That is without skipped tiles: a frame may be the first with roads for minutes.
        """
        if self.deadline is None:
            self.rung = 0
            return self.views, self.predicted(0, tiles, share=1.0)
        left = self.deadline - age - MARGIN
        if self.rung is None:
            self.rung = self.best(tiles, left / SPARE)
        elif self.predicted(self.rung, tiles) > left:
            self.descend(now, self.best(tiles, left))
        else:
            self.climb(now, self.best(tiles, left / SPARE))
        return self.views, self.predicted(self.rung, tiles, share=1.0)

    def best(self, tiles: int, seconds: float) -> int:
        """The first rung that fits, or the last one."""
        return next((i for i in range(len(self.rungs)) if self.predicted(i, tiles) <= seconds), len(self.rungs) - 1)

    def descend(self, now: float, rung: int) -> None:
        """Go down to a rung, if it is lower."""
        if self.rung is None or rung <= self.rung:
            return
        if now - self.climbed < SOON + self.hold:
            self.hold = min(LONGEST_HOLD, 2 * self.hold)
        self.move(now, rung)

    def climb(self, now: float, rung: int) -> None:
        """Go up one rung if a better one has fitted for the whole hold."""
        if self.rung is None or rung >= self.rung:
            self.fits_since = None
            return
        if self.fits_since is None:
            self.fits_since = now
        if now - self.changed > CALM + self.hold:
            self.hold = HOLD
        if now - self.fits_since >= self.hold:
            self.climbed = now
            self.move(now, rung)

    def move(self, now: float, rung: int) -> None:
        self.rung, self.changed, self.fits_since = rung, now, None
        self.changes += 1

    def predicted(self, rung: int, tiles: int, share: float | None = None) -> float:
        """Seconds from the beginning of a frame to its roads, if such a share of its tiles does not skip.

        None: the greatest one of late; all, where nothing is known yet.
        """
        views = self.rungs[rung]
        share = greatest(self.shares) if share is None else share
        number = share + 7 * min(self.doubtful, share) if views == "adaptive" else share * float(views or 1)
        return quantile(self.extras) + tiles * (self.look + number) * quantile(self.costs)

    @property
    def doubtful(self) -> float:
        """The greatest share of doubtful tiles of late; all, where it is not known."""
        return greatest(self.doubts)

    def learn(
        self, now: float, tiles: int, views: float, seconds: float, extra: float, doubtful: float, share: float = 1.0
    ) -> None:
        """Take what a frame took: the network's seconds, and those beside it.

        `views` is the mean of all tiles, those that skipped with none; `share` is that of tiles that did not.
        """
        taken = [(self.extras, extra), (self.doubts, doubtful), (self.shares, share)]
        if views + self.look > 0:
            taken.append((self.costs, seconds / (tiles * (views + self.look))))
        for samples, value in taken:
            samples.append((now, value))
            while len(samples) > FEWEST and now - samples[0][0] > REMEMBERED:
                samples.popleft()

    def was_late(self, now: float) -> None:
        """A frame was late: go down one rung."""
        if self.rung is not None and self.deadline is not None:
            self.descend(now, min(self.rung + 1, len(self.rungs) - 1))


def greatest(shares: Sequence[tuple[float, float]]) -> float:
    """The greatest share of late; 1 of none."""
    return max((share for _, share in shares), default=1.0)


def quantile(samples: Sequence[tuple[float, float]]) -> float:
    """The value that RARE of the samples do not exceed; 0 of none."""
    values = sorted(value for _, value in samples)
    return values[min(len(values) - 1, int(RARE * len(values)))] if values else 0.0


def default_rungs(views: int) -> Sequence[Views]:
    """The ladder of a network of so many views."""
    return tuple(rung for rung in RUNGS if rung == 1 or views == 8 or (isinstance(rung, int) and rung <= views))


def rungs_of(views: Views | Sequence[Views], default: Sequence[Views]) -> Sequence[Views]:
    """The ladder that an option asks for."""
    if views is None:
        return default
    if isinstance(views, int | str) and views in RUNGS and not isinstance(views, bool):
        return RUNGS[RUNGS.index(views) :]
    if not isinstance(views, list | tuple) or not views:
        raise BadInput(f"views must be 8, 4, 1, adaptive or a sequence of them, got {views!r:.40}")
    if [rung for rung in RUNGS if rung in views] != list(views):
        raise BadInput(f"views must be some of 8, adaptive, 4, 1 in this order, got {', '.join(map(str, views))}")
    return tuple(views)
