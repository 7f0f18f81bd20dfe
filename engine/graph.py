"""An ONNX file of ours as a builder needs it: its bytes, its Spec, and the precision that each convolution asks for."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto

from dlink.runtime.onnx_bytes import read_onnx
from dlink.runtime.spec import Spec
from dlink.trt_runtime.manifest import FileMark

TYPES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16", TensorProto.INT8: "int8"}
LOOK_THROUGH = ("Cast", "Identity")


@dataclass(frozen=True)
class Asked:
    """A convolution, and what the graph wants of it."""

    node: str  # its name in the graph, which TensorRT's layers repeat
    op: str  # Conv or ConvTranspose
    precision: str
    share: float  # of the network's multiply-adds


@dataclass(frozen=True)
class Graph:
    """A model in memory."""

    model: onnx.ModelProto
    spec: Spec
    mark: FileMark
    asked: tuple[Asked, ...]

    @property
    def input(self) -> str:
        return str(self.model.graph.input[0].name)

    @property
    def output(self) -> str:
        return str(self.model.graph.output[0].name)

    def shares(self) -> dict[str, float]:
        """Of the multiply-adds by the precision asked for, the largest first."""
        return sum_up((a.precision, a.share) for a in self.asked)


def sum_up(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Shares by name, the largest first."""
    found: dict[str, float] = defaultdict(float)
    for name, share in pairs:
        found[name] += share
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def read_graph(path: Path) -> Graph:
    """An ONNX file that dlink-export or dlink-calibrate wrote."""
    file = read_onnx(path)
    model = onnx.load_from_string(file.data)
    mark = FileMark(name=path.name, sha256=hashlib.sha256(file.data).hexdigest(), bytes=len(file.data))
    return Graph(model, file.spec, mark, tuple(what_is_asked(model)))


def what_is_asked(model: onnx.ModelProto) -> list[Asked]:
    """The convolutions in the order in which they run."""
    initializers = {i.name: i for i in model.graph.initializer}
    made_by = {name: node for node in model.graph.node for name in node.output}
    shapes = shapes_of(model)
    found: list[tuple[onnx.NodeProto, str, int]] = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        weight, quantised = source_of(node.input[1], made_by)
        kernel = initializers[weight]
        fed_by = made_by.get(through(node.input[0], made_by))
        both = quantised and fed_by is not None and fed_by.op_type == "DequantizeLinear"
        precision = "int8" if both else TYPES.get(kernel.data_type, "fp32") if not quantised else "fp32"
        pixels = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]][2:]
        found.append((node, precision, prod(kernel.dims) * prod(pixels)))
    total = sum(macs for *_, macs in found) or 1
    return [Asked(str(node.name), str(node.op_type), precision, macs / total) for node, precision, macs in found]


def through(name: str, made_by: dict[str, onnx.NodeProto]) -> str:
    """The tensor behind casts."""
    while name in made_by and made_by[name].op_type in LOOK_THROUGH:
        name = made_by[name].input[0]
    return name


def source_of(name: str, made_by: dict[str, onnx.NodeProto]) -> tuple[str, bool]:
    """The initializer behind a weight, and whether it is dequantised on the way."""
    quantised = False
    while name in made_by:
        quantised |= made_by[name].op_type == "DequantizeLinear"
        name = made_by[name].input[0]
    return name, quantised


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of every tensor; what is free in the file is 0."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = (*graph.input, *graph.value_info, *graph.output)
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in known}
