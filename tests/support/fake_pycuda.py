"""As much of pycuda.driver and of NVIDIA's driver as the backend uses, on the host, and stricter than the real ones.

Nothing on a stream happens before someone waits for it: what is copied, run or freed too early is seen. Kernels are the
real ones, compiled for the host (host_kernels.py). What is held is counted, misuse raises, and the call number
`STATE.fail_at` fails as `STATE.error`. Names and signatures are those of pycuda 2026.1, and its contexts, streams and
memory do what tests/trt_runtime/test_pycuda.py sees the real ones do.
"""

import ctypes
import enum
import gc
import threading
import types
from collections import deque

import numpy as np

from tests.support import host_kernels

MEMORY = {}  # address -> uint8 array; of the device, and pinned
LOG = []  # names of calls in order
LEAKS = []  # what was freed without a context
PRIMARY = 77  # the handle of the one context
UNSAFE, IMPLICIT = 900, 906  # CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
HELD = {"stream": {}, "graph": {}, "exec": {}, "event": {}}  # handles -> what they stand for
USERS = {}  # address of activations -> the stream that uses them
current = threading.local()
HANDLES = iter(range(101, 1 << 30))
INVALIDATED = 901  # CUDA_ERROR_STREAM_CAPTURE_INVALIDATED


class STATE:
    free = 1 << 33
    retained = 0  # the primary context
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


def stack(name):
    """Of this thread: CUDA's contexts (handles), or pycuda's own (objects), of which CUDA's has the uppermost alone."""
    return current.__dict__.setdefault(name, [])


def depth():
    return len(stack("cuda"))


def uppermost():
    """pycuda's current context; those that were detached drop out."""
    own = stack("pycuda")
    while own and not own[-1].live:
        own.pop()
    return own[-1] if own else None


def capturing():
    """Whether this thread captures a stream."""
    return bool(current.__dict__.get("capturing"))


def spoil():
    """What a capturing thread must not do ends its capture."""
    if queue := current.__dict__.get("capturing"):
        queue.spoiled = True
    return bool(queue)


def find(address, size):
    """Memory that is held, as uint8; its own bytes."""
    for base, block in list(MEMORY.items()):
        if base <= address and address + size <= base + block.size:
            return block[address - base : address - base + size]
    raise LogicError(f"an illegal memory access: {size} bytes at {address}")


def of_type(value, *types):
    """pycuda's C++ takes no number of NumPy's for an int, and no int for anything else."""
    if type(value) not in types:
        raise TypeError(f"Python argument types did not match C++ signature: {type(value).__name__}")


def address_of(memory):
    of_type(memory, int, Allocation)
    return int(memory)


class Device:
    def __init__(self, index):
        assert index == 0

    def retain_primary_context(self):
        called("retain")
        return Primary()

    def get_attribute(self, attribute):
        called("attribute")
        of_type(attribute, device_attribute)
        return {device_attribute.INTEGRATED: int(STATE.integrated)}.get(attribute, 4096)


class device_attribute(enum.Enum):  # noqa: N801
    INTEGRATED = 18
    L2_CACHE_SIZE = 38


class host_alloc_flags:  # noqa: N801
    DEVICEMAP = 2


class Primary:
    """pycuda's Context for the primary one."""

    def __init__(self):
        self.live, self.thread = True, threading.get_ident()
        STATE.retained += 1

    def push(self):
        called("push")
        assert self.live, "a context that was detached"
        if stack("pycuda"):
            stack("cuda").pop()
        stack("cuda").append(PRIMARY)
        stack("pycuda").append(self)

    def detach(self):
        """Nothing leaves CUDA's stack. On another thread than its own nothing is released where it is not uppermost."""
        LOG.append("detach")
        if not self.live:
            raise LogicError("context::detach failed: invalid device context - cannot detach from invalid context")
        upper = uppermost() is self
        if not upper and self.thread == threading.get_ident():
            stack("cuda").append(PRIMARY)
        STATE.retained -= upper or self.thread == threading.get_ident()
        self.live = False
        if upper and uppermost():
            stack("cuda").append(PRIMARY)


class Context:
    @staticmethod
    def pop():
        try:
            called("pop")
        finally:
            if stack("pycuda"):
                stack("cuda").pop()
                stack("pycuda").pop()
                if uppermost():
                    stack("cuda").append(PRIMARY)

    @staticmethod
    def get_current():
        return uppermost()


class Dependent:
    """What remembers the context that it was made in, and is freed in that one alone."""

    def __init__(self):
        self.context = uppermost()
        if not self.context:
            raise LogicError("explicit_context_dependent failed: invalid device context - no currently active context?")

    def leave(self, what, address):
        if address not in MEMORY and what != "stream":
            raise LogicError(f"{what}::free failed: invalid resource handle")
        other_thread = self.context.thread != threading.get_ident()
        if spoil() or (uppermost() is not self.context and (other_thread or not self.context.live)):
            LEAKS.append(what)


