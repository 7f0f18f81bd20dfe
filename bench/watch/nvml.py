"""NVIDIA's management library (NVML) by ctypes: a GPU's energy, clock, memory and what holds its clock back.

The library comes with the driver, so there is no package to install, and no program is started for each look.
"""

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

from dlink.bench.watch.counters import NotRead
from dlink.bench.watch.power import Power
from dlink.trt_runtime import nvidia_driver

LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
SM = 1  # NVML_CLOCK_SM in nvml.h, as are all constants here
BUS_ID = 32  # NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE
MILLI = 1e-3
REASONS = {  # nvmlClocksThrottleReason*; an idle GPU and clocks that somebody has set are no throttling
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


class Memory(ctypes.Structure):
    """nvmlMemory_t, bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True)
class GpuLook:
    """A GPU at one moment."""

    sm_mhz: int
    throttled: tuple[str, ...]


class Nvml:
    """One GPU, as NVML sees it.

    Args:
        library: The loaded library.
        bus: The GPU's PCI bus id.

    Raises:
        NotRead: NVML is not there, or does not know the GPU.
    """

    def __init__(self, library: Any, bus: str) -> None:
        self.library = library
        self.device = ctypes.c_void_p()
        self.ask("nvmlInit_v2")
        self.ask("nvmlDeviceGetHandleByPciBusId_v2", bus.encode(), ctypes.byref(self.device))

    def ask(self, call: str, *args: Any) -> None:
        """Call NVML and check what it returns."""
        try:
            code = int(self.library[call](*args))
        except AttributeError as e:
            raise NotRead(f"NVML: this driver has no {call}") from e
        if code:
            words = self.library["nvmlErrorString"]
            words.restype = ctypes.c_char_p
            raise NotRead(f"NVML: {call}: {(words(code) or b'error').decode(errors='replace')} ({code})")

    def number(self, call: str, kind: type[ctypes.c_uint] | type[ctypes.c_ulonglong], *args: Any) -> int:
        """A function that writes a number to its last argument."""
        value = kind()
        self.ask(call, self.device, *args, ctypes.byref(value))
        return int(value.value)

    def joules(self) -> float:
        """Since the driver was loaded; Volta and later count it."""
        return self.number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong) * MILLI

    def watts(self) -> float:
        return self.number("nvmlDeviceGetPowerUsage", ctypes.c_uint) * MILLI

    def memory_bytes(self) -> int:
        """Used on the GPU, by all processes."""
        memory = Memory()
        self.ask("nvmlDeviceGetMemoryInfo", self.device, ctypes.byref(memory))
        return int(memory.used)

    def look(self) -> GpuLook:
        clock = self.number("nvmlDeviceGetClockInfo", ctypes.c_uint, ctypes.c_int(SM))
        bits = self.number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong)
        return GpuLook(clock, tuple(words for bit, words in REASONS.items() if bits & bit))


class GpuEnergy:
    """A Meter of a GPU that counts its energy."""

    name = "NVML (the GPU)"

    def __init__(self, gpu: Nvml) -> None:
        self.gpu, self.first = gpu, gpu.joules()

    def joules(self, now: float) -> float:
        return self.gpu.joules() - self.first


class GpuPower(Power):
    """A Meter of an older GPU, which gives its power alone."""

    def __init__(self, gpu: Nvml, now: float) -> None:
        self.gpu = gpu
        super().__init__("NVML (the GPU's power)", now)

    def watts(self) -> float:
        return self.gpu.watts()


def gpu_meter(gpu: Nvml, now: float) -> GpuEnergy | GpuPower:
    try:
        return GpuEnergy(gpu)
    except NotRead:  # before Volta
        return GpuPower(gpu, now)


def open_nvml() -> Nvml:
    """CUDA's first GPU, which is the one that runs plans."""
    name = ctypes.create_string_buffer(BUS_ID)
    try:
        nvidia_driver.call("cuInit", ctypes.c_uint(0))
        nvidia_driver.call("cuDeviceGetPCIBusId", name, ctypes.c_int(BUS_ID), ctypes.c_int(0))
        library = ctypes.CDLL(LIBRARY)
    except (OSError, AttributeError, nvidia_driver.DriverError) as e:
        raise NotRead(f"NVML: {e}") from e
    return Nvml(library, name.value.decode())
