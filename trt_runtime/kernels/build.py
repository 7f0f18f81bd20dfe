"""Builds kernels.ptx from kernels.cu by NVRTC, without a GPU or a CUDA toolkit. Needed only to change the kernels.

    pip install nvidia-cuda-nvrtc-cu12==12.6.85
    python -m dlink.trt_runtime.kernels.build

The PTX names ISA 7.4 and uses nothing newer, so drivers from CUDA 11.4 on accept it, for compute capability 7.0 and
newer. The tests check this with ptxas for each architecture. The machine that runs the kernels needs no compiler.
"""

import ctypes
import hashlib
import re
import sys
from importlib import metadata
from pathlib import Path

from dlink.runtime.errors import DlinkError, NoEngine
from dlink.runtime.files import replacing

SOURCE = Path(__file__).with_name("kernels.cu")
PTX = SOURCE.with_suffix(".ptx")
COMPILER = "nvidia-cuda-nvrtc-cu12"
VERSION = "12.6.85"
LIBRARY = "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
ISA = "7.4"
OPTIONS = ("--gpu-architecture=compute_70", "--fmad=false", "--std=c++17", "--restrict")


def main() -> None:
    try:
        text = build(SOURCE.read_text())
    except DlinkError as e:
        sys.exit(f"Error: {e}")
    with replacing(PTX) as path:
        path.write_text(text)


def build(source: str) -> str:
    """The PTX of a source, with the source's hash in its first line."""
    ptx = re.sub(r"^\.version \d+\.\d+$", f".version {ISA}", compile(source), count=1, flags=re.MULTILINE)
    body = ptx[ptx.index(".version") :].rstrip("\0")
    return f"// kernels.cu {digest(source)}, NVRTC {VERSION} {' '.join(OPTIONS)}\n{body}"


def digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


def compile(source: str) -> str:
    """The PTX that NVRTC writes. Its log is in the error where it refuses."""
    nvrtc = library()
    program = ctypes.c_void_p()
    check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
    try:
        options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
        if nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options):
            raise DlinkError(f"NVRTC does not compile {SOURCE.name}: {text(nvrtc, 'ProgramLog', program)}")
        return text(nvrtc, "PTX", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def library() -> ctypes.CDLL:
    """NVRTC, in the one version that the PTX is built with."""
    try:
        installed = metadata.version(COMPILER)
    except metadata.PackageNotFoundError:
        installed = "none"
    if installed != VERSION:
        raise NoEngine(f"this needs NVRTC {VERSION}, here is {installed}: pip install {COMPILER}=={VERSION}")
    return ctypes.CDLL(str(metadata.distribution(COMPILER).locate_file(LIBRARY)))


def text(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    check(nvrtc, nvrtc[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    check(nvrtc, nvrtc[f"nvrtcGet{what}"](program, data))
    return data.value.decode()


def check(nvrtc: ctypes.CDLL, code: int) -> None:
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise DlinkError(f"NVRTC: {nvrtc.nvrtcGetErrorString(code).decode()}")


if __name__ == "__main__":
    main()
