"""CUDA graphs and foreign streams, which pycuda lacks: NVIDIA's driver asked through ctypes.

Streams are the driver's handles as numbers, `pycuda.driver.Stream.handle` or what another library says; 1 and 2 are
its two default streams (CU_STREAM_LEGACY and CU_STREAM_PER_THREAD in cuda.h).
"""

import ctypes
from collections.abc import Callable
from functools import cache

from dlink.trt_runtime.cuda import LIBRARY, ask

THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do does not end a capture
NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING


@cache
def driver() -> ctypes.CDLL:
    return ctypes.CDLL(LIBRARY)


class Graph:
    """Work that was captured from a stream, to be launched again as one."""

    def __init__(self, made: ctypes.c_void_p) -> None:
        self.made = made

    def launch(self, stream: int) -> None:
        ask(driver(), "cuGraphLaunch", self.made, ctypes.c_void_p(stream))

    def close(self) -> None:
        driver()["cuGraphExecDestroy"](self.made)  # it is gone whatever is returned


def capture(stream: int, enqueue: Callable[[], None]) -> Graph:
    """What `enqueue` puts on a stream, as a graph and not run; DriverError where that can't be captured."""
    graph, made = ctypes.c_void_p(), ctypes.c_void_p()
    ask(driver(), "cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(THREAD_LOCAL))
    try:
        try:
            enqueue()
        finally:  # a stream must not stay in capture
            ask(driver(), "cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        ask(driver(), "cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_ulonglong(0))
    finally:
        if graph.value:
            driver()["cuGraphDestroy"](graph)
    return Graph(made)


def follow(later: int, earlier: int) -> None:
    """Let a stream wait for what is on another one now; nothing waits on the host."""
    event = ctypes.c_void_p()
    ask(driver(), "cuEventCreate", ctypes.byref(event), ctypes.c_uint(NO_TIMING))
    try:
        ask(driver(), "cuEventRecord", event, ctypes.c_void_p(earlier))
        ask(driver(), "cuStreamWaitEvent", ctypes.c_void_p(later), event, ctypes.c_uint(0))
    finally:
        driver()["cuEventDestroy_v2"](event)
