"""OpenVINO as a Backend: the engine for CPUs.

A float32 file is computed in float32. Left alone OpenVINO would take bfloat16 where the CPU has it: faster, but not
what the file says. An FP16 or INT8 file asks for less, so there the CPU's fastest reduced precision is taken (bfloat16
on x86 with AVX-512 BF16 or AMX, float16 on Arm; float32 where there is neither).
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from dlink.trt_runtime.backend import PLAIN, HostBackend, Net, Opening, Probs
from dlink.trt_runtime.errors import BadInput, BadModel
from dlink.trt_runtime.executed import executed
from dlink.trt_runtime.precision import say
from dlink.trt_runtime.spec import Spec


def open(path: Path, opening: Opening = PLAIN) -> HostBackend:
    """The model as a Backend of one tile at a time: batches are no faster on a CPU."""
    if opening.keys or opening.require_verdict:
        raise BadInput(f"{path}: signatures and verdicts are of plans; build one with dlink-build")
    model, spec = read(path)
    compiled = compile(model, spec, opening.threads)
    shares = executed(compiled)
    used = compiled.get_property("INFERENCE_NUM_THREADS")
    engine = f"OpenVINO {openvino.__version__.partition('-')[0]}, {say(shares)}, {used} threads"
    return HostBackend(network(compiled), spec, engine=engine, executed=shares)


def load(path: Path) -> tuple[openvino.Model, dict[str, str]]:
    """The graph of an ONNX file, and its metadata."""
    data = path.read_bytes()  # not the path: weights in other files would be followed from there
    try:
        model = openvino.Core().read_model(data)
    except RuntimeError as e:
        raise BadModel(f"{path}: {why(e)}") from e
    metadata = model.get_rt_info()["framework"] if model.has_rt_info("framework") else {}
    return model, {key: str(any.value) for key, any in metadata.items()}


def read(path: Path) -> tuple[openvino.Model, Spec]:
    """The graph of an ONNX file of ours, its tile's size fixed, and its Spec."""
    model, metadata = load(path)
    spec = Spec.of_onnx(metadata, path)
    ends = [str(port.partial_shape) for port in (*model.inputs, *model.outputs)]
    side = spec.tile
    if [e.partition(",")[2] for e in ends] != [f"3,{side},{side}]", f"1,{side},{side}]"]:
        raise BadModel(
            f"{path}: its ends are {' and '.join(ends)}, its spec wants [?,3,{side},{side}] and [?,1,{side},{side}]; "
            f"export it again"
        )
    model.reshape([1, 3, side, side])
    return model, spec


def why(e: RuntimeError) -> str:
    said = [line.strip() for line in str(e).splitlines() if line.strip() and not line.startswith("Exception from")]
    if any("external data" in line for line in said):
        return "its weights are in another file; write one file with dlink-export (or onnx.save_model)"
    return f"not an ONNX model, or a damaged one; OpenVINO says: {said[-1] if said else e}"


def compile(model: openvino.Model, spec: Spec, threads: int | None) -> openvino.CompiledModel:
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if spec.precision == "fp32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    if threads is not None:
        if threads < 1:
            raise BadInput(f"threads must be 1 or more, got {threads}")
        options["INFERENCE_NUM_THREADS"] = threads
    return openvino.compile_model(model, "CPU", options)


def network(compiled: openvino.CompiledModel) -> Net:
    request = compiled.create_infer_request()

    def net(x: NDArray[np.float32]) -> Probs:
        prob: Probs = request.infer({0: x}, share_inputs=True, share_outputs=True)[0]
        return prob[:, 0]

    return net
