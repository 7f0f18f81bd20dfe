"""OpenVINO without its telemetry. Whatever here needs OpenVINO takes it from this module.

Left alone, its import looks up an analytics host, starts a thread and a process, and writes two files into the user's
home directory. It goes without where its telemetry package cannot be imported.
"""

import sys

TELEMETRY = "openvino_telemetry"

before = sys.modules.get(TELEMETRY)
sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # Python's way to say that there is none
try:
    import openvino
finally:
    del sys.modules[TELEMETRY]
    if before is not None:
        sys.modules[TELEMETRY] = before

__all__ = ["openvino"]
