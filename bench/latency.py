"""Measures how long a model takes for a tile, and where the time goes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.backend import Backend, Spent
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import ignore
from dlink.runtime.segmenter import Segmenter, Views

WARMUP = 2
Ready = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How a model is timed."""

    views: str | None = None  # numbers of views or adaptive, separated by commas
    seconds: float = 10.0  # for each number of views
    rounds: int = 3  # of a comparison
    rate: float | None = None  # frames a second; None: one call after the other
    soak: str | None = None  # a length of time, such as 10m: one long run

    @property
    def counts(self) -> list[Views]:
        views = self.views or ("1" if self.rate or self.soak else "1,4,8")
        try:
            counts: list[Views] = ["adaptive" if word == "adaptive" else int(word) for word in views.split(",")]
        except ValueError as e:
            raise BadInput(f"--views {views}: must be numbers or adaptive, separated by commas, such as 1,4,8") from e
        if self.soak and len(counts) > 1:
            raise BadInput(f"--views {views}: --soak is one long run; give one number of views")
        return counts


@dataclass(frozen=True)
class Latency:
    """Times of one tile with all of its views."""

    views: Views
    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    tiles_per_s: float
    mpx_per_s: float
    prepare_ms: float  # mean a call: the network input of all views, made from pixels
    network_ms: float
    undo_ms: float  # views undone and their mean taken
    around_share: float  # (prepare + undo) / network
    spread: float = 0.0  # of the times: interquartile range / median
    joules_per_tile: float | None = None  # None where nothing counts it
    km2_per_h: float | None = None  # at a ground resolution

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def latency(
    model: Segmenter, tiles: list[NDArray[np.uint8]], views: Views, seconds: float, ready: Ready = ignore
) -> Latency:
    """Time `mask` on images of exactly one tile, in turn, for about `seconds` and at least three calls.

    `ready` is called after the warm-up.
    """
    warm_up(model, tiles, views)
    ready()
    before = spent_by(model.backend)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        model.mask(tiles[len(times) % len(tiles)], views)
        times.append(time.perf_counter() - start)
    return summary(times, spent_by(model.backend, before), views, model.spec.tile)


def warm_up(model: Segmenter, tiles: list[NDArray[np.uint8]], views: Views) -> None:
    for tile in (tiles * WARMUP)[:WARMUP]:
        model.mask(tile, views)


def spent_by(backend: Backend, before: Spent | None = None) -> Spent:
    """The time that a backend on the CPU has spent since; zeros of one that does not count it."""
    now, before = getattr(backend, "spent", Spent()), before or Spent()
    return Spent(now.prepare - before.prepare, now.network - before.network, now.undo - before.undo)


def summary(times: list[float], spent: Spent, views: Views, side: int) -> Latency:
    """The figures, in ms, from each call's seconds and from the seconds of each part."""
    p50, p90, p99 = (float(np.percentile(times, p)) for p in (50, 90, 99))
    calls = len(times)
    return Latency(
        views=views,
        calls=calls,
        p50_ms=p50 * 1e3,
        p90_ms=p90 * 1e3,
        p99_ms=p99 * 1e3,
        max_ms=max(times) * 1e3,
        tiles_per_s=1 / p50,
        mpx_per_s=side**2 / 1e6 / p50,
        prepare_ms=spent.prepare / calls * 1e3,
        network_ms=spent.network / calls * 1e3,
        undo_ms=spent.undo / calls * 1e3,
        around_share=(sum(times) - spent.network) / spent.network if spent.network else 0.0,
        spread=spread_of(times),
    )


def spread_of(times: Sequence[float] | NDArray[np.float64]) -> float:
    """The interquartile range of times, as a share of their median."""
    low, middle, high = np.percentile(times, (25, 50, 75))
    return float((high - low) / middle)


@dataclass(frozen=True)
class Ratio:
    """How many times faster a model is than another procedure, measured in turn."""

    other: str
    rounds: int
    median: float
    least: float
    most: float
    ours_s: float  # medians
    theirs_s: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def ratio(ours: Callable[[], object], theirs: Callable[[], object], other: str, rounds: int) -> Ratio:
    """Run both in turn; each goes first in every other round. One run of each before that does not count."""
    ours(), theirs()
    pairs = []
    for i in range(rounds):
        order = (ours, theirs) if i % 2 == 0 else (theirs, ours)
        took = {f: timed(f) for f in order}
        pairs.append((took[ours], took[theirs]))
    ratios = [b / a for a, b in pairs]
    ours_s, theirs_s = (float(np.median([p[k] for p in pairs])) for k in (0, 1))
    return Ratio(other, rounds, float(np.median(ratios)), min(ratios), max(ratios), ours_s, theirs_s)


def timed(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start