class Allocation(Dependent):
    def __init__(self, size):
        super().__init__()
        self.memory = np.full(size, 0x7F, np.uint8)
        self.address = self.memory.ctypes.data
        MEMORY[self.address] = self.memory

    def __int__(self):
        return self.address

    def free(self):
        self.leave("memory", self.address)
        del MEMORY[self.address]
        USERS.pop(self.address, None)

    def __del__(self):
        if getattr(self, "address", None) in MEMORY:
            self.free()


class Pinned(Dependent):
    """What a page-locked array stands on."""

    def __init__(self, shape, dtype, mapped):
        super().__init__()
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
        self.leave("pinned", self.memory.ctypes.data)
        del MEMORY[self.memory.ctypes.data]

    def __del__(self):
        if hasattr(self, "memory") and self.memory.ctypes.data in MEMORY:
            self.free()


class Queue:
    """What is on a stream; or, while it is captured, what a graph will be."""

    def __init__(self, blocking=False):
        self.work, self.captured, self.lock = deque(), None, threading.RLock()
        self.blocking, self.spoiled = blocking, False

    def put(self, work):
        with self.lock:
            (self.work if self.captured is None else self.captured).append(work)

    def run(self, until=None):
        with self.lock:
            while self.work and not (until and until.passed):
                self.work.popleft()()


LEGACY = Queue()


class Refused(LogicError):
    """With CUDA's code."""

    @property
    def code(self):
        return self.args[0]


class Mark:
    """A place on a stream."""

    passed = False

    def __call__(self):
        self.passed = True


class Stream(Dependent):
    def __init__(self, flags=0):
        called("stream")
        super().__init__()
        self.handle = next(HANDLES)
        HELD["stream"][self.handle] = Queue(blocking=not flags & 1)

    def synchronize(self):
        called("synchronize")
        queue = HELD["stream"][self.handle]
        if queue.captured is not None:
            queue.spoiled = True
            raise Refused(UNSAFE)
        queue.run()
        return self

    def __del__(self):
        if hasattr(self, "handle"):
            self.leave("stream", self.handle)
            HELD["stream"].pop(self.handle, None)


def queue_of(stream):
    """0 (None to ctypes) and 1 are the default stream; a foreign one is there when it is named."""
    return LEGACY if stream in (None, 0, 1) else HELD["stream"].setdefault(stream, Queue())


def put(stream, work):
    """The default stream and those that are not non-blocking wait for each other, so none may be captured."""
    queue = queue_of(stream)
    blocking = [q for q in list(HELD["stream"].values()) if q.blocking]  # a copy: other threads make streams
    others = blocking if queue is LEGACY else [LEGACY] if queue.blocking else []
    if captured := [q for q in others if q.captured is not None]:
        captured[0].spoiled = True
        raise Refused(IMPLICIT)
    for other in others:
        mark = Mark()
        other.put(mark)
        queue.put(lambda other=other, mark=mark: other.run(until=mark))
    queue.put(work)


class Event:
    def __init__(self, flags=0):
        called("event")

    def record(self, stream=None):
        called("record")
        handle = stream.handle if stream else 0
        self.queue, self.mark = queue_of(handle), Mark()
        put(handle, self.mark)
        return self

    def synchronize(self):
        called("synchronize")
        self.queue.run(until=self.mark)
        return self

    def time_till(self, other):
        return 2.0


def mem_get_info():
    called("info")
    return STATE.free, 1 << 34


def mem_alloc(size):
    called("alloc")
    of_type(size, int)
    if not size:
        raise LogicError("cuMemAlloc failed: invalid argument")
    if spoil():
        raise Refused(UNSAFE)
    return Allocation(size)


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    called("pinned")
    if spoil():
        raise Refused(UNSAFE)
    return np.asarray(Pinned(shape, dtype, mem_flags & host_alloc_flags.DEVICEMAP))


def memcpy_htod_async(dest, src, stream=None):
    called("upload")
    assert src.flags.c_contiguous
    find(src.ctypes.data, src.nbytes)  # page-locked, or it would not be asynchronous
    to = address_of(dest)
    put(stream.handle, lambda: np.copyto(find(to, src.nbytes), find(src.ctypes.data, src.nbytes)))


def memcpy_dtoh_async(dest, src, stream=None):
    called("download")
    address, size = dest.ctypes.data, dest.nbytes
    find(address, size)
    source = address_of(src)
    put(stream.handle, lambda: np.copyto(find(address, size), find(source, size)))


