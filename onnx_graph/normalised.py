"""Brings a network from elsewhere into the form of our files (export/onnx_file.py).

The graph is folded for one tile, so every shape is known. Then the batch becomes free again, resizes get factors in
place of sizes, and each convolution owns its weights, named after its layer, because calibration changes them one layer
at a time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dlink.onnx_graph.folded import at_our_opset, folded
from dlink.onnx_graph.foreign import Input, fixed, giving, output_of
from dlink.onnx_graph.model import ACTIVATIONS, CONVOLUTIONS, PREFIX, WEIGHT, OnnxModel
from dlink.onnx_graph.road_output import ROAD, Maps, RoadOutput, add_road
from dlink.runtime.errors import BadInput
from dlink.runtime.files import FileMark
from dlink.runtime.onnx_bytes import OPERATORS
from dlink.runtime.spec import Spec

IMAGE = "image"
SAME = ("Identity", "Dropout")
RESHAPES = ("Reshape", "Flatten")
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
POOLS = ("MaxPool", "AveragePool")
QUANTISED = "is of a quantised network; give the float network, and dlink-calibrate makes INT8 of it"
HINTS = {
    "ArgMax": "gives class numbers, not probabilities; --output-name takes the tensor before it",
    "Cast": "changes the type of values; give the float32 network, and --precision fp16 makes FP16 of it",
    "QuantizeLinear": QUANTISED,
    "DequantizeLinear": QUANTISED,
}


@dataclass(frozen=True)
class Body:
    """The network in opset 17, folded for one tile: reads `image` (1, C, S, S), ends in its own output."""

    model: onnx.ModelProto
    output: str  # the network's own name of it
    maps: Maps
    note: str


def body_of(model: onnx.ModelProto, name: str, taken: Input, wanted: str | None, channels: int, side: int) -> Body:
    """Fold a network for its tile. `wanted` is the user's choice of output."""
    model = giving(model, name, wanted)
    fixed(model, taken, taken.dims(1, channels, side))
    read_image(model, taken, channels, side)
    model = folded(model, name, side)
    output, note = output_of(model, name, wanted)
    model = folded(at_our_opset(giving(model, name, output), name), name, side)
    drop_same(model)
    refuse_strange(model, name)
    shapes = shapes_of(model)
    if (kind := types_of(model).get(output)) not in FLOATS:
        node = next((n for n in model.graph.node if output in n.output), None)
        words = HINTS["ArgMax"] if kind == TensorProto.INT64 else "is not float32"
        raise BadInput(f"{name}: its output {output} (node {node.name if node else '?'}) {words}")
    own_constants(model.graph)
    by_factor(model, shapes, name)
    return Body(model, output, Maps.of(shapes[output], name, side), note)


def read_image(model: onnx.ModelProto, taken: Input, channels: int, side: int) -> None:
    """Name the input `image` and give it the channels first."""
    old = taken.name
    if old == IMAGE and not taken.last:
        return
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = f"{old}_read"
    kept = [value for value in model.graph.input if value.name != old]
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, (1, channels, side, side)))
    model.graph.input.extend(kept)
    turn: dict[str, Any] = {"perm": [0, 2, 3, 1]} if taken.last else {}
    op = "Transpose" if taken.last else "Identity"
    model.graph.node.insert(0, helper.make_node(op, [IMAGE], [f"{old}_read"], f"{IMAGE}/{op}", **turn))


def normalised(body: Body, how: RoadOutput, name: str, side: int) -> onnx.ModelProto:
    """The graph of our file: N x C x S x S -> N x 1 x S x S in 0..1, N free."""
    model = onnx.ModelProto()
    model.CopyFrom(body.model)
    add_road(model, how, side)
    model = folded(model, name, side)
    drop_same(model)
    refuse_strange(model, name)
    end(model)
    shapes = shapes_of(model)
    for node in model.graph.node:
        explicit_pads(node, shapes)
    own_constants(model.graph)
    without_norms(model)
    free_batch(model, shapes)
    name_layers(model.graph, name)
    for value, channels in ((model.graph.input[0], shapes[IMAGE][1]), (model.graph.output[0], 1)):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["N", channels, side, side]))
    del model.graph.value_info[:], model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor; 1 for a free dimension."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = (*graph.input, *graph.value_info, *graph.output)
    shapes = {v.name: tuple(d.dim_value or 1 for d in v.type.tensor_type.shape.dim) for v in known}
    return shapes | {i.name: tuple(i.dims) for i in graph.initializer}


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}


