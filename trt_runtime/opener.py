"""Opens a plan as a Backend: verifies it first, then imports TensorRT and pycuda."""

from pathlib import Path

from dlink.runtime.backend import Backend, Opening
from dlink.trt_runtime.kernel_cache import KernelCache
from dlink.trt_runtime.plan import fit, read_plan

SLOTS = 2  # one copies while another computes; see "Slots" in DESIGN.md


def open(path: Path, opening: Opening) -> Backend:
    """The plan as a Backend. TensorRT and pycuda are imported after everything else has been verified."""
    plan, manifest = read_plan(path, opening.keys, opening.require_verdict)
    gpu = fit(path, manifest)
    from dlink.trt_runtime.tensorrt_backend import TensorRTBackend

    cache = None if opening.keys else KernelCache(path, manifest, gpu)
    return TensorRTBackend(path, plan, manifest, gpu, opening.slots or SLOTS, cache=cache)
