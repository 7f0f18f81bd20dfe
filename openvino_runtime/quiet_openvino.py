"""Imports OpenVINO without its telemetry, and keeps one Core. All of dlink imports OpenVINO from this module.

By default the import of OpenVINO looks up an analytics host, starts a thread and a process, and writes two files into
the user's home directory. It does none of that if its telemetry package cannot be imported.

The first compilation of a Core loads the CPU plugin, which gives the thread another stack for signals (sigaltstack).
The plugin unmaps that stack when the Core and its last model are destroyed. If that happens on another thread, or after
a second Core was made, the thread keeps the stale address, and the next signal (Ctrl-C, a child's exit) runs on memory
of something else. So there is one Core, and it is never destroyed.

The binding looks up NumPy's functions when it first takes an array. Two threads that do so at once wait for each other
for ever: one has the lock of the look-up and wants Python's, the other has Python's. So the Core comes with a first
array.
"""

import ctypes
import sys
from functools import cache

import numpy as np

TELEMETRY = "openvino_telemetry"

before = sys.modules.get(TELEMETRY)
sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # makes its import fail
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
    assert openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data.size == 1
    return made
