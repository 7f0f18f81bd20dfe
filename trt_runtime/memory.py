"""What a plan takes of the GPU's memory, and what is free there."""

import re
from dataclasses import dataclass
from pathlib import Path

import pycuda.driver as cuda

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class PlanMemory:
    """What a plan takes on the GPU, in bytes."""

    plan: int  # weights; the plan's own size
    activations: int  # of each slot, what TensorRT asks for
    tiles: int  # of each slot, and so on: pixels
    batch: int  # what the network reads
    answers: int  # what it gives
    roads: int  # results, and the sum where a tile's views come in several batches
    slots: int
    shared: bool = False  # CPU and GPU have one memory, a Jetson's: tiles and roads are not doubled

    @property
    def slot(self) -> int:
        return self.activations + self.tiles + self.batch + self.answers + self.roads

    @property
    def total(self) -> int:
        return self.plan + self.slots * self.slot


def free_memory(shared: bool) -> int:
    """Bytes. A Jetson's memory is the computer's, and cuMemGetInfo does not count what Linux would give back."""
    words = MEMINFO.read_text() if shared and MEMINFO.exists() else ""
    said = re.search(r"MemAvailable: +(\d+) kB", words)
    return int(said[1]) << 10 if said else int(cuda.mem_get_info()[0])


def mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
