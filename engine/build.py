"""ONNX -> TensorRT plan and manifest, by Polygraphy's loaders."""

import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlink.engine.ends import ends_of, with_half_input
from dlink.engine.layers import Layer, inspect, prove
from dlink.engine.sparse import heard, refuse_dense
from dlink.engine.versions import (
    Compiler,
    config_for,
    constrain,
    find_compiler,
    finish,
    graph_for,
    refuse_graph,
    refuse_options,
    refuse_target,
    runs_on,
)
from dlink.onnx_graph.model import OnnxModel, read_model
from dlink.runtime.errors import BadInput, BadModel, BadPlan, NoEngine
from dlink.runtime.files import mark_of, replacing
from dlink.runtime.progress import Tick
from dlink.trt_runtime.manifest import Built, Manifest, Options, manifest_of, parse, read_bytes, signature_of
from dlink.trt_runtime.nvidia_driver import look_for_gpus
from dlink.trt_runtime.plan import runs_on as runs_here

EVERY = 0.2  # seconds between two looks at a build's progress


@dataclass(frozen=True)
class BuildResult:
    """A plan that has been written."""

    manifest: Manifest
    layers: list[Layer] | None  # the engine's report; None if no GPU could load the plan
    graph: OnnxModel
    sparsity: list[str]  # what TensorRT's log says of sparse kernels; nothing without --sparse


def build(graph: OnnxModel, out: Path, options: Options, timing_cache: Path | None, tick: Tick) -> BuildResult:
    """Write the plan of an ONNX file, and its manifest beside it. A build that fails or is stopped leaves no file.

    timing_cache: a file of TensorRT's measurements, read if it exists; new measurements are added to it.
    """
    refuse_batch(graph, options)
    refuse_target(options)
    refuse_dense(graph, options)
    compiler = find_compiler(options.target)
    refuse_options(compiler, options)
    refuse_graph(compiler, graph)
    where = runs_on(compiler, options)
    graph = with_half_input(graph)
    before = seconds_before(out)
    begun = time.monotonic()
    with heard(options) as sparsity:
        data = compile(compiler, graph, options, timing_cache, tick, before)
    seconds = time.monotonic() - begun
    gpus = look_for_gpus()
    gpu = gpus.found[0] if gpus.found else None
    layers = inspect(compiler, data, gpu) if gpu and runs_here(where, gpu) else None
    manifest = Manifest(
        spec=graph.spec,
        plan=mark_of(out.name, data),
        onnx=graph.mark,
        built=Built(
            target=options.target,
            version=compiler.version,
            cuda=gpus.driver if gpu else "",
            driver=gpus.release,
            gpu=gpu.name if gpu else "",
            capability=gpu.capability if gpu else "",
            seconds=round(seconds, 1),
        ),
        runs_on=where,
        options=options,
        precision=prove(graph, layers),
        ends=ends_of(graph),
    )
    with replacing(manifest_of(out)) as beside, replacing(out) as part:
        part.write_bytes(data)
        beside.write_bytes(manifest.to_bytes())
    signature_of(out).unlink(missing_ok=True)
    return BuildResult(manifest, layers, graph, sparsity)


def rebuild(plan: Path, tick: Tick) -> BuildResult:
    """Build a plan again as its manifest says, from the ONNX file beside it."""
    manifest = parse(read_bytes(plan), plan)
    onnx = plan.parent / manifest.onnx.name
    if not onnx.exists():
        raise BadPlan(f"{plan}: was built from {manifest.onnx.name}, which is not beside it; put it there")
    graph = read_model(onnx)
    if graph.mark != manifest.onnx:
        raise BadPlan(f"{plan}: was built from another {manifest.onnx.name} than the one beside it; {onnx} has changed")
    return build(graph, plan, manifest.options, None, tick)


def refuse_batch(graph: OnnxModel, options: Options) -> None:
    """Raise BadInput if the file's batch is fixed and another one is asked for."""
    fixed = graph.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed and options.batch != fixed:
        raise BadInput(f"{graph.mark.name}: takes exactly {fixed} views at once, not {options.batch}; export it again")


def seconds_before(out: Path) -> float | None:
    """The build time of the plan at that path, as an estimate; None without one."""
    with suppress(BadModel, OSError):
        if manifest_of(out).exists():
            return parse(read_bytes(out), out).built.seconds
    return None


