"""The runtime: a model file and an image make a road mask. Needs NumPy and one engine.

from dlink.trt_runtime import open_model

with open_model("roads.onnx") as model:
    mask = model.mask(image)  # uint8 (H, W, 3) RGB -> uint8 (H, W), 255 where there is road
"""

from os import PathLike
from pathlib import Path

from dlink.trt_runtime.backend import Backend, HostBackend, open_backend
from dlink.trt_runtime.errors import BadInput, BadModel, CheckFailed, Closed, DlinkError
from dlink.trt_runtime.segmenter import Segmenter
from dlink.trt_runtime.spec import Spec

__all__ = [
    "Backend",
    "BadInput",
    "BadModel",
    "CheckFailed",
    "Closed",
    "DlinkError",
    "HostBackend",
    "Segmenter",
    "Spec",
    "open_model",
]


def open_model(
    path: str | PathLike[str], *, halo: int | None = None, threshold: float | None = None, threads: int | None = None
) -> Segmenter:
    """The model in a file: .onnx runs by OpenVINO on the CPU. `threads` limits the CPU's; see Segmenter."""
    return Segmenter(open_backend(Path(path), threads), halo=halo, threshold=threshold)
