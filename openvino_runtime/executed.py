"""The precisions that OpenVINO really computes in, read from the graph that it executes."""

from collections import defaultdict
from math import prod
from typing import Any

from dlink.openvino_runtime.quiet_openvino import openvino

NAMES = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}  # OpenVINO's -> ours


def executed(compiled: openvino.CompiledModel) -> dict[str, float]:
    """Share of the convolutions' multiply-adds by precision, the largest first."""
    macs: dict[str, int] = defaultdict(int)
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        kind = text(info, "layerType")
        if kind not in ("Convolution", "Deconvolution"):
            continue
        # The inputs are (1, C, H, W), the kernel and what was fused; runtimePrecision is that of the first.
        pixels = op.get_output_shape(0) if kind == "Convolution" else op.get_input_shape(0)
        precision = text(info, "runtimePrecision")
        macs[NAMES.get(precision, precision)] += prod(op.get_input_shape(1)) * prod(pixels[2:])
    total = sum(macs.values()) or 1
    return {name: count / total for name, count in sorted(macs.items(), key=lambda item: -item[1])}


def text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""
