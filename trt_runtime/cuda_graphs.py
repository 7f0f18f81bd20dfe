"""CUDA graphs and the order of streams, which pycuda lacks: NVIDIA's driver asked through ctypes.

Streams are the driver's handles as numbers, `pycuda.driver.Stream.handle` or what another library says.
"""

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlink.trt_runtime.nvidia_driver import call, end

LEGACY = 1  # CU_STREAM_LEGACY in cuda.h: the default stream of whoever names none; 0 is the same
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, a flag of a stream: it and LEGACY do not wait for each other
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do does not end a capture
NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


class CudaGraph:
    """Work that was captured from a stream, to be launched again as one."""

    def __init__(self, made: ctypes.c_void_p) -> None:
        self.made = made

    def launch(self, stream: int) -> None:
        call("cuGraphLaunch", self.made, ctypes.c_void_p(stream))

    def close(self) -> None:
        end("cuGraphExecDestroy", self.made)


def capture(stream: int, enqueue: Callable[[], None]) -> CudaGraph:
    """What `enqueue` puts on a stream, as a graph and not run; DriverError where that can't be captured."""
    graph, made = ctypes.c_void_p(), ctypes.c_void_p()
    try:
        with uncollected():
            call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(THREAD_LOCAL))
            try:
                enqueue()
            finally:  # a stream must not stay in capture
                call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_ulonglong(0))
    finally:
        if graph.value:
            end("cuGraphDestroy", graph)
    return CudaGraph(made)


class Pause:
    """How many captures are under way, and whether garbage was collected before."""

    lock = threading.Lock()
    captures = 0
    collecting = False


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's garbage collector, which would free someone's memory of the GPU amid a capture.

    The thread that captures must not (cuThreadExchangeStreamCaptureMode in cuda.h): it would spoil the capture, and
    pycuda does not try again. Other threads free as ever.
    """
    with Pause.lock:
        Pause.captures += 1
        if Pause.captures == 1:
            Pause.collecting = gc.isenabled()
            gc.disable()
    try:
        yield
    finally:
        with Pause.lock:
            Pause.captures -= 1
            if not Pause.captures and Pause.collecting:
                gc.enable()


def follow(later: int, earlier: int) -> None:
    """Let a stream wait for what is on another one now; nothing waits on the host."""
    event = ctypes.c_void_p()
    call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(NO_TIMING))
    try:
        call("cuEventRecord", event, ctypes.c_void_p(earlier))
        call("cuStreamWaitEvent", ctypes.c_void_p(later), event, ctypes.c_uint(0))
    finally:
        end("cuEventDestroy_v2", event)
