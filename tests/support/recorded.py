"""What a script has that recording.py runs: pycuda, started, and what the recording driver can be asked."""

import ctypes
import json
import sys
import threading
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycuda.driver as cuda

__all__ = [
    "Call", "Image", "Path", "begin_capture", "calls", "ctypes", "cuda", "depth", "driver", "end_capture", "held",
    "in_thread", "machine", "names", "np", "primary", "read", "refuse", "right", "run_kernels", "say",
]  # fmt: skip

KINDS = ("memory", "pinned", "modules", "streams", "graphs", "executables", "events")
driver = ctypes.CDLL("libcuda.so.1")
driver.recorded.restype = ctypes.c_char_p


@dataclass
class Call:
    """One call of the driver: what it returned, and its arguments by name."""

    name: str
    code: int
    thread: int
    args: dict

    def __getattr__(self, name):
        try:
            return self.args[name]
        except KeyError:
            raise AttributeError(name) from None


def calls():
    """All since this was last asked."""
    return [parse(line) for line in driver.recorded().decode().splitlines()]


def parse(line):
    code, name, thread, *pairs = line.split()
    args = dict(pair.split("=", 1) for pair in pairs)
    numbers = {key: int(value) for key, value in args.items() if value.isdigit() and key != "arguments"}
    return Call(name, int(code), int(thread), {**args, **numbers})


def names():
    return [call.name for call in calls()]


def depth():
    """Of CUDA's own stack of contexts in this thread."""
    return driver.depth()


def held():
    """What there is, by kind; without those of which there is none. `retained`: references to the primary context."""
    counts = (ctypes.c_int * len(KINDS))()
    driver.held(counts)
    found = dict(zip(KINDS, counts, strict=True), retained=driver.references())
    return {kind: count for kind, count in found.items() if count}


def refuse(name, code):
    """Let the next call of that name return a code and do nothing."""
    driver.refuse(name.encode(), code)


def primary():
    """The primary context, retained."""
    return cuda.Device(0).retain_primary_context()


def in_thread(work):
    """What a function returns in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0] if found else None


def begin_capture(stream):
    return driver.cuStreamBeginCapture_v2(ctypes.c_size_t(stream.handle), 1)  # THREAD_LOCAL


def end_capture(stream):
    """The driver's code; the graph is left to itself."""
    return driver.cuStreamEndCapture(ctypes.c_size_t(stream.handle), ctypes.byref(ctypes.c_size_t()))


def run_kernels():
    """From now on what is launched runs, on the host."""
    from tests.support import host_kernels

    compiled = host_kernels.compiled(host_kernels.SOURCE.read_text())
    for name in [
        f"{kernel}_{kind}" for kernel in ("spread", "spread_bands", "gather") for kind in ("float32", "float16")
    ]:
        driver.kernel(name.encode(), compiled[f"launch_{name}"])


def machine(folder, kernels):
    """A plan in a folder, with fake_tensorrt.py on this driver; with kernels that run, or are launched alone."""
    import pytest

    from tests.support import fake_pycuda, fake_tensorrt
    from tests.support.fake_machine import machines

    pycuda = {name: sys.modules[name] for name in ("pycuda", "pycuda.driver")}
    made = next(machines(folder, pytest.MonkeyPatch()))
    sys.modules.update(pycuda)
    for module in list(sys.modules.values()):
        if getattr(module, "driver", None) is fake_pycuda.Driver:
            module.driver = lambda: driver
    fake_tensorrt.fake_pycuda = Streams()
    if kernels:
        run_kernels()
    there = made()
    calls()
    return there


class Streams:
    """What tests/support/fake_tensorrt.py asks of tests/support/fake_pycuda.py, on this driver."""

    WORK = ctypes.CFUNCTYPE(None)

    def __init__(self):
        self.works, self.USERS = [], {}
        self.HELD = {"stream": defaultdict(lambda: SimpleNamespace(captured=None))}

    def called(self, name):
        pass

    def capturing(self):
        return False

    def put(self, stream, work):
        self.works.append(self.WORK(work))  # a graph may run it again
        driver.put(b"execute", ctypes.c_size_t(stream), self.works[-1])

    def find(self, address, size):
        return at(address, size)


def at(address, size):
    """Bytes of memory as an array."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)


def right(there, mask, tile):
    """Whether a mask is what the plan's network says of a tile, which has both."""
    from tests.support.fake_machine import expected

    wanted = expected(there, tile[None])[0] > 0.5
    return bool(wanted.any() and not wanted.all() and (mask == 255 * wanted).all())


class Image:
    """An array that is on the GPU, as it says."""

    def __init__(self, pixels):
        self.pixels = np.ascontiguousarray(pixels)
        said = self.pixels.__array_interface__
        self.__cuda_array_interface__ = {key: said[key] for key in ("shape", "typestr", "data", "strides", "version")}


def read(array):
    """What is in an array on the GPU of a byte a pixel."""
    said = array.__cuda_array_interface__
    return at(said["data"][0], int(np.prod(said["shape"]))).reshape(said["shape"]).copy()


def say(*values):
    """Tell the test; a line of JSON each."""
    for value in values:
        print(json.dumps(value), flush=True)


cuda.init()
calls()
