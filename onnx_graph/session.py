"""Runs ONNX graphs in ONNX Runtime, which computes what the file says on any CPU, also in float16."""

from pathlib import Path

from dlink.onnx_graph.quiet_onnxruntime import onnxruntime


def session(model: Path | bytes, arena: bool = True) -> onnxruntime.InferenceSession:
    """Open a model by its path or its bytes. An arena keeps as much memory as the largest step has needed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
