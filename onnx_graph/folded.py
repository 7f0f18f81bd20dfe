"""Computes what does not depend on the image, and brings a graph to the opset of our files.

ONNX Runtime folds constants for an input of a known size, so all arithmetic with shapes goes. It folds batch norms into
convolutions too, and drops dropout and identities. Only its basic optimisations are used, which write standard ONNX.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import defs, helper, version_converter

from dlink.onnx_graph.quiet_onnxruntime import onnxruntime
from dlink.runtime.errors import BadInput

OPSET = 17  # of our files: the newest that TensorRT 8.5 parses
LEFT_OUT = ["MatMulAddFusion"]  # makes a Gemm of two-dimensional products, with transposed weights


def folded(model: onnx.ModelProto, name: str, side: int) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimisations. Its input has a static shape."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory() as folder:
        path = Path(folder, "folded.onnx")
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=LEFT_OUT
            )
        except Exception as e:  # its exceptions have no class of their own
            raise BadInput(f"{name}: ONNX Runtime does not take it for a tile of {side} px: {reason(e)}") from e
        made = onnx.load(path)
    used = {node.domain for node in made.graph.node}
    for entry in [o for o in made.opset_import if o.domain and o.domain not in used]:
        made.opset_import.remove(entry)
    del made.graph.value_info[:]
    return made


def reason(e: Exception) -> str:
    """The last part of a message of ONNX Runtime, in one line."""
    words = " ".join(str(e).split())
    return words.rpartition(" : ")[2][:240] if " : " in words else words[:240]


def at_our_opset(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model in opset 17."""
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if version == OPSET:
        return model
    try:
        made = version_converter.convert_version(model, OPSET)
    except Exception as e:  # a plain RuntimeError, or one of its own
        raise BadInput(f"{name}: opset {version} does not convert to {OPSET}: {reason(e)}; export it as {OPSET}") from e
    for node in made.graph.node:
        drop_newer(node, name)
    return made


def drop_newer(node: onnx.NodeProto, name: str) -> None:
    """Remove attributes that are newer than our opset, where they say what our opset does anyway."""
    if node.domain not in ("", "ai.onnx") or not defs.has(node.op_type, OPSET):
        return
    known = defs.get_schema(node.op_type, OPSET).attributes
    for attribute in [a for a in node.attribute if a.name not in known]:
        if helper.get_attribute_value(attribute) not in (0, 0.0, b"", b"stretch", b"none"):
            raise BadInput(
                f"{name}: node {node.name} ({node.op_type}) has {attribute.name}, which opset {OPSET} lacks; export it "
                f"as {OPSET}"
            )
        node.attribute.remove(attribute)
