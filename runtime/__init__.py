"""The runtime: a model file and an image make a road mask. Needs NumPy and one engine.

from dlink.runtime import open_model

with open_model("roads.onnx") as model:
    mask = model.mask(image)  # uint8 (H, W, 3) RGB -> uint8 (H, W), 255 where there is road
"""

from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path

from dlink.runtime.adaptive import DOUBT
from dlink.runtime.backend import Backend, HostBackend, Opening, open_backend
from dlink.runtime.errors import (
    BadInput,
    BadModel,
    BadPlan,
    CheckFailed,
    Closed,
    DlinkError,
    EngineFailed,
    GpuFailed,
    Mismatch,
    NoEngine,
    NoProbability,
    Untrusted,
)
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.spec import Spec

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


def open_model(
    path: str | PathLike[str],
    *,
    halo: int | None = None,
    threshold: float | None = None,
    threads: int | None = None,
    keys: Sequence[str | PathLike[str]] = (),
    require_verdict: bool = False,
    slots: int = 2,
    doubt: float = DOUBT,
) -> Segmenter:
    """The model in a file: .onnx runs by OpenVINO on the CPU, .plan by TensorRT on the GPU. See Segmenter.

    threads: how many of the CPU's (all where None); means nothing to a GPU.
    keys: public keys, PEM files, one of which must have signed the plan; none asks for no signature.
    require_verdict: refuse a plan that dlink-check has not found to draw the same roads.
    slots: runs of a plan that can be under way at once, each with memory of its own on the GPU: with two, one's pixels
        are copied while another one's are computed.
    doubt: above which a tile gets all eight views where views="adaptive".
    """
    if isinstance(keys, str | bytes | PathLike) or not isinstance(keys, Iterable):
        raise BadInput(f"keys must be a sequence of paths, got {keys!r:.40}; write keys=[{keys!r:.40}]")
    opening = Opening(threads, tuple(path_of("keys", key) for key in keys), require_verdict, slots)
    backend = open_backend(path_of("path", path), opening)
    try:
        return Segmenter(backend, halo=halo, threshold=threshold, doubt=doubt)
    except BaseException:
        backend.close()
        raise


def path_of(name: str, value: object) -> Path:
    """An argument that must be a path in text."""
    if not isinstance(value, str | PathLike) or isinstance(fspath(value), bytes):
        raise BadInput(f"{name} must be a str or a pathlib.Path, got {value!r:.40}")
    return Path(value)
