"""CUDA graphs and the order of streams, which pycuda lacks. They call NVIDIA's driver through ctypes.

A stream is the driver's handle as an integer: `pycuda.driver.Stream.handle`, or another library's.
"""

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlink.trt_runtime.nvidia_driver import call, destroy

LEGACY = 1  # CU_STREAM_LEGACY in cuda.h: the default stream; handle 0 means it too
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, a stream's flag: the stream and LEGACY do not wait for each other
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: calls of other threads do not end a capture
NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


class CudaGraph:
    """Work captured from a stream, which can be launched again as a whole."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self.executable = executable

    def launch(self, stream: int) -> None:
        call("cuGraphLaunch", self.executable, ctypes.c_void_p(stream))

    def close(self) -> None:
        destroy("cuGraphExecDestroy", self.executable)


def capture(stream: int, enqueue: Callable[[], None]) -> CudaGraph:
    """Capture what `enqueue` puts on a stream, without running it. DriverError where it can't be captured."""
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    try:
        with collector_paused():
            call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(THREAD_LOCAL))
            try:
                enqueue()
            finally:  # a stream must not stay in capture
                call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    finally:
        if graph.value:
            destroy("cuGraphDestroy", graph)
    return CudaGraph(executable)


class Pause:
    """The number of captures under way, and whether the collector was on before them."""

    lock = threading.Lock()
    captures = 0
    collecting = False


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's garbage collector, so that it frees no GPU memory during a capture.

    A free on the capturing thread would fail and end the capture (cuThreadExchangeStreamCaptureMode in cuda.h), and
    pycuda does not try it again. Frees by name on other threads go on.
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
    """Make one stream wait for what is now on another one. The host does not wait."""
    event = ctypes.c_void_p()
    call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(NO_TIMING))
    try:
        call("cuEventRecord", event, ctypes.c_void_p(earlier))
        call("cuStreamWaitEvent", ctypes.c_void_p(later), event, ctypes.c_uint(0))
    finally:
        destroy("cuEventDestroy_v2", event)
