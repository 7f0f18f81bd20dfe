"""ONNX Runtime without its telemetry. Whatever here needs ONNX Runtime takes it from this module.

Left alone, its builds since 1.31 write a device's number and a database of events into the user's cache folder and send
them. It reads ORT_DISABLE_TELEMETRY once, when it is imported; whoever has set that has chosen.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
