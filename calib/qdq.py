"""Writes a quantised network: QuantizeLinear and DequantizeLinear pairs where TensorRT expects them, FP16 elsewhere.

Integers are int8 with zero at 0. Weights have a scale per output channel (axis 0 of a convolution, 1 of a transposed
one). The file stores them as int8, and a DequantizeLinear reads them. Biases stay. A tensor is quantised once for all
of its readers.

Scales are float32, as in opset 17, with casts between them and FP16. TensorRT 8.5 is not the only reason: scales of
weights can be below float16's smallest number, and TensorRT refuses a scale of 0. TensorRT-RTX removes the casts: its
plans hold int8 weights.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlink.calib.limits import STEPS
from dlink.calib.network import Network
from dlink.calib.placement import INT8, Unit, skip_of
from dlink.calib.rescale import along
from dlink.onnx_graph.halved import STAYS
from dlink.onnx_graph.model import CONVOLUTIONS
from dlink.onnx_graph.scales import groups_of

LEAST = 2.0**-16  # of a layer's largest scale: the smallest scale, for channels with almost no weight


def weight_scales(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """A scale per output channel (C,), with which the largest weight becomes 127."""
    peak = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    scales: NDArray[np.float32] = np.maximum(peak, max(float(peak.max()) * LEAST, 1e-30)) / np.float32(STEPS)
    return scales


def quantised(weight: NDArray[np.float32], scales: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    steps = weight / along(scales.astype(np.float64), axis, weight.ndim)
    return np.clip(np.rint(steps), -STEPS, STEPS).astype(np.int8)


@dataclass
class Writer:
    """Collects the nodes and weights of a quantised graph."""

    graph: Network
    limits: dict[str, float]
    means: dict[str, NDArray[np.float64]]
    half: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    pairs: dict[str, str] = field(default_factory=dict)  # a quantised tensor -> the tensor to read in its place
    wide: dict[str, str] = field(default_factory=dict)  # a tensor of the base -> its cast to float32
    narrow: dict[str, str] = field(default_factory=dict)  # a float32 tensor of `floats` -> its cast to the base
    floats: set[str] = field(default_factory=set)  # tensors at both ends that are float32 although the base is FP16

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], f"{output}_node", **attributes))
        return output

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def to_half(self, tensor: str) -> str:
        return self.add("Cast", [tensor], f"{tensor}_half", to=TensorProto.FLOAT16) if self.half else tensor

    def widened(self, tensor: str) -> str:
        """The tensor in float32."""
        if not self.half or tensor in self.floats:
            return tensor
        if tensor not in self.wide:
            self.wide[tensor] = self.add("Cast", [tensor], f"{tensor}_float", to=TensorProto.FLOAT)
        return self.wide[tensor]

    def narrowed(self, tensor: str) -> str:
        """The tensor in the base's precision."""
        if tensor not in self.floats:
            return tensor
        if tensor not in self.narrow:
            self.narrow[tensor] = self.to_half(tensor)
        return self.narrow[tensor]

    def float_weight(self, name: str, values: NDArray[np.generic]) -> str:
        return self.constant(name, values.astype(np.float16 if self.half else np.float32))

    def pair(self, tensor: str) -> str:
        """The tensor after a pair that takes it to int8 and back."""
        if tensor not in self.pairs:
            scale = self.constant(f"{tensor}_scale", np.float32(self.limits[tensor] / STEPS).reshape(()))
            zero = self.constant(f"{tensor}_zero", np.zeros((), np.int8))
            q = self.add("QuantizeLinear", [self.widened(tensor), scale, zero], f"{tensor}_int8")
            self.pairs[tensor] = self.to_half(self.add("DequantizeLinear", [q, scale, zero], f"{tensor}_back"))
        return self.pairs[tensor]

    def pooled(self, node: onnx.NodeProto) -> None:
        """A pooling whose result is quantised: its input is, with the result's scale.

        The largest of some rounded values is the rounded largest one, so no number changes. The engine then keeps the
        larger tensor in int8.
        """
        made = copy.deepcopy(node)
        (output,) = node.output
        self.limits = self.limits | {node.input[0]: self.limits[output]}
        made.input[0] = self.pair(node.input[0])
        self.pairs[output] = output
        self.nodes.append(made)

    def convolution(self, node: onnx.NodeProto, unit: Unit) -> None:
        weight = self.graph.weights[node.input[1]]
        bias = self.graph.weights[node.input[2]].astype(np.float64) if len(node.input) > 2 else None
        made = copy.deepcopy(node)
        if unit.precision == INT8:
            axis = 0 if node.op_type == "Conv" else 1
            scales = weight_scales(weight, axis)
            ints = quantised(weight, scales, axis)
            lost = weight - ints * along(scales.astype(np.float64), axis, weight.ndim)
            if bias is not None and node.input[0] in self.means:
                bias += correction(lost, self.means[node.input[0]], node.op_type, stride_of(node), groups_of(node))
            name = node.input[1]
            q, scale = self.constant(f"{name}_int8", ints), self.constant(f"{name}_scale", scales)
            zero = self.constant(f"{name}_zero", np.zeros(len(scales), np.int8))
            made.input[1] = self.to_half(self.add("DequantizeLinear", [q, scale, zero], f"{name}_back", axis=axis))
            made.input[0] = self.pair(node.input[0])
        else:
            made.input[1] = self.float_weight(node.input[1], weight)
            made.input[0] = self.narrowed(node.input[0])
        if bias is not None:
            made.input[2] = self.float_weight(node.input[2], bias)
        self.nodes.append(made)

    def other(self, node: onnx.NodeProto) -> None:
        """Copy a node; in float32 where it reads nothing but the image, and in the end of the network."""
        made = copy.deepcopy(node)
        values = [name for name in node.input if name and name not in self.graph.weights]
        wide = not self.half or node.output[0] in self.graph.ending or self.floats.issuperset(values)
        for i, name in enumerate(node.input):
            if name in self.graph.weights:
                self.copied(name, wide or i in STAYS.get(node.op_type, ()))
            elif name:
                made.input[i] = self.widened(name) if wide else self.narrowed(name)
        if wide:
            self.floats.update(node.output)
        self.nodes.append(made)

    def copied(self, name: str, wide: bool) -> None:
        """Keep a constant, in float16 unless `wide`; whole numbers stay."""
        values = self.graph.weights[name]
        self.constant(name, values.astype(np.float16) if values.dtype == np.float32 and not wide else values)


