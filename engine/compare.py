"""Compares an engine with ONNX Runtime layer by layer, by Polygraphy's comparator.

Every tensor is made an output, so layers are not fused as in the real engine. A difference found here comes from the
arithmetic of the named layer.
"""

import io
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator

import dlink.onnx_graph.quiet_onnxruntime  # noqa: F401  # before Polygraphy imports ONNX Runtime
from dlink.engine.versions import config_for, find_compiler, graph_for
from dlink.onnx_graph.model import OnnxModel
from dlink.runtime.rounding import SMALL
from dlink.trt_runtime.manifest import Options

BETWEEN = ("Cast", "QuantizeLinear", "DequantizeLinear", "Constant", "Identity")  # do not count as layers
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.2}  # OpenVINO: 1e-6, 0.016 in bfloat16, 0.12


@dataclass(frozen=True)
class Difference:
    """The difference of one tensor: its root mean square, as a share of the tensor's own root mean square."""

    tensor: str
    op: str
    relative: float


def compare_layers(graph: OnnxModel, image: NDArray[np.uint8], target: str | None) -> list[Difference]:
    """The differences of a network's tensors in the order in which they are computed, for one RGB tile (S, S, 3).

    target: tensorrt or tensorrt-rtx, which need a GPU; None for OpenVINO.
    """
    made_by = {name: node for name, node in graph.made_by.items() if node.op_type not in BETWEEN}
    marked = graph.giving(made_by)
    data = marked.SerializeToString()
    candidate = in_openvino(graph, data) if target is None else in_tensorrt(graph, marked, target)
    x = graph.spec.prepare(image[None])
    with redirect_stdout(io.StringIO()):  # Polygraphy prints its steps
        results = Comparator.run(
            [OnnxrtRunner(SessionFromOnnx(data), name="reference"), candidate], data_loader=[{graph.input: x}]
        )
    reference, found = (results[i][1][0] for i in range(2))
    return differences(reference, found, ((name, str(node.op_type)) for name, node in made_by.items()))


def differences(
    reference: Mapping[str, Any], found: Mapping[str, Any], tensors: Iterable[tuple[str, str]]
) -> list[Difference]:
    return [Difference(name, op, relative(reference[name], found[name])) for name, op in tensors if name in found]


def relative(reference: Any, found: Any) -> float:
    """0 if both are equal; infinity if one has values that are not finite. A size below SMALL counts as SMALL."""
    a, b = (np.asarray(v, np.float64) for v in (reference, found))
    off, size = float(np.sqrt(np.mean((a - b) ** 2))), float(np.sqrt(np.mean(a**2)))
    if not np.isfinite(off):
        return float("inf")
    return off / max(size, SMALL)


def first_off(found: Sequence[Difference], tolerance: float) -> Difference | None:
    """The first tensor that differs by more than the tolerance; later ones may differ because of it."""
    return next((d for d in found if not d.relative <= tolerance), None)


def in_tensorrt(graph: OnnxModel, marked: onnx.ModelProto, target: str) -> BaseRunner:
    compiler = find_compiler(target)
    from dataclasses import replace

    from polygraphy.backend.trt import EngineFromNetwork, NetworkFromOnnxBytes, TrtRunner

    options = Options(target=target, max_tiles=1, views=1)
    network = NetworkFromOnnxBytes(graph_for(compiler, replace(graph, model=marked)), strongly_typed=compiler.typed)
    return TrtRunner(EngineFromNetwork(network, config_for(compiler, options, graph, None, None)), name=compiler.title)


def in_openvino(graph: OnnxModel, data: bytes) -> BaseRunner:
    from dlink.openvino_runtime.openvino_backend import compile
    from dlink.openvino_runtime.quiet_openvino import core

    class Runner(BaseRunner):  # type: ignore[misc]
        def activate_impl(self) -> None:
            model = core().read_model(data)
            self.shape = [1, len(graph.spec.bands), graph.spec.tile, graph.spec.tile]
            model.reshape(self.shape)
            self.compiled = compile(model, graph.spec, None)

        def get_input_metadata_impl(self) -> TensorMetadata:
            return TensorMetadata().add(graph.input, dtype=np.float32, shape=self.shape)

        def infer_impl(self, feed_dict: Mapping[str, Any]) -> "OrderedDict[str, Any]":
            begun = time.perf_counter()
            found = self.compiled(dict(feed_dict))
            self.inference_time = time.perf_counter() - begun
            return OrderedDict((name, value) for port, value in found.items() for name in port.get_names())

        def deactivate_impl(self) -> None:
            del self.compiled

    return Runner(name="OpenVINO")
