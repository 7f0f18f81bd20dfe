"""Which values of an ONNX graph keep their meaning at another scale, and convolutions' weights for other scales."""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from dlink.onnx_graph.model import CONVOLUTIONS, OnnxModel
from dlink.onnx_graph.stretches import Kind, ScaleStep

# f(c x) = c f(x) for c > 0, channel by channel
HOMOGENEOUS = ("Relu", "MaxPool", "Add", "Identity", "Resize", "AveragePool", "GlobalAveragePool", "LeakyRelu")

Channels = NDArray[np.float64]  # (C,)


def steps(graph: OnnxModel) -> Iterator[ScaleStep]:
    """The network's nodes, each with its effect on scales."""
    yield ScaleStep(graph.input, (), Kind.FIXED)
    for node in graph.model.graph.node:
        kind = Kind.BEGINS if node.op_type in CONVOLUTIONS else Kind.KEEPS if keeps(graph, node) else Kind.FIXED
        values = [name for name in node.input if name and name not in graph.stored]
        for output in node.output:
            yield ScaleStep(output, values, kind)
    yield ScaleStep(graph.output, (), Kind.FIXED)


def keeps(graph: OnnxModel, node: onnx.NodeProto) -> bool:
    """Whether a result has the factors of its inputs' channels. A sum with a constant, or of other shapes, has not."""
    if node.op_type not in HOMOGENEOUS:
        return False
    if node.op_type != "Add":
        return True
    return all(n not in graph.stored and graph.shapes[n][1:2] == graph.shapes[node.output[0]][1:2] for n in node.input)


def groups_of(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def rescaled(
    kernel: NDArray[np.float64], node: onnx.NodeProto, into: Channels | None, out: Channels | None
) -> Channels:
    """A convolution's weights where its input has the factors `into`, and its result shall have `out`."""
    groups, transposed = groups_of(node), node.op_type == "ConvTranspose"
    # As (groups, first, second, ...): an ordinary kernel has the results' channels first, a transposed one the inputs'.
    wide = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
    for factors, first in ((None if into is None else 1 / into, transposed), (out, not transposed)):
        if factors is not None:
            shape = (groups, -1, 1) if first else (groups, 1, -1)
            wide = wide * factors.reshape(shape)[(...,) + (None,) * (wide.ndim - 3)]
    return wide.reshape(kernel.shape)