def memcpy_dtod_async(dest, src, size, stream=None):
    called("copy")
    of_type(size, int)
    to, source = address_of(dest), address_of(src)
    put(stream.handle, lambda: np.copyto(find(to, size), find(source, size)))


def memset_d32_async(dest, data, count, stream=None):
    called("fill")
    to = address_of(dest)
    of_type(data, int)
    of_type(count, int)
    if data < 0:
        raise OverflowError("can't convert negative value to unsigned int")
    put(stream.handle, lambda: find(to, 4 * count).view(np.uint32).fill(data))


class Memcpy2D:
    def set_src_device(self, address):
        self.src = address_of(address)

    def set_dst_device(self, address):
        self.dst = address_of(address)

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
        codes[host_kernels.NUMBERS] = "f" * host_kernels.NUMBERS._length_
        assert arg_types == "".join(codes[kind] for kind in host_kernels.kinds_of(self.name))
        return self

    def prepared_async_call(self, grid, block, stream, *args):
        called(self.name.partition("_")[0])
        assert block == (32, 8, 1)
        put(stream.handle, lambda: host_kernels.launch(self.name, grid, *args))


ANYWHERE = ("cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2", "cuCtxPushCurrent_v2")
DONE = ("Destroy", "Free", "Release", "Pop")  # whatever is returned


class Driver:
    """libcuda's own functions, by name as ctypes has them."""

    def __getitem__(self, name):
        def call(*args):
            if name == "cuGetErrorString":
                args[1]._obj.value = b"a fault of the test's making"
                return 0
            LOG.append(name)
            failing = STATE.fail_at is not None and len(LOG) - 1 == STATE.fail_at
            if not depth() and name not in ANYWHERE:
                raise LogicError(f"{name}: invalid device context")
            if code := STATE.refuse.get(name) or failing * INVALIDATED:
                if name == "cuStreamEndCapture":  # whatever it says, the stream is free afterwards
                    self.end(args[0])
                elif any(word in name for word in DONE):
                    getattr(self, name)(*args)
                return code
            try:
                return getattr(self, name)(*args) or 0
            except Refused as e:
                return e.code

        return call

    def cuDeviceGet(self, device, index):  # noqa: N802
        device._obj.value = index.value

    def cuDevicePrimaryCtxRetain(self, context, device):  # noqa: N802
        context._obj.value = PRIMARY
        STATE.retained += 1

    def cuDevicePrimaryCtxRelease_v2(self, device):  # noqa: N802
        STATE.retained -= 1

    def cuCtxPushCurrent_v2(self, context):  # noqa: N802
        stack("cuda").append(context.value)

    def cuCtxPopCurrent_v2(self, context):  # noqa: N802
        context._obj.value = stack("cuda").pop()

    def cuMemAlloc_v2(self, address, size):  # noqa: N802
        if spoil():
            return UNSAFE
        memory = np.full(size.value, 0x7F, np.uint8)
        MEMORY[memory.ctypes.data] = memory
        address._obj.value = memory.ctypes.data
        return 0

    def cuMemFree_v2(self, address):  # noqa: N802
        if spoil():
            return UNSAFE
        return 0 if MEMORY.pop(address.value, None) is not None else 1  # CUDA_ERROR_INVALID_VALUE

    def end(self, stream):
        queue = queue_of(stream.value)
        captured, queue.captured = queue.captured, None
        spoiled, queue.spoiled = queue.spoiled, False
        current.capturing = None
        return None if spoiled else captured

    def cuStreamBeginCapture_v2(self, stream, mode):  # noqa: N802
        assert mode.value == 1
        queue = queue_of(stream.value)
        assert queue.captured is None
        queue.captured = []
        current.capturing = queue

    def cuStreamEndCapture(self, stream, graph):  # noqa: N802
        captured = self.end(stream)
        if captured is None:
            return INVALIDATED
        graph._obj.value = next(HANDLES)
        HELD["graph"][graph._obj.value] = captured
        return 0

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
        mark = Mark()
        put(stream.value, mark)
        HELD["event"][event.value] = queue_of(stream.value), mark

    def cuStreamWaitEvent(self, stream, event, flags):  # noqa: N802
        queue, mark = HELD["event"][event.value]
        put(stream.value, lambda: queue.run(until=mark))

    def cuEventDestroy_v2(self, event):  # noqa: N802
        del HELD["event"][event.value]


def nothing_is_held():
    gc.collect()  # errors and their frames are cycles
    assert (STATE.retained, depth()) == (0, 0)
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
    STATE.retained = 0
    current.__dict__.clear()
    LEGACY.__init__()
