"""Runs TensorRT plans on NVIDIA GPUs. `dlink.runtime.open_model` imports it for a .plan file.

Deprecated here: `open_model`, `Segmenter`, `Spec`, `Backend`, `HostBackend` and the errors. They have moved to
`dlink.runtime`, which needs neither TensorRT nor CUDA; these names stay until dlink 1.0.
"""

from dlink import runtime
from dlink.runtime import *  # noqa: F403

__all__ = runtime.__all__
