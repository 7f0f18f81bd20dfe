"""DLPack capsules (dlpack.h, data-apis.org's array API): exchange arrays on the GPU with other libraries.

NumPy makes our capsules, because the consumer may call a capsule's deleter at any moment, even while Python handles an
exception. So the deleter must be C.
"""

import ctypes
from typing import Any

import numpy as np

CUDA, CUDA_MANAGED = 2, 13  # kDLCUDA, kDLCUDAManaged
UNSIGNED, FLOAT = 1, 2  # kDLUInt, kDLFloat
READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY
MAJOR = 1  # the version that we read, with any minor version
PLAIN, VERSIONED = b"dltensor", b"dltensor_versioned"


class DLTensor(ctypes.Structure):
    """DLTensor, the beginning of a DLManagedTensor."""

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


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned, of DLPack 1.0 and newer."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    )


def capsule_of(array: Any, stream: int) -> Any:
    """Another library's capsule, of DLPack 1.0 if the library supports it. Later work on the stream may read it."""
    try:
        return array.__dlpack__(stream=stream, max_version=(MAJOR, 0))
    except TypeError:  # a library older than 1.0
        return array.__dlpack__(stream=stream)


def tensor_of(capsule: Any) -> tuple[DLTensor, bool]:
    """A capsule's tensor, valid while the capsule lives, and whether it is read-only."""
    if is_valid(capsule, VERSIONED):
        managed = Versioned.from_address(pointer_of(capsule, VERSIONED))
        if managed.major != MAJOR:
            raise BufferError(f"its DLPack capsule is of version {managed.major}.{managed.minor}, not {MAJOR}")
        return managed.tensor, bool(managed.flags & READ_ONLY)
    return DLTensor.from_address(pointer_of(capsule, PLAIN)), False


def lend(owner: object, interface: dict[str, Any], max_version: tuple[int, int] | None) -> Any:
    """A capsule for GPU memory described by a `__cuda_array_interface__`. It keeps the owner alive."""
    disguised: Any = np.asarray(Disguised(owner, interface))
    versioned = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # older NumPy only makes plain capsules
    capsule = disguised.__dlpack__(max_version=max_version) if max_version and versioned else disguised.__dlpack__()
    tensor, _ = tensor_of(capsule)
    tensor.device_type, tensor.device_id = CUDA, 0
    return capsule


class Disguised:
    """GPU memory that NumPy takes for host memory. NumPy makes the capsule without reading the memory."""

    def __init__(self, owner: object, interface: dict[str, Any]) -> None:
        self.owner = owner
        self.__array_interface__ = {**interface, "version": 3}


def capsule_function(name: str, result: Any) -> Any:
    """A C function of CPython that takes a capsule and its name."""
    function = ctypes.pythonapi[name]
    function.restype, function.argtypes = result, (ctypes.py_object, ctypes.c_char_p)
    return function


is_valid = capsule_function("PyCapsule_IsValid", ctypes.c_int)
pointer_of = capsule_function("PyCapsule_GetPointer", ctypes.c_void_p)
