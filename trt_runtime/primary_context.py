"""CUDA's primary context of the first GPU, which PyTorch and OpenCV use too: retain it, make it current, release it.

What pycuda makes (memory, streams, kernels) needs pycuda's own Context, and its `detach` has two faults. On another
thread than the one that retained the context it releases nothing. And CUDA's stack of contexts keeps an entry that
pycuda has forgotten (pycuda 2026.1, src/cpp/cuda.hpp; cuDevicePrimaryCtxRelease "does not pop the context from stack in
any circumstances", cuda.h). `release_pycudas` undoes both. Memory that Python's garbage collector frees, on any thread
and at any time, does not use pycuda.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pycuda.driver as cuda

from dlink.trt_runtime.nvidia_driver import call


def device() -> ctypes.c_int:
    found = ctypes.c_int()
    call("cuDeviceGet", ctypes.byref(found), ctypes.c_int(0))
    return found


def retain() -> ctypes.c_void_p:
    """The context. It lives until it is released as often as it was retained."""
    context = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device())
    return context


def release() -> None:
    call("cuDevicePrimaryCtxRelease_v2", device())


@contextmanager
def current(context: ctypes.c_void_p) -> Iterator[None]:
    """Make a retained context current on this thread for the block."""
    call("cuCtxPushCurrent_v2", context)
    try:
        yield
    finally:
        pop()


def pop() -> ctypes.c_void_p:
    """Pop the topmost context of this thread's stack."""
    context = ctypes.c_void_p()
    call("cuCtxPopCurrent_v2", ctypes.byref(context))
    return context


@contextmanager
def pycudas() -> Iterator[None]:
    """Make the context current as pycuda's own Context, so that pycuda can make things in the block."""
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        yield
    finally:
        cuda.Context.pop()
        release_pycudas(context)


def release_pycudas(context: Any) -> None:
    """Release a retained pycuda Context from any thread, and leave the thread's stack as it was."""
    context.push()  # `detach` releases the topmost context on any thread
    context.detach()
    if cuda.Context.get_current() is None:
        pop()
        return
    below = pop()  # `detach` has pushed it again, above the entry that it left behind
    pop()
    call("cuCtxPushCurrent_v2", below)
