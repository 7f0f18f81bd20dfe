"""Frames at a fixed rate, as a camera gives them: they do not wait for the network.

A closed loop begins a call when the one before has ended, so a slow call hides the frames that would have come in the
meantime ("coordinated omission", Gil Tene). Here each frame has the time at which it is due, and its latency counts
from then, however late it was offered. Where frames come faster than the network is, the newest is the next one, as in
`dlink.live`, which computes them: those that a newer one replaces are dropped.
"""

import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.bench.latency import Ready, spread_of, warm_up
from dlink.live import Live
from dlink.live.frame import Outcome
from dlink.runtime.errors import EngineFailed
from dlink.runtime.progress import ignore
from dlink.runtime.segmenter import Segmenter, Views
from dlink.runtime.words import counted

Image = NDArray[np.uint8]
MILLI = 1e3  # ms of s
LOOK = 0.5  # seconds between looks at what became of an engine


@dataclass(frozen=True, kw_only=True)
class RateFigures:
    """What became of frames that came at a fixed rate. A frame is one tile."""

    views: Views
    rate: float  # frames a second that were due
    offered: int
    roads: int  # frames that have roads
    dropped: int  # frames that a newer one replaced
    dropped_share: float
    achieved_per_s: float  # frames with roads
    p50_ms: float  # from the time at which a frame was due to its roads
    p90_ms: float
    p99_ms: float
    max_ms: float
    age_p50_ms: float  # how old the frame of the newest roads is, over all moments from the first roads to the last
    age_p99_ms: float
    age_max_ms: float
    offered_late_ms: float  # the most that a frame was offered after it was due, because this program did not wake
    spread: float  # of the times from a frame's begin to its roads: interquartile range / median
    joules_per_tile: float | None = None
    km2_per_h: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Seen:
    """Frames that ended: when each with roads was due, begun and done, in seconds and in that order; the others."""

    due: "array[float]" = field(default_factory=lambda: array("d"))
    begun: "array[float]" = field(default_factory=lambda: array("d"))
    done: "array[float]" = field(default_factory=lambda: array("d"))
    dropped: int = 0
    failed: int = 0
    ended: Event = field(default_factory=Event)

    def take(self, outcome: Outcome) -> None:
        """Count a frame of a Live."""
        if outcome.roads:
            self.due.append(outcome.frame.captured)
            self.begun.append(outcome.roads.begun)
            self.done.append(outcome.roads.done)
        elif outcome.what == "replaced":
            self.dropped += 1
        else:
            self.failed += 1
        self.ended.set()


def offer_at(
    rate: float,
    count: int,
    offer: Callable[[int, float], object],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> float:
    """Offer `count` frames, each with its number and the time at which it is due.

    Returns the most seconds that one was offered late. A frame that is late does not move those after it.
    """
    begun, late = clock(), 0.0
    for number in range(count):
        due = begun + number / rate
        while (left := due - clock()) > 0:
            sleep(left)
        late = max(late, clock() - due)
        offer(number, due)
    return late


def at_rate(
    model: Segmenter,
    tiles: list[Image],
    views: Views,
    rate: float,
    seconds: float,
    ready: Ready = ignore,
    ended: Callable[[float, float], object] = ignore,
) -> RateFigures:
    """Give tiles at a rate for so many seconds; at least two.

    `ready` is called after the warm-up, and `ended` with the time at which a frame's roads were done and with its
    latency, in seconds.
    """
    warm_up(model, tiles, views)
    seen = Seen()

    def take(outcome: Outcome) -> None:
        seen.take(outcome)
        if outcome.roads:
            ended(outcome.roads.done, outcome.roads.done - outcome.frame.captured)

    with Live(model, deadline=None, views=views, outcomes=take) as live:

        def offer(number: int, due: float) -> None:
            check(seen, live, rate)
            live.offer(tiles[number % len(tiles)], captured=due)

        count = max(2, round(rate * seconds))
        ready()
        late = offer_at(rate, count, offer)
        live.end()
        while len(seen.done) + seen.dropped < count:
            check(seen, live, rate)
            seen.ended.wait(LOOK)
            seen.ended.clear()
    return figures(seen, views, rate, late)


def check(seen: Seen, live: Live, rate: float) -> None:
    """Raise EngineFailed where a frame has failed: the engine that a Live opens again would be another one."""
    if seen.failed or live.state != "running":
        raise EngineFailed(f"--rate {rate:g}: a frame after {counted(len(seen.done), 'frame')} failed: {live.error}")


def figures(seen: Seen, views: Views, rate: float, late: float = 0.0) -> RateFigures:
    """The figures of frames of which one at least has roads."""
    due, done = np.asarray(seen.due), np.asarray(seen.done)
    latency = done - due
    p50, p90, p99 = (float(np.percentile(latency, p)) * MILLI for p in (50, 90, 99))
    old, older, oldest = (MILLI * age for age in ages(due, done, (0.5, 0.99, 1.0)))
    offered = len(done) + seen.dropped
    return RateFigures(
        views=views,
        rate=rate,
        offered=offered,
        roads=len(done),
        dropped=seen.dropped,
        dropped_share=seen.dropped / offered,
        achieved_per_s=achieved(done, due),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        max_ms=float(latency.max()) * MILLI,
        age_p50_ms=old,
        age_p99_ms=older,
        age_max_ms=oldest,
        offered_late_ms=late * MILLI,
        spread=spread_of(done - np.asarray(seen.begun)),
    )


def achieved(done: NDArray[np.float64], due: NDArray[np.float64]) -> float:
    """Frames with roads a second, from the first roads to the last; of one frame, from when it was due."""
    if len(done) > 1 and done[-1] > done[0]:
        return float((len(done) - 1) / (done[-1] - done[0]))
    return float(1 / max(done[-1] - due[-1], 1e-9))


def ages(due: NDArray[np.float64], done: NDArray[np.float64], shares: tuple[float, ...]) -> list[float]:
    """The ages, in seconds, that the newest roads do not exceed in these shares of the time.

    From one frame's roads to the next the age grows from done[i] - due[i] to done[i + 1] - due[i]. The share of the
    time with at most some age is linear between these ends.
    """
    young, old = done[:-1] - due[:-1], done[1:] - due[:-1]
    if not len(young) or not (old > young).any():
        return [float(done[-1] - due[-1])] * len(shares)
    ends = np.unique(np.concatenate([young, old]))
    starts, stops = np.sort(young), np.sort(old)
    # The time below an age, summed over all spans, is a sum over their beginnings less one over their ends.
    below = seconds_below(ends, starts) - seconds_below(ends, stops)
    return [float(np.interp(share * below[-1], below, ends)) for share in shares]


def seconds_below(ages: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of max(0, age - point) over sorted points, for each age."""
    count = np.searchsorted(points, ages)
    total: NDArray[np.float64] = ages * count - np.concatenate([[0.0], np.cumsum(points)])[count]
    return total
