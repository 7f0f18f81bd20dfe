"""A long run: whether a model is as fast in its last minute as in its first, and whether its memory grows."""

import re
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlink.bench.latency import spread_of
from dlink.runtime.errors import BadInput, CheckFailed
from dlink.runtime.segmenter import Views

MINUTE = 60.0
HOUR = 3600.0
LENGTH = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)?")
SECONDS = {"s": 1.0, "m": MINUTE, "h": HOUR, None: 1.0}
LOOK = 1.0  # seconds between looks at the memory
STATM, PAGE = Path("/proc/self/statm"), 4096
RESIDENT = 1  # place in the file


def seconds_of(length: str) -> float:
    """A length such as 10m, 90s, 2h or 600."""
    found = LENGTH.fullmatch(length)
    if not found or not float(found[1]):
        raise BadInput(f"--soak {length}: must be a length of time, such as 10m, 90s or 2h")
    return float(found[1]) * SECONDS[found[2]]


def resident_bytes() -> int | None:
    """The memory that this process has now; None where the system does not tell."""
    try:
        return int(STATM.read_text().split()[RESIDENT]) * PAGE
    except OSError:
        return None


@dataclass(frozen=True)
class Part:
    """The calls of a minute, or of half a short run."""

    calls: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Grown:
    """Memory at the start, after the first call, and at the end; its slope without the first part."""

    start_bytes: int
    end_bytes: int
    bytes_per_h: float


@dataclass(frozen=True, kw_only=True)
class SoakFigures:
    """The first minute against the last; of a run under two minutes, its halves. `part_s` is how long these are."""

    views: Views
    rate: float | None  # frames a second; None: one call after the other
    seconds: float
    calls: int
    first: Part
    last: Part
    p50_change: float  # last / first
    p99_change: float
    spread: float  # interquartile range / median of the last minute
    memory: Grown | None  # of the process; None where the system does not tell it
    gpu_memory: Grown | None  # of the GPU, by all processes
    joules_per_tile: float | None = None  # None where nothing counts it
    part_s: float = MINUTE  # seconds of `first` and `last`

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Soak:
    """Takes the calls of a long run. Its own memory does not grow but by 32 bytes a second.

    Args:
        seconds: The length of the run.
        memory: The process's memory in bytes.
        gpu_memory: The GPU's.
    """

    seconds: float
    memory: Callable[[], int | None] = resident_bytes
    gpu_memory: Callable[[], int | None] = lambda: None
    begun: float | None = None
    calls: int = 0
    first: "array[float]" = field(default_factory=lambda: array("d"))
    last: deque[tuple[float, float]] = field(default_factory=deque)  # when, seconds
    looks: "tuple[array[float], array[float], array[float]]" = field(
        default_factory=lambda: (array("d"), array("d"), array("d"))  # when, bytes, bytes on the GPU; NaN is not known
    )

    @property
    def minute(self) -> float:
        return min(MINUTE, self.seconds / 2)

    def take(self, now: float, took: float) -> None:
        """A call that ended now and took so long, in seconds."""
        if self.begun is None:
            self.begun = now - took
        self.calls += 1
        if now - self.begun <= self.minute:
            self.first.append(took)
        self.last.append((now, took))
        while self.last[0][0] < now - self.minute:
            self.last.popleft()
        when = self.looks[0]
        if not when or now - when[-1] >= LOOK:
            for column, value in zip(self.looks, (now, self.memory(), self.gpu_memory()), strict=True):
                column.append(float("nan") if value is None else value)

    def figures(self, views: Views, rate: float | None = None) -> SoakFigures:
        if not self.first or self.begun is None:
            raise CheckFailed(f"the soak of {self.seconds:g} s is too short: no call ended in its first half")
        final = [took for _, took in self.last]
        first, last = part(list(self.first)), part(final)
        return SoakFigures(
            views=views,
            rate=rate,
            seconds=self.last[-1][0] - self.begun,
            calls=self.calls,
            first=first,
            last=last,
            p50_change=last.p50_ms / first.p50_ms,
            p99_change=last.p99_ms / first.p99_ms,
            memory=self.grown(self.looks[1]),
            gpu_memory=self.grown(self.looks[2]),
            spread=spread_of(final),
            part_s=self.minute,
        )

    def grown(self, values: "array[float]") -> Grown | None:
        when, size = np.asarray(self.looks[0]), np.asarray(values)
        if np.isnan(size).any():
            return None
        settled = when >= when[0] + self.minute
        slope = float(np.polyfit(when[settled] - when[0], size[settled], 1)[0]) if settled.sum() > 1 else 0.0
        return Grown(int(size[0]), int(size[-1]), slope * HOUR)


def part(times: list[float]) -> Part:
    p50, p99 = (float(np.percentile(times, p)) * 1e3 for p in (50, 99))
    return Part(len(times), p50, p99)


def one_after_the_other(call: Callable[[int], object], soak: Soak, clock: Callable[[], float] = time.monotonic) -> None:
    """Call with 0, 1, 2, ... until the soak is over; at least twice."""
    end = clock() + soak.seconds
    number = 0
    while number < 2 or clock() < end:
        begun = clock()
        call(number)
        now = clock()
        soak.take(now, now - begun)
        number += 1
