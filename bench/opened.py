"""What is known of an open model, on which its figures depend."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dlink.bench.baseline import threads_of
from dlink.bench.soak import seconds_of
from dlink.bench.watch.processor import usable_cores
from dlink.runtime.backend import Backend
from dlink.runtime.errors import BadInput
from dlink.runtime.files import file_mark
from dlink.runtime.scout import Scouted
from dlink.runtime.segmenter import Segmenter


def large_of(model: Segmenter) -> Backend:
    """The network itself, also behind a scout."""
    return model.backend.large if isinstance(model.backend, Scouted) else model.backend


def is_plan(model: Segmenter) -> bool:
    """Whether a GPU runs it."""
    return hasattr(large_of(model), "manifest")


def check_processor(model: Segmenter) -> None:
    """Raise BadInput for a plan, whose comparison with PyTorch is another one."""
    if is_plan(model):
        raise BadInput(
            "--baseline best-torch: is for models on a processor; python -m dlink.bench.runtime measures a plan beside "
            "PyTorch on the GPU"
        )


def threads_beside(model: Segmenter, asked: int | None) -> int:
    """The threads that PyTorch gets beside a model: as many as the model was given, or all usable cores."""
    return (threads_of(model.backend.engine) if asked else None) or len(usable_cores())


def how_opened(model: Segmenter, gsd_m: float | None, soak: str | None, scout: Path | None) -> dict[str, Any]:
    """How a model was opened and is run, for its result.

    Args:
        gsd_m: Metres a pixel; None: pictures as they are.
        soak: The length of a long run, such as 10m.
        scout: The file of the network that looks first.
    """
    return {
        "threads": threads_of(model.backend.engine),
        "slots": model.backend.slots,
        "halo": model.halo,
        "gsd_m": gsd_m,
        "soak_s": seconds_of(soak) if soak else None,
        "scout": scout_of(model, scout) if scout else None,
    }


def scout_of(model: Segmenter, path: Path) -> dict[str, Any]:
    """A scout's file and network."""
    assert isinstance(model.backend, Scouted)  # it was opened with a scout
    spec = model.backend.scout.spec
    return {**asdict(file_mark(path)), "arch": spec.arch, "width": spec.width, "precision": spec.precision}
