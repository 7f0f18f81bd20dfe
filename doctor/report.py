"""What this machine has of what dlink can use, and what can be done with it.

No library is imported here: some end the process where they find no GPU. Versions are those of the installed
distributions, three libraries that often do not load are tried in a process of their own, and NVIDIA's driver is asked
through ctypes.
"""

import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dlink.doctor.extras import EXTRAS, NEEDS, Need, how_to_get
from dlink.trt_runtime.nvidia_driver import LIBRARY, Gpus, look_for_gpus
from dlink.trt_runtime.plan import numbers

State: TypeAlias = Literal["found", "missing", "too old", "too new", "broken"]
Versions: TypeAlias = Callable[[str], str | None]  # of a distribution; None where it is not installed
Tries: TypeAlias = "Callable[[str], Tried]"  # of a module

PYTHONS = ((3, 10), (3, 13))  # the first and last that dlink is tested with
TRY_FOR = 20.0  # seconds for one import; a cold disk of a small computer needs several
JETPACK = "sudo apt install nvidia-jetpack (a virtualenv sees it if made with --system-site-packages)"
OLD_JETPACK = (
    "dlink runs plans from JetPack 6 on: the TensorRT of this one is for Python 3.8; docs/jetson.md has what remains"
)
JETSON_LINES = " (docs/jetson.md has all the lines in their order)"
JETPACK_6 = 36  # of Jetson Linux
ARRAYS = (
    10,
    16,
)  # the first TensorRT whose bindings give arrays of NumPy 2 as they are: tensorrt_arrays.json in tests/

PACKAGE_OF = {  # the Debian or Ubuntu package of a library that an import may miss
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
}
FEATURES = {  # what /proc/cpuinfo calls the instructions that make reduced precision fast, and which it is
    "avx512_bf16": "bfloat16",
    "amx_bf16": "bfloat16",
    "asimdhp": "float16",
    "avx512_vnni": "int8",
    "avx_vnni": "int8",
    "amx_int8": "int8",
    "asimddp": "int8",
    "i8mm": "int8",
}


@dataclass(frozen=True)
class Machine:
    """What is known of the computer itself."""

    python: str
    system: str  # "Linux x86_64"
    cpu: str  # its name, empty where the system does not say
    features: tuple[str, ...]  # those of FEATURES it has
    jetson: str  # "R36.3.0", the release of Jetson Linux; empty elsewhere
    gpus: Gpus


@dataclass(frozen=True)
class Tried:
    """What came of an import in a process of its own."""

    version: str = ""  # where the module has one
    fault: str = ""  # one line; empty where it imports


@dataclass(frozen=True)
class Component:
    """One thing that dlink can use: whether it is here, and what to do where it is not."""

    name: str
    state: State
    version: str
    use: str
    fault: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Ability:
    """One thing to do, whether it can be done here, and what is in its way or how well it goes."""

    name: str
    can: bool
    words: str


