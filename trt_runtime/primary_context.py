"""CUDA's primary context of the first GPU, the one that PyTorch and OpenCV use too: retained, current, released.

What pycuda makes (memory, streams, kernels) wants pycuda's own Context, which `detach` does not let go of: on another
thread than the one that retained it nothing is released, and wherever it is, CUDA's stack keeps an entry that pycuda no
longer knows (pycuda 2026.1, src/cpp/cuda.hpp; cuDevicePrimaryCtxRelease "does not pop the context from stack in any
circumstances", cuda.h). What Python's garbage collector frees, on any thread and amid anyone's work, does without.
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
    """The context, which lives until it is released as often."""
    context = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device())
    return context


def release() -> None:
    call("cuDevicePrimaryCtxRelease_v2", device())


@contextmanager
def current(context: ctypes.c_void_p) -> Iterator[None]:
    """A retained context on this thread, above whatever is there."""
    call("cuCtxPushCurrent_v2", context)
    try:
        yield
    finally:
        pop()


def pop() -> ctypes.c_void_p:
    """Take the uppermost context from this thread's stack."""
    context = ctypes.c_void_p()
    call("cuCtxPopCurrent_v2", ctypes.byref(context))
    return context


@contextmanager
def pycudas() -> Iterator[None]:
    """The context as pycuda's own on this thread, for what it makes in the meantime."""
    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        yield
    finally:
        cuda.Context.pop()
        let_go(context)


def let_go(context: Any) -> None:
    """Release a pycuda Context that was retained, from any thread, and leave the thread's stack as it was."""
    context.push()  # `detach` releases what is uppermost, whatever the thread
    context.detach()
    if cuda.Context.get_current() is None:
        pop()
        return
    below = pop()  # pycuda has pushed it again, above what it left
    pop()
    call("cuCtxPushCurrent_v2", below)
