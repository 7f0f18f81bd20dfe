"""Arrays on the GPU: reads other libraries' arrays in place, and gives results as such arrays.

Both directions support `__cuda_array_interface__` (Numba's; reads versions 2 and 3, gives 3) and DLPack. CuPy and
PyTorch take and give both without a copy.
"""

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycuda.driver as cuda

from dlink.runtime.backend import OutputForm
from dlink.runtime.errors import BadInput
from dlink.runtime.spec import COLOURS
from dlink.trt_runtime import dlpack
from dlink.trt_runtime.cuda_graphs import LEGACY, follow
from dlink.trt_runtime.nvidia_driver import DriverError, call
from dlink.trt_runtime.primary_context import current, release, retain

DTYPES = {(dlpack.UNSIGNED, 8): "|u1", (dlpack.FLOAT, 32): "<f4"}


class DeviceMemory:
    """GPU memory that may outlive its model. It is freed with its last user, on any thread."""

    def __init__(self, size: int) -> None:
        self.context, self.pid, self.address = retain(), os.getpid(), ctypes.c_uint64()
        with current(self.context):
            call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(size))

    def __del__(self) -> None:
        if not hasattr(self, "address") or os.getpid() != self.pid:
            return
        with suppress(DriverError), current(self.context):  # after a GPU error freeing fails too
            if self.address:
                call("cuMemFree_v2", self.address)
        with suppress(DriverError):
            release()


@dataclass
class DeviceArray:
    """uint8 or float32 (H, W), or uint8 (H, W, C), on the GPU. Rows may be padded."""

    pointer: int
    shape: tuple[int, ...]
    typestr: str
    pitch: int  # bytes from row to row
    owner: object = None  # keeps the memory alive
    stream: int | None = None  # a reader must wait for this stream; None: the work is done, or the array names none
    read_only: bool = False

    @property
    def itemsize(self) -> int:
        return np.dtype(self.typestr).itemsize

    @property
    def pixel(self) -> int:
        """Bytes of a pixel."""
        return self.itemsize * int(np.prod(self.shape[2:]))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = (self.pitch, self.pixel, *[self.itemsize] * (len(self.shape) - 2))
        return {
            "version": 3, "shape": self.shape, "typestr": self.typestr, "data": (self.pointer, False),
            "strides": None if self.pitch == self.shape[1] * self.pixel else strides, "stream": self.stream,
        }  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(
        self, *, stream: int | None = None, max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None, copy: bool | None = None,
    ) -> Any:  # fmt: skip
        """A capsule, as the array API defines it. Later work on `stream` waits for the work on the array."""
        if copy or tuple(dl_device or self.__dlpack_device__()) != self.__dlpack_device__():
            raise BufferError("roads on the GPU are given in place, without a copy")
        if self.stream is not None and stream != -1:
            context = retain()
            try:
                with current(context):
                    follow(stream or LEGACY, self.stream)
            finally:
                release()
        return dlpack.lend(self, self.__cuda_array_interface__, max_version)


def new_array(shape: tuple[int, int], form: OutputForm) -> DeviceArray:
    typestr = typestr_of(form)
    pitch = shape[1] * np.dtype(typestr).itemsize
    memory = DeviceMemory(shape[0] * pitch)
    return DeviceArray(memory.address.value, shape, typestr, pitch, memory)


def typestr_of(form: OutputForm) -> str:
    return "<f4" if form == "probability" else "|u1"


def number_of(stream: Any) -> int | None:
    """A stream's handle for the driver. The default stream is 0 in CUDA's runtime API and 1 in the array interfaces."""
    if stream is None:
        return None
    if isinstance(stream, bool) or not isinstance(stream, int) or stream < 0:
        raise BadInput(
            f"stream must be a CUDA handle as an integer (PyTorch's stream.cuda_stream, CuPy's stream.ptr), "
            f"got {stream!r}"
        )
    return stream or LEGACY


