"""What other processes took of the processors, and a hypervisor of this machine, from `/proc/stat` (proc_stat(5)).

Its first line has, in ticks of all processors together since the start: user, nice, system, idle, iowait, irq, softirq,
steal, guest, guest_nice. Guests' time is part of user and nice.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from dlink.bench.watch.counters import PROC, NotRead, read_text

IDLE, IOWAIT, STEAL, GUEST = 3, 4, 7, 8  # places in the line


@dataclass(frozen=True)
class Ticks:
    """Processor time so far, in seconds, of all processors together."""

    whole: float
    busy: float  # in this machine: neither idle nor taken by a hypervisor
    stolen: float  # by a hypervisor, for other machines
    own: float  # of this process and its children that have ended


def own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def load_average() -> float:
    """Processes that ran or waited, a mean of the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError) as e:  # Windows has none
        raise NotRead("the system gives no load average") from e


def ticks(own: float, proc: Path = PROC) -> Ticks:
    """The times now. Raises NotRead where there is no such file."""
    path = proc / "stat"
    line = read_text(path).splitlines()[0].split()
    if line[:1] != ["cpu"] or len(line) <= STEAL + 1:
        raise NotRead(f"{path}: has no line of all processors")
    values = [int(value) / os.sysconf("SC_CLK_TCK") for value in line[1:]]
    whole = sum(values[:GUEST])
    return Ticks(whole, whole - values[IDLE] - values[IOWAIT] - values[STEAL], values[STEAL], own)


def others_share(first: Ticks, last: Ticks) -> float:
    """The share of all processor time that other processes took, from 0 to 1."""
    return share(last.busy - first.busy - (last.own - first.own), first, last)


def stolen_share(first: Ticks, last: Ticks) -> float:
    """The share that a hypervisor took, from 0 to 1."""
    return share(last.stolen - first.stolen, first, last)


def share(seconds: float, first: Ticks, last: Ticks) -> float:
    whole = last.whole - first.whole
    return min(1.0, max(0.0, seconds / whole)) if whole > 0 else 0.0
