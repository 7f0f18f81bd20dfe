"""Every difference between TensorRT 8.5, 8.6, 10, 11 and TensorRT-RTX that a build must know, each with its reason.

The rest of `engine/` is the same for all of them. tests/support/tensorrt_api.json records the names in each version's
Python bindings, and tests/engine/test_versions.py checks that this code uses no others.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dlink.engine.sparse import refuse_old_gpu
from dlink.onnx_graph.model import OnnxModel
from dlink.runtime.errors import BadInput, NoEngine
from dlink.runtime.versions import version_numbers
from dlink.trt_runtime.manifest import TARGETS, Options, RunsOn
from dlink.trt_runtime.nvidia_driver import look_for_gpus
from dlink.trt_runtime.plan import AMPERE, MODULES

OLDEST = {"tensorrt": (8, 5), "tensorrt-rtx": (1, 7)}
SINCE = {  # the first version of TensorRT with an option; TensorRT-RTX has all of them
    "optimization_level": (8, 6),
    "version_compatible": (8, 6),
    "hardware_compatible": (8, 6),
    "strip_weights": (10, 0),
}
CURRENT = ("current",)  # --compute-capability: TensorRT-RTX compiles on the GPU at hand, for this GPU


@dataclass(frozen=True)
class Compiler:
    """One TensorRT: its Python module, and the particulars of its version."""

    target: str
    trt: Any

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def number(self) -> tuple[int, ...]:
        return version_numbers(self.version)

    @property
    def title(self) -> str:
        return f"{TARGETS[self.target]} {self.version}"

    @property
    def rtx(self) -> bool:
        return self.target == "tensorrt-rtx"

    @property
    def typed(self) -> bool:
        """Whether the graph's types decide the precision. For 8.x they are hints; 11 has no other way."""
        return self.rtx or self.number >= (10,)

    @property
    def shares_profiles(self) -> bool:
        """Whether contexts share an optimisation profile only if asked: 8.6. From 9 on they always share it."""
        return not self.rtx and (8, 6) <= self.number < (9,)

    @property
    def reports_progress(self) -> bool:
        """IProgressMonitor came with 9."""
        return self.rtx or self.number >= (9,)


def find_compiler(target: str) -> Compiler:
    """Import the compiler of a target, after looking for the GPU that full TensorRT needs.

    Without a GPU, TensorRT's builder returns null or ends the process, so TensorRT is not imported. TensorRT-RTX
    compiles for named GPUs on any machine.
    """
    if target == "tensorrt":
        gpus = look_for_gpus()
        if not gpus.found:
            raise NoEngine(
                f"TensorRT builds on the GPU that the plan is for, and there is none here: {gpus.fault}; "
                "build there, or for a GeForce RTX with --target tensorrt-rtx"
            )
    trt = import_module(MODULES[target])  # before Polygraphy, whose own error would hide this one
    choose_for_polygraphy(target)
    compiler = Compiler(target, trt)
    if compiler.number < OLDEST[target]:
        raise NoEngine(f"{compiler.title}: too old; dlink builds with {'.'.join(map(str, OLDEST[target]))} or newer")
    return compiler


def choose_for_polygraphy(target: str) -> None:
    """Tell Polygraphy which TensorRT to use. The first import of its loaders fixes that for the process."""
    from polygraphy import config

    wanted = target == "tensorrt-rtx"
    config.USE_TENSORRT_RTX = wanted
    from polygraphy.backend.trt import util

    loaded = util.trt.__name__ == MODULES["tensorrt-rtx"]
    if loaded != wanted:
        other = TARGETS["tensorrt" if wanted else "tensorrt-rtx"]
        raise NoEngine(f"this process already builds with {other}; start a new process")


def refuse_target(options: Options) -> None:
    """Raise BadInput for an option that no version of the target has, before any library or GPU is looked for."""
    for name in ("compute_capability", "unlisted_gpu"):
        if options.target == "tensorrt" and getattr(options, name):
            flag = name.replace("_", "-")
            raise BadInput(f"--{flag}: is for --target tensorrt-rtx; TensorRT builds for the GPU at hand")
    if options.target == "tensorrt-rtx" and options.sparse:
        # 1.7.1 takes the flag, but a sparse convolution's plan is the same with it (tests/engine/test_compilers.py).
        raise BadInput("--sparse: is for --target tensorrt; TensorRT-RTX 1.7 makes nothing of it")


