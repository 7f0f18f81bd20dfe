"""Describes this computer: its processor, system and GPUs."""

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from dlink.trt_runtime.nvidia_driver import Gpus, look_for_gpus

FEATURES = {  # instructions in /proc/cpuinfo that make a reduced precision fast -> that precision
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
    """The computer's processor, system and GPUs."""

    python: str
    system: str  # "Linux x86_64"
    cpu: str  # its name; empty if the system does not say
    features: tuple[str, ...]  # the FEATURES that it has
    jetson: str  # "R36.3.0", the release of Jetson Linux; empty on other systems
    gpus: Gpus


def look_at_cpu(text: str) -> tuple[str, tuple[str, ...]]:
    """The CPU's name and FEATURES from the text of /proc/cpuinfo. Arm kernels give no name."""
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = (values.get("flags") or values.get("Features") or "").split()
    return values.get("model name", ""), tuple(f for f in FEATURES if f in flags)


def look_around() -> Machine:
    """Describe this computer."""
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
    """The text of a system file; empty if there is no such file."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def speed(machine: Machine) -> str:
    """The reduced precisions that this CPU computes fast, in words."""
    fast = sorted({FEATURES[f] for f in machine.features})
    if fast:
        return f"fast in reduced precision: {' and '.join(fast)} ({', '.join(machine.features)})"
    if not machine.system.startswith("Linux"):
        return "the speed of reduced precision is not known on this system"
    return "in float32; reduced precision is no faster"
