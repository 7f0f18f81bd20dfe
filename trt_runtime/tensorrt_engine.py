"""A plan loaded by TensorRT, of whichever version: its ends, its contexts, its weights. Needs CUDA's context."""

import logging
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dlink.runtime.errors import BadPlan, GpuFailed, Mismatch
from dlink.runtime.files import file_sha256
from dlink.runtime.versions import version_numbers
from dlink.trt_runtime.kernel_cache import KernelCache
from dlink.trt_runtime.manifest import TARGETS, Manifest
from dlink.trt_runtime.plan import MODULES, mend, same_version

VALID, SUBOPTIMAL, INVALID = "VALID", "SUBOPTIMAL", "INVALID"  # EngineValidity's names
MENDS = {  # what would mend an INVALID for that reason; building the plan here for all others
    "OLD_CUDA_DRIVER": "update the driver",
    "INSUFFICIENT_GPU_MEMORY": "free memory of the GPU, or build with a smaller --max-tiles",
}
log = logging.getLogger(__name__)


class TensorRTEngine:
    """What TensorRT makes of a plan's bytes, which have been verified."""

    def __init__(self, path: Path, plan: bytes, manifest: Manifest, kept: KernelCache | None = None) -> None:
        self.path, self.manifest, target = path, manifest, manifest.built.target
        self.trt = trt = import_module(MODULES[target])
        if not same_version(manifest, trt.__version__):
            here = f"{TARGETS[target]} {trt.__version__}"
            raise Mismatch(f"{path}: a plan of {manifest.title}, here is {here}; {mend(path, manifest)}")
        self.captures = target == "tensorrt"  # TensorRT-RTX makes graphs of its own, see `configure`
        self.context_per_shape = not self.captures  # which it would make again where a context's shape changes
        # Whether there may be more than one context: each holds the plan's one optimisation profile, which contexts can
        # share since 8.6 (PROFILE_SHARING_0806, which dlink-build asks for there; from 9 on it is the rule).
        self.several = not self.captures or version_numbers(trt.__version__) >= (8, 6)
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.runtime = trt.Runtime(self.logger)  # engine_host_code_allowed is False and stays so
        self.remark = ""  # about the plan on this GPU, for reports
        if not self.captures:
            self.ask(plan)
        self.model = self.runtime.deserialize_cuda_engine(plan)
        if self.model is None:
            raise Mismatch(
                f"{path}: {manifest.title} does not load it, for the reason it gave above; {mend(path, manifest)}"
            )
        self.input, self.output, *self.types = ends(trt, self.model, path, manifest)
        if manifest.options.strip_weights:
            self.refit()
        self.compiled: Any = None  # TensorRT-RTX's kernels
        self.kept, self.used = kept, False
        if not self.captures:
            self.config = self.configure()

    def ask(self, plan: bytes) -> None:
        """What TensorRT-RTX says of the plan on this GPU; Mismatch where it does not run here."""
        path, manifest = self.path, self.manifest
        answer, why = validity(self.trt, self.runtime, plan)
        if answer == INVALID:
            if manifest.options.unlisted_gpu:  # built for all of Ampere and newer: there is one more way
                manifest = replace(manifest, options=replace(manifest.options, compute_capability=("current",)))
            line = next((words for reason, words in MENDS.items() if reason in why), mend(path, manifest))
            raise Mismatch(f"{path}: {manifest.title} says that it does not run here: {why}; {line}")
        if answer == SUBOPTIMAL:
            self.remark = "suboptimal on this GPU"
            log.warning("%s: %s says that it is suboptimal on this GPU: %s", path, manifest.title, why)

    @property
    def activations(self) -> int:
        """Bytes that a context needs for what it computes, whatever the shape."""
        new, old = "device_memory_size_v2", "device_memory_size"  # since 10.1, and to 10.x
        return int(getattr(self.model, new if hasattr(self.model, new) else old))

    def context(self, memory: int, source: int, result: int, stream: int) -> "Context | None":
        """An execution context on the caller's memory: for activations, what the network reads, what it gives.

        It is made ready on the stream that it will run on. None where there is no memory left for the rest of it.
        """
        made = self.make_context(memory)
        return None if made is None else Context(self, made, source, result, stream)

    def make_context(self, memory: int) -> Any:
        trt, model = self.trt, self.model
        self.used = True
        if not self.captures:
            context = model.create_execution_context(self.config)
        elif hasattr(trt, "ExecutionContextAllocationStrategy"):
            context = model.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        else:
            context = model.create_execution_context_without_device_memory()
        if context is None:
            return None
        if hasattr(context, "set_device_memory"):  # since 10.1
            context.set_device_memory(memory, self.activations)
        else:
            context.device_memory = memory
        return context

    def configure(self) -> Any:
        """How TensorRT-RTX makes contexts: it compiles kernels while it runs, and captures graphs when it has.

        Eagerly, since the other ways compile in the middle of a flight, or never.
        """
        trt = self.trt
        config = self.model.create_runtime_config()
        compiled = config and config.create_runtime_cache()
        if config is None or compiled is None:
            raise GpuFailed(f"{self.path}: {self.manifest.title} can't be configured; its messages are above")
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        data = self.kept.read() if self.kept else b""
        if data and not compiled.deserialize(data):
            log.info("%s: %s does not take the kernels that were kept", self.path, self.manifest.title)
        if config.set_runtime_cache(compiled):
            self.compiled = compiled
        else:
            log.warning("%s: %s keeps no kernels; its messages are above", self.path, self.manifest.title)
        return config

    def keep(self) -> None:
        """Write the kernels that were compiled beside the plan."""
        if self.kept and self.used and self.compiled is not None:
            data = self.compiled.serialize()
            self.kept.write(b"" if data is None else bytes(data))

    def refit(self) -> None:
        """Give a plan without weights those of the ONNX file beside it."""
        path, manifest = self.path, self.manifest
        onnx = path.parent / manifest.onnx.name
        if not onnx.exists() or file_sha256(onnx) != manifest.onnx.sha256:
            raise BadPlan(f"{path}: was built without weights, and they are in {manifest.onnx.name}; put it beside")
        refitter = self.trt.Refitter(self.model, self.logger)
        parser = self.trt.OnnxParserRefitter(refitter, self.logger)
        if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
            raise BadPlan(f"{path}: does not take the weights of {onnx}; {mend(path, manifest)}")