def read_array(
    array: Any, what: str, stream: int, form: OutputForm = "mask", shape: tuple[int, ...] | None = None,
    bands: tuple[str, ...] = (),
) -> DeviceArray:  # fmt: skip
    """Another library's array on the GPU. It must have the type of `form`, and `shape`, or else a plane for each band.

    stream: the order in which the array is read if it names no stream itself.
    """
    if (interface := getattr(array, "__cuda_array_interface__", None)) is not None:
        pointer, read_only = interface["data"]
        own = number_of(interface.get("stream"))
        wrapped = DeviceArray(
            pointer, tuple(interface["shape"]), interface["typestr"], 0, array, own or stream, read_only
        )
        strides = interface.get("strides")
    elif hasattr(array, "__dlpack__"):
        wrapped, strides = read_dlpack(array, what, stream)
    else:
        raise BadInput(
            f"{what} must be on the GPU and have __cuda_array_interface__ or __dlpack__, got {type(array).__name__}; "
            f"mask() takes arrays in the host's memory"
        )
    typestr = typestr_of(form)
    axes, fits = (len(shape), wrapped.shape == shape) if shape else (3, wrapped.shape[2:] == (len(bands),))
    if wrapped.typestr != typestr or len(wrapped.shape) != axes or not fits or 0 in wrapped.shape:
        wanted = f"{np.dtype(typestr)} {shape or form_of(bands)}"
        raise BadInput(f"{what} must be {wanted}, got {np.dtype(wrapped.typestr)} {wrapped.shape}")
    dense = (wrapped.pixel, *[wrapped.itemsize] * (axes - 2))
    wrapped.pitch = strides[0] if strides else wrapped.shape[1] * wrapped.pixel
    if strides and (tuple(strides[1:]) != dense or wrapped.pitch < wrapped.shape[1] * wrapped.pixel):
        raise BadInput(f"{what} must have its pixels side by side, got strides {tuple(strides)}; make it contiguous")
    return wrapped


def form_of(bands: tuple[str, ...]) -> str:
    """An image's shape in words."""
    return "(H, W, 3) RGB" if bands == COLOURS else f"(H, W, {len(bands)}) of {', '.join(bands)}"


def read_dlpack(array: Any, what: str, stream: int) -> tuple[DeviceArray, tuple[int, ...] | None]:
    """An array and its strides in bytes (None: dense). The producer makes the stream wait for its own work."""
    kind, number = array.__dlpack_device__()
    if kind not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        raise BadInput(
            f"{what} must be on the GPU, its DLPack device is {int(kind)}; mask() takes arrays in the host's memory"
        )
    if number:
        raise BadInput(f"{what} is on GPU {number}, and the model on GPU 0; copy it there")
    try:
        capsule = dlpack.capsule_of(array, stream)
        tensor, read_only = dlpack.tensor_of(capsule)
    except BufferError as e:  # the producer's own, or an unknown version
        raise BadInput(f"{what}: {e}") from e
    typestr = DTYPES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if typestr is None:
        raise BadInput(f"{what} must be uint8 or float32, got DLPack type {tensor.code} of {tensor.bits} bits")
    size = tensor.bits // 8
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(n * size for n in tensor.strides[: tensor.ndim]) if tensor.strides else None
    return DeviceArray(tensor.data + tensor.offset, shape, typestr, 0, capsule, stream, read_only), strides


def copy(
    source: DeviceArray, where: tuple[slice, slice], target: DeviceArray, corner: tuple[int, int], stream: Any
) -> None:
    """Copy a rectangle (rows, columns) of one array to a corner (row, column) of another, on a stream."""
    rows, cols = where
    copier = cuda.Memcpy2D()
    copier.set_src_device(source.pointer + rows.start * source.pitch + cols.start * source.pixel)
    copier.src_pitch = source.pitch
    copier.set_dst_device(target.pointer + corner[0] * target.pitch + corner[1] * target.pixel)
    copier.dst_pitch = target.pitch
    copier.width_in_bytes, copier.height = (cols.stop - cols.start) * source.pixel, rows.stop - rows.start
    copier(stream)
