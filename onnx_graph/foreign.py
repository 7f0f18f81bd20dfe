"""Reads an ONNX file from elsewhere, and says in one line what dlink can't take of it.

The file is not one of ours (onnx_bytes.py reads those), so nothing is known of it: its opset, the layout of its input,
how many outputs there are, and whether its weights lie beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from onnx.external_data_helper import load_external_data_for_model
from onnx.inliner import inline_local_functions

from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.spec import LARGEST_TILE, ONNX_KEY

OPSETS = range(11, 22)
MOST_BYTES = 2_000_000_000  # of weights: protobuf, and so an ONNX file, ends at 2 GiB
MULTIPLE = 32  # of a tile's side, px


@dataclass(frozen=True)
class Input:
    """The only input of a network from elsewhere."""

    name: str
    last: bool  # whether the channels are the last dimension

    def dims(self, n: int, channels: int, side: int) -> tuple[int, int, int, int]:
        return (n, side, side, channels) if self.last else (n, channels, side, side)


def read_foreign(path: Path) -> onnx.ModelProto:
    """The model with all its weights. Raise BadInput or BadModel for a file that can't be taken."""
    data = path.read_bytes()
    try:
        model = onnx.load_from_string(data)
    except Exception as e:  # protobuf's own, of a library that need not be there by that name
        raise BadModel(f"{path}: not an ONNX model, or a damaged one; copy it again") from e
    if not model.graph.node or not model.graph.output:
        raise BadModel(f"{path}: not an ONNX model, or a damaged one: it has no graph; copy it again")
    if any(entry.key == ONNX_KEY for entry in model.metadata_props):
        raise BadInput(
            f"{path}: dlink wrote this file, so use it as it is; for another tile, precision or preparation export its "
            "checkpoint again"
        )
    if (found := weight_bytes(model)) > MOST_BYTES:
        raise BadInput(f"{path}: its weights take {found / 1e9:.1f} GB, and an ONNX file ends at 2 GB")
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as e:
        reason = " ".join(str(e).split())[:160]
        raise BadInput(f"{path}: its weights are in another file that can't be read: {reason}; put it beside") from e
    check_opset(model, path)
    return inline_local_functions(model) if model.functions else model


def weight_bytes(model: onnx.ModelProto) -> int:
    sizes = {kind: helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in (TensorProto.FLOAT, TensorProto.DOUBLE)}
    return sum(prod(i.dims) * sizes.get(i.data_type, 1) for i in model.graph.initializer)


def check_opset(model: onnx.ModelProto, path: Path) -> None:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        raise BadInput(f"{path}: opset {opset}; opsets {OPSETS[0]} to {OPSETS[-1]} are taken, so export it again as 17")


def input_of(model: onnx.ModelProto, name: str, side: int, channels: int) -> Input:
    """The input and its layout. Raise BadInput if it is not an image, or not of a tile's size."""
    stored = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs)
        raise BadInput(f"{name}: has {len(inputs)} inputs ({names or 'none'}); a network of one image has one")
    found, kind = inputs[0], inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        given = helper.tensor_dtype_to_string(kind.elem_type).rpartition(".")[2].lower()
        mend = "export it as float32, and --precision fp16 makes FP16 of it" if given == "float16" else "float32 is"
        raise BadInput(f"{name}: its input {found.name} is {given}; {mend} needed")
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]
    if len(dims) != 4:
        shape = f"has {len(dims)} dimensions" if kind.HasField("shape") else "has no shape"
        raise BadInput(f"{name}: its input {found.name} {shape}; export it with N x {channels} x H x W")
    last = dims[1] != channels and dims[3] == channels
    planes, (height, width) = dims[3 if last else 1], dims[1:3] if last else dims[2:]
    if planes not in (0, channels):
        raise BadInput(f"{name}: its input {found.name} has {planes} channels, and dlink's tiles have {channels}")
    check_size(name, height, width, side)
    return Input(found.name, last)


def check_size(name: str, height: int, width: int, side: int) -> None:
    """0 is a free size."""
    if height and width and height != width:
        raise BadInput(f"{name}: its input is {width} x {height} px, and tiles are square; export it with a free size")
    if (fixed := height or width) in (0, side):
        return
    if fixed % MULTIPLE or fixed > LARGEST_TILE:
        raise BadInput(
            f"{name}: its input is {fixed} px; a tile is a multiple of {MULTIPLE} px up to {LARGEST_TILE}, so export "
            "it with a free size"
        )
    raise BadInput(f"{name}: its input is {fixed} px, and --tile is {side}; give --tile {fixed}")


def output_of(model: onnx.ModelProto, name: str, wanted: str | None) -> tuple[str, str]:
    """The output's name in a graph of static shapes, and a note on how it was chosen."""
    names = [o.name for o in model.graph.output]
    if len(names) == 1:
        return names[0], ""
    shapes = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in model.graph.output}
    maps = [o for o in names if len(shapes[o]) == 4]
    if len(maps) != 1:
        raise BadInput(f"{name}: has {len(names)} outputs; --output-name says which is the roads: {', '.join(names)}")
    return maps[0], f"the output {maps[0]} of {len(names)} is taken; --output-name takes another"


def giving(model: onnx.ModelProto, name: str, tensor: str | None) -> onnx.ModelProto:
    """A copy whose only output is this tensor, and which has only what leads to it; all outputs for None."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if tensor is None:
        return copy
    outputs = [o for o in copy.graph.output if o.name == tensor]
    if not outputs and tensor not in {o for n in copy.graph.node for o in n.output}:
        known = ", ".join(o.name for o in copy.graph.output)
        raise BadInput(f"--output-name {tensor}: {name} has no such output or inner tensor; its outputs are {known}")
    del copy.graph.output[:]
    copy.graph.output.append(outputs[0] if outputs else onnx.ValueInfoProto(name=tensor))
    prune(copy.graph)
    return copy


def prune(graph: onnx.GraphProto) -> None:
    """Remove the nodes and weights from which no output follows."""
    needed, kept = {o.name for o in graph.output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input) | {i for a in node.attribute for g in (a.g, *a.graphs) for i in outer(g)}
    nodes = kept[::-1]
    weights = [i for i in graph.initializer if i.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


def outer(graph: onnx.GraphProto) -> set[str]:
    """All names that a subgraph reads."""
    inner = {i for n in graph.node for i in n.input} | {o.name for o in graph.output}
    return inner.union(*(outer(g) for n in graph.node for a in n.attribute for g in (a.g, *a.graphs)))


def fixed(model: onnx.ModelProto, taken: Input, dims: Sequence[int]) -> None:
    """Give the input its size, and forget the shapes that followed from another."""
    for value in model.graph.input:
        if value.name == taken.name:
            value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, dims))
    del model.graph.value_info[:]
    for output in model.graph.output:
        if output.HasField("type"):  # an inner tensor that was made the output has none
            output.type.tensor_type.ClearField("shape")
