"""Keeps a network's values within float16 without changing its results.

D-LinkNets overflow float16: nothing normalises the dilated centre, and in trained networks its sums exceed 65504, where
float16 becomes infinite. (Engines that compute in bfloat16 or float32 hide it, GPUs do not.) But a stretch of the graph
between convolutions (onnx_graph/stretches.py) can run at 1/2^k of its values. Powers of two change no digit of a
float32, so the network stays the same function.
"""

import copy
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from dlink.nets.network import RoadNet
from dlink.nets.pyramid import pooled, resized
from dlink.onnx_graph.stretches import HALF_MAX, Kind, ScaleStep, comfortable, stretches

HOMOGENEOUS = (nn.MaxPool2d, nn.ReLU, nn.Identity)  # f(c x) = c f(x) for c > 0
HOMOGENEOUS_FUNCTIONS = (torch.relu, operator.add, torch.cat, pooled, resized)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class Peaks(fx.Interpreter):
    """Runs a traced network and keeps the largest |value| of every node."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.peaks: dict[str, float] = defaultdict(float)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.peaks[n.name] = max(self.peaks[n.name], float(value.abs().max()))
        return value


def peaks(traced: fx.GraphModule, inputs: Iterable[NDArray[np.float32]]) -> dict[str, float]:
    """The largest |value| of every node of a traced network over some inputs (N, C, S, S)."""
    seen = Peaks(traced)
    with torch.inference_mode():
        for x in inputs:
            seen.run(torch.from_numpy(x))
    return dict(seen.peaks)


def overflow(net: RoadNet, x: NDArray[np.float32]) -> tuple[str, float] | None:
    """The first layer whose values float16 can't hold, and its largest value."""
    traced = fx.symbolic_trace(net)
    layer = "image"
    found = peaks(traced, [x])
    for node in traced.graph.nodes:
        if node.op == "call_module" and isinstance(net.get_submodule(node.target), CONVOLUTIONS):
            layer = node.target
        if not found.get(node.name, 0.0) <= HALF_MAX:
            return layer, found[node.name]
    return None


def balance(net: RoadNet, inputs: Iterable[NDArray[np.float32]]) -> RoadNet:
    """A copy of a network with folded norms: the same function, with values within COMFORT on these inputs.

    Returns the network itself if its values are within COMFORT already.
    """
    traced = fx.symbolic_trace(net)
    found = peaks(traced, inputs)
    stretch = stretches(steps(traced))
    factor = comfortable(stretch, found)
    if not factor:
        return net
    net = copy.deepcopy(net)
    for node in traced.graph.nodes:
        if node.op != "call_module" or not isinstance(conv := net.get_submodule(node.target), CONVOLUTIONS):
            continue
        into, out = (factor.get(stretch[n.name], 1.0) for n in (node.args[0], node))
        with torch.no_grad():
            conv.weight *= out / into
            if conv.bias is not None:
                conv.bias *= out
    return net


def steps(traced: fx.GraphModule) -> Iterator[ScaleStep]:
    """A traced network's nodes, each with its effect on scales."""
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        what = modules[node.target] if node.op == "call_module" else node.target
        keeps = isinstance(what, HOMOGENEOUS) or what in HOMOGENEOUS_FUNCTIONS
        kind = Kind.BEGINS if isinstance(what, CONVOLUTIONS) else Kind.KEEPS if keeps else Kind.FIXED
        yield ScaleStep(node.name, [other.name for other in node.all_input_nodes], kind)
