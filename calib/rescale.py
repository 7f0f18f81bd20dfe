"""Scale channels so that int8 and float16 hold them, without changing the network.

ReLU, max pooling and sums keep a positive factor of each channel, so a stretch of the graph between convolutions may
run at a factor per channel: the convolutions that lead into it take the factors into their weights and biases, those
that lead out divide by them. The network stays the same function.

Two things are gained. A tensor has one scale in int8, so a channel whose values stay small has few steps left: factors
bring the channels' peaks together (cross-layer equalisation; Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, 2019), half of the way, since what the channels gain the weights lose. And the
stretch is kept within float16, which D-LinkNet's dilated centre otherwise leaves.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from dlink.calib.network import Network, Weights
from dlink.onnx_graph.model import CONVOLUTIONS

EVEN = 0.5  # 0 leaves the channels as they are, 1 gives them all one peak; measured, see DESIGN.md
MOST = 8.0  # times a channel is enlarged at most
COMFORT = 2048.0  # peaks are brought to at most this, 32 times below float16's end
HOMOGENEOUS = ("Relu", "MaxPool", "Add", "Identity")  # f(c x) = c f(x) for c > 0, channel by channel
ENDS = ""  # stands for whatever must keep its scale

Channels = NDArray[np.float64]  # (C,)


def factors(graph: Network, peaks: dict[str, Channels]) -> dict[str, Channels]:
    """What each tensor's channels are multiplied by, for every tensor that may be; `peaks` are of |value|."""
    stretch = stretches(graph)
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


def stretches(graph: Network) -> dict[str, str]:
    """Which tensors must share their factors: each one's name -> the name that stands for its stretch, or ENDS."""
    parent: dict[str, str] = {ENDS: ENDS}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    def join(a: str, b: str) -> None:
        x, y = root(a), root(b)
        parent[x if y == ENDS else y] = y if y == ENDS else x

    join(graph.input, ENDS)
    for node in graph.model.graph.node:
        if node.op_type in CONVOLUTIONS:
            root(node.output[0])
            continue
        if node.op_type not in HOMOGENEOUS:
            join(node.output[0], ENDS)
        for name in node.input:
            if name not in graph.weights:
                join(node.output[0], name)
    return {name: root(name) for name in list(parent) if name != ENDS}
