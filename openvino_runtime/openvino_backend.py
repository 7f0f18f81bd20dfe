"""OpenVINO as a Backend, the engine for CPUs.

A float32 file is computed in float32, although OpenVINO's default is bfloat16 where the CPU has it. An FP16 or INT8
file is computed in the CPU's fastest reduced precision: bfloat16 on x86 with AVX-512 BF16 or AMX, float16 on Arm,
float32 where there is neither. Int8 is replaced by float on processors whose int8 sums saturate (saturation.py).

Threads are not pinned to cores. By default OpenVINO pins them, in each process from the first core on, so two processes
of one thread each share one core. With several slots the threads are divided among as many requests.
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
from dlink.runtime.slotted import Slotted
from dlink.runtime.spec import Spec


def open(path: Path, opening: Opening = PLAIN) -> HostBackend | Slotted:
    """The model as a Backend with one tile a batch: larger batches are no faster on a CPU.

    OpenVINO gives at most as many slots as it has threads.
    """
    if opening.keys or opening.require_verdict:
        raise BadInput(f"{path}: only plans have signatures and verdicts; build one with dlink-build")
    model, spec = read(path)
    try:
        compiled = compile(model, spec, opening.threads, opening.slots or 1)
    except RuntimeError as e:
        raise BadModel(f"{path}: OpenVINO can't run it: {why(e)}; export it again") from e
    shares = executed(compiled)
    used, slots = compiled.get_property("INFERENCE_NUM_THREADS"), compiled.get_property("NUM_STREAMS")
    engine = f"OpenVINO {openvino.__version__.partition('-')[0]}, {shares_in_words(shares)}, {used} threads"
    if slots == 1:
        return HostBackend(network(compiled), spec, engine=engine, executed=shares)
    engine += f", {slots} slots"
    return Slotted([HostBackend(streamed(compiled), spec, engine=engine, executed=shares) for _ in range(slots)])


def read(path: Path) -> tuple[openvino.Model, Spec]:
    """The graph of an ONNX file that dlink wrote, with a batch of one, and its Spec."""
    file = read_onnx(path)
    side = file.spec.tile
    try:
        model = core().read_model(
            file.data
        )  # the checked bytes; from a path OpenVINO would follow links to other files
        model.reshape([1, len(file.spec.bands), side, side])
    except RuntimeError as e:
        raise BadModel(f"{path}: OpenVINO does not read it: {why(e)}; export it again") from e
    return model, file.spec


def why(e: RuntimeError) -> str:
    """OpenVINO's message without the lines that name its source files."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip() and not line.startswith("Exception from")]
    return lines[-1][:200] if lines else str(e)[:200]


def compile(
    model: openvino.Model, spec: Spec, threads: int | None, slots: int = 1, timed: bool = False
) -> openvino.CompiledModel:
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, "NUM_STREAMS": slots}
    if timed:
        options["PERF_COUNT"] = True
    if spec.precision == "fp32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    if any(op.get_type_name() == "FakeQuantize" for op in model.get_ops()) and saturates():
        options["LP_TRANSFORMS_MODE"] = "NO"  # computes int8's values in float
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return core().compile_model(model, "CPU", options)


def network(compiled: openvino.CompiledModel) -> Net:
    request = compiled.create_infer_request()

    def net(x: NDArray[np.float32]) -> Probs:
        prob: Probs = request.infer({0: x}, share_inputs=True, share_outputs=True)[0]
        return prob[:, 0]

    return net


def streamed(compiled: openvino.CompiledModel) -> Net:
    """The network on one of several streams. A request that is started runs on a thread of OpenVINO's own stream."""
    request = compiled.create_infer_request()

    def net(x: NDArray[np.float32]) -> Probs:
        request.start_async({0: x}, share_inputs=True)
        request.wait()
        prob: Probs = request.get_output_tensor(0).data
        return prob[:, 0]

    return net