def correction(
    lost: NDArray[np.float64], mean: NDArray[np.float64], op: str, stride: int, groups: int = 1
) -> NDArray[np.float64]:
    """The mean error of each output channel from rounding the weights (Nagel et al., 2019, section 4.2)."""
    if op == "Conv" and groups > 1:
        parts = lost.sum(axis=(2, 3)).reshape(groups, -1, lost.shape[1])
        return np.asarray(np.einsum("goi,gi->go", parts, mean.reshape(groups, -1)).reshape(-1))
    if op == "Conv":
        return np.asarray(lost.sum(axis=(2, 3)) @ mean)
    return np.asarray(lost.sum(axis=(2, 3)).T @ mean) / stride**2  # each pixel comes from a part of the kernel


def stride_of(node: onnx.NodeProto) -> int:
    return next((int(a.ints[0]) for a in node.attribute if a.name == "strides"), 1)


def is_quantised(graph: Network, pool: onnx.NodeProto, units: Mapping[str, Unit]) -> bool:
    """Whether a pooling is all that reads its input, and all that read its result read it in int8."""
    if len(graph.read_by[pool.input[0]]) > 1 or len(pool.output) > 1:
        return False
    for node in graph.read_by.get(pool.output[0], []):
        unit = units.get(node.name)
        if unit is None or unit.precision != INT8:
            return False
        if node.op_type == "Add" and skip_of(graph, node) != pool.output[0]:
            return False
    return pool.output[0] in graph.read_by


def write_qdq(
    graph: Network, units: Sequence[Unit], limits: dict[str, float], means: dict[str, NDArray[np.float64]], base: str
) -> onnx.ModelProto:
    """The quantised model of a (rescaled) graph. `limits` and `means` are those of its tensors after rescaling."""
    by_node = {unit.node: unit for unit in units}
    writer = Writer(graph, limits, means, half=base == "fp16", floats={graph.input})
    for node in graph.model.graph.node:
        unit = by_node.get(node.name)
        if node.op_type in CONVOLUTIONS:
            assert unit is not None, "place() has a unit for every convolution"
            writer.convolution(node, unit)
        elif unit is not None and unit.precision == INT8 and (skip := skip_of(graph, node)):
            made = copy.deepcopy(node)
            made.input[:] = [writer.pair(name) if name == skip else name for name in node.input]
            writer.nodes.append(made)
        elif node.op_type == "MaxPool" and is_quantised(graph, node, by_node):
            writer.pooled(node)
        else:
            writer.other(node)
    model = copy.deepcopy(graph.model)
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.weights)
    return model