@dataclass(frozen=True)
class Report:
    machine: Machine
    rows: tuple[Component, ...]
    abilities: tuple[Ability, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for json.dumps: the fields of this class, by name."""
        return asdict(self)


def installed(distribution: str) -> str | None:
    """The version of an installed distribution. A folder that an interrupted pip left behind has none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def attempt(module: str) -> Tried:
    """Import a module in a process of its own, which may crash. A file of that name in this folder does not count."""
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
    said = [line.strip() for line in (done.stderr if done.returncode else done.stdout).splitlines() if line.strip()]
    last = said[-1] if said else ""
    return Tried(fault=last or f"importing it exits with {done.returncode}") if done.returncode else Tried(version=last)


def look_at_cpu(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and FEATURES from the text of /proc/cpuinfo. Arm kernels give no name."""
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = (values.get("flags") or values.get("Features") or "").split()
    return values.get("model name", ""), tuple(f for f in FEATURES if f in flags)


def look_around() -> Machine:
    """This computer."""
    name, features = look_at_cpu(text_of(Path("/proc/cpuinfo")))
    release = re.search(r"R(\d+) .*REVISION: ([\d.]+)", text_of(Path("/etc/nv_tegra_release")))
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=name or text_of(Path("/proc/device-tree/model")).strip("\0\n"),
        features=features,
        jetson=f"R{release[1]}.{release[2]}" if release else "",
        gpus=look_for_gpus(),
    )


def text_of(path: Path) -> str:
    """What a file of the system says; empty where the system has none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def examine(
    machine: Machine,
    versions: Versions = installed,
    tried: Tries = attempt,
) -> Report:
    """A row for everything that dlink can use on this machine, and what can be done with what is there."""
    rows = [python_row(machine), *(library_row(need, machine, versions, tried) for need in NEEDS)]
    by_name = {row.name: row for row in rows}
    if fault := wrong_arrays(by_name["TensorRT"].version, by_name["numpy"].version):
        row = replace(by_name["numpy"], fault=fault, mend="for a program of yours that does: pip install 'numpy<2'")
        rows = [row if r.name == "numpy" else r for r in rows]
    rows += gpu_rows(machine)
    return Report(machine, tuple(rows), tuple(abilities({row.name: row for row in rows}, machine)))


def wrong_arrays(tensorrt: str, numpy: str) -> str:
    """What TensorRT's bindings do to arrays of NumPy 2 without an error; empty where they do not, or are not here.

    No hindrance for dlink: addresses are numbers, shapes tuples, files bytes, and it asks TensorRT for no array.
    """
    if not tensorrt or numbers(tensorrt) >= ARRAYS or numbers(numpy) < (2,):
        return ""
    return (
        f"TensorRT {tensorrt} gives arrays (Weights.numpy) that repeat their first value, "
        "for it is older than NumPy 2; dlink takes none from it"
    )


def python_row(machine: Machine) -> Component:
    least, most = PYTHONS
    version = numbers(machine.python)[:2]
    state: State = "too old" if version < least else "too new" if version > most else "found"
    mend = "" if state == "found" else "use Python {}.{} to {}.{}".format(*least, *most)
    return Component("Python", state, machine.python, "everything", mend=mend)


def library_row(need: Need, machine: Machine, versions: Versions, tried: Tries) -> Component:
    """A library without distribution metadata, such as the OpenCV of a Jetson, is found by its import."""
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
    if version and numbers(version) < numbers(need.least):
        mend = get if by_jetpack else f"pip install -U '{distribution}>={need.least}'"
        return Component(need.name, "too old", version, need.use, f"dlink needs {need.least}", mend)
    return Component(need.name, "found", version, need.use)


def cure(fault: str, need: Need, machine: Machine) -> str:
    """What to do about a library that is there and does not import."""
    lacking = re.search(r"([\w.+-]+\.so[.\d]*): cannot open shared object", fault)
    if lacking and lacking[1] == LIBRARY:
        return driver_line(machine)
    if lacking and lacking[1] in PACKAGE_OF:
        line = f"sudo apt install {PACKAGE_OF[lacking[1]]}"
        return line + (", or pip install opencv-python-headless in its place" if need.package == "cv2" else "")
    return f"pip install --force-reinstall {need.distributions[0]}"


def jetpack(machine: Machine) -> str:
    """How a Jetson gets TensorRT."""
    return JETPACK if numbers(machine.jetson.lstrip("R")) >= (JETPACK_6,) else OLD_JETPACK


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


def abilities(rows: Mapping[str, Component], machine: Machine) -> list[Ability]:
    """What can be done here: what each extra is for."""

    def lacks(*names: str) -> str:
        return ", ".join(f"{name} {rows[name].state}" for name in names if rows[name].state != "found")

    def ability(name: str, lacking: str, words: str = "") -> Ability:
        return Ability(name, not lacking, lacking or words)

    rtx = not lacks("TensorRT-RTX")
    compiler, other = ("TensorRT-RTX", "trt") if rtx else ("TensorRT", "rtx")
    gpu = ("GPU", "driver")
    beyond = {"build": (compiler, *(() if rtx else gpu)), "trt": ("numpy", *gpu), "rtx": ("numpy", *gpu)}
    words = {"cpu": speed(machine), "build": f"by {compiler}"}  # TensorRT-RTX builds without a GPU
    return [
        ability(extra.can, lacks(*extra.needs, *beyond.get(name, ())), words.get(name, ""))
        for name, extra in EXTRAS.items()
        if extra.can and name != other
    ]


def speed(machine: Machine) -> str:
    """Which reduced precisions this CPU computes fast."""
    fast = sorted({FEATURES[f] for f in machine.features})
    if fast:
        return f"fast in reduced precision: {' and '.join(fast)} ({', '.join(machine.features)})"
    if not machine.system.startswith("Linux"):
        return "whether reduced precision is fast is not known on this system"
    return "in float32; reduced precision is no faster"
