"""Watches the machine while something is timed."""

import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from types import TracebackType
from typing import Any, TypeVar

from dlink.bench.watch.counters import NotRead
from dlink.bench.watch.energy import Energy
from dlink.bench.watch.load import Ticks, load_average, others_share, own_seconds, stolen_share, ticks
from dlink.bench.watch.nvml import Nvml
from dlink.bench.watch.processor import Processor, usable_cores

EVERY = 0.5  # seconds between looks: a look takes a millisecond, and a power that changes faster averages out
T = TypeVar("T")


@dataclass(frozen=True)
class Conditions:
    """What the machine did. None is what it does not tell; `not_read` has the reasons."""

    seconds: float
    others_share: float | None  # of all processor time, that other processes took
    stolen_share: float | None  # that a hypervisor took
    load_average: tuple[float, float] | None  # processes that ran or waited in the minute before: at start and end
    min_mhz: float | None  # the slowest core at the slowest moment
    median_mhz: float | None  # over time, of the cores' median
    throttled: int | None  # events
    throttled_after_s: float | None  # when the first of them was seen
    gpu_min_mhz: int | None
    gpu_median_mhz: float | None
    gpu_throttled: dict[str, float] | None  # share of the looks by what held the clock back
    not_read: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Sources:
    """Where a Watch looks; the defaults are this machine."""

    processor: Processor = field(default_factory=lambda: Processor(usable_cores()))
    times: Callable[[], Ticks] = lambda: ticks(own_seconds())
    load: Callable[[], float] = load_average
    clock: Callable[[], float] = time.monotonic
    gpu: Nvml | None = None  # where the model runs on one


class Watch:
    """Looks at the machine from its `with` to the end of it, in a thread; then `conditions` says what was seen.

    Args:
        energy: Meters that must be read often.
        sources: Where it looks.
        every: Seconds between looks. None: at both ends alone, or when `look` is called.
    """

    def __init__(self, energy: Energy | None, sources: Sources, every: float | None = EVERY) -> None:
        self.energy, self.sources, self.every = energy, sources, every
        self.reasons: dict[str, None] = {}  # a set with an order
        self.least, self.middle = array("d"), array("d")  # MHz, one of each look
        self.gpu_mhz: list[int] = []
        self.gpu_reasons: Counter[str] = Counter()
        self.throttled_after: float | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="dlink-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self.begun = self.sources.clock()
        self.first = self.tried(self.sources.times)
        self.load = self.tried(self.sources.load)
        self.events = self.tried(self.sources.processor.throttled)
        self.look()
        if self.every is not None:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        if self.every is not None:
            self.thread.join()
        self.look()
        self.conditions = self.seen()

    def run(self) -> None:
        while not self.stopping.wait(self.every):
            self.look()

    def look(self) -> None:
        if self.energy:
            self.energy.joules()
        if (mhz := self.tried(self.sources.processor.mhz)) is not None:
            self.least.append(min(mhz))
            self.middle.append(median(mhz))
        if self.throttled_after is None and self.new_events():
            self.throttled_after = self.sources.clock() - self.begun
        if self.sources.gpu and (seen := self.tried(self.sources.gpu.look)) is not None:
            self.gpu_mhz.append(seen.sm_mhz)
            self.gpu_reasons.update(seen.throttled)

    def new_events(self) -> int | None:
        """Events of throttling since the beginning; None where they are not counted."""
        if self.events is None:
            return None
        now = self.tried(self.sources.processor.throttled)
        return None if now is None else now - self.events

    def tried(self, read: Callable[[], T]) -> T | None:
        """What `read` gives. Where this machine does not tell it, its reason is kept."""
        try:
            return read()
        except NotRead as e:
            self.reasons[str(e)] = None
            return None

    def seen(self) -> Conditions:
        last = self.tried(self.sources.times)
        load = self.tried(self.sources.load)
        both = (self.first, last) if self.first and last else None
        looks = len(self.gpu_mhz)
        return Conditions(
            seconds=self.sources.clock() - self.begun,
            others_share=others_share(*both) if both else None,
            stolen_share=stolen_share(*both) if both else None,
            load_average=None if self.load is None or load is None else (self.load, load),
            min_mhz=min(self.least, default=None),
            median_mhz=median(self.middle) if self.middle else None,
            throttled=self.new_events(),
            throttled_after_s=self.throttled_after,
            gpu_min_mhz=min(self.gpu_mhz, default=None),
            gpu_median_mhz=median(self.gpu_mhz) if looks else None,
            gpu_throttled={name: n / looks for name, n in self.gpu_reasons.items()} if looks else None,
            not_read=tuple(self.reasons),
        )
