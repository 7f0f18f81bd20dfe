"""As much of pycuda.driver as the backend uses, on the host, that counts what is held and refuses misuse."""

import threading
import types

import numpy as np

MEMORY = {}  # address -> bytearray
LOG = []  # names of calls in order
FAIL = {}  # name of a call -> the exception it raises
current = threading.local()


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


def called(name):
    LOG.append(name)
    if name in FAIL:
        raise FAIL[name]
    if name not in ("init", "retain", "push", "detach") and not getattr(current, "depth", 0):
        raise LogicError(f"{name}: invalid device context")


class Device:
    def __init__(self, index):
        self.index = index

    def retain_primary_context(self):
        called("retain")
        return Primary()


class Primary:
    def push(self):
        called("push")
        current.depth = getattr(current, "depth", 0) + 1

    def detach(self):
        called("detach")


class Context:
    @staticmethod
    def pop():
        called("pop")
        current.depth -= 1


class Allocation:
    def __init__(self, size):
        self.address = 1 + max(MEMORY, default=0)
        MEMORY[self.address] = bytearray(size)

    def __int__(self):
        return self.address

    def __del__(self):
        MEMORY.pop(self.address, None)


class Stream:
    handle = 7

    def __init__(self):
        called("stream")

    def synchronize(self):
        called("synchronize")


def mem_alloc(size):
    called("alloc")
    return Allocation(size)


def pagelocked_empty(shape, dtype):
    called("pinned")
    return np.empty(shape, dtype)


def memcpy_htod_async(target, source, stream):
    called("upload")
    MEMORY[int(target)][: source.nbytes] = source.tobytes()


def memcpy_dtoh_async(target, source, stream):
    called("download")
    target[...] = np.frombuffer(MEMORY[int(source)][: target.nbytes], target.dtype).reshape(target.shape)


def make():
    """The module pycuda.driver."""
    LOG.clear()
    FAIL.clear()
    module = types.ModuleType("pycuda.driver")
    for name, value in globals().items():
        if not name.startswith("_"):
            setattr(module, name, value)
    module.init = lambda: called("init")
    return module
