"""What a plan reads and gives: float16, where all that an ONNX file does with its float32 image is to cast it to that.

FP16 files begin so, and INT8 ones whose first convolution is FP16. The plan then reads half of the bytes, and whoever
prepares the image rounds it as the cast would have: to the nearest, ties to even (ONNX's Cast, cvt.rn in kernels.cu).
The probabilities stay float32, since the sigmoid is computed in that: float16 has no steps to spare near 1.
"""

from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from dlink.onnx_graph.model import OnnxModel
from dlink.trt_runtime.manifest import Ends


def first_casts(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The casts to float16 that are all that becomes of a float32 image; none where more does."""
    image = model.graph.input[0]
    readers = [node for node in model.graph.node if image.name in node.input]
    half = [n for n in readers if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT16]
    given = {value.name for value in model.graph.output}
    if image.type.tensor_type.elem_type != TensorProto.FLOAT or len(half) < len(readers) or image.name in given:
        return []
    return [] if any(node.output[0] in given for node in half) else half


def with_half_input(graph: OnnxModel) -> OnnxModel:
    """The graph without those casts, reading float16; the same one where there are none."""
    if not first_casts(graph.model):
        return graph
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    image, casts = model.graph.input[0], first_casts(model)
    gone = {node.output[0] for node in casts}
    image.type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in casts:
        model.graph.node.remove(node)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name in gone:
                node.input[i] = image.name
    known = [value for value in model.graph.value_info if value.name not in gone]
    del model.graph.value_info[:]
    model.graph.value_info.extend(known)
    return replace(graph, model=model)


def ends_of(graph: OnnxModel) -> Ends:
    """The types at a graph's ends."""
    types = [value.type.tensor_type.elem_type for value in (graph.model.graph.input[0], graph.model.graph.output[0])]
    reads, gives = (helper.tensor_dtype_to_np_dtype(t).name for t in types)
    return Ends(reads=reads, gives=gives)
