"""The types of a plan's input and output.

The input is float16 if the ONNX file only casts its float32 image to float16, as FP16 files do, and INT8 files whose
first convolution is FP16. The plan then reads half of the bytes. The preparation rounds as the cast would: to the
nearest, ties to even (ONNX's Cast, cvt.rn in kernels.cu). The output stays float32, the type of the sigmoid, because
float16 is too coarse near 1.
"""

from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from dlink.onnx_graph.model import OnnxModel
from dlink.trt_runtime.manifest import Ends


def first_casts(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The casts to float16 that read a float32 image; none if anything else reads it too."""
    image = model.graph.input[0]
    readers = [node for node in model.graph.node if image.name in node.input]
    half = [n for n in readers if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT16]
    outputs = {value.name for value in model.graph.output}
    if image.type.tensor_type.elem_type != TensorProto.FLOAT or len(half) < len(readers) or image.name in outputs:
        return []
    return [] if any(node.output[0] in outputs for node in half) else half


def with_half_input(graph: OnnxModel) -> OnnxModel:
    """The graph without those casts and with a float16 input; the same graph if it has no such casts."""
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
    """The types of a graph's input and output."""
    types = [value.type.tensor_type.elem_type for value in (graph.model.graph.input[0], graph.model.graph.output[0])]
    reads, gives = (helper.tensor_dtype_to_np_dtype(t).name for t in types)
    return Ends(reads=reads, gives=gives)
