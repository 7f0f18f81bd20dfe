"""A processor's clock and its count of thermal throttling, of the cores that this process may use.

`/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq` is a core's clock in kHz; a machine without it, such as a
virtual one, may have "cpu MHz" in `/proc/cpuinfo`. `cpu0/thermal_throttle` of Intel's processors counts how often
the core, or its package, was throttled (Documentation/ABI/testing/sysfs-devices-system-cpu); a package's count stands
at each core.
On a Jetson `oc1_event_cnt` and further, of the hwmon named soctherm_oc, count events of over-current and heat.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from dlink.bench.watch.counters import PROC, SYS, NotRead, read_number, read_text

KILO = 1e-3  # MHz of kHz
MHZ = re.compile(r"^cpu MHz\s*:\s*([\d.]+)", re.MULTILINE)


def usable_cores() -> frozenset[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


@dataclass(frozen=True)
class Processor:
    """Where the files of some cores are."""

    cores: Collection[int]
    root: Path = SYS
    proc: Path = PROC

    def files(self, name: str) -> list[Path]:
        return [self.root / "devices" / "system" / "cpu" / f"cpu{core}" / name for core in sorted(self.cores)]

    def mhz(self) -> list[float]:
        """The clocks now. Raises NotRead where there are none, as on a virtual machine of an Arm processor."""
        paths = [path for path in self.files("cpufreq/scaling_cur_freq") if path.exists()]
        if paths:
            return [read_number(path) * KILO for path in paths]
        found = [float(mhz) for mhz in MHZ.findall(read_text(self.proc / "cpuinfo"))]
        chosen = [mhz for core, mhz in enumerate(found) if core in self.cores] or found
        if not chosen:
            raise NotRead(f"{self.proc / 'cpuinfo'}: gives no clock, and {self.root} has no cpufreq")
        return chosen

    def throttled(self) -> int:
        """Events of throttling so far. Raises NotRead on a machine that does not count them."""
        own = [read_number(path) for path in self.files("thermal_throttle/core_throttle_count") if path.exists()]
        packages = [
            read_number(path) for path in self.files("thermal_throttle/package_throttle_count") if path.exists()
        ]
        jetson = [
            read_number(path)
            for folder in sorted(self.root.glob("class/hwmon/hwmon*"))
            if (folder / "name").exists() and read_text(folder / "name") == "soctherm_oc"
            for path in sorted(folder.glob("oc*_event_cnt"))
        ]
        if not own and not packages and not jetson:
            raise NotRead(f"{self.root}/devices/system/cpu: counts no throttling")
        return sum(own) + max(packages, default=0) + sum(jetson)
