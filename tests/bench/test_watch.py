"""What the machine did, read from trees of files as the kernel's documentation has them."""

import ctypes
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dlink.bench.watch import nvml
from dlink.bench.watch.counters import NotRead
from dlink.bench.watch.energy import Energy, open_energy
from dlink.bench.watch.ina import Ina
from dlink.bench.watch.load import Ticks, others_share, stolen_share, ticks
from dlink.bench.watch.nvml import GpuEnergy, GpuPower, Nvml, gpu_meter
from dlink.bench.watch.processor import Processor
from dlink.bench.watch.rapl import Rapl
from dlink.bench.watch.watch import Sources, Watch

RANGE = 262_143_328_850  # max_energy_range_uj of most processors


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def powercap(root, **energy):
    """Zones as Linux has them on a server: energy_uj by the zone's folder, all in one flat folder of links."""
    names = {
        "p0": ("intel-rapl:0", "package-0"),
        "core": ("intel-rapl:0:0", "core"),
        "dram": ("intel-rapl:0:1", "dram"),
    }
    names |= {
        "p1": ("intel-rapl:1", "package-1"),
        "psys": ("intel-rapl:2", "psys"),
        "mmio": ("intel-rapl-mmio:0", "package-0"),
    }
    for key, uj in energy.items():
        folder, name = names[key]
        tree(root / "class" / "powercap" / folder, {"name": name, "energy_uj": uj, "max_energy_range_uj": RANGE})
    return root


