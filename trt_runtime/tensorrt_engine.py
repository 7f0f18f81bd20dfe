"""Loads a plan by any version of TensorRT, and makes its execution contexts. Needs CUDA's context."""

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
from dlink.trt_runtime.plan import MODULES, rebuild, same_version

VALID, SUBOPTIMAL, INVALID = "VALID", "SUBOPTIMAL", "INVALID"  # EngineValidity's names
REMEDIES = {  # by the reason of an INVALID; for all other reasons: build the plan here
    "OLD_CUDA_DRIVER": "update the driver",
    "INSUFFICIENT_GPU_MEMORY": "free memory of the GPU, or build with a smaller --max-tiles",
}
log = logging.getLogger(__name__)


class TensorRTEngine:
    """A verified plan, loaded by TensorRT."""

    def __init__(self, path: Path, plan: bytes, manifest: Manifest, cache: KernelCache | None = None) -> None:
        self.path, self.manifest, target = path, manifest, manifest.built.target
        self.trt = trt = import_module(MODULES[target])
        if not same_version(manifest, trt.__version__):
            here = f"{TARGETS[target]} {trt.__version__}"
            raise Mismatch(f"{path}: a plan of {manifest.title}, here is {here}; {rebuild(path, manifest)}")
        self.captures = target == "tensorrt"  # TensorRT-RTX captures graphs itself, see `configure`
        self.context_per_shape = not self.captures  # TensorRT-RTX would capture again when a context's shape changes
        # Each context needs the plan's one optimisation profile. Contexts can share it since 8.6 (PROFILE_SHARING_0806,
        # which dlink-build requests there); from 9 on they always share it. Before 8.6 there is only one context.
        self.many_contexts = not self.captures or version_numbers(trt.__version__) >= (8, 6)
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.runtime = trt.Runtime(self.logger)  # engine_host_code_allowed stays False
        self.remark = ""  # about the plan on this GPU, for reports
        if not self.captures:
            self.check_validity(plan)
        self.model = self.runtime.deserialize_cuda_engine(plan)
        if self.model is None:
            raise Mismatch(
                f"{path}: {manifest.title} does not load it, for the reason it gave above; {rebuild(path, manifest)}"
            )
        self.input, self.output, *self.types = ends(trt, self.model, path, manifest)
        if manifest.options.strip_weights:
            self.refit()
        self.compiled: Any = None  # TensorRT-RTX's compiled kernels
        self.cache, self.used = cache, False
        if not self.captures:
            self.config = self.configure()

    def check_validity(self, plan: bytes) -> None:
        """Raise Mismatch if TensorRT-RTX says that the plan does not run on this GPU."""
        path, manifest = self.path, self.manifest
        status, why = validity(self.trt, self.runtime, plan)
        if status == INVALID:
            if manifest.options.unlisted_gpu:  # built for Ampere and newer: a build for this very GPU may still run
                manifest = replace(manifest, options=replace(manifest.options, compute_capability=("current",)))
            remedy = next((words for reason, words in REMEDIES.items() if reason in why), rebuild(path, manifest))
            raise Mismatch(f"{path}: {manifest.title} says that it does not run here: {why}; {remedy}")
        if status == SUBOPTIMAL:
            self.remark = "suboptimal on this GPU"
            log.warning("%s: %s says that it is suboptimal on this GPU: %s", path, manifest.title, why)

    @property
    def activations(self) -> int:
        """Bytes that a context needs for activations, for every shape."""
        new, old = "device_memory_size_v2", "device_memory_size"  # new: since 10.1; old: up to 10.x
        return int(getattr(self.model, new if hasattr(self.model, new) else old))

    def context(self, memory: int, source: int, result: int, stream: int) -> "Context | None":
        """An execution context on the caller's memory for activations (`memory`), input (`source`) and output.

        It is prepared on the stream on which it will run. None if there is no memory for the rest of it.
        """
        execution = self.make_context(memory)
        return None if execution is None else Context(self, execution, source, result, stream)

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
        """TensorRT-RTX's options for contexts. It compiles kernels at a shape's first run, then captures a graph.

        Compilation is eager, because the other strategies compile at some later run, or never.
        """
        trt = self.trt
        config = self.model.create_runtime_config()
        compiled = config and config.create_runtime_cache()
        if config is None or compiled is None:
            raise GpuFailed(f"{self.path}: {self.manifest.title} can't be configured; its messages are above")
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        data = self.cache.read() if self.cache else b""
        if data and not compiled.deserialize(data):
            log.info("%s: %s does not accept the kernels in the cache", self.path, self.manifest.title)
        if config.set_runtime_cache(compiled):
            self.compiled = compiled
        else:
            log.warning("%s: %s keeps no kernels; its messages are above", self.path, self.manifest.title)
        return config

    def save_kernels(self) -> None:
        """Write the compiled kernels to the cache beside the plan."""
        if self.cache and self.used and self.compiled is not None:
            data = self.compiled.serialize()
            self.cache.write(b"" if data is None else bytes(data))

    def refit(self) -> None:
        """Give a plan without weights the weights of the ONNX file beside it."""
        path, manifest = self.path, self.manifest
        onnx = path.parent / manifest.onnx.name
        if not onnx.exists() or file_sha256(onnx) != manifest.onnx.sha256:
            raise BadPlan(f"{path}: was built without weights, and they are in {manifest.onnx.name}; put it beside")
        refitter = self.trt.Refitter(self.model, self.logger)
        parser = self.trt.OnnxParserRefitter(refitter, self.logger)
        if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
            raise BadPlan(f"{path}: does not take the weights of {onnx}; {rebuild(path, manifest)}")