class Context:
    """An execution context, and the batch that it was told last. Every answer of TensorRT's is looked at."""

    def __init__(self, engine: TensorRTEngine, made: Any, source: int, result: int, stream: int) -> None:
        self.engine, self.made, self.batch = engine, made, 0
        if made.active_optimization_profile != 0:
            # 8.x gives the profile to the first context alone (getOptimizationProfile in NvInferRuntime.h).
            taken = made.set_optimization_profile_async(0, stream)
            self.must(taken, "does not let a second context have the plan's optimisation profile")
        for name, address in ((engine.input, source), (engine.output, result)):
            self.must(made.set_tensor_address(name, address), f"does not take an address for {name}")

    def run(self, batch: int, stream: int) -> None:
        """Put the network on a stream, for so many views. What a graph was captured of must not be told anew."""
        if batch != self.batch:
            side = self.engine.manifest.spec.tile
            taken = self.made.set_input_shape(self.engine.input, (batch, 3, side, side))
            self.must(taken, f"does not take {batch} views at once")
            self.batch = batch
        self.must(self.made.execute_async_v3(stream), "could not run the network")

    def must(self, done: bool, fault: str) -> None:
        if not done:
            raise GpuFailed(f"{self.engine.path}: TensorRT {fault}; its messages are above")


def validity(trt: Any, runtime: Any, plan: bytes) -> tuple[str, str]:
    """What TensorRT-RTX says of a plan on the GPU at hand, one of EngineValidity's names, and why."""
    answer, bits = runtime.get_engine_validity(plan)
    members = trt.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, bit in members.items() if int(bits) & int(bit)]
    return str(answer.name), ", ".join(reasons) or "it gives no reason, its messages are above"


def ends(trt: Any, engine: Any, path: Path, manifest: Manifest) -> tuple[str, str, np.dtype[Any], np.dtype[Any]]:
    """The names of input and output and their types; BadPlan where they are not those of our networks."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    side = manifest.spec.tile
    shapes = {name: tuple(engine.get_tensor_shape(name))[1:] for name in names}
    by_mode = {engine.get_tensor_mode(name): name for name in names}
    source, result = by_mode.get(trt.TensorIOMode.INPUT, ""), by_mode.get(trt.TensorIOMode.OUTPUT, "")
    if shapes != {source: (3, side, side), result: (1, side, side)}:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise BadPlan(f"{path}: its ends are {said}, not an image of {side} px and its road; {mend(path, manifest)}")
    types: dict[Any, np.dtype[Any]] = {trt.float32: np.dtype(np.float32), trt.float16: np.dtype(np.float16)}
    found = [engine.get_tensor_dtype(name) for name in (source, result)]
    if not set(found) <= types.keys():
        raise BadPlan(f"{path}: its ends are neither float32 nor float16; {mend(path, manifest)}")
    if any(engine.get_tensor_format(name) != trt.TensorFormat.LINEAR for name in names):
        raise BadPlan(f"{path}: its ends are not laid out plane by plane; {mend(path, manifest)}")
    return source, result, types[found[0]], types[found[1]]
