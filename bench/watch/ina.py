"""Power of a Jetson's module: its INA3221 monitors, by the kernel's hwmon (Documentation/hwmon/ina3221.rst).

A monitor's folder is `/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3`. Of its channels 1 to 3, `in1_label` names the
rail, `in1_input` is its voltage in mV and `curr1_input` its current in mA. What is numbered from 4 is something else:
voltages of shunts, and sums. The rails whose sum is the module's power are NVIDIA's (Jetson Linux Developer Guide,
"Power Consumption"): VDD_IN of Orin NX and Nano is the whole; AGX Orin has three, and VIN_SYS_5V0 contains a further
one.
"""

from collections.abc import Sequence
from pathlib import Path

from dlink.bench.watch.counters import SYS, NotRead, read_number, read_text
from dlink.bench.watch.power import Power

MODULES = (("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
CHANNELS = (1, 2, 3)
MICRO = 1e-6  # W of mV x mA


class Ina(Power):
    """A Meter of a Jetson's whole module.

    Raises:
        NotRead: There is no monitor, or its rails are not known.
    """

    def __init__(self, now: float, root: Path = SYS) -> None:
        rails = rails_of(root)
        if not rails:
            raise NotRead(f"{root}/bus/i2c/drivers/ina3221: no monitor of power; Jetsons have one")
        whole = next((names for names in MODULES if set(names) <= rails.keys()), None)
        if whole is None:
            raise NotRead(f"{root}/bus/i2c/drivers/ina3221: not known which rails make the whole: {', '.join(rails)}")
        self.rails = [rails[name] for name in whole]
        super().__init__(f"INA3221 ({', '.join(whole)})", now)

    def watts(self) -> float:
        return watts_of(self.rails)


def rails_of(root: Path) -> dict[str, tuple[Path, Path]]:
    """The files of voltage and current of each named rail."""
    found = {}
    for folder in sorted(root.glob("bus/i2c/drivers/ina3221*/*/hwmon/hwmon*")):
        for channel in CHANNELS:
            label = folder / f"in{channel}_label"
            if label.exists():
                found[read_text(label)] = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
    return found


def watts_of(rails: Sequence[tuple[Path, Path]]) -> float:
    return sum(read_number(voltage) * read_number(current) for voltage, current in rails) * MICRO
