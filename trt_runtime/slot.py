"""A slot: its own buffers and stream, for one run of a plan at a time, from pixels on the host to roads on the host.

A run is a copy in, then for each batch of views the spread kernel, the network and the gather kernel, then a copy out.
After its first time it is captured as one CUDA graph. TensorRT needs a separate context for each graph ("modifying the
context from which the graph was captured results in undefined behaviour", its developer guide). All contexts of a slot
share the slot's memory for activations.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from dlink.runtime.backend import OutputForm, Roads, Tiles
from dlink.runtime.errors import EngineFailed, GpuFailed, NoProbability
from dlink.runtime.spec import Spec
from dlink.trt_runtime.cuda_graphs import NON_BLOCKING, CudaGraph, capture
from dlink.trt_runtime.kernels.launch import Kernels
from dlink.trt_runtime.memory import PlanMemory
from dlink.trt_runtime.nvidia_driver import DriverError
from dlink.trt_runtime.tensorrt_engine import Context, TensorRTEngine

GRAPHS = 16  # the most CUDA graphs that a slot keeps; each holds a context
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """What a CUDA graph of a run depends on."""

    tiles: int
    views: tuple[int, ...]
    form: OutputForm
    threshold: float
    copies: bool = True  # whether pixels and roads are copied from and to the host

    def parts(self, batch: int) -> list[tuple[int, ...]]:
        """The views of each batch; there are several batches if one tile's views do not fit a batch."""
        per_batch = max(1, batch // self.tiles)
        return [self.views[i : i + per_batch] for i in range(0, len(self.views), per_batch)]


@dataclass(kw_only=True)
class Share:
    """What all slots of a model share."""

    spec: Spec
    max_tiles: int
    engine: TensorRTEngine
    kernels: Kernels
    memory: PlanMemory
    working: Callable[[], AbstractContextManager[None]]  # makes CUDA's context current and translates CUDA's errors
    captures: bool  # whether runs become CUDA graphs
    keep_fault: Callable[[NoProbability], None]  # called with the fault of a run that nobody waits for

    def close(self) -> None:
        """Drop what must be freed in CUDA's context, even if something still refers to this object."""
        del self.kernels, self.engine


class Run:
    """A run under way."""

    def __init__(self, slot: "Slot", shape: Shape, held: object = None) -> None:
        self.slot, self.shape, self.held = slot, shape, held  # held: arrays that must live until the run is done
        self.roads: Roads | None = None
        self.error: EngineFailed | None = None
        self.unattended = False  # nobody waits for the run: the model's next call raises its fault

    def __call__(self) -> Roads:
        self.slot.collect(self)
        if self.error:
            raise self.error
        assert self.roads is not None
        return self.roads


class Slot:
    """All methods but `collect` need the GPU's context current on the thread."""

    def __init__(self, model: Share) -> None:
        self.model = model
        self.lock = threading.Lock()
        self.run: Run | None = None
        self.graphs: OrderedDict[Shape, tuple[CudaGraph, Context]] = OrderedDict()
        self.plain: set[Shape] = set()  # shapes that can't be captured
        self.held: list[Any] = []  # pycuda's memory objects

    def allocate(self) -> None:
        model = self.model
        side, planes, batch = model.spec.tile, len(model.spec.bands), model.max_tiles
        self.stream = cuda.Stream(NON_BLOCKING)  # a capture would make the default stream unusable, on every thread
        self.tiles: NDArray[np.uint8] = self.pinned((batch, side, side, planes))
        self.roads: NDArray[np.uint8] = self.pinned((batch * side * side * 4,))
        self.faults: NDArray[np.uint32] = self.pinned((batch * 4,)).view(np.uint32)  # not 0: the tile is bad
        if model.memory.shared:  # CPU and GPU share one memory: nothing to copy
            self.tiles_at, self.roads_at, self.faults_at = (memory.get_device_pointer() for memory in self.held[-3:])
        else:
            ends = (self.tiles, self.roads, self.faults)
            self.tiles_at, self.roads_at, self.faults_at = (self.device_memory(a.nbytes) for a in ends)
        self.batch = self.device_memory(model.memory.batch)
        self.answers = self.device_memory(model.memory.answers)
        self.total = self.device_memory(side * side * 4)
        self.activations = self.device_memory(max(1, model.memory.activations))
        self.contexts: OrderedDict[int, Context] = OrderedDict()  # for plain launches
        self.contexts[self.key(model.max_tiles)] = self.new_context()

    def device_memory(self, size: int) -> int:
        """Allocate memory on the GPU; its address."""
        self.held.append(cuda.mem_alloc(size))
        return int(self.held[-1])

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Allocate host memory for copies from and to the GPU; with shared memory the GPU uses it directly."""
        flags = cuda.host_alloc_flags.DEVICEMAP if self.model.memory.shared else 0
        array: NDArray[np.uint8] = cuda.pagelocked_empty(shape, np.uint8, mem_flags=flags)
        self.held.append(array.base)
        return array

    def new_context(self) -> Context:
        """A new execution context on this slot's memory. MemoryError if there is no memory for it."""
        context = self.model.engine.context(self.activations, self.batch, self.answers, self.stream.handle)
        if context is None:
            raise cuda.MemoryError("no execution context")
        return context

    def key(self, batch: int) -> int:
        """Which context runs so many views without a graph: one for all numbers, or one for each."""
        return batch if self.model.engine.context_per_shape else 0

    def context(self, batch: int) -> Context:
        """The context that runs so many views without a graph; any other one if there is no memory for it."""
        key = self.key(batch)
        if key not in self.contexts:
            try:
                self.contexts[key] = self.new_context()
            except cuda.MemoryError:
                key = next(reversed(self.contexts))
            if len(self.contexts) > GRAPHS:
                self.contexts.popitem(last=False)
        self.contexts.move_to_end(key)
        return self.contexts[key]

    def begin(self, tiles: Tiles, shape: Shape) -> Run:
        """Copy the pixels and launch. The slot must be free."""
        for target, tile in zip(self.tiles, tiles, strict=False):
            target[...] = tile
        with self.under_way(Run(self, shape)) as run:
            self.launch(shape)
        return run

    @contextmanager
    def under_way(self, run: Run) -> Iterator[Run]:
        """Give the slot to a run until `collect`. If the launch fails, wait for the stream and free the slot."""
        self.run = run
        try:
            yield run
        except BaseException:
            self.stream.synchronize()
            self.run = None
            raise

    def launch(self, shape: Shape) -> None:
        """Put a run on the stream: as a graph, or as plain calls the first time and where it can't be captured."""
        if shape in self.graphs:
            self.graphs.move_to_end(shape)
            self.graphs[shape][0].launch(self.stream.handle)
            return
        one_size = len({len(part) for part in shape.parts(self.model.max_tiles)}) == 1  # else the context would change
        if not self.model.captures or shape in self.plain or not one_size:
            self.enqueue(shape)
            return
        try:
            context = self.new_context()
        except (GpuFailed, cuda.MemoryError) as e:
            self.give_up(shape, e)
            self.enqueue(shape)
            return
        self.enqueue(shape, context)
        try:
            graph = capture(self.stream.handle, lambda: self.enqueue(shape, context))
        except (DriverError, GpuFailed, cuda.Error) as e:
            self.give_up(shape, e)
            self.stream.synchronize()  # the context is still in use, and is freed on return
            return
        self.graphs[shape] = graph, context
        if len(self.graphs) > GRAPHS:
            self.graphs.popitem(last=False)[1][0].close()

    def give_up(self, shape: Shape, why: Exception) -> None:
        self.plain.add(shape)
        log.warning("%d tiles, views %s: launched without a CUDA graph: %s", shape.tiles, shape.views, str(why))

    def enqueue(self, shape: Shape, context: Context | None = None) -> None:
        """Put the run's work on the stream without waiting. `context` is given for a graph, which then owns it."""
        model, count = self.model, shape.tiles
        copies = shape.copies and not model.memory.shared
        if shape.copies:
            self.clear_faults()
        if copies:
            cuda.memcpy_htod_async(self.tiles_at, self.tiles[:count], self.stream)
        parts = shape.parts(model.max_tiles)
        for i, part in enumerate(parts):
            model.kernels.spread(self.stream, count, self.tiles_at, self.batch, part)
            batch = count * len(part)
            (context or self.context(batch)).run(batch, self.stream.handle)
            last = len(shape.views) if i == len(parts) - 1 else 0
            outs = [self.roads_at if shape.form == form else 0 for form in ("probability", "level", "mask")]
            numbers = (i == 0, last, shape.threshold)
            model.kernels.gather(self.stream, count, self.answers, self.total, part, numbers, outs, self.faults_at)
        if copies:
            cuda.memcpy_dtoh_async(self.read(shape), self.roads_at, self.stream)
        if shape.copies:
            self.fetch_faults()

    def clear_faults(self) -> None:
        """On the stream, set `faults` to 0."""
        cuda.memset_d32_async(self.faults_at, 0, len(self.faults), self.stream)

    def fetch_faults(self) -> None:
        """On the stream, copy `faults` to the host."""
        if not self.model.memory.shared:
            cuda.memcpy_dtoh_async(self.faults, self.faults_at, self.stream)

    def read(self, shape: Shape) -> Roads:
        """The run's result as a part of the host's buffer."""
        side, dtype = self.model.spec.tile, np.dtype(np.float32 if shape.form == "probability" else np.uint8)
        size = shape.tiles * side * side
        roads: Roads = self.roads[: size * dtype.itemsize].view(dtype).reshape(shape.tiles, side, side)
        return roads

    def collect(self, run: Run | None = None) -> None:
        """Wait for `run` (None: the run under way), keep its result for its caller, and free the slot."""
        with self.lock:
            current = self.run
            if current is None or (run and run is not current):
                return
            try:
                with self.model.working():
                    self.stream.synchronize()
                if current.shape.copies:
                    current.roads = self.read(current.shape).copy()
                self.check(current)
            except EngineFailed as e:
                current.error = e
                if current.unattended and isinstance(e, NoProbability):
                    self.model.keep_fault(e.with_traceback(None))  # the traceback's frames hold arrays
            self.run = current.held = None

    def check(self, run: Run) -> None:
        """Raise NoProbability if the kernels found bad tiles."""
        bad = np.flatnonzero(self.faults).tolist()
        if bad and run.roads is None:
            raise NoProbability("an image on the GPU")
        if bad:
            raise NoProbability.of(bad, run.roads)

    def close(self) -> None:
        """Free everything, each graph before its context."""
        for graph, _ in self.graphs.values():
            graph.close()
        self.graphs.clear()
        vars(self).pop("contexts", None)
        while self.held:  # freed by name, because an exception's frames may still refer to it
            self.held.pop().free()
        vars(self).pop("stream", None)
