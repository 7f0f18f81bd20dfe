"""Makes a float16 graph of a float32 one: float16 between a cast of the image and the end, which stays float32.

Stretches whose values come near float16's end run at 1/2^k of their values first (stretches.py), as in the export of
checkpoints. Powers of two change no digit of a float32, so the network stays the same function.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlink.onnx_graph.model import OnnxModel
from dlink.onnx_graph.scales import steps
from dlink.onnx_graph.session import session
from dlink.onnx_graph.stretches import ENDS, HALF_MAX, comfortable, stretches

STAYS = {"Resize": (1, 2)}  # inputs that are float32 in a float16 graph: factors


def peaks(graph: OnnxModel, inputs: Iterable[NDArray[np.float32]]) -> dict[str, float]:
    """The largest |value| of every tensor over some inputs. ONNX Runtime gives these numbers alone, to save memory."""
    names = [graph.input, *(o for n in graph.model.graph.node for o in n.output)]
    outputs = [f"{name}/{op}" for name in names for op in ("ReduceMax", "ReduceMin")]
    model = graph.giving(outputs)
    for output in outputs:
        name, _, op = output.rpartition("/")
        model.graph.node.append(helper.make_node(op, [name], [output], output, keepdims=0))
    run = session(model.SerializeToString(), arena=False)
    found: dict[str, float] = defaultdict(float)
    for x in inputs:
        values = np.abs(run.run(outputs, {graph.input: x}))
        for name, pair in zip(names, np.reshape(values, (-1, 2)), strict=True):
            found[name] = max(found[name], float(pair.max()))  # NaN stays out; see `beyond`
            if not np.isfinite(pair).all():
                found[name] = math.inf
    return dict(found)


def balanced(graph: OnnxModel, found: dict[str, float]) -> tuple[OnnxModel, dict[str, float]]:
    """The same network with stretches within COMFORT where they can be, and the peaks of its values."""
    stretch = stretches(steps(graph))
    factor = comfortable(stretch, found)
    if not factor:
        return graph, found
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    stored = {i.name: i for i in model.graph.initializer}
    for node in graph.convolutions:
        into, out = (factor.get(stretch[name], 1.0) for name in (node.input[0], node.output[0]))
        write(stored[node.input[1]], graph.weights[node.input[1]].astype(np.float64) * (out / into))
        if len(node.input) > 2:
            write(stored[node.input[2]], graph.weights[node.input[2]].astype(np.float64) * out)
    scaled = {name: peak * factor.get(stretch.get(name, ENDS), 1.0) for name, peak in found.items()}
    return replace(graph, model=model), scaled


def write(tensor: onnx.TensorProto, values: NDArray[np.float64]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), tensor.name))


def beyond(graph: OnnxModel, found: dict[str, float]) -> tuple[str, float] | None:
    """The first node whose result float16 can't hold, and its largest value. The end stays float32."""
    for node in graph.model.graph.node:
        for name in node.output:
            if name not in graph.ending and not found.get(name, 0.0) <= HALF_MAX:
                return str(node.name), found[name]
    for name, values in halves(graph):
        if np.abs(values).max(initial=0) > HALF_MAX:
            return name, float(np.abs(values).max())
    return None


def halves(graph: OnnxModel) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The constants that become float16."""
    for node in graph.model.graph.node:
        if node.output[0] in graph.ending:
            continue
        for i, name in enumerate(node.input):
            stored = name in graph.stored and graph.weights[name].dtype == np.float32
            if stored and i not in STAYS.get(node.op_type, ()):
                yield name, graph.weights[name]


def halved(graph: OnnxModel) -> onnx.ModelProto:
    """The float16 graph between float32 ends."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    narrow = {name for name, _ in halves(graph)}
    for tensor in model.graph.initializer:
        if tensor.name in narrow:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    image = f"{graph.input}_half"
    nodes = [helper.make_node("Cast", [graph.input], [image], image, to=TensorProto.FLOAT16)]
    widened: set[str] = set()
    for node in model.graph.node:
        node.input[:] = [image if name == graph.input else name for name in node.input]
        if node.output[0] in graph.ending:
            for i, name in enumerate(node.input):
                if name and name not in graph.stored and name not in graph.ending:
                    node.input[i] = wide = f"{name}_float"
                    if wide not in widened:
                        nodes.append(helper.make_node("Cast", [name], [wide], wide, to=TensorProto.FLOAT))
                        widened.add(wide)
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(copies)
    return model
