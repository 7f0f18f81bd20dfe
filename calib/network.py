"""An ONNX file of dlink as the input of calibration: a float32 graph, its layers and its Spec.

An FP16 file is lifted to float32: its weights are widened and its casts dropped, which changes none of its numbers. So
calibration handles one kind of graph, and writes the same file from FP16 as from FP32.
"""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from dlink.onnx_graph.model import CONVOLUTIONS, PREFIX, WEIGHT, OnnxModel, read_model
from dlink.runtime.errors import BadInput

QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QGemm")

Weights = NDArray[np.float32]


class Network(OnnxModel):
    """A float32 network."""

    def with_weights(self, weights: dict[str, Weights]) -> "Network":
        """The same graph with some weights replaced."""
        model = copy.deepcopy(self.model)
        for initializer in model.graph.initializer:
            if initializer.name in weights:
                initializer.CopyFrom(numpy_helper.from_array(weights[initializer.name], initializer.name))
        return replace(self, model=model)


def layer_name(node: onnx.NodeProto) -> str:
    """The network's name of a layer: encoder1.0.conv1 for a convolution, encoder1.0.Add for a sum."""
    if node.op_type in CONVOLUTIONS:
        return str(node.input[1]).removeprefix(PREFIX).removesuffix(WEIGHT)
    return ".".join(part for part in str(node.name).strip("/").split("/")[-2:])


def read_network(path: Path) -> Network:
    """Read the float32 network of an ONNX file that dlink-export wrote."""
    read = read_model(path)
    found = sorted({n.op_type for n in read.model.graph.node} & set(QUANTISED))
    if found or read.spec.precision == "int8":
        raise BadInput(
            f"{path}: already quantised (it has {', '.join(found)}); calibrate the file from which it was made"
        )
    graph = Network(lifted(read.model), read.spec, read.mark)
    if len(graph.convolutions) < 2:
        raise BadInput(f"{path}: {len(graph.convolutions)} convolutions; there is nothing to make INT8")
    return graph


def lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy entirely in float32, without casts."""
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
