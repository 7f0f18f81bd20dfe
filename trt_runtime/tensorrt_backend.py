"""TensorRT as a Backend: a verified plan on the GPU, through pycuda.

CUDA's primary context alone, the one that PyTorch and OpenCV use too: pushed and popped around each call, whatever
thread it comes from. Everything is allocated when the model opens.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from dlink.trt_runtime.backend import HostBackend, Probs
from dlink.trt_runtime.cuda import Gpu
from dlink.trt_runtime.errors import BadPlan, Closed, Mismatch, NoEngine
from dlink.trt_runtime.executed import say
from dlink.trt_runtime.files import file_sha256
from dlink.trt_runtime.manifest import TARGETS, Manifest
from dlink.trt_runtime.plan import MODULES, mend, same_version


def load(path: Path, plan: bytes, manifest: Manifest, gpu: Gpu) -> "PlanBackend":
    """A plan that has been verified, as a Backend."""
    trt = import_module(MODULES[manifest.built.target])
    if not same_version(manifest, trt.__version__):
        title = TARGETS[manifest.built.target]
        raise Mismatch(f"{path}: a plan of {manifest.title}, here is {title} {trt.__version__}; {mend(path, manifest)}")
    network = Network(trt, path, plan, manifest)
    shares = dict(manifest.precision.shares)
    engine = f"{manifest.title}, {say(shares)}, {gpu.name}"
    backend = PlanBackend(network, manifest.spec, manifest.options.batch, engine, shares)
    backend.manifest = manifest
    return backend


class PlanBackend(HostBackend):
    """A HostBackend whose network holds memory of the GPU."""

    manifest: Manifest

    def close(self) -> None:
        with self.lock:
            network, self.net = self.net, None
        if isinstance(network, Network):
            network.close()

    def layer_times(self, runs: int) -> dict[str, float]:
        """Each layer's time for a full batch by TensorRT's profiler, the median of some runs, in ms."""
        if not isinstance(self.net, Network):
            raise Closed("this model is closed; open it again")
        side = self.spec.tile
        return self.net.layer_times(np.zeros((self.max_tiles, 3, side, side), np.float32), runs)


class Network:
    """A plan in TensorRT: float32 (N, 3, S, S) -> float32 (N, S, S), N up to the plan's batch."""

    def __init__(self, trt: Any, path: Path, plan: bytes, manifest: Manifest) -> None:
        self.lock = threading.Lock()
        self.trt = trt
        self.context: Any = None
        try:
            cuda.init()
            self.gpu = cuda.Device(0).retain_primary_context()
        except cuda.Error as e:
            raise NoEngine(f"{path}: CUDA does not start: {e}") from e
        try:
            with self.current():
                self.load(trt, path, plan, manifest)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def current(self) -> Iterator[None]:
        """CUDA's context on this thread, for the time of a call."""
        self.gpu.push()
        try:
            yield
        finally:
            cuda.Context.pop()

    def load(self, trt: Any, path: Path, plan: bytes, manifest: Manifest) -> None:
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.runtime = trt.Runtime(self.logger)  # engine_host_code_allowed is False and stays so
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise Mismatch(
                f"{path}: {manifest.title} does not load it, for the reason it gave above; {mend(path, manifest)}"
            )
        self.input, self.output = ends(trt, self.engine, path, manifest)
        if manifest.options.strip_weights:
            self.refit(trt, path, manifest)
        try:
            self.context = self.engine.create_execution_context()
            if self.context is None:
                raise cuda.MemoryError("no execution context")
            batch, side = manifest.options.batch, manifest.spec.tile
            self.stream = cuda.Stream()
            self.image = cuda.mem_alloc(batch * 3 * side * side * 4)
            self.road = cuda.mem_alloc(batch * side * side * 4)
            self.result = cuda.pagelocked_empty((batch, 1, side, side), np.float32)
        except cuda.MemoryError as e:
            raise NoEngine(
                f"{path}: not enough memory on the GPU for {manifest.options.batch} views of {manifest.spec.tile} px; "
                f"build with a smaller --max-tiles or --views"
            ) from e

    def refit(self, trt: Any, path: Path, manifest: Manifest) -> None:
        """Give a plan without weights those of the ONNX file beside it."""
        onnx = path.parent / manifest.onnx.name
        if not onnx.exists() or file_sha256(onnx) != manifest.onnx.sha256:
            raise BadPlan(f"{path}: was built without weights, and they are in {manifest.onnx.name}; put it beside")
        refitter = trt.Refitter(self.engine, self.logger)
        parser = trt.OnnxParserRefitter(refitter, self.logger)
        if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
            raise BadPlan(f"{path}: does not take the weights of {onnx}; {mend(path, manifest)}")

    def __call__(self, x: NDArray[np.float32]) -> Probs:
        with self.lock:
            if self.context is None:
                raise Closed("this model is closed; open it again")
            with self.current():
                self.context.set_input_shape(self.input, x.shape)
                self.context.set_tensor_address(self.input, int(self.image))
                self.context.set_tensor_address(self.output, int(self.road))
                cuda.memcpy_htod_async(self.image, np.ascontiguousarray(x), self.stream)
                if not self.context.execute_async_v3(self.stream.handle):
                    raise RuntimeError("TensorRT could not run the network; its messages are above")
                result = self.result[: len(x)]
                cuda.memcpy_dtoh_async(result, self.road, self.stream)
                self.stream.synchronize()
        return np.asarray(result[:, 0])

    def layer_times(self, x: NDArray[np.float32], runs: int) -> dict[str, float]:
        found: dict[str, list[float]] = defaultdict(list)

        class Profiler(self.trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                found[layer_name].append(ms)

        self(x)  # the first run is slower
        self.context.profiler = profiler = Profiler()
        for _ in range(runs):
            self(x)
        del profiler
        return {name: median(times) for name, times in found.items()}

    def close(self) -> None:
        """Free what is held, in the context that it was made in. A second call does nothing."""
        with self.lock:
            if self.gpu is None:
                return
            with self.current():
                for name in ("result", "road", "image", "stream", "context", "engine", "runtime"):
                    if name in vars(self):
                        setattr(self, name, None)
            self.gpu.detach()
            self.gpu = None


def ends(trt: Any, engine: Any, path: Path, manifest: Manifest) -> tuple[str, str]:
    """The names of input and output; BadPlan where they are not those of our networks."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    side = manifest.spec.tile
    shapes = {name: tuple(engine.get_tensor_shape(name))[1:] for name in names}
    by_mode = {engine.get_tensor_mode(name): name for name in names}
    source, result = by_mode.get(trt.TensorIOMode.INPUT, ""), by_mode.get(trt.TensorIOMode.OUTPUT, "")
    if shapes != {source: (3, side, side), result: (1, side, side)}:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise BadPlan(f"{path}: its ends are {said}, not an image of {side} px and its road; {mend(path, manifest)}")
    if {engine.get_tensor_dtype(name) for name in names} != {trt.float32}:
        raise BadPlan(f"{path}: its ends are not float32; {mend(path, manifest)}")
    return source, result
