"""An ONNX file of ours as what calibration works on: a float32 graph, its layers and its Spec.

An FP16 file is lifted: its weights widened, its casts dropped, which changes none of its numbers. So calibration has
one kind of graph to know, and what it writes is the same whichever file it began with.
"""

import copy
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from dlink.runtime.errors import BadInput
from dlink.runtime.onnx_bytes import read_onnx
from dlink.runtime.spec import Spec

CONVOLUTIONS = ("Conv", "ConvTranspose")
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QGemm")
WEIGHT, PREFIX = ".weight", "net."  # what a weight's name has around the layer's

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A float32 network. `model` is never changed: what changes it makes a copy."""

    model: onnx.ModelProto
    spec: Spec
    sha256: str  # of the file it was read from

    @property
    def input(self) -> str:
        return str(self.model.graph.input[0].name)

    @property
    def output(self) -> str:
        return str(self.model.graph.output[0].name)

    @cached_property
    def convolutions(self) -> list[onnx.NodeProto]:
        """Ordinary and transposed, in the order in which they run."""
        return [n for n in self.model.graph.node if n.op_type in CONVOLUTIONS]

    @cached_property
    def made_by(self) -> dict[str, onnx.NodeProto]:
        """The node behind every tensor."""
        return {name: node for node in self.model.graph.node for name in node.output}

    @cached_property
    def read_by(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read a tensor."""
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                readers[name].append(node)
        return dict(readers)

    @cached_property
    def weights(self) -> dict[str, Weights]:
        """Weights and biases by name."""
        return {i.name: numpy_helper.to_array(i) for i in self.model.graph.initializer}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor, for one view: (1, C, H, W)."""
        model = copy.deepcopy(self.model)
        for end in (*model.graph.input, *model.graph.output):
            end.type.tensor_type.shape.dim[0].dim_value = 1
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        known = (*inferred.input, *inferred.value_info, *inferred.output)
        return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in known}

    def macs(self, node: onnx.NodeProto) -> int:
        """Multiply-adds of a convolution, for one view."""
        kernel = self.weights[node.input[1]].shape
        pixels = self.shapes[node.output[0] if node.op_type == "Conv" else node.input[0]][2:]
        return int(np.prod(kernel) * np.prod(pixels))

    def stride(self, tensor: str) -> int:
        """How many times smaller than the tile a tensor is."""
        return self.spec.tile // self.shapes[tensor][-1]

    def with_weights(self, weights: dict[str, Weights]) -> "Network":
        """The same graph with some weights replaced."""
        model = copy.deepcopy(self.model)
        for initializer in model.graph.initializer:
            if initializer.name in weights:
                initializer.CopyFrom(numpy_helper.from_array(weights[initializer.name], initializer.name))
        return Network(model, self.spec, self.sha256)


def layer_name(node: onnx.NodeProto) -> str:
    """What the network calls a layer: encoder1.0.conv1 for a convolution, encoder1.0.Add for a sum."""
    if node.op_type in CONVOLUTIONS:
        return str(node.input[1]).removeprefix(PREFIX).removesuffix(WEIGHT)
    return ".".join(part for part in str(node.name).strip("/").split("/")[-2:])


def read_network(path: Path) -> Network:
    """The float32 network of an ONNX file that dlink-export wrote."""
    file = read_onnx(path)
    model, spec = onnx.load_from_string(file.data), file.spec
    found = sorted({n.op_type for n in model.graph.node} & set(QUANTISED))
    if found or spec.precision == "int8":
        raise BadInput(f"{path}: quantised already (it has {', '.join(found)}); calibrate the file it was made from")
    graph = Network(lifted(model), spec, hashlib.sha256(file.data).hexdigest())
    if len(graph.convolutions) < 2:
        raise BadInput(f"{path}: {len(graph.convolutions)} convolutions; there is nothing to make INT8")
    return graph


def lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in float32 throughout, without casts."""
    model = copy.deepcopy(model)
    graph = model.graph
    for initializer in graph.initializer:
        if initializer.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(values, initializer.name))
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type == "Cast":
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    return model
