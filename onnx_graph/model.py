"""An ONNX file of dlink in memory, and what calibration and builds ask about its graph."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from dlink.runtime.files import FileMark, mark_of
from dlink.runtime.onnx_bytes import read_onnx
from dlink.runtime.spec import Spec

CONVOLUTIONS = ("Conv", "ConvTranspose")
WEIGHT, PREFIX = ".weight", "net."  # a weight's name is PREFIX, its layer's name and WEIGHT
LOOK_THROUGH = ("Cast", "Identity")
ACTIVATIONS = ("Sigmoid", "Softmax")  # one of them, or an Identity in its place, begins the end of a graph
PRECISION_OF: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
}


@dataclass(frozen=True)
class Asked:
    """A convolution, and the precision that the graph asks for."""

    node: str  # its name in the graph, which TensorRT's layers repeat
    op: str  # Conv or ConvTranspose
    precision: str
    share: float  # of the network's multiply-adds


@dataclass(frozen=True)
class OnnxModel:
    """A graph and its Spec. `model` is never changed: functions that change a graph copy it."""

    model: onnx.ModelProto
    spec: Spec
    mark: FileMark  # of the file it was read from

    @property
    def input(self) -> str:
        return str(self.model.graph.input[0].name)

    @property
    def output(self) -> str:
        return str(self.model.graph.output[0].name)

    @cached_property
    def convolutions(self) -> list[onnx.NodeProto]:
        """The ordinary and transposed convolutions, in the order in which they run."""
        return [n for n in self.model.graph.node if n.op_type in CONVOLUTIONS]

    @cached_property
    def ending(self) -> frozenset[str]:
        """The tensors from the sigmoid or softmax on, which are float32 in every file.

        Without one on every way back from the output, it is the output alone.
        """
        found: set[str] = set()
        waiting = [self.output]
        while waiting:
            node = self.made_by.get(waiting.pop())
            if node is None or node.op_type in CONVOLUTIONS:
                return frozenset({self.output})
            found.update(node.output)
            if node.op_type not in ACTIVATIONS:
                waiting += [name for name in node.input if name and name not in self.stored]
        return frozenset(found)

    @cached_property
    def last_convolutions(self) -> frozenset[str]:
        """The results of the convolutions from which a way leads to the output without another convolution."""
        found: set[str] = set()
        seen: set[str] = set()
        waiting = [self.output]
        while waiting:
            node = self.made_by.get(waiting.pop())
            if node is None or node.output[0] in seen:
                continue
            seen.add(node.output[0])
            if node.op_type in CONVOLUTIONS:
                found.add(node.output[0])
            else:
                waiting += node.input
        return frozenset(found)

    @cached_property
    def made_by(self) -> dict[str, onnx.NodeProto]:
        """The node that gives each tensor."""
        return {name: node for node in self.model.graph.node for name in node.output}

    @cached_property
    def read_by(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor."""
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                readers[name].append(node)
        return dict(readers)

    @cached_property
    def stored(self) -> dict[str, onnx.TensorProto]:
        """Weights and biases by name, as stored in the file."""
        return {i.name: i for i in self.model.graph.initializer}

    @cached_property
    def weights(self) -> dict[str, NDArray[Any]]:
        """Weights and biases by name, as arrays."""
        return {name: numpy_helper.to_array(i) for name, i in self.stored.items()}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor for one view: (1, C, H, W)."""
        graph = onnx.shape_inference.infer_shapes(self.model, strict_mode=True).graph
        known = (*graph.input, *graph.value_info, *graph.output)
        return {v.name: tuple(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in known}

    @cached_property
    def asked(self) -> tuple[Asked, ...]:
        """The convolutions in the order in which they run, and the precision that each asks for."""
        total = sum(map(self.macs, self.convolutions)) or 1
        return tuple(
            Asked(str(n.name), str(n.op_type), self.precision_of(n), self.macs(n) / total) for n in self.convolutions
        )

    def shares(self) -> dict[str, float]:
        """Shares of the multiply-adds by the precision asked for, the largest first."""
        return sum_up((a.precision, a.share) for a in self.asked)

    def macs(self, node: onnx.NodeProto) -> int:
        """Multiply-adds of a convolution, for one view."""
        pixels = self.shapes[node.output[0] if node.op_type == "Conv" else node.input[0]][2:]
        return int(prod(self.kernel(node)[0].dims) * prod(pixels))

    def stride(self, tensor: str) -> int:
        """How many times smaller than the tile a tensor is."""
        return self.spec.tile // self.shapes[tensor][-1]

    def precision_of(self, node: onnx.NodeProto) -> str:
        """The precision that a convolution asks for: int8 if both its weight and its input are dequantised."""
        kernel, quantised = self.kernel(node)
        if not quantised:
            return PRECISION_OF.get(int(kernel.data_type), "fp32")
        name = node.input[0]
        while (fed_by := self.made_by.get(name)) is not None and fed_by.op_type in LOOK_THROUGH:
            name = fed_by.input[0]
        return "int8" if fed_by is not None and fed_by.op_type == "DequantizeLinear" else "fp32"

    def kernel(self, node: onnx.NodeProto) -> tuple[onnx.TensorProto, bool]:
        """A convolution's weight as stored in the file, and whether a DequantizeLinear follows it."""
        name, quantised = node.input[1], False
        while name in self.made_by:
            quantised |= self.made_by[name].op_type == "DequantizeLinear"
            name = self.made_by[name].input[0]
        return self.stored[name], quantised

    def giving(self, tensors: Iterable[str]) -> onnx.ModelProto:
        """A copy of the model that outputs these tensors."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
        return model


def sum_up(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of shares by name, the largest first."""
    found: dict[str, float] = defaultdict(float)
    for name, share in pairs:
        found[name] += share
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def read_model(path: Path) -> OnnxModel:
    """Read an ONNX file that dlink-export or dlink-calibrate wrote."""
    file = read_onnx(path)
    return OnnxModel(onnx.load_from_string(file.data), file.spec, mark_of(path.name, file.data))
