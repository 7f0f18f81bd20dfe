"""ONNX Runtime on an ONNX graph: it computes what the file says on any CPU, float16 too."""

from pathlib import Path

from dlink.onnx_graph.quiet_onnxruntime import onnxruntime


def session(model: Path | bytes, arena: bool = True) -> onnxruntime.InferenceSession:
    """A model by its path or its bytes. Memory is taken from an arena, which keeps what was the most at any step."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
