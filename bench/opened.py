"""What is known of an open model, on which its figures depend."""

from dlink.bench.baseline import threads_of
from dlink.bench.watch.processor import usable_cores
from dlink.runtime.backend import Backend
from dlink.runtime.errors import BadInput
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
