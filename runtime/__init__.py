"""The runtime: open a model file and get the road mask of an image. Needs NumPy and one engine.

Example:
    >>> from dlink.runtime import open_model
    >>> with open_model("roads.onnx") as model:
    ...     mask = model.mask(image)  # uint8 (H, W, 3) RGB -> uint8 (H, W), 255 is road
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path

from dlink.runtime.adaptive import DOUBT
from dlink.runtime.backend import Backend, HostBackend, Opening, open_backend
from dlink.runtime.errors import (
    BadInput,
    BadModel,
    BadPlan,
    Busy,
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
from dlink.runtime.files import file_sha256
from dlink.runtime.scout import Scouted, check_scout, limit_of
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.spec import Spec

__all__ = [
    "Backend",
    "BadInput",
    "BadModel",
    "BadPlan",
    "Busy",
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
    slots: int | None = None,
    doubt: float = DOUBT,
    scout: str | PathLike[str] | None = None,
) -> Segmenter:
    """Open a model file: OpenVINO runs .onnx files on the CPU, TensorRT runs .plan files on the GPU.

    Args:
        path: The model file. The manifest `roads.plan.json` must lie beside a plan.
        halo: Context read around each core, in pixels. None: 64, or a quarter of the tile where that is less.
        threshold: A pixel is road where its probability is greater, in [0, 1). None: the model's own.
        threads: CPU threads. None: all. A GPU ignores it.
        keys: Public keys (PEM files). One of them must have signed the plan. Empty: no signature is required.
        require_verdict: Refuse a plan unless dlink-check found that it draws the same roads.
        slots: Runs that can be under way at once, each with memory of its own. None: two of a plan, so that the pixels
            of one run are copied while another is computed, and one of an ONNX file. More slots of an ONNX file share
            its threads: they compute tiles side by side, but a single tile takes longer. There are at most as many
            as threads.
        doubt: With views="adaptive", a tile whose doubt is greater gets all eight views, from 0 to 0.5.
        scout: A small network's file that dlink-scout has calibrated for this model. It looks first, and tiles in which
            it is sure of no road skip the model: their roads are empty. None: no tile is skipped.

    Returns:
        The open model. Close it, or use it in a `with` block.

    Raises:
        BadInput: The path or an option cannot be used.
        BadModel: The file is damaged, foreign or of another version. BadPlan, Mismatch and Untrusted are of plans.
        NoEngine: This machine lacks the GPU, driver, memory or TensorRT for the plan.
        ModuleNotFoundError: The engine is not installed.

    Example:
        >>> from dlink.runtime import open_model
        >>> with open_model("roads.onnx", threads=1) as model:
        ...     mask = model.mask(image)
        >>> mask.shape, mask.dtype
        ((100, 150), dtype('uint8'))
    """
    if isinstance(keys, str | bytes | PathLike) or not isinstance(keys, Iterable):
        raise BadInput(f"keys must be a sequence of paths, got {keys!r:.40}; write keys=[{keys!r:.40}]")
    opening = Opening(threads, tuple(path_of("keys", key) for key in keys), require_verdict, slots)
    backend = open_backend(path_of("path", path), opening)
    try:
        if scout is not None:
            backend = with_scout(path_of("scout", scout), path_of("path", path), backend, opening, threshold)
        return Segmenter(backend, halo=halo, threshold=threshold, doubt=doubt)
    except BaseException:
        backend.close()
        raise


def with_scout(scout: Path, path: Path, large: Backend, opening: Opening, threshold: float | None) -> Scouted:
    """A scout's file in front of the open large network of `path`. It has one slot: a run of it ends before another."""
    small = open_backend(scout, replace(opening, slots=1))
    try:
        limit = limit_of(small.spec, scout, large.spec, path)
        marks = {file_sha256(path)}
        if manifest := getattr(large, "manifest", None):
            marks.add(manifest.onnx.sha256)
        check_scout(limit, scout, path, marks, large.spec.threshold if threshold is None else threshold)
        return Scouted(small, large)
    except BaseException:
        small.close()
        raise


def path_of(name: str, value: object) -> Path:
    """The argument as a Path; bytes are refused."""
    if not isinstance(value, str | PathLike) or isinstance(fspath(value), bytes):
        raise BadInput(f"{name} must be a str or a pathlib.Path, got {value!r:.40}")
    return Path(value)
