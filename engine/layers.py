"""The precision of an engine's layers, from its inspector's report, compared with what the graph asks for."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlink.engine.versions import Compiler
from dlink.onnx_graph.model import OnnxModel, sum_up
from dlink.runtime.errors import CheckFailed, NoEngine
from dlink.trt_runtime.manifest import Precision
from dlink.trt_runtime.nvidia_driver import Gpu
from dlink.trt_runtime.tensorrt_engine import INVALID, validity

WORDS = (  # a type's names in a report: "Thirty-two wide channel vectorized row major Int8 format", "Half"
    ("fp8", r"fp8|e4m3"),
    ("int8", r"int8"),
    ("bf16", r"bf16|bfloat16"),
    ("fp16", r"fp16|half|float16"),
    ("fp32", r"fp32|float32|float|tf32"),
)
WIDTH = {"int8": 1, "fp8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
SPLIT = re.compile(r"[\s,+|\[\]{}()\x1e\x1f]+")  # between the nodes' names in a fused layer's name
UNSEEN = "unseen"
USEFUL = 0.5  # share of the int8 that the graph asks for; with less the plan does not count as INT8


@dataclass(frozen=True)
class Layer:
    """A layer of an engine, fused from several nodes of the graph."""

    name: str
    kind: str
    precision: str  # empty if the report does not say
    nodes: frozenset[str]  # every word of its name and origin; some are names of nodes
    weights: bool = False  # whether it has weights


def inspect(compiler: Compiler, plan: bytes, gpu: Gpu) -> list[Layer]:
    """The layers of a plan that was just built, on the GPU at hand."""
    trt = compiler.trt
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    if compiler.rtx:
        answer, why = validity(trt, runtime, plan)
        if answer == INVALID:
            raise NoEngine(
                f"{compiler.title} says that the plan that it has just built does not run on {gpu}: {why}; try "
                "--compute-capability current, or leave that option out"
            )
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise NoEngine(f"{compiler.title} does not load the plan that it has just built; its messages are above")
    inspector = engine.create_engine_inspector()
    report = inspector and inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    if not report:
        raise NoEngine(f"{compiler.title} does not say what is in the plan that it has built; its messages are above")
    return read_report(report)


def read_report(report: str) -> list[Layer]:
    """The layers in the inspector's JSON. Plans that were built without details have only names there."""
    values = json.loads(report)
    return [layer_of(row) for row in values.get("Layers", [])]


def layer_of(row: Any) -> Layer:
    if isinstance(row, str):
        return Layer(row, "", "", frozenset(SPLIT.split(row)))
    words = f"{row.get('Name', '')} {row.get('Metadata', '')}".replace("ONNX Layer:", " ")
    return Layer(
        name=str(row.get("Name", "")),
        kind=str(row.get("LayerType", "")),
        precision=precision_of(row),
        nodes=frozenset(SPLIT.split(words)),
        weights=bool(row.get("Weights") or row.get("Kernel Weights")),
    )


def precision_of(row: Mapping[str, Any]) -> str:
    """The precision in which a layer computes: its weights' type if it has weights, else its first input's."""
    for name in ("Weights", "Kernel Weights"):
        weights = row.get(name)
        if isinstance(weights, dict) and (found := type_in(str(weights.get("Type", "")))):
            return found
    for tensor in [*row.get("Inputs", []), *row.get("Outputs", [])]:
        if isinstance(tensor, dict):
            return type_in(str(tensor.get("Format/Datatype") or tensor.get("Datatype") or ""))
    return ""


def type_in(words: str) -> str:
    return next((name for name, pattern in WORDS if re.search(pattern, words, re.IGNORECASE)), "")


def prove(graph: OnnxModel, layers: Sequence[Layer] | None) -> Precision:
    """The precisions found in a plan. Raise CheckFailed if a wider one was built than the graph asks for.

    `layers` is None if no GPU could load the plan. Then the strongly typed graph gives the precisions.
    """
    if layers is None:
        return Precision(shares=graph.shares(), proven_by="graph")
    found = {a.node: precision_in(layers, a.node) for a in graph.asked}
    if all(precision == UNSEEN for precision in found.values()):
        return Precision(shares=graph.shares(), proven_by="graph")
    widened = [a for a in graph.asked if a.precision != "fp32" and found[a.node] == "fp32"]
    if widened:
        names = ", ".join(a.node for a in widened[:3]) + (f" and {len(widened) - 3} more" if len(widened) > 3 else "")
        share = sum(a.share for a in widened)
        raise CheckFailed(
            f"{graph.mark.name}: asks for {widened[0].precision}, and TensorRT built {share:.1%} of the multiply-adds "
            f"in FP32 ({names}); this GPU may lack {widened[0].precision}: build a file of another precision"
        )
    int8 = [a for a in graph.asked if a.precision == "int8"]
    kept = sum(a.share for a in int8 if found[a.node] in ("int8", UNSEEN))
    if kept < USEFUL * sum(a.share for a in int8):
        raise CheckFailed(
            f"{graph.mark.name}: asks for int8 in {sum(a.share for a in int8):.0%} of the multiply-adds, and TensorRT "
            f"built {kept:.0%}; dlink-inspect {graph.mark.name} --explain lists the convolutions that ask for it"
        )
    return Precision(shares=sum_up((found[a.node], a.share) for a in graph.asked), proven_by="inspector")


def precision_in(layers: Sequence[Layer], node: str) -> str:
    """The precision of a node of the graph. Copies into another format also name the node, and are left out."""
    named = [x for x in layers if node in x.nodes and x.precision and "reformat" not in f"{x.kind} {x.name}".lower()]
    computing = [x for x in named if x.weights] or named
    return max((x.precision for x in computing), key=lambda p: WIDTH.get(p, 0), default=UNSEEN)
