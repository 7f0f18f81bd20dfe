"""DLPack (dlpack.h, data-apis.org's array API): arrays on the GPU from and to other libraries, as capsules.

NumPy makes ours, since whoever takes a capsule ends it by calling C, wherever Python is then: amid an exception, even.
"""

import ctypes
from typing import Any

import numpy as np

CUDA, CUDA_MANAGED = 2, 13  # kDLCUDA, kDLCUDAManaged
UNSIGNED, FLOAT = 1, 2  # kDLUInt, kDLFloat
READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY
MAJOR = 1  # the version that we read, of any minor one
PLAIN, VERSIONED = b"dltensor", b"dltensor_versioned"


class DLTensor(ctypes.Structure):
    """DLTensor, with which a DLManagedTensor begins."""

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
    """DLManagedTensorVersioned, since 1.0."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    )


def capsule_of(array: Any, stream: int) -> Any:
    """Another library's capsule, of 1.0 where it knows that: there for what comes on a stream from now on."""
    try:
        return array.__dlpack__(stream=stream, max_version=(MAJOR, 0))
    except TypeError:  # of before 1.0
        return array.__dlpack__(stream=stream)


def look_into(capsule: Any) -> tuple[DLTensor, bool]:
    """What a capsule holds, valid as long as that lives, and whether it must not be written."""
    if is_valid(capsule, VERSIONED):
        managed = Versioned.from_address(pointer_of(capsule, VERSIONED))
        if managed.major != MAJOR:
            raise BufferError(f"its DLPack capsule is of version {managed.major}.{managed.minor}, not {MAJOR}")
        return managed.tensor, bool(managed.flags & READ_ONLY)
    return DLTensor.from_address(pointer_of(capsule, PLAIN)), False


def lend(owner: object, interface: dict[str, Any], max_version: tuple[int, int] | None) -> Any:
    """A capsule for memory of the GPU that is described as a `__cuda_array_interface__`; its owner lives as long."""
    host: Any = np.asarray(PassedOff(owner, interface))
    knows = np.lib.NumpyVersion(np.__version__) >= "2.1.0"  # versions; before it a plain capsule must do
    capsule = host.__dlpack__(max_version=max_version) if max_version and knows else host.__dlpack__()
    tensor, _ = look_into(capsule)
    tensor.device_type, tensor.device_id = CUDA, 0
    return capsule


class PassedOff:
    """Memory of the GPU passed off as the host's: NumPy reads none of it."""

    def __init__(self, owner: object, interface: dict[str, Any]) -> None:
        self.owner = owner
        self.__array_interface__ = {**interface, "version": 3}


def function(name: str, result: Any) -> Any:
    """One of CPython's, that looks into a capsule by name."""
    found = ctypes.pythonapi[name]
    found.restype, found.argtypes = result, (ctypes.py_object, ctypes.c_char_p)
    return found


is_valid = function("PyCapsule_IsValid", ctypes.c_int)
pointer_of = function("PyCapsule_GetPointer", ctypes.c_void_p)
