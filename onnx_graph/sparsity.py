"""Which convolutions of an ONNX file have 2:4 sparse weights, as TensorRT's BuilderFlag.SPARSE_WEIGHTS reads them.

NVIDIA's TensorRT Developer Guide, "Structured Sparsity": for each output channel and each spatial pixel of a kernel, of
every four input channels at least two must be zero, where the channels are a multiple of four. It speaks of the
kernels of convolutions and of fully connected weights, and not of transposed convolutions, so those do not count here.
Nor do convolutions in groups, which NVIDIA's engineers exclude (NVIDIA/TensorRT#4054).

Zeros stay zeros in int8, because the zero point is 0. Where another tool wrote a zero point, no pattern is seen.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from dlink.onnx_graph.model import Asked, OnnxModel
from dlink.onnx_graph.scales import groups_of
from dlink.runtime.two_of_four import MOST, OF

NOTABLE = 0.01  # of the multiply-adds; single layers have the pattern by chance, because they are idle


def sparse_convolutions(graph: OnnxModel) -> list[Asked]:
    """The convolutions whose weights have the pattern, in the order in which they run."""
    found = {node.name for node in graph.convolutions if node.op_type == "Conv" and is_sparse(graph, node)}
    return [asked for asked in graph.asked if asked.node in found] if found else []


def sparse_share(graph: OnnxModel) -> float:
    """The share of a file's multiply-adds in convolutions with the pattern."""
    return sum(asked.share for asked in sparse_convolutions(graph))


def in_words(share: float) -> str:
    return f"2:4 sparse: {share:.1%} of the multiply-adds"


def is_sparse(graph: OnnxModel, node: onnx.NodeProto) -> bool:
    """Whether an ordinary convolution's weights have the pattern."""
    kernel, quantised = graph.kernel(node)
    if groups_of(node) != 1 or (quantised and has_zero_point(graph, node)):
        return False
    return has_pattern(numpy_helper.to_array(kernel))


def has_pattern(weight: NDArray[np.generic]) -> bool:
    """Whether a weight (K, C, R, S) has the pattern."""
    out, channels, *kernel = weight.shape
    if channels % OF:
        return False
    return bool((weight.reshape(out, -1, OF, *kernel) != 0).sum(2).max(initial=0) <= MOST)


def has_zero_point(graph: OnnxModel, node: onnx.NodeProto) -> bool:
    """Whether a quantised weight has a zero point other than 0."""
    name = node.input[1]
    while (made := graph.made_by.get(name)) is not None:
        if made.op_type == "DequantizeLinear" and len(made.input) > 2 and graph.weights[made.input[2]].any():
            return True
        name = made.input[0]
    return False