class Now:
    """A clock that a test moves."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_energy_is_that_of_processors_and_their_memory_without_what_these_contain(tmp_path):
    meter = Rapl(powercap(tmp_path, p0=5_000_000, core=1, dram=7, p1=3, psys=0, mmio=5_000_000))
    assert meter.name == "RAPL (package-0, dram, package-1)"
    powercap(tmp_path, p0=7_000_000, core=1_000_001, dram=500_007, p1=250_003, psys=9_000_000, mmio=7_000_000)
    assert meter.joules(0.0) == pytest.approx(2.75)


def test_a_counter_that_wraps_goes_on(tmp_path):
    meter = Rapl(powercap(tmp_path, p0=RANGE - 1_000_000))
    powercap(tmp_path, p0=2_000_000)
    assert meter.joules(0.0) == pytest.approx(3.0)
    powercap(tmp_path, p0=2_500_000)
    assert meter.joules(0.0) == pytest.approx(3.5)
    powercap(tmp_path, p0=500_000)
    assert meter.joules(0.0) == pytest.approx(3.5 + (RANGE - 2_000_000) / 1e6)


def test_a_machine_without_rapl_says_so(tmp_path):
    with pytest.raises(NotRead, match="no intel-rapl; virtual machines"):
        Rapl(tmp_path)
    with pytest.raises(NotRead, match="none of its zones is a processor: psys"):
        Rapl(powercap(tmp_path, psys=1))


def test_counters_that_only_root_may_read_say_so(tmp_path, monkeypatch):
    root = powercap(tmp_path, p0=1)
    read = Path.read_text

    def refused(path, *args, **kwargs):
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(NotRead, match="energy_uj: only root may read it"):
        Rapl(root)


@pytest.mark.parametrize(("text", "words"), [("", "'' is no whole number"), ("soon", "'soon' is no whole number")])
def test_a_counter_that_is_no_number_is_named(tmp_path, text, words):
    with pytest.raises(NotRead, match=f"energy_uj: {words}"):
        Rapl(powercap(tmp_path, p0=text))


def monitor(root, address, channels):
    """An INA3221: label, mV and mA of channels 1 to 3, and the sums and shunts that follow them."""
    files = {
        "name": "ina3221",
        "in7_label": "sum of shunt voltages",
        "in7_input": 9,
        "curr4_input": 9_999,
        "in4_input": 5,
    }
    for i, (label, mv, ma) in enumerate(channels, 1):
        files |= {f"in{i}_label": label, f"in{i}_input": mv, f"curr{i}_input": ma}
    return tree(root / f"bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{int(address[-1]) + 3}", files)


def test_a_jetson_orin_nanos_power_is_that_of_its_input(tmp_path):
    rails = [("VDD_IN", 5000, 2000), ("VDD_CPU_GPU_CV", 5000, 1000), ("VDD_SOC", 5000, 500)]
    monitor(tmp_path, "1-0040", rails)
    meter = Ina(10.0, tmp_path)
    monitor(tmp_path, "1-0040", [("VDD_IN", 5000, 4000), *rails[1:]])
    assert meter.joules(12.0) == pytest.approx(2 * (10 + 20) / 2)
    assert meter.joules(13.0) == pytest.approx(30 + 20)
    assert meter.name == "INA3221 (VDD_IN)"


def test_an_agx_orins_power_is_the_sum_of_three_rails(tmp_path):
    monitor(tmp_path, "1-0040", [("VDD_GPU_SOC", 10_000, 300), ("VDD_CPU_CV", 10_000, 200), ("VIN_SYS_5V0", 5000, 800)])
    monitor(tmp_path, "1-0041", [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 400), ("NC", 0, 0)])
    assert Ina(0.0, tmp_path).joules(1.0) == pytest.approx(3 + 2 + 4)


def test_rails_of_an_unknown_module_are_named_and_not_summed(tmp_path):
    monitor(tmp_path, "1-0040", [("VDD_A", 1, 1), ("VDD_B", 1, 1)])
    with pytest.raises(NotRead, match="not known which rails make the whole: VDD_A, VDD_B"):
        Ina(0.0, tmp_path)


@dataclass
class FakeNvml:
    """NVML's functions, which write to their last argument; a code of an error by the function's name."""

    values: dict[str, int] = field(default_factory=dict)
    fails: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, name):
        if name == "nvmlErrorString":
            return ErrorWords()
        if name not in self.values and name not in ("nvmlInit_v2", "nvmlDeviceGetHandleByPciBusId_v2", *self.fails):
            raise AttributeError(name)

        def function(*args):
            if name in self.fails:
                return self.fails[name]
            if name in self.values:
                target = args[-1]._obj
                setattr(target, "used" if isinstance(target, ctypes.Structure) else "value", self.values[name])
            return 0

        return function


class ErrorWords:
    restype = None

    def __call__(self, code):
        return b"Not Supported"


ENERGY, POWER = "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"
CLOCK, REASONS = "nvmlDeviceGetClockInfo", "nvmlDeviceGetCurrentClocksThrottleReasons"


def test_a_gpu_that_counts_its_energy_is_read_in_millijoules():
    library = FakeNvml({ENERGY: 1_000_000})
    meter = gpu_meter(Nvml(library, "0000:01:00.0"), 0.0)
    library.values[ENERGY] = 1_002_500
    assert isinstance(meter, GpuEnergy)
    assert meter.joules(0.0) == pytest.approx(2.5)


def test_an_older_gpus_power_is_summed_up():
    library = FakeNvml({POWER: 50_000}, fails={ENERGY: 3})
    meter = gpu_meter(Nvml(library, "0000:01:00.0"), 0.0)
    library.values[POWER] = 150_000
    assert isinstance(meter, GpuPower)
    assert meter.joules(2.0) == pytest.approx(200)


def test_a_failing_call_of_nvml_is_named_with_its_own_words():
    gpu = Nvml(FakeNvml(fails={ENERGY: 3}), "0000:01:00.0")
    with pytest.raises(NotRead, match=r"NVML: nvmlDeviceGetTotalEnergyConsumption: Not Supported \(3\)"):
        gpu.joules()
    with pytest.raises(NotRead, match="NVML: this driver has no nvmlDeviceGetClockInfo"):
        gpu.look()


def test_what_holds_a_gpus_clock_back_is_named_and_an_idle_gpu_is_not_throttled():
    gpu = Nvml(FakeNvml({CLOCK: 1410, REASONS: 0x1 | 0x2 | 0x4 | 0x40, "nvmlDeviceGetMemoryInfo": 77}), "0000:01:00.0")
    assert gpu.look() == nvml.GpuLook(1410, ("power cap", "heat (hardware)"))
    assert gpu.memory_bytes() == 77


def test_a_machine_without_nvidias_driver_has_no_gpu_to_watch(monkeypatch):
    def absent(name, *args):
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr("dlink.trt_runtime.nvidia_driver.call", absent)
    with pytest.raises(NotRead, match="NVML: libcuda.so.1: cannot open"):
        nvml.open_nvml()


def test_a_jetsons_monitor_counts_its_gpu_already(tmp_path):
    monitor(tmp_path, "1-0040", [("VDD_IN", 5000, 2000)])
    gpu = Nvml(FakeNvml({ENERGY: 0}), "0000:01:00.0")
    assert [m.name for m in open_energy(gpu, Now(), tmp_path).meters] == ["INA3221 (VDD_IN)"]


def test_a_processor_and_a_gpu_are_counted_side_by_side(tmp_path):
    energy = open_energy(Nvml(FakeNvml({ENERGY: 0}), "0000:01:00.0"), Now(), powercap(tmp_path, p0=1))
    assert [m.name for m in energy.meters] == ["RAPL (package-0)", "NVML (the GPU)"]
    assert [why.partition(": ")[2] for why in energy.absent] == ["no monitor of power; Jetsons have one"]


def test_a_meter_that_becomes_unreadable_is_left_out_with_its_reason(tmp_path):
    energy = open_energy(None, Now(), powercap(tmp_path, p0=1_000_000))
    before = energy.joules()
    powercap(tmp_path, p0=3_000_000)
    assert energy.since(before) == {"RAPL (package-0)": pytest.approx(2.0)}
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").unlink()
    assert energy.since(before) == {}
    assert "energy_uj: No such file or directory" in energy.absent[-1]


def cpu(root, core, **files):
    named = {"khz": "cpufreq/scaling_cur_freq", "own": "thermal_throttle/core_throttle_count"}
    named["package"] = "thermal_throttle/package_throttle_count"
    return tree(root / f"devices/system/cpu/cpu{core}", {named[key]: value for key, value in files.items()})


def test_the_clock_is_that_of_the_cores_that_this_process_may_use(tmp_path):
    for core, khz in enumerate((1_200_000, 2_500_000, 3_000_000)):
        cpu(tmp_path, core, khz=khz)
    assert Processor({1, 2}, tmp_path, tmp_path).mhz() == [2500, 3000]


def test_a_machine_without_cpufreq_has_its_clock_in_cpuinfo(tmp_path):
    tree(tmp_path, {"cpuinfo": "processor\t: 0\ncpu MHz\t\t: 2250.5\nprocessor\t: 1\ncpu MHz\t\t: 2400.0"})
    assert Processor({1}, tmp_path, tmp_path).mhz() == [2400.0]
    tree(tmp_path, {"cpuinfo": "processor\t: 0\nBogoMIPS\t: 50.00"})
    with pytest.raises(NotRead, match="gives no clock"):
        Processor({1}, tmp_path, tmp_path).mhz()


def test_throttling_counts_each_core_and_each_package_once(tmp_path):
    for core in range(4):
        cpu(tmp_path, core, own=core, package=5)
    assert Processor({1, 2}, tmp_path, tmp_path).throttled() == 1 + 2 + 5


def test_a_jetsons_over_current_events_are_throttling(tmp_path):
    tree(tmp_path / "class/hwmon/hwmon1", {"name": "soctherm_oc", "oc1_event_cnt": 2, "oc3_event_cnt": 1})
    tree(tmp_path / "class/hwmon/hwmon2", {"name": "pwmfan", "oc1_event_cnt": 50})
    assert Processor({0}, tmp_path, tmp_path).throttled() == 3


def test_a_machine_that_counts_no_throttling_says_so(tmp_path):
    with pytest.raises(NotRead, match="counts no throttling"):
        Processor({0}, tmp_path, tmp_path).throttled()


def test_the_line_of_all_processors_is_read_in_seconds(tmp_path):
    hz = os.sysconf("SC_CLK_TCK")
    values = [100 * hz, 20 * hz, 30 * hz, 800 * hz, 40 * hz, 3 * hz, 2 * hz, 5 * hz, 60 * hz, 0]
    tree(tmp_path, {"stat": "cpu  " + " ".join(map(str, values)) + "\ncpu0 1 1 1 1 1 1 1 1 0 0"})
    assert ticks(7.0, tmp_path) == Ticks(whole=1000, busy=155, stolen=5, own=7)


def test_what_is_no_line_of_all_processors_is_refused(tmp_path):
    with pytest.raises(NotRead, match="no line of all processors"):
        ticks(0.0, tree(tmp_path, {"stat": "cpu0 1 2 3"}))


def test_what_others_took_is_what_was_busy_less_our_own():
    first, last = Ticks(100, 10, 1, own=5), Ticks(140, 40, 5, own=25)
    assert others_share(first, last) == pytest.approx(10 / 40)
    assert stolen_share(first, last) == pytest.approx(4 / 40)
    assert others_share(first, Ticks(140, 29, 5, own=25)) == 0  # ticks are coarse, and never below nothing


@dataclass
class Machine:
    """A machine that a test changes between the looks of a Watch."""

    folder: Path
    now: Now = field(default_factory=Now)
    times: list[Ticks] = field(default_factory=lambda: [Ticks(0, 0, 0, 0), Ticks(20, 12, 1, 9)])
    loads: list[float] = field(default_factory=lambda: [0.5, 2.0])

    def watch(self, gpu=None):
        processor = Processor({0, 1}, self.folder, self.folder)
        sources = Sources(processor, lambda: self.times.pop(0), lambda: self.loads.pop(0), self.now, gpu)
        return Watch(None, sources, every=None)

    def at(self, seconds, watch, khz, events):
        self.now.seconds = seconds
        cpu(self.folder, 0, khz=khz, own=events)
        cpu(self.folder, 1, khz=3_000_000, own=0)
        if watch:
            watch.look()


def test_a_watch_sums_up_what_it_saw(tmp_path):
    machine = Machine(tmp_path)
    machine.at(0, None, 3_000_000, 4)
    with machine.watch() as watch:
        machine.at(2, watch, 2_000_000, 4)
        machine.at(3, watch, 1_000_000, 6)
        machine.at(10, None, 3_000_000, 7)
    seen = watch.conditions
    assert (seen.seconds, seen.others_share, seen.stolen_share) == (10, pytest.approx(3 / 20), pytest.approx(1 / 20))
    assert seen.load_average == (0.5, 2.0)
    assert (seen.min_mhz, seen.median_mhz) == (1000, 2750)
    assert (seen.throttled, seen.throttled_after_s) == (3, 3)
    assert (seen.gpu_min_mhz, seen.gpu_throttled, seen.not_read) == (None, None, ())


def test_a_watch_says_how_often_a_gpu_was_held_back(tmp_path):
    machine = Machine(tmp_path)
    machine.at(0, None, 3_000_000, 0)
    library = FakeNvml({CLOCK: 1980, REASONS: 0})
    with machine.watch(Nvml(library, "0000:01:00.0")) as watch:
        library.values |= {CLOCK: 1200, REASONS: 0x4}
        watch.look()
        watch.look()
    seen = watch.conditions
    assert (seen.gpu_min_mhz, seen.gpu_median_mhz) == (1200, 1200)
    assert seen.gpu_throttled == {"power cap": pytest.approx(3 / 4)}


def test_a_watch_of_a_machine_that_tells_nothing_gives_the_reasons(tmp_path):
    machine = Machine(tmp_path)
    with machine.watch() as watch:
        pass
    assert (watch.conditions.min_mhz, watch.conditions.throttled) == (None, None)
    assert [why.rpartition(": ")[2] for why in watch.conditions.not_read] == [
        "counts no throttling",
        "No such file or directory",
    ]


def test_a_watch_looks_by_itself_and_reads_the_meters():
    read = []

    class Counted:
        name = "x"

        def joules(self, now):
            read.append(now)
            return 0.0

    with Watch(Energy([Counted()], []), Sources(), every=0.001) as watch:
        until = time.monotonic() + 60
        while len(read) < 5 and time.monotonic() < until:
            time.sleep(0.001)
    assert len(read) >= 5
    assert watch.conditions.seconds > 0
