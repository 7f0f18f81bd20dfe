"""Calls NVIDIA's driver through ctypes: which GPUs there are, and which CUDA the driver runs.

This comes before any import of TensorRT, because without a GPU full TensorRT returns null or ends the process.
"""

import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
RELEASE = Path("/sys/module/nvidia/version")
OUT_OF_MEMORY, NO_DEVICE = 2, 100  # CUDA_ERROR_OUT_OF_MEMORY and CUDA_ERROR_NO_DEVICE in cuda.h
HARMLESS = {OUT_OF_MEMORY, 400, *range(900, 909)}  # the GPU still works: also CUDA_ERROR_INVALID_HANDLE and captures'
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the driver reports it."""

    name: str  # "NVIDIA H200"
    capability: str  # compute capability, "9.0"
    memory: int  # bytes

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability}, {self.memory / 2**30:.1f} GiB"


@dataclass(frozen=True)
class Gpus:
    """What NVIDIA's driver reports."""

    driver: str = ""  # the newest CUDA that the driver runs, "12.8"; empty without a driver
    found: tuple[Gpu, ...] = ()
    fault: str = ""  # why there is no driver or no GPU
    broken: bool = False  # there is a driver or a GPU, but it does not work
    release: str = ""  # the driver's own version, "560.35.03"; empty where the system does not give it


class DriverError(Exception):
    """A call of NVIDIA's driver failed: its name, the driver's own message and the code."""

    def __init__(self, call: str, code: int, words: str) -> None:
        super().__init__(f"{call}: {words or 'error'} ({code})")
        self.code = code


def ask(cuda: ctypes.CDLL, call: str, *args: Any) -> None:
    """Call the driver and check what it returns."""
    code = int(cuda[call](*args))
    if code:
        words = ctypes.c_char_p()
        cuda["cuGetErrorString"](code, ctypes.byref(words))
        raise DriverError(call, code, (words.value or b"").decode(errors="replace"))


@cache
def driver() -> ctypes.CDLL:
    return ctypes.CDLL(LIBRARY)


def call(name: str, *args: Any) -> None:
    """Call this machine's driver; DriverError where it fails."""
    ask(driver(), name, *args)


def destroy(name: str, *args: Any) -> None:
    """Call a function of this machine's driver that destroys something. Its return code is ignored."""
    driver()[name](*args)


def number(cuda: ctypes.CDLL, call: str, *args: Any) -> int:
    """Call a function of the driver that writes an int to its first argument."""
    value = ctypes.c_int()
    ask(cuda, call, ctypes.byref(value), *args)
    return value.value


def look_for_gpus(library: str = LIBRARY) -> Gpus:
    """The GPUs that NVIDIA's driver sees."""
    driver = ""
    try:
        cuda = ctypes.CDLL(library)
        version = number(cuda, "cuDriverGetVersion")
        driver = f"{version // 1000}.{version % 1000 // 10}"
        ask(cuda, "cuInit", ctypes.c_uint(0))
        found = tuple(gpu(cuda, i) for i in range(number(cuda, "cuDeviceGetCount")))
    except OSError as e:
        absent = library in str(e) and re.search("no such file|could not find", str(e), re.IGNORECASE)
        return Gpus(fault=str(e), broken=not absent)
    except AttributeError as e:
        return Gpus(driver, fault=str(e), broken=True)
    except DriverError as e:
        return Gpus(driver, fault=str(e), broken=e.code != NO_DEVICE)
    return Gpus(driver, found, "" if found else "the driver sees no GPU", release=release())


def release() -> str:
    """The driver's own version. A Jetson's driver has none."""
    try:
        return RELEASE.read_text().strip()
    except OSError:
        return ""


def gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int(number(cuda, "cuDeviceGet", ctypes.c_int(index)))
    name = ctypes.create_string_buffer(256)
    ask(cuda, "cuDeviceGetName", name, ctypes.c_int(len(name)), device)
    capability = [number(cuda, "cuDeviceGetAttribute", ctypes.c_int(which), device) for which in (MAJOR, MINOR)]
    memory = ctypes.c_size_t()
    ask(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Gpu(name.value.decode(errors="replace"), "{}.{}".format(*capability), memory.value)
