"""Scale channels so that int8 and float16 hold them, without changing the network.

A stretch of the graph between convolutions (onnx_graph/stretches.py) may run at a factor per channel: the convolutions
that lead into it take the factors into their weights and biases, those that lead out divide by them.

Two things are gained. A tensor has one scale in int8, so a channel whose values stay small has few steps left: factors
bring the channels' peaks together (cross-layer equalisation; Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, 2019), half of the way, since what the channels gain the weights lose. And the
stretch is kept within float16, which D-LinkNet's dilated centre otherwise leaves.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dlink.calib.network import Network, Weights
from dlink.onnx_graph.model import CONVOLUTIONS
from dlink.onnx_graph.stretches import COMFORT, ENDS, Kind, Step, stretches

EVEN = 0.5  # 0 leaves the channels as they are, 1 gives them all one peak; measured, see DESIGN.md
MOST = 8.0  # times a channel is enlarged at most
HOMOGENEOUS = ("Relu", "MaxPool", "Add", "Identity")  # f(c x) = c f(x) for c > 0, channel by channel

Channels = NDArray[np.float64]  # (C,)


def factors(graph: Network, peaks: dict[str, Channels]) -> dict[str, Channels]:
    """What each tensor's channels are multiplied by, for every tensor that may be; `peaks` are of |value|."""
    stretch = stretches(steps(graph))
    together: dict[str, list[Channels]] = defaultdict(list)
    for tensor, peak in peaks.items():
        together[stretch[tensor]].append(peak)
    shared = {root: even(np.max(seen, axis=0)) for root, seen in together.items() if root != ENDS}
    return {tensor: shared[root] for tensor, root in stretch.items() if root in shared}


def even(peak: Channels) -> Channels:
    """Factors for the channels of one stretch."""
    top = peak.max(initial=0.0)
    if top == 0:
        return np.ones_like(peak)
    factor = np.minimum(np.maximum(peak / top, 1e-9) ** -EVEN, MOST)
    held: Channels = factor * min(1.0, COMFORT / float((peak * factor).max()))
    return held


def rescale(graph: Network, factor: dict[str, Channels]) -> Network:
    """The same network, each tensor's channels multiplied by its factors."""
    weights: dict[str, Weights] = {}
    for node in graph.convolutions:
        kernel = graph.weights[node.input[1]].astype(np.float64)
        out, into = (0, 1) if node.op_type == "Conv" else (1, 0)
        if (f := factor.get(node.input[0])) is not None:
            kernel = kernel / along(f, into, kernel.ndim)
        if (f := factor.get(node.output[0])) is not None:
            kernel = kernel * along(f, out, kernel.ndim)
            if len(node.input) > 2:
                weights[node.input[2]] = (graph.weights[node.input[2]] * f).astype(np.float32)
        weights[node.input[1]] = kernel.astype(np.float32)
    return graph.with_weights(weights)


def along(values: NDArray[np.float64], axis: int, ndim: int) -> NDArray[np.float64]:
    """A vector (C,) that broadcasts along one axis."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def steps(graph: Network) -> Iterator[Step]:
    """The network's nodes by what they make of scales."""
    yield Step(graph.input, (), Kind.FIXED)
    for node in graph.model.graph.node:
        keeps = node.op_type in HOMOGENEOUS
        kind = Kind.BEGINS if node.op_type in CONVOLUTIONS else Kind.KEEPS if keeps else Kind.FIXED
        yield Step(node.output[0], [name for name in node.input if name not in graph.weights], kind)
