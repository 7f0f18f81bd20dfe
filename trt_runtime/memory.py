"""The GPU memory that a plan needs, and how much is free."""

import re
from dataclasses import dataclass
from pathlib import Path

import pycuda.driver as cuda

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class PlanMemory:
    """The GPU memory that a plan needs, in bytes. All but `plan` is needed once for each slot."""

    plan: int  # weights: the plan's own size
    activations: int  # TensorRT's own
    tiles: int  # pixels
    batch: int  # the network's input
    answers: int  # the network's output
    roads: int  # results, and the sum of a tile whose views need several batches
    slots: int  # how many
    shared: bool = False  # CPU and GPU share one memory (a Jetson): no second copy of tiles and roads

    @property
    def slot(self) -> int:
        """Bytes of one slot."""
        return self.activations + self.tiles + self.batch + self.answers + self.roads

    @property
    def total(self) -> int:
        """Bytes of the plan and all slots."""
        return self.plan + self.slots * self.slot


def free_memory(shared: bool) -> int:
    """Free bytes. On a Jetson this is MemAvailable, because cuMemGetInfo leaves out what Linux would give back."""
    meminfo = MEMINFO.read_text() if shared and MEMINFO.exists() else ""
    available = re.search(r"MemAvailable: +(\d+) kB", meminfo)
    return int(available[1]) << 10 if available else int(cuda.mem_get_info()[0])


def mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
