"""As much of pycuda.driver and of NVIDIA's driver as the backend uses, on the host, and stricter than the real ones.

Nothing on a stream happens before someone waits for it: what is copied, run or freed too early is seen. Kernels are the
real ones, compiled for the host (tests/host_kernels.py). What is held is counted, misuse raises, and the call number
`STATE.fail_at` fails as `STATE.error`. Names and signatures are those of pycuda 2026.1.
"""

import ctypes
import gc
import threading
import types
from collections import deque

import numpy as np

from tests import host_kernels

MEMORY = {}  # address -> uint8 array; of the device, and pinned
LOG = []  # names of calls in order
LEAKS = []  # what was freed without a context
HELD = {"stream": {}, "graph": {}, "exec": {}, "event": {}}  # handles -> what they stand for
USERS = {}  # address of activations -> the stream that uses them
current = threading.local()
HANDLES = iter(range(101, 1 << 30))
INVALIDATED = 901  # CUDA_ERROR_STREAM_CAPTURE_INVALIDATED


class STATE:
    free = 1 << 33
    integrated = False
    fail_at = None  # number of a call in LOG
    error = None
    fail = {}  # name of a call -> the exception it raises  # noqa: RUF012
    refuse = {}  # name of a driver's call -> the code it returns  # noqa: RUF012


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


def called(name):
    LOG.append(name)
    if name in STATE.fail:
        raise STATE.fail[name]
    if STATE.fail_at is not None and len(LOG) - 1 == STATE.fail_at:
        raise type(STATE.error)(*STATE.error.args)
    if name not in ("init", "retain", "push", "detach") and not depth():
        raise LogicError(f"{name}: invalid device context")


def depth():
    return getattr(current, "depth", 0)


def find(address, size):
    """Memory that is held, as uint8; its own bytes."""
    for base, block in list(MEMORY.items()):
        if base <= address and address + size <= base + block.size:
            return block[address - base : address - base + size]
    raise LogicError(f"an illegal memory access: {size} bytes at {address}")


class Device:
    def __init__(self, index):
        assert index == 0

    def retain_primary_context(self):
        called("retain")
        return Primary()

    def get_attribute(self, attribute):
        called("attribute")
        return {device_attribute.INTEGRATED: int(STATE.integrated)}.get(attribute, 4096)


class device_attribute:  # noqa: N801
    INTEGRATED = 18
    L2_CACHE_SIZE = 38


class host_alloc_flags:  # noqa: N801
    DEVICEMAP = 2


class Primary:
    def __init__(self):
        self.live = True

    def push(self):
        called("push")
        assert self.live, "a context that was detached"
        current.depth = depth() + 1

    def detach(self):
        called("detach")
        assert self.live
        self.live = False


class Context:
    @staticmethod
    def pop():
        try:
            called("pop")
        finally:
            current.depth -= 1


class Allocation:
    def __init__(self, size):
        self.memory = np.full(size, 0x7F, np.uint8)
        self.address = self.memory.ctypes.data
        MEMORY[self.address] = self.memory

    def __int__(self):
        return self.address

    def free(self):
        if not depth():
            LEAKS.append("memory")
        del MEMORY[self.address]
        USERS.pop(self.address, None)

    def __del__(self):
        if self.address in MEMORY:
            self.free()


class Pinned:
    """What a page-locked array stands on."""

    def __init__(self, shape, dtype, mapped):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.memory, self.mapped = np.full(size, 0x7F, np.uint8), mapped
        MEMORY[self.memory.ctypes.data] = self.memory
        self.__array_interface__ = {
            **self.memory.view(dtype).reshape(shape).__array_interface__,
            "version": 3,
        }

    def get_device_pointer(self):
        called("pointer")
        assert self.mapped
        return self.memory.ctypes.data

    def free(self):
        if not depth():
            LEAKS.append("pinned")
        del MEMORY[self.memory.ctypes.data]

    def __del__(self):
        if self.memory.ctypes.data in MEMORY:
            self.free()


class Queue:
    """What is on a stream; or, while it is captured, what a graph will be."""

    def __init__(self):
        self.work, self.captured, self.lock = deque(), None, threading.RLock()

    def put(self, work):
        with self.lock:
            (self.work if self.captured is None else self.captured).append(work)

    def run(self, until=None):
        with self.lock:
            while self.work and not (until and until.passed):
                self.work.popleft()()


class Mark:
    """A place on a stream."""

    passed = False

    def __call__(self):
        self.passed = True


class Stream:
    def __init__(self, flags=0):
        called("stream")
        self.handle = next(HANDLES)
        HELD["stream"][self.handle] = Queue()

    def synchronize(self):
        called("synchronize")
        queue = HELD["stream"][self.handle]
        assert queue.captured is None, "a stream that is captured can't be waited for"
        queue.run()

    def __del__(self):
        if hasattr(self, "handle"):
            if not depth():
                LEAKS.append("stream")
            HELD["stream"].pop(self.handle, None)


def put(stream, work):
    HELD["stream"].setdefault(stream, Queue()).put(work)  # a foreign stream is there when it is named


class Event:
    def __init__(self):
        called("event")

    def record(self, stream):
        called("record")
        self.queue, self.mark = HELD["stream"][stream.handle], Mark()
        self.queue.put(self.mark)

    def synchronize(self):
        called("synchronize")
        self.queue.run(until=self.mark)

    def time_till(self, other):
        return 2.0


def mem_get_info():
    called("info")
    return STATE.free, 1 << 34


def mem_alloc(size):
    called("alloc")
    return Allocation(size)


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    called("pinned")
    return np.asarray(Pinned(shape, dtype, mem_flags & host_alloc_flags.DEVICEMAP))


