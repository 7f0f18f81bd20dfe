"""Energy of x86 processors: RAPL's counters, by the kernel's powercap (Documentation/ABI/testing/sysfs-class-powercap).

Below `/sys/class/powercap` each zone has a folder: `intel-rapl:0` is a processor and `intel-rapl:0:1` a part of it;
AMD's are named so too. `name` says what it is, `energy_uj` counts microjoules, and goes on from 0 beyond
`max_energy_range_uj`. Processors (package-0, ...) contain their cores and graphics; memory (dram) is counted beside
them. Since Linux 5.10 only root may read the counters (CVE-2020-8694).
"""

from dataclasses import dataclass
from pathlib import Path

from dlink.bench.watch.counters import SYS, NotRead, read_number, read_text

MICRO = 1e-6


@dataclass
class Zone:
    """One counter, unwrapped. It must be read once in each of its ranges: 262 kJ mostly, 20 minutes at 200 W."""

    name: str
    path: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def joules(self) -> float:
        now = read_number(self.path / "energy_uj")
        self.total_uj += now - self.last_uj + (self.range_uj if now < self.last_uj else 0)
        self.last_uj = now
        return self.total_uj * MICRO


class Rapl:
    """A Meter of all processors and their memory.

    Raises:
        NotRead: There is no RAPL, or it cannot be read.
    """

    def __init__(self, root: Path = SYS) -> None:
        folder = root / "class" / "powercap"
        found = {path: read_text(path / "name") for path in sorted(folder.glob("intel-rapl:*"))}
        if not found:
            raise NotRead(
                f"{folder}: no intel-rapl; virtual machines and other processors than Intel's and AMD's have none"
            )
        chosen = {path: name for path, name in found.items() if name.startswith("package-") or name == "dram"}
        if not chosen:
            raise NotRead(f"{folder}: none of its zones is a processor: {', '.join(found.values())}")
        self.zones = [zone_at(path, name) for path, name in chosen.items()]
        self.name = f"RAPL ({', '.join(zone.name for zone in self.zones)})"

    def joules(self, now: float) -> float:
        return sum(zone.joules() for zone in self.zones)


def zone_at(path: Path, name: str) -> Zone:
    return Zone(name, path, read_number(path / "max_energy_range_uj"), read_number(path / "energy_uj"))