def refuse_options(compiler: Compiler, options: Options) -> None:
    """Raise BadInput for an option that this version of TensorRT does not have."""
    if not compiler.rtx:
        for name, since in SINCE.items():
            if getattr(options, name) not in (None, False) and compiler.number < since:
                flag = name.replace("_", "-")
                raise BadInput(f"--{flag}: needs TensorRT {since[0]}.{since[1]}, here is {compiler.version}")
        if options.sparse:
            refuse_old_gpu(look_for_gpus().found[0], options)
    elif options.refit or options.strip_weights:
        # TensorRT-RTX 1.7's compiler then asks for CUDA, and for a single capability.
        if not look_for_gpus().found or len(options.compute_capability) != 1:
            raise BadInput(
                "--refit and --strip-weights: TensorRT-RTX needs a GPU and exactly one --compute-capability for such "
                "plans"
            )
    elif options.hardware_compatible:
        raise BadInput("--hardware-compatible: name GPUs with --compute-capability for TensorRT-RTX, or none")


def refuse_graph(compiler: Compiler, graph: OnnxModel) -> None:
    """Raise BadInput if this TensorRT would silently build something other than the graph."""
    int8 = [a for a in graph.asked if a.precision == "int8"]
    if compiler.rtx:
        return
    if compiler.number < (10, 2) and any(a.op == "ConvTranspose" for a in int8):
        # Before 10.2 a transposed convolution's scales were along axis 0. dlink's files have them along axis 1, where
        # ONNX has the channels. If inputs and outputs are equally many, TensorRT raises no error.
        raise BadInput(
            f"{graph.mark.name}: has transposed convolutions in int8, which TensorRT before 10.2 reads along the wrong "
            f"axis (here is {compiler.version}); calibrate with --deconv conv or --deconv fp16"
        )


def graph_for(compiler: Compiler, graph: OnnxModel) -> bytes:
    """The ONNX file's bytes in the form that this TensorRT's parser reads."""
    model = graph.model
    if not compiler.rtx and compiler.number < (10,):
        # The parsers of 8.x need float weights with a Q/DQ pair of their own: they take int8 weights for data.
        model = with_float_weights(model)
    return bytes(model.SerializeToString())


