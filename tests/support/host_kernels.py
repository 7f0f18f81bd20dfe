"""trt_runtime/kernels/kernels.cu compiled for this machine's CPU, to be launched on memory of the host."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "trt_runtime" / "kernels" / "kernels.cu"
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wno-unused-parameter")
ONE_AT_A_TIME = threading.Lock()  # the shim's threads and indices are its own, not a caller's
INTEGER, FLOAT, POINTER = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
SPREAD = (POINTER, POINTER, INTEGER, ctypes.c_uint, INTEGER, *[FLOAT] * 6)
NUMBERS = FLOAT * 16
SPREAD_BANDS = (POINTER, POINTER, INTEGER, ctypes.c_uint, INTEGER, INTEGER, NUMBERS)
GATHER = (POINTER, POINTER, INTEGER, ctypes.c_uint, INTEGER, INTEGER, FLOAT, *[POINTER] * 4)


@cache
def compiled(source: str) -> ctypes.CDLL:
    """A text of kernels.cu as a library, kept in build/; skips the test where there is no g++ that knows float16."""
    shim = (ROOT / "tests" / "support" / "kernels_host.cpp").read_text()
    kept = ROOT / "build" / f"kernels-{hashlib.sha256(repr((source, shim, FLAGS)).encode()).hexdigest()[:16]}.so"
    if kept.exists():
        return ctypes.CDLL(str(kept))
    if not shutil.which("g++"):
        pytest.skip("needs g++: apt-get install g++")
    with tempfile.TemporaryDirectory() as folder:
        kernels, library = Path(folder, "kernels.cu"), Path(folder, "kernels.so")
        kernels.write_text(source)
        command = [
            "g++",
            *FLAGS,
            f'-DKERNELS="{kernels}"',
            str(ROOT / "tests" / "support" / "kernels_host.cpp"),
            "-o",
            str(library),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if "_Float16" in done.stderr:
            pytest.skip("needs g++: one that knows _Float16 (12 on x86)")
        assert done.returncode == 0, done.stderr
        kept.parent.mkdir(exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        shutil.copy(library, part)
        part.replace(kept)
        return ctypes.CDLL(str(kept))


def kinds_of(name):
    """The types of a kernel's arguments."""
    return SPREAD_BANDS if name.startswith("spread_bands") else SPREAD if name.startswith("spread") else GATHER


def launch(name, grid, *arguments, source=None):
    """Run a kernel as cuLaunchKernel would; pointers are addresses, 0 for none; a struct is given as its numbers."""
    library = compiled(source or SOURCE.read_text())
    kinds = kinds_of(name)
    if kinds[-1] is NUMBERS:
        arguments = (*arguments[: len(kinds) - 1], tuple(arguments[len(kinds) - 1 :]))
    values = [kind(*a) if kind is NUMBERS else kind(a) for kind, a in zip(kinds, arguments, strict=True)]
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
    with ONE_AT_A_TIME:
        library[f"launch_{name}"]((ctypes.c_uint * 3)(*grid), addresses)
