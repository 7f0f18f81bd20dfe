"""OpenVINO as a Backend: the engine for CPUs.

A float32 file is computed in float32. Left alone OpenVINO would take bfloat16 where the CPU has it: faster, but not
what the file says. An FP16 or INT8 file asks for less, so there the CPU's fastest reduced precision is taken (bfloat16
on x86 with AVX-512 BF16 or AMX, float16 on Arm; float32 where there is neither), but for int8 where it is wrong
(saturation.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlink.openvino_runtime.executed import executed
from dlink.openvino_runtime.quiet_openvino import core, openvino
from dlink.openvino_runtime.saturation import saturates
from dlink.runtime.backend import PLAIN, HostBackend, Net, Opening, Probs
from dlink.runtime.errors import BadInput, BadModel
from dlink.runtime.onnx_bytes import read_onnx
from dlink.runtime.precision import shares_in_words
from dlink.runtime.spec import Spec


def open(path: Path, opening: Opening = PLAIN) -> HostBackend:
    """The model as a Backend of one tile at a time: batches are no faster on a CPU."""
    if opening.keys or opening.require_verdict:
        raise BadInput(f"{path}: signatures and verdicts are of plans; build one with dlink-build")
    model, spec = read(path)
    try:
        compiled = compile(model, spec, opening.threads)
    except RuntimeError as e:
        raise BadModel(f"{path}: OpenVINO can't run it: {why(e)}; export it again") from e
    shares = executed(compiled)
    used = compiled.get_property("INFERENCE_NUM_THREADS")
    engine = f"OpenVINO {openvino.__version__.partition('-')[0]}, {shares_in_words(shares)}, {used} threads"
    return HostBackend(network(compiled), spec, engine=engine, executed=shares)


def read(path: Path) -> tuple[openvino.Model, Spec]:
    """The graph of an ONNX file of ours, for one tile at a time, and its Spec."""
    file = read_onnx(path)
    side = file.spec.tile
    try:
        model = core().read_model(file.data)  # not the path: weights in other files would be followed from there
        model.reshape([1, 3, side, side])
    except RuntimeError as e:
        raise BadModel(f"{path}: OpenVINO does not read it: {why(e)}; export it again") from e
    return model, file.spec


def why(e: RuntimeError) -> str:
    """OpenVINO's own words, without where in its sources they come from."""
    said = [line.strip() for line in str(e).splitlines() if line.strip() and not line.startswith("Exception from")]
    return said[-1][:200] if said else str(e)[:200]


def compile(model: openvino.Model, spec: Spec, threads: int | None) -> openvino.CompiledModel:
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if spec.precision == "fp32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    if any(op.get_type_name() == "FakeQuantize" for op in model.get_ops()) and saturates():
        options["LP_TRANSFORMS_MODE"] = "NO"  # computes what int8 would give in float
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return core().compile_model(model, "CPU", options)


def network(compiled: openvino.CompiledModel) -> Net:
    request = compiled.create_infer_request()

    def net(x: NDArray[np.float32]) -> Probs:
        prob: Probs = request.infer({0: x}, share_inputs=True, share_outputs=True)[0]
        return prob[:, 0]

    return net
