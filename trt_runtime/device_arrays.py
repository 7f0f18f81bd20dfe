"""Arrays that are on the GPU already: read where they lie, whoever's they are, and our results as such.

In: `__cuda_array_interface__` (Numba's, versions 2 and 3; CuPy and PyTorch have it) or DLPack. Out: the former, which
`torch.as_tensor` and `cupy.asarray` take without a copy.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycuda.driver as cuda

from dlink.trt_runtime.backend import Form
from dlink.trt_runtime.errors import BadInput

ON_GPU = (2, 13)  # kDLCUDA and kDLCUDAManaged in dlpack.h
UNSIGNED, FLOAT = 1, 2  # kDLUInt and kDLFloat


class Memory:
    """Memory of the GPU that outlives the model it came from: freed with its last user, on whatever thread that is."""

    def __init__(self, size: int) -> None:
        self.gpu = cuda.Device(0).retain_primary_context()
        try:
            with self.current():
                memory = cuda.mem_alloc(size)
        except BaseException:
            self.gpu.detach()
            raise
        self.memory = memory

    @contextmanager
    def current(self) -> Iterator[None]:
        self.gpu.push()
        try:
            yield
        finally:
            cuda.Context.pop()

    def __del__(self) -> None:
        if not hasattr(self, "memory"):
            return
        with suppress(cuda.Error):  # a GPU that has failed takes nothing back
            with self.current():
                self.memory.free()
            self.gpu.detach()


@dataclass
class DeviceArray:
    """uint8 or float32 (H, W) or uint8 (H, W, 3) on the GPU; lines may be further apart than they are long."""

    pointer: int
    shape: tuple[int, ...]
    typestr: str
    pitch: int  # bytes from line to line
    owner: object = None  # what keeps the memory
    stream: int | None = None  # whose work must be waited for before it is read; None: done

    @property
    def itemsize(self) -> int:
        return np.dtype(self.typestr).itemsize

    @property
    def pixel(self) -> int:
        """Bytes."""
        return self.itemsize * int(np.prod(self.shape[2:]))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = (self.pitch, self.pixel, *[self.itemsize] * (len(self.shape) - 2))
        return {
            "version": 3, "shape": self.shape, "typestr": self.typestr, "data": (self.pointer, False),
            "strides": None if self.pitch == self.shape[1] * self.pixel else strides, "stream": self.stream,
        }  # fmt: skip


def new_array(shape: tuple[int, int], form: Form) -> DeviceArray:
    typestr = typestr_of(form)
    pitch = shape[1] * np.dtype(typestr).itemsize
    memory = Memory(shape[0] * pitch)
    return DeviceArray(int(memory.memory), shape, typestr, pitch, memory)


def typestr_of(form: Form) -> str:
    return "<f4" if form == "probability" else "|u1"


def read_array(
    array: Any, what: str, axes: int, form: Form = "mask", shape: tuple[int, ...] | None = None
) -> DeviceArray:
    """An array on the GPU as ours, of the type of `form` and of a shape, or else of three channels."""
    if (said := getattr(array, "__cuda_array_interface__", None)) is not None:
        found = DeviceArray(said["data"][0], tuple(said["shape"]), said["typestr"], 0, array, said.get("stream"))
        strides = said.get("strides")
    elif hasattr(array, "__dlpack__"):
        found, strides = read_dlpack(array, what)
    else:
        raise BadInput(
            f"{what} must be on the GPU and have __cuda_array_interface__ or __dlpack__, got {type(array).__name__}; "
            f"mask() takes arrays of the host"
        )
    typestr = typestr_of(form)
    fits = found.shape == shape if shape else found.shape[2:] == (3,)
    if found.typestr != typestr or len(found.shape) != axes or not fits or 0 in found.shape:
        wanted = f"{np.dtype(typestr)} {shape or '(H, W, 3) RGB'}"
        raise BadInput(f"{what} must be {wanted}, got {np.dtype(found.typestr)} {found.shape}")
    dense = (found.pixel, *[found.itemsize] * (axes - 2))
    found.pitch = strides[0] if strides else found.shape[1] * found.pixel
    if strides and (tuple(strides[1:]) != dense or found.pitch < found.shape[1] * found.pixel):
        raise BadInput(f"{what} must have its pixels side by side, got strides {tuple(strides)}; make it contiguous")
    return found


def read_dlpack(array: Any, what: str) -> tuple[DeviceArray, tuple[int, ...] | None]:
    """An array and its strides in bytes; None where it is dense. Its producer waits for its own work first."""
    kind, _ = array.__dlpack_device__()
    if kind not in ON_GPU:
        raise BadInput(f"{what} must be on the GPU, its DLPack device is {int(kind)}; mask() takes arrays of the host")
    capsule = array.__dlpack__(stream=1)  # of the default stream's order, which we wait for
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = Tensor.from_address(pointer(capsule, b"dltensor"))
    kinds = {(UNSIGNED, 8): "|u1", (FLOAT, 32): "<f4"}
    typestr = kinds.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if typestr is None:
        raise BadInput(f"{what} must be uint8 or float32, got DLPack type {tensor.code} of {tensor.bits} bits")
    size = tensor.bits // 8
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(n * size for n in tensor.strides[: tensor.ndim]) if tensor.strides else None
    return DeviceArray(tensor.data + tensor.offset, shape, typestr, 0, capsule, 1), strides


class Tensor(ctypes.Structure):
    """DLTensor of dlpack.h, with which a DLManagedTensor begins."""

    _fields_ = (
        ("data", ctypes.c_size_t),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


def copy(
    source: DeviceArray, where: tuple[slice, slice], target: DeviceArray, corner: tuple[int, int], stream: Any
) -> None:
    """Put a rectangle (rows, columns) of one array into another from a corner on, in a stream's order."""
    rows, cols = where
    made = cuda.Memcpy2D()
    made.set_src_device(source.pointer + rows.start * source.pitch + cols.start * source.pixel)
    made.src_pitch = source.pitch
    made.set_dst_device(target.pointer + corner[0] * target.pitch + corner[1] * target.pixel)
    made.dst_pitch = target.pitch
    made.width_in_bytes, made.height = (cols.stop - cols.start) * source.pixel, rows.stop - rows.start
    made(stream)
