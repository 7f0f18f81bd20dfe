"""Finds which of dlink's libraries and devices this machine has, and the command that gets a missing one.

No library is imported here, because some end the process if they find no GPU. Versions are those of the installed
distributions. Three libraries that often do not load are imported in a process of their own. NVIDIA's driver is asked
through ctypes.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from dlink.doctor.extras import NEEDS, Need, how_to_get
from dlink.doctor.machine import Machine
from dlink.runtime.versions import version_numbers
from dlink.trt_runtime.nvidia_driver import LIBRARY

State: TypeAlias = Literal["found", "missing", "too old", "too new", "broken"]
Versions: TypeAlias = Callable[[str], str | None]  # of a distribution; None if it is not installed
Tries: TypeAlias = "Callable[[str], Tried]"  # imports a module

PYTHONS = ((3, 10), (3, 13))  # the oldest and newest that dlink is tested with
TRY_FOR = 20.0  # seconds for one import; a cold disk of a small computer needs several
JETPACK = "sudo apt install nvidia-jetpack (a virtualenv sees it if made with --system-site-packages)"
OLD_JETPACK = (
    "dlink runs plans from JetPack 6 on: TensorRT of this JetPack is for Python 3.8; docs/jetson.md says what runs here"
)
JETSON_LINES = " (docs/jetson.md has all commands in order)"
JETPACK_6 = 36  # of Jetson Linux
ARRAYS = (10, 16)  # the first TensorRT whose NumPy 2 arrays are right: tests/support/tensorrt_arrays.json

PACKAGE_OF = {  # shared libraries that an import may lack -> their Debian or Ubuntu packages
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
}


@dataclass(frozen=True)
class Tried:
    """The result of an import in a process of its own."""

    version: str = ""  # the module's version, if it has one
    fault: str = ""  # one line; empty if the module imports


@dataclass(frozen=True)
class Component:
    """A library or device that dlink can use: whether it is here, and what to do if it is not."""

    name: str
    state: State
    version: str
    use: str
    fault: str = ""
    mend: str = ""


def attempt(module: str) -> Tried:
    """Import a module in a process of its own, which may crash. A file of that name in this folder is ignored."""
    top = module.partition(".")[0]
    code = (  # OpenVINO without its telemetry, as in quiet_openvino.py
        f"import sys; sys.path[:] = filter(None, sys.path); sys.modules['openvino_telemetry'] = None; import {module}; "
        f"print(getattr(sys.modules[{top!r}], '__version__', ''))"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TRY_FOR)
    except subprocess.TimeoutExpired:
        return Tried(fault=f"not imported after {TRY_FOR:g} s")
    if done.returncode < 0:
        return Tried(fault=f"importing it ends the process with signal {-done.returncode}")
    lines = [line.strip() for line in (done.stderr if done.returncode else done.stdout).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return Tried(fault=last or f"importing it exits with {done.returncode}") if done.returncode else Tried(version=last)


def components(machine: Machine, versions: Versions, tried: Tries) -> list[Component]:
    """A row for everything that dlink can use on this machine."""
    rows = [python_row(machine), *(library_row(need, machine, versions, tried) for need in NEEDS)]
    by_name = {row.name: row for row in rows}
    if fault := wrong_arrays(by_name["TensorRT"].version, by_name["numpy"].version):
        row = replace(by_name["numpy"], fault=fault, mend="for your own programs that do: pip install 'numpy<2'")
        rows = [row if r.name == "numpy" else r for r in rows]
    return rows + gpu_rows(machine)


def wrong_arrays(tensorrt: str, numpy: str) -> str:
    """The fault of TensorRT's bindings with NumPy 2: wrong arrays without an error. Empty if they have no such fault.

    dlink is not affected: it passes addresses as numbers, shapes as tuples and files as bytes, and asks TensorRT for no
    array.
    """
    if not tensorrt or version_numbers(tensorrt) >= ARRAYS or version_numbers(numpy) < (2,):
        return ""
    return (
        f"TensorRT {tensorrt} is older than NumPy 2, and its arrays (Weights.numpy) repeat their first value; "
        "dlink uses none of them"
    )


def python_row(machine: Machine) -> Component:
    least, most = PYTHONS
    version = version_numbers(machine.python)[:2]
    state: State = "too old" if version < least else "too new" if version > most else "found"
    mend = "" if state == "found" else "use Python {}.{} to {}.{}".format(*least, *most)
    return Component("Python", state, machine.python, "everything", mend=mend)


def library_row(need: Need, machine: Machine, versions: Versions, tried: Tries) -> Component:
    """The row of a library. One without distribution metadata, such as a Jetson's OpenCV, is found by its import."""
    found = [(name, version) for name in need.distributions if (version := versions(name))]
    distribution, version = found[0] if found else (need.distributions[0], "")
    result = tried(need.tried) if need.tried else Tried()
    fault = result.fault
    version = version or result.version
    by_jetpack = need.name == "TensorRT" and machine.jetson
    get = jetpack(machine) if by_jetpack else how_to_get(need.package)
    if machine.jetson and need.name == "pycuda":
        get += JETSON_LINES
    if not found and (not need.tried or fault.startswith("ModuleNotFoundError")):
        return Component(need.name, "missing", "", need.use, mend=get)
    if fault:
        return Component(need.name, "broken", version, need.use, fault, cure(fault, need, machine))
    if version and version_numbers(version) < version_numbers(need.least):
        mend = get if by_jetpack else f"pip install -U '{distribution}>={need.least}'"
        return Component(need.name, "too old", version, need.use, f"dlink needs {need.least}", mend)
    return Component(need.name, "found", version, need.use)


def cure(fault: str, need: Need, machine: Machine) -> str:
    """What to do about an installed library that does not import."""
    lacking = re.search(r"([\w.+-]+\.so[.\d]*): cannot open shared object", fault)
    if lacking and lacking[1] == LIBRARY:
        return driver_line(machine)
    if lacking and lacking[1] in PACKAGE_OF:
        line = f"sudo apt install {PACKAGE_OF[lacking[1]]}"
        return line + (", or pip install opencv-python-headless instead" if need.package == "cv2" else "")
    return f"pip install --force-reinstall {need.distributions[0]}"


def jetpack(machine: Machine) -> str:
    """How to get TensorRT on a Jetson."""
    return JETPACK if version_numbers(machine.jetson.lstrip("R")) >= (JETPACK_6,) else OLD_JETPACK


def driver_line(machine: Machine) -> str:
    return JETPACK if machine.jetson else "install NVIDIA's driver (on Ubuntu: sudo ubuntu-drivers install)"


def gpu_rows(machine: Machine) -> list[Component]:
    gpus, use, mend = machine.gpus, "plans for NVIDIA GPUs", driver_line(machine)
    absent: State = "broken" if gpus.broken else "missing"
    if not gpus.driver:
        return [
            Component("GPU", "missing", "", use, "no driver to ask"),
            Component("driver", absent, "", use, gpus.fault, mend),
        ]
    driver = Component("driver", "found", f"CUDA {gpus.driver}", use)
    if not gpus.found:
        return [Component("GPU", absent, "", use, gpus.fault, mend if gpus.broken else ""), driver]
    return [Component("GPU", "found", "; ".join(map(str, gpus.found)), use), driver]