def drop_same(model: onnx.ModelProto) -> None:
    """Remove nodes that change nothing: identities, dropout, casts of float32 to float32."""
    graph = model.graph
    outputs, types = {o.name for o in graph.output}, types_of(model)
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        cast = node.op_type == "Cast" and node.attribute[0].i == types.get(node.input[0]) == TensorProto.FLOAT
        if (node.op_type in SAME or cast) and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def refuse_strange(model: onnx.ModelProto, name: str) -> None:
    """Raise BadInput for the first node that a file of ours can't have."""
    stored = {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        where = f"{name}: node {node.name or node.output[0]}"
        if op in HINTS:
            raise BadInput(f"{where} is {op}: it {HINTS[op]}")
        if op not in OPERATORS and op not in (*SAME, *RESHAPES, "BatchNormalization"):
            raise BadInput(f"{where} is {op}, which is not an operator that dlink takes; export the network without it")
        if op in CONVOLUTIONS and not set(node.input[1:]) - {""} <= stored:
            raise BadInput(f"{where} ({op}) computes its weights from the image; dlink takes fixed weights")


def end(model: onnx.ModelProto) -> None:
    """Name the output `road`, after an Identity where no activation ends the graph: it is float32 in every file."""
    old = model.graph.output[0].name
    graph = OnnxModel(model, Spec(), FileMark(name="", sha256="", bytes=0))
    bounded = graph.made_by[old].op_type in ACTIVATIONS or len(graph.ending) > 1
    if bounded and old not in graph.read_by:
        made = graph.made_by[old]
        made.output[list(made.output).index(old)] = ROAD
    else:
        model.graph.node.append(helper.make_node("Identity", [old], [ROAD], f"{ROAD}/Identity"))
    model.graph.output[0].name = ROAD


def explicit_pads(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write auto_pad as pads."""
    given = {a.name: a for a in node.attribute}
    if node.op_type not in (*CONVOLUTIONS, *POOLS) or "auto_pad" not in given:
        return
    mode = given["auto_pad"].s
    node.attribute.remove(given["auto_pad"])
    if mode in (b"NOTSET", b""):
        return
    kernel = shapes[node.input[1]][2:] if node.op_type in CONVOLUTIONS else given["kernel_shape"].ints
    axes = len(kernel)
    strides, dilations = (list(given[k].ints) if k in given else [1] * axes for k in ("strides", "dilations"))
    more = list(given["output_padding"].ints) if "output_padding" in given else [0] * axes
    before, after = [], []
    for i in range(axes):
        small, large = shapes[node.input[0]][2 + i], shapes[node.output[0]][2 + i]
        if node.op_type == "ConvTranspose":
            small, large = large - more[i], small
        total = max((large - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - small, 0)
        total = 0 if mode == b"VALID" else total
        less, rest = total // 2, total - total // 2
        first = less if mode != b"SAME_LOWER" else rest
        before.append(first)
        after.append(total - first)
    old = [a for a in node.attribute if a.name in ("pads", "output_shape")]
    for attribute in old:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute("pads", before + after))


def own_constants(graph: onnx.GraphProto) -> None:
    """Give every node weights of its own."""
    stored, used = {i.name: i for i in graph.initializer}, set()
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in stored and name in used:
                copy = onnx.TensorProto()
                copy.CopyFrom(stored[name])
                copy.name = node.input[i] = f"{node.output[0]}/{name}"
                graph.initializer.append(copy)
            used.add(name)
    kept = [i for i in graph.initializer if i.name in {name for node in graph.node for name in node.input}]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def put(graph: onnx.GraphProto, name: str, values: NDArray[np.generic]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name


def drop(graph: onnx.GraphProto, names: set[str]) -> None:
    kept = [i for i in graph.initializer if i.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def by_factor(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], name: str) -> None:
    """Give each Resize the factors of its height and width, since sizes would fix the batch."""
    for node in [n for n in model.graph.node if n.op_type == "Resize"]:
        given, made = shapes[node.input[0]], shapes[node.output[0]]
        mode = next((a.s for a in node.attribute if a.name == "coordinate_transformation_mode"), b"half_pixel")
        if mode == b"tf_crop_and_resize" or given[:2] != made[:2]:
            raise BadInput(f"{name}: node {node.name} is a Resize of more than height and width; export it without")
        drop(model.graph, set(node.input[1:]))
        scales = np.array([factor(a, b) for a, b in zip(given, made, strict=True)], np.float32)
        node.input[:] = [node.input[0], "", put(model.graph, f"{node.output[0]}_scales", scales)]


def factor(given: int, made: int) -> np.float32:
    """made / given, rounded so that floor(given * factor) is `made`, as engines compute it in float32."""
    found: np.float32 = np.float32(made / given)
    while int(np.floor(np.float32(given) * found)) < made:
        found = np.float32(np.nextafter(found, np.float32(np.inf)))
    return found


def without_norms(model: onnx.ModelProto) -> None:
    """Write a batch norm that no convolution could take as a product and a sum."""
    stored = {i.name: i for i in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        gain, bias, mean, var = (numpy_helper.to_array(stored[name]).astype(np.float64) for name in node.input[1:])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        scale = gain / np.sqrt(var + epsilon)
        drop(model.graph, set(node.input[1:]))
        out = node.output[0]
        times, plus = (
            put(model.graph, f"{out}_{word}", values.astype(np.float32)[:, None, None])
            for word, values in (("times", scale), ("plus", bias - mean * scale))
        )
        nodes.append(helper.make_node("Mul", [node.input[0], times], [f"{out}_scaled"], f"{node.name}_times"))
        nodes.append(helper.make_node("Add", [f"{out}_scaled", plus], [out], node.name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def free_batch(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Take the batch of one out of the shapes that reshapes are given."""
    for node in [n for n in model.graph.node if n.op_type in RESHAPES]:
        given, made = shapes[node.input[0]], shapes[node.output[0]]
        drop(model.graph, set(node.input[1:]))
        first = 0 if given[:1] == made[:1] == (1,) else -1
        shape = put(model.graph, f"{node.output[0]}_shape", np.array([first, *made[1:]], np.int64))
        node.CopyFrom(helper.make_node("Reshape", [node.input[0], shape], list(node.output), node.name))


def name_layers(graph: onnx.GraphProto, file: str) -> None:
    """Give every node a name, and a convolution's weights the name of its layer."""
    names: set[str] = set()
    for i, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{i}"
        node.name = name if name not in names else f"{name}_{i}"
        names.add(node.name)
    stored = {i.name: i for i in graph.initializer}
    taken: set[str] = set()
    for node in [n for n in graph.node if n.op_type in CONVOLUTIONS]:
        if len(stored[node.input[1]].dims) != 4:
            raise BadInput(f"{file}: node {node.name} is a {node.op_type} that is not of height and width")
        layer = layer_of(node)
        layer = layer if layer not in taken else f"{layer}.{len(taken)}"
        taken.add(layer)
        for i, ending in enumerate((WEIGHT, ".bias"), 1):
            if len(node.input) > i and node.input[i]:
                stored[node.input[i]].name = node.input[i] = f"{PREFIX}{layer}{ending}"
        if len(node.input) == 3 and not node.input[2]:
            del node.input[2]


def layer_of(node: onnx.NodeProto) -> str:
    """A layer's name, from its weight's where that says it, else from its node's."""
    weight = node.input[1]
    if weight.endswith(WEIGHT):
        return str(weight).removesuffix(WEIGHT).strip("/")
    path = str(node.name).strip("/").removesuffix(f"/{node.op_type}")
    return path.replace("/", ".").replace(":", ".")
