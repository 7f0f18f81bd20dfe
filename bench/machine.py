"""Describes the machine on which a figure was measured."""

import os
import platform
from pathlib import Path

from dlink.runtime.versions import installed_version

PACKAGES = ("dlink", "numpy", "openvino", "torch")


def machine() -> dict[str, object]:
    """Processor, cores, system and versions, for a report."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := installed_version(name))},
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


def peak_bytes() -> int | None:
    """The peak memory of this process; None if the system does not report it."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