def compile(
    compiler: Compiler, graph: OnnxModel, options: Options, timing_cache: Path | None, tick: Tick, before: float | None
) -> bytes:
    """The plan's bytes. The builder works in a thread of its own, so that ctrl-C works during the build."""
    done: list[bytes | BaseException] = []
    progress, stop = BuildProgress(), threading.Event()
    monitor = monitor_of(compiler.trt, progress, stop) if compiler.reports_progress else None

    def work() -> None:
        try:
            done.append(run(compiler, graph, options, timing_cache, monitor))
        except BaseException as e:
            done.append(e)

    thread = threading.Thread(target=work, name="dlink-build", daemon=True)
    begun = time.monotonic()
    thread.start()
    try:
        while thread.is_alive():
            thread.join(EVERY)
            if monitor is not None:
                tick(int(100 * progress.share), 100, "%,")
            elif before:
                tick(min(99, int(100 * (time.monotonic() - begun) / before)), 100, "% of the last build's time,")
            else:
                tick(0, 0, f"{compiler.title} does not report progress,")
    except KeyboardInterrupt:
        stop.set()
        if monitor is not None:
            thread.join()
        raise
    tick(100, 100, "%,")
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]


def run(compiler: Compiler, graph: OnnxModel, options: Options, timing_cache: Path | None, monitor: Any) -> bytes:
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxBytes, PostprocessConfig
    from polygraphy.exception import PolygraphyException

    cache = str(timing_cache) if timing_cache else None
    known = cache if timing_cache and timing_cache.exists() else None
    with polygraphy_errors() as errors:
        try:
            source = NetworkFromOnnxBytes(graph_for(compiler, graph), strongly_typed=compiler.typed)()
            constrain(compiler, graph, source[1])
            config = PostprocessConfig(config_for(compiler, options, graph, monitor, known), finish(compiler, options))
            return bytes(EngineBytesFromNetwork(source, config, save_timing_cache=cache)())
        except PolygraphyException as e:
            why = errors[0] if errors else str(e).splitlines()[0]
            raise NoEngine(f"{graph.mark.name}: {compiler.title} does not build it: {why}") from e
        finally:
            if cache:
                Path(f"{cache}.lock").unlink(missing_ok=True)  # Polygraphy's


@contextmanager
def polygraphy_errors() -> Iterator[list[str]]:
    """Collect the errors of TensorRT and Polygraphy, and keep all their messages from the terminal."""
    from polygraphy.logger import G_LOGGER

    errors: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(" ".join(record.getMessage().removeprefix("[E]").removeprefix("[!]").split()))

    logger, keep, before = logging.getLogger("Polygraphy"), Keep(logging.ERROR), G_LOGGER.use_python_logging_system
    propagate, logger.propagate = logger.propagate, False
    G_LOGGER.use_python_logging_system, G_LOGGER.colors = True, False
    logger.addHandler(keep)
    try:
        with warnings.catch_warnings():
            # Polygraphy always sets a timing cache, which TensorRT-RTX calls deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield errors
    finally:
        logger.removeHandler(keep)
        logger.propagate = propagate
        G_LOGGER.use_python_logging_system = before


class BuildProgress:
    """The progress of a build, from the nested phases that TensorRT announces."""

    def __init__(self) -> None:
        self.phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done
        self.share = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self.phases[name] = (parent, max(steps, 1), 0)

    def step(self, name: str, index: int) -> None:
        if name in self.phases:
            parent, steps, _ = self.phases[name]
            self.phases[name] = (parent, steps, min(index + 1, steps))
            self.share = max(self.share, *(self.within(n) for n, phase in self.phases.items() if phase[0] is None), 0.0)

    def finish(self, name: str) -> None:
        self.phases.pop(name, None)

    def within(self, name: str) -> float:
        _, steps, done = self.phases[name]
        inner = max((self.within(n) for n, phase in self.phases.items() if phase[0] == name), default=0.0)
        return min((done + inner) / steps, 1.0)


def monitor_of(trt: Any, progress: BuildProgress, stop: threading.Event) -> Any:
    """TensorRT's progress monitor. Its methods raise nothing, because an exception would cross C++."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
