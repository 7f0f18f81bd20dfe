"""`dlink-build --sparse`: TensorRT may use kernels that leave out the zeros of 2:4 sparse weights.

NVIDIA's TensorRT Developer Guide, "Structured Sparsity": since Ampere, in FP16 and INT8, by a flag of the builder. The
builder times sparse and dense kernels and takes the faster ones, so the flag promises nothing. Its log says what was
taken. Sparse kernels are faster where a layer has many channels, by NVIDIA's experience 256 (NVIDIA/TensorRT#3849).
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dlink.onnx_graph.model import OnnxModel
from dlink.onnx_graph.sparsity import in_words, sparse_convolutions
from dlink.runtime.errors import BadInput
from dlink.runtime.two_of_four import ENOUGH
from dlink.runtime.versions import version_numbers
from dlink.trt_runtime.manifest import Options
from dlink.trt_runtime.nvidia_driver import Gpu
from dlink.trt_runtime.plan import AMPERE

PRECISIONS = ("fp16", "int8")
SAYS = "(Sparsity)"  # how the lines of TensorRT's log begin


def refuse_dense(graph: OnnxModel, options: Options) -> None:
    """Raise BadInput where --sparse would do nothing for the file."""
    if not options.sparse or usable(graph) >= ENOUGH:
        return
    share = sum(a.share for a in sparse_convolutions(graph))
    if share >= ENOUGH:
        raise BadInput(
            f"{graph.mark.name}: --sparse: TensorRT has sparse kernels for FP16 and INT8; export it again with "
            "--precision fp16, or calibrate it"
        )
    raise BadInput(
        f"{graph.mark.name}: --sparse: only {share:.1%} of the multiply-adds have 2:4 sparse weights; make them, and "
        "export again: dlink-slim CHECKPOINT TILES -o sparse.th --sparse"
    )


def refuse_old_gpu(gpu: Gpu, options: Options) -> None:
    """Raise BadInput for a GPU that multiplies sparse weights no faster than others."""
    if options.sparse and version_numbers(gpu.capability) < version_numbers(AMPERE):
        raise BadInput(f"--sparse: needs compute capability {AMPERE} or newer, here is {gpu}; leave it out")


def usable(graph: OnnxModel) -> float:
    """The share of the multiply-adds for which TensorRT has sparse kernels."""
    return sum(a.share for a in sparse_convolutions(graph) if a.precision in PRECISIONS)


def unused(graph: OnnxModel, options: Options, capability: str) -> str:
    """What --sparse would have allowed for a plan that was built without it, in words; empty if nothing."""
    old = version_numbers(capability) < version_numbers(AMPERE)
    if options.target != "tensorrt" or old or (share := usable(graph)) < ENOUGH:
        return ""
    return f"{in_words(share)}; --sparse lets TensorRT take sparse kernels where they are faster"


@contextmanager
def heard(options: Options) -> Iterator[list[str]]:
    """Collects, within the block, the lines of TensorRT's log about sparse kernels; none without --sparse."""
    lines: list[str] = []
    if not options.sparse:
        yield lines
        return
    from polygraphy.logger import G_LOGGER

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _, says, rest = record.getMessage().partition(SAYS)
            if says:
                lines.append(" ".join(rest.split()))

    logger, keep = logging.getLogger("Polygraphy"), Keep()
    level = logger.level
    logger.addHandler(keep)
    logger.setLevel(G_LOGGER.VERBOSE)  # TensorRT's INFO
    try:
        with G_LOGGER.verbosity(G_LOGGER.VERBOSE):
            yield lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(keep)
