"""ONNX Runtime without its telemetry. All code of dlink imports ONNX Runtime from this module.

By default its builds since 1.31 write a device number and a database of events into the user's cache folder and send
them. It reads ORT_DISABLE_TELEMETRY once, when it is imported. A value that the user has set stays.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
