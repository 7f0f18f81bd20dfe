"""Runs TensorRT plans on NVIDIA GPUs. `dlink.runtime.open_model` imports it for a .plan file.

Deprecated here: `open_model`, `Segmenter`, `Spec`, `Backend`, `HostBackend` and the errors. They have moved to
`dlink.runtime`, which needs neither TensorRT nor CUDA; these names stay until dlink 1.0.
"""

from dlink.runtime import (
    Backend,
    BadInput,
    BadModel,
    BadPlan,
    CheckFailed,
    Closed,
    DlinkError,
    EngineFailed,
    GpuFailed,
    HostBackend,
    Mismatch,
    NoEngine,
    NoProbability,
    Segmenter,
    Spec,
    Untrusted,
    open_model,
)

__all__ = [
    "Backend",
    "BadInput",
    "BadModel",
    "BadPlan",
    "CheckFailed",
    "Closed",
    "DlinkError",
    "EngineFailed",
    "GpuFailed",
    "HostBackend",
    "Mismatch",
    "NoEngine",
    "NoProbability",
    "Segmenter",
    "Spec",
    "Untrusted",
    "open_model",
]
