"""Scales channels for int8 and float16 without changing the network's function.

A stretch of the graph between convolutions (onnx_graph/stretches.py) may run with a factor per channel. The
convolutions before it take the factors into their weights and biases, and those after it divide by them.

This has two benefits. A tensor has one scale in int8, so a channel with small values has few steps. The factors bring
the channels' peaks together (cross-layer equalisation; Nagel et al., Data-Free Quantization Through Weight Equalization
and Bias Correction, 2019), by half, because the weights lose what the channels gain. The factors also keep the stretch
within float16, which D-LinkNet's dilated centre otherwise exceeds.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from dlink.calib.network import Network, Weights
from dlink.onnx_graph.scales import Channels, rescaled, steps
from dlink.onnx_graph.stretches import COMFORT, ENDS, stretches

EVEN = 0.5  # 0 leaves the channels as they are, 1 gives them all the same peak; measured, see DESIGN.md
MOST = 8.0  # the largest factor before COMFORT is applied


def factors(graph: Network, peaks: dict[str, Channels]) -> dict[str, Channels]:
    """Factors of the channels of every tensor that may be rescaled; `peaks` are of |value|."""
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
    """The same network with each tensor's channels multiplied by its factors."""
    weights: dict[str, Weights] = {}
    for node in graph.convolutions:
        kernel = graph.weights[node.input[1]].astype(np.float64)
        into, out = factor.get(node.input[0]), factor.get(node.output[0])
        weights[node.input[1]] = rescaled(kernel, node, into, out).astype(np.float32)
        if out is not None and len(node.input) > 2:
            weights[node.input[2]] = (graph.weights[node.input[2]] * out).astype(np.float32)
    return graph.with_weights(weights)


def along(values: NDArray[np.float64], axis: int, ndim: int) -> NDArray[np.float64]:
    """A vector (C,) that broadcasts along one axis."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])