def with_float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with float32 weights, each followed by a QuantizeLinear that gives the same integers."""
    model = copy.deepcopy(model)
    values = {i.name: i for i in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            ints, scale = (numpy_helper.to_array(values[name]) for name in node.input[:2])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            along = scale.reshape([-1 if i == axis else 1 for i in range(ints.ndim)]) if scale.ndim else scale
            name = node.input[0]
            values[name].CopyFrom(numpy_helper.from_array((ints * along).astype(np.float32), name))
            nodes.append(
                helper.make_node("QuantizeLinear", [name, *node.input[1:]], [f"{name}_q"], f"{name}_q", axis=axis)
            )
            node.input[0] = f"{name}_q"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def precision_flags(compiler: Compiler, graph: OnnxModel) -> dict[str, Any]:
    """Polygraphy's CreateConfig arguments for the graph's precisions; none if the graph's types decide.

    8.x uses float16 and int8 only if a flag allows them, and takes a faster precision unless a constraint forbids it.
    11 has no such flags.
    """
    if compiler.typed:
        return {}
    asked = graph.shares()
    flags = {"fp16": "fp16" in asked or "int8" in asked, "int8": "int8" in asked}
    return {**flags, "precision_constraints": "obey"}


def constrain(compiler: Compiler, graph: OnnxModel, network: Any) -> None:
    """Give 8.x's network the graph's types layer by layer; OBEY_PRECISION_CONSTRAINTS enforces them.

    Layers between Q/DQ pairs get no constraint: it would forbid the int8 that the pairs ask for.
    """
    if compiler.typed:
        return
    trt = compiler.trt
    wanted = {a.node: a.precision for a in graph.asked}
    types = {"fp16": trt.float16, "fp32": trt.float32}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if (precision := wanted.get(layer.name)) in types:
            layer.precision = types[precision]
            layer.set_output_type(0, types[precision])


def config_for(compiler: Compiler, options: Options, graph: OnnxModel, monitor: Any, timing_cache: str | None) -> Any:
    """Polygraphy's functor that makes the builder's configuration."""
    from polygraphy.backend.trt import CreateConfig, Profile

    side = graph.spec.tile
    least, most = ((n, len(graph.spec.bands), side, side) for n in (1, options.batch))
    trt = compiler.trt
    arguments: dict[str, Any] = {
        "profiles": [Profile().add(graph.input, min=least, opt=most, max=most)],
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,  # for the engine's report of its precisions
        "refittable": options.refit or options.strip_weights,
        "sparse_weights": options.sparse,
        **precision_flags(compiler, graph),
    }
    if options.strip_weights:
        arguments["strip_plan"] = True
    if options.workspace is not None:
        arguments["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace << 20}
    if options.optimization_level is not None:
        arguments["builder_optimization_level"] = options.optimization_level
    if options.hardware_compatible:
        arguments["hardware_compatibility_level"] = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        # A lean runtime inside the plan would be host code, which dlink's runtime never allows.
        arguments |= {"version_compatible": True, "exclude_lean_runtime": True}
    if timing_cache is not None:
        arguments["load_timing_cache"] = timing_cache
    if monitor is not None:
        arguments["progress_monitor"] = monitor
    if not compiler.rtx:
        return CreateConfig(**arguments)
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    current = options.compute_capability == CURRENT
    pairs = [] if current else [version_numbers(capability) for capability in options.compute_capability]
    return CreateConfigRTX(use_gpu=current, compute_capabilities=pairs or None, **arguments)


def finish(compiler: Compiler, options: Options) -> Callable[[Any, Any, Any], None]:
    """A function for Polygraphy's PostprocessConfig that sets and checks the configuration directly.

    Polygraphy's own preview_features turn off every feature that they do not name, even TensorRT's defaults. Polygraphy
    also ignores the result of set_compute_capability.
    """
    trt = compiler.trt

    def work(builder: Any, network: Any, config: Any) -> None:
        if compiler.shares_profiles:  # each slot and each CUDA graph has a context
            config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        if compiler.rtx:
            # dlink allocates the contexts' memory: nothing may be allocated while a CUDA graph is captured.
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
            found = [config.get_compute_capability(i) for i in range(config.num_compute_capabilities)]
            if found != [getattr(trt.ComputeCapability, name_of(c)) for c in options.compute_capability]:
                asked = ",".join(options.compute_capability)
                raise NoEngine(f"{compiler.title} does not take --compute-capability {asked}; its messages are above")

    return work


def runs_on(compiler: Compiler, options: Options) -> RunsOn:
    """The GPUs that a plan with these options runs on."""
    newer = options.version_compatible
    if compiler.rtx:
        return listed(compiler, options)
    if options.hardware_compatible:
        return RunsOn(capabilities=(AMPERE,), newer_gpus=True, newer_versions=newer)
    return RunsOn(capabilities=(look_for_gpus().found[0].capability,), newer_versions=newer)


def listed(compiler: Compiler, options: Options) -> RunsOn:
    """The same for TensorRT-RTX, which lists its GPUs. Raise BadInput if an option names others."""
    known, asked, newer = supported(compiler), options.compute_capability, options.version_compatible
    if asked == CURRENT:
        return RunsOn(capabilities=(at_hand(compiler, options),), newer_versions=newer)
    if asked and options.unlisted_gpu:
        raise BadInput(
            f"--compute-capability {','.join(asked)}: names GPUs that {compiler.title} lists, which excludes "
            "--unlisted-gpu; leave that out, or give --compute-capability current on the GPU itself"
        )
    if strange := sorted(set(asked) - set(known)):
        raise BadInput(
            f"--compute-capability {','.join(strange)}: {compiler.title} builds for {', '.join(known)}, or for "
            "`current` alone; for a GPU that it does not list give --unlisted-gpu, without this option"
        )
    if asked:
        return RunsOn(capabilities=asked, newer_versions=newer)
    # By default TensorRT-RTX builds for Ampere and newer: "8.0, 8.6, 8.9, 12.0, and later" (its page on CPU-only AOT).
    ampere = tuple(c for c in known if version_numbers(c) >= version_numbers(AMPERE))
    return RunsOn(capabilities=ampere, newer_gpus=True, newer_versions=newer, unlisted_gpus=options.unlisted_gpu)


def at_hand(compiler: Compiler, options: Options) -> str:
    """The compute capability of the GPU here."""
    gpus = look_for_gpus()
    if not gpus.found:
        raise BadInput(f"--compute-capability current: needs a GPU, and there is none here: {gpus.fault}")
    gpu = gpus.found[0]
    if gpu.capability not in supported(compiler) and not options.unlisted_gpu:
        raise BadInput(f"--compute-capability current: {compiler.title} does not list {gpu}; --unlisted-gpu tries it")
    return gpu.capability


def name_of(capability: str) -> str:
    """TensorRT-RTX's name for a compute capability: SM86 for 8.6."""
    return "CURRENT" if (capability,) == CURRENT else f"SM{capability.replace('.', '')}"


def supported(compiler: Compiler) -> list[str]:
    """The compute capabilities that this TensorRT-RTX compiles for, such as 8.6."""
    names: Iterable[str] = compiler.trt.ComputeCapability.__members__
    return [f"{name[2:-1]}.{name[-1]}" for name in names if name.startswith("SM")]