class Context:
    """An execution context and the batch that was last set on it. Every return value of TensorRT is checked."""

    def __init__(self, engine: TensorRTEngine, execution: Any, source: int, result: int, stream: int) -> None:
        self.engine, self.execution, self.batch = engine, execution, 0
        if execution.active_optimization_profile != 0:
            # 8.x gives the profile to the first context only (getOptimizationProfile in NvInferRuntime.h).
            done = execution.set_optimization_profile_async(0, stream)
            self.check(done, "does not let a second context have the plan's optimisation profile")
        for name, address in ((engine.input, source), (engine.output, result)):
            self.check(execution.set_tensor_address(name, address), f"does not take an address for {name}")

    def run(self, batch: int, stream: int) -> None:
        """Put the network on a stream for so many views. The shape of a captured context must not be set again."""
        if batch != self.batch:
            spec = self.engine.manifest.spec
            shape = (batch, len(spec.bands), spec.tile, spec.tile)
            done = self.execution.set_input_shape(self.engine.input, shape)
            self.check(done, f"does not take {batch} views at once")
            self.batch = batch
        self.check(self.execution.execute_async_v3(stream), "could not run the network")

    def check(self, done: bool, fault: str) -> None:
        if not done:
            raise GpuFailed(f"{self.engine.path}: TensorRT {fault}; its messages are above")


def validity(trt: Any, runtime: Any, plan: bytes) -> tuple[str, str]:
    """What TensorRT-RTX says about a plan on this GPU: one of EngineValidity's names, and why."""
    status, bits = runtime.get_engine_validity(plan)
    members = trt.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, bit in members.items() if int(bits) & int(bit)]
    return str(status.name), ", ".join(reasons) or "it gives no reason, its messages are above"


def ends(trt: Any, engine: Any, path: Path, manifest: Manifest) -> tuple[str, str, np.dtype[Any], np.dtype[Any]]:
    """The names and types of input and output. BadPlan if they are not those of our networks."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    side, planes = manifest.spec.tile, len(manifest.spec.bands)
    shapes = {name: tuple(engine.get_tensor_shape(name))[1:] for name in names}
    by_mode = {engine.get_tensor_mode(name): name for name in names}
    source, result = by_mode.get(trt.TensorIOMode.INPUT, ""), by_mode.get(trt.TensorIOMode.OUTPUT, "")
    if shapes != {source: (planes, side, side), result: (1, side, side)}:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise BadPlan(
            f"{path}: its inputs and outputs are {found}, not an image of {side} px and its road; "
            f"{rebuild(path, manifest)}"
        )
    dtypes: dict[Any, np.dtype[Any]] = {trt.float32: np.dtype(np.float32), trt.float16: np.dtype(np.float16)}
    types = [engine.get_tensor_dtype(name) for name in (source, result)]
    if not set(types) <= dtypes.keys():
        raise BadPlan(f"{path}: its input and output are neither float32 nor float16; {rebuild(path, manifest)}")
    if any(engine.get_tensor_format(name) != trt.TensorFormat.LINEAR for name in names):
        raise BadPlan(f"{path}: its input and output are not laid out plane by plane; {rebuild(path, manifest)}")
    return source, result, dtypes[types[0]], dtypes[types[1]]