def memcpy_htod_async(dest, src, stream=None):
    called("upload")
    assert src.flags.c_contiguous
    find(src.ctypes.data, src.nbytes)  # page-locked, or it would not be asynchronous
    put(stream.handle, lambda: np.copyto(find(int(dest), src.nbytes), find(src.ctypes.data, src.nbytes)))


def memcpy_dtoh_async(dest, src, stream=None):
    called("download")
    address, size = dest.ctypes.data, dest.nbytes
    find(address, size)
    put(stream.handle, lambda: np.copyto(find(address, size), find(int(src), size)))


def memcpy_dtod_async(dest, src, size, stream=None):
    called("copy")
    put(stream.handle, lambda: np.copyto(find(int(dest), size), find(int(src), size)))


def memset_d32_async(dest, data, count, stream=None):
    called("fill")
    put(stream.handle, lambda: find(int(dest), 4 * count).view(np.uint32).fill(data))


class Memcpy2D:
    def set_src_device(self, address):
        self.src = address

    def set_dst_device(self, address):
        self.dst = address

    def __call__(self, stream):
        called("rectangle")
        src, dst, pitches = self.src, self.dst, (self.src_pitch, self.dst_pitch)
        width, height = self.width_in_bytes, self.height
        assert width <= min(pitches)

        def work():
            for row in range(height):
                find(dst + row * pitches[1], width)[:] = find(src + row * pitches[0], width)

        put(stream.handle, work)


def module_from_buffer(buffer):
    called("module")
    assert b".version 7.4" in buffer
    return Module()


class Module:
    def get_function(self, name):
        called("function")
        return Function(name)


class Function:
    def __init__(self, name):
        self.name = name

    def prepare(self, arg_types):
        codes = {ctypes.c_void_p: "P", ctypes.c_int: "i", ctypes.c_uint: "I", ctypes.c_float: "f"}
        kinds = host_kernels.SPREAD if self.name.startswith("spread") else host_kernels.GATHER
        assert arg_types == "".join(codes[kind] for kind in kinds)
        return self

    def prepared_async_call(self, grid, block, stream, *args):
        called(self.name.partition("_")[0])
        assert block == (32, 8, 1)
        put(stream.handle, lambda: host_kernels.launch(self.name, grid, *args))


class Driver:
    """libcuda's own functions, by name as ctypes has them."""

    def __getitem__(self, name):
        def call(*args):
            if name == "cuGetErrorString":
                args[1]._obj.value = b"a fault of the test's making"
                return 0
            LOG.append(name)
            failing = STATE.fail_at is not None and len(LOG) - 1 == STATE.fail_at
            if not depth():
                raise LogicError(f"{name}: invalid device context")
            if code := STATE.refuse.get(name) or failing * INVALIDATED:
                if name == "cuStreamEndCapture":  # whatever it says, the stream is free afterwards
                    HELD["stream"][args[0].value].captured = None
                elif "Destroy" in name:  # and this is gone
                    getattr(self, name)(*args)
                return code
            return getattr(self, name)(*args) or 0

        return call

    def cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802
        assert mode.value == 1
        queue = HELD["stream"][stream.value]
        assert queue.captured is None
        queue.captured = []

    def cuStreamEndCapture(self, stream, graph):  # noqa: N802
        queue = HELD["stream"][stream.value]
        graph._obj.value = next(HANDLES)
        HELD["graph"][graph._obj.value], queue.captured = queue.captured, None

    def cuGraphInstantiateWithFlags(self, made, graph, flags):  # noqa: N802
        made._obj.value = next(HANDLES)
        HELD["exec"][made._obj.value] = list(HELD["graph"][graph.value])

    def cuGraphDestroy(self, graph):  # noqa: N802
        del HELD["graph"][graph.value]

    def cuGraphLaunch(self, made, stream):  # noqa: N802
        for work in HELD["exec"][made.value]:
            put(stream.value, work)

    def cuGraphExecDestroy(self, made):  # noqa: N802
        del HELD["exec"][made.value]

    def cuEventCreate(self, event, flags):  # noqa: N802
        assert flags.value == 2
        event._obj.value = next(HANDLES)
        HELD["event"][event._obj.value] = None

    def cuEventRecord(self, event, stream):  # noqa: N802
        queue = HELD["stream"].setdefault(stream.value, Queue())
        mark = Mark()
        queue.put(mark)
        HELD["event"][event.value] = queue, mark

    def cuStreamWaitEvent(self, stream, event, flags):  # noqa: N802
        queue, mark = HELD["event"][event.value]
        put(stream.value, lambda: queue.run(until=mark))

    def cuEventDestroy_v2(self, event):  # noqa: N802
        del HELD["event"][event.value]


def nothing_is_held():
    gc.collect()  # errors and their frames are cycles
    assert (len(MEMORY), LEAKS, {name: len(held) for name, held in HELD.items() if held}) == (0, [], {})
    return True


def make():
    """The module pycuda.driver, nothing held."""
    gc.collect()  # what an earlier test left
    reset()
    module = types.ModuleType("pycuda.driver")
    for name, value in globals().items():
        if not name.startswith("_"):
            setattr(module, name, value)
    module.init = lambda: called("init")
    return module


def reset():
    for each in (LOG, LEAKS, MEMORY, USERS, *HELD.values(), STATE.fail, STATE.refuse):
        each.clear()
    STATE.free, STATE.integrated, STATE.fail_at, STATE.error = 1 << 33, False, None, LogicError("a fault")
    current.depth = 0
