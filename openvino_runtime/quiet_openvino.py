"""OpenVINO without its telemetry, and with one Core that stays. Whatever here needs OpenVINO takes it from this module.

Left alone, its import looks up an analytics host, starts a thread and a process, and writes two files into the user's
home directory. It goes without where its telemetry package cannot be imported.

A Core's first compilation loads the CPU plugin, which gives the thread another stack for signals (sigaltstack) and
unmaps it when the last of the Core and its models goes. On another thread, or with a second Core in between, the
address stays behind: the next signal, be it Ctrl-C or a child's end, then runs on memory that is someone else's. So
there is one Core, and it is never destroyed.
"""

import ctypes
import sys
from functools import cache

TELEMETRY = "openvino_telemetry"

before = sys.modules.get(TELEMETRY)
sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # Python's way to say that there is none
try:
    import openvino
finally:
    del sys.modules[TELEMETRY]
    if before is not None:
        sys.modules[TELEMETRY] = before

__all__ = ["core", "openvino"]


@cache
def core() -> openvino.Core:
    """The one Core of this process."""
    made = openvino.Core()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    return made
