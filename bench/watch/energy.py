"""The energy that a machine takes, by whatever it has that counts it.

What is counted is all that the processor, the GPU or the module took, by other processes and while idle too: nothing is
subtracted. Meters that are read do not count the same twice, so they may be summed.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from dlink.bench.watch.counters import SYS, NotRead
from dlink.bench.watch.ina import Ina
from dlink.bench.watch.nvml import Nvml, gpu_meter
from dlink.bench.watch.rapl import Rapl

M = TypeVar("M")


class Meter(Protocol):
    """Counts energy. It must be read often: a counter wraps, and a power is summed up between readings."""

    name: str  # what it is, and of what

    def joules(self, now: float) -> float:
        """Joules since it was opened. `now` is in seconds. Raises NotRead if it has become unreadable."""
        ...


class Energy:
    """All meters of a machine. Any thread may read them.

    Args:
        meters: What is read.
        absent: Why others are not, a line each.
        clock: Seconds.
    """

    def __init__(self, meters: list[Meter], absent: list[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.meters, self.absent, self.clock = meters, absent, clock
        self.lock = threading.Lock()

    def joules(self) -> dict[str, float]:
        """Joules so far by meter. A meter that fails is left out from then on, with its reason."""
        found = {}
        with self.lock:
            for meter in list(self.meters):
                try:
                    found[meter.name] = meter.joules(self.clock())
                except NotRead as e:
                    self.meters.remove(meter)
                    self.absent.append(str(e))
        return found

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Joules by meter since an earlier `joules`, of the meters that could be read both times."""
        return {name: now - before[name] for name, now in self.joules().items() if name in before}


def open_energy(gpu: Nvml | None, clock: Callable[[], float] = time.monotonic, root: Path = SYS) -> Energy:
    """The meters of this machine; `gpu` where the model runs on one. A Jetson's monitor counts its GPU already."""
    absent: list[str] = []
    board = opened(lambda: Ina(clock(), root), absent)
    if board:
        return Energy([board], absent, clock)
    processor = opened(lambda: Rapl(root), absent)
    card = opened(lambda: gpu_meter(gpu, clock()), absent) if gpu else None
    return Energy([meter for meter in (processor, card) if meter], absent, clock)


def opened(open: Callable[[], M], absent: list[str]) -> M | None:
    """What `open` gives. Where it cannot be read its reason is added to `absent`."""
    try:
        return open()
    except NotRead as e:
        absent.append(str(e))
        return None
