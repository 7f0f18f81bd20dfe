"""One run of a plan at a time: buffers and a stream of its own, from pixels on the host to roads on the host.

A run is a copy in, and for each batch of views spread, the network and gather, and a copy out: captured as one CUDA
graph after its first time. TensorRT wants a context of its own for each graph ("modifying the context from which the
graph was captured results in undefined behaviour", its developer guide), so contexts share the slot's memory for
activations.
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

GRAPHS = 16  # that a slot keeps; each holds a context
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """What of a run a graph depends on."""

    tiles: int
    views: tuple[int, ...]
    form: OutputForm
    threshold: float
    copies: bool = True  # to and from the host

    def parts(self, batch: int) -> list[tuple[int, ...]]:
        """The views of each batch that goes through the network; several where one tile's do not fit."""
        most = max(1, batch // self.tiles)
        return [self.views[i : i + most] for i in range(0, len(self.views), most)]


@dataclass(kw_only=True)
class Share:
    """What the slots of a model have in common."""

    spec: Spec
    max_tiles: int
    engine: TensorRTEngine
    kernels: Kernels
    memory: PlanMemory
    working: Callable[[], AbstractContextManager[None]]  # CUDA's context on the thread, and its errors as ours
    captures: bool  # whether runs become CUDA graphs
    missed: Callable[[NoProbability], None]  # told of a run's fault that nobody waits for

    def close(self) -> None:
        """Let go of what must be freed in CUDA's context, whoever still holds this."""
        del self.kernels, self.engine


class Run:
    """A run that is under way."""

    def __init__(self, slot: "Slot", shape: Shape, held: object = None) -> None:
        self.slot, self.shape, self.held = slot, shape, held  # what must live until it is done
        self.roads: Roads | None = None
        self.error: EngineFailed | None = None
        self.unattended = False  # nobody waits for it: what fails is said at the model's next call

    def __call__(self) -> Roads:
        self.slot.collect(self)
        if self.error:
            raise self.error
        assert self.roads is not None
        return self.roads


class Slot:
    """Used with the GPU's context on the thread, `collect` apart."""

    def __init__(self, model: Share) -> None:
        self.model = model
        self.lock = threading.Lock()
        self.run: Run | None = None
        self.graphs: OrderedDict[Shape, tuple[CudaGraph, Context]] = OrderedDict()
        self.plain: set[Shape] = set()  # that can't be captured
        self.held: list[Any] = []  # memory

    def allocate(self) -> None:
        model = self.model
        side, batch = model.spec.tile, model.max_tiles
        self.stream = cuda.Stream(NON_BLOCKING)  # a capture would make the default stream unusable, on every thread
        self.tiles: NDArray[np.uint8] = self.pinned((batch, side, side, 3))
        self.roads: NDArray[np.uint8] = self.pinned((batch * side * side * 4,))
        self.faults: NDArray[np.uint32] = self.pinned((batch * 4,)).view(np.uint32)  # not 0: of this tile
        if model.memory.shared:  # of CPU and GPU: nothing to copy
            self.tiles_at, self.roads_at, self.faults_at = (memory.get_device_pointer() for memory in self.held[-3:])
        else:
            ends = (self.tiles, self.roads, self.faults)
            self.tiles_at, self.roads_at, self.faults_at = (self.memory(a.nbytes) for a in ends)
        self.batch = self.memory(model.memory.batch)
        self.answers = self.memory(model.memory.answers)
        self.total = self.memory(side * side * 4)
        self.activations = self.memory(max(1, model.memory.activations))
        self.contexts: OrderedDict[int, Context] = OrderedDict()  # for plain launches
        self.contexts[self.key(model.max_tiles)] = self.new_context()

    def memory(self, size: int) -> int:
        """The address of memory on the GPU."""
        self.held.append(cuda.mem_alloc(size))
        return int(self.held[-1])

    def pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory of the host that the GPU copies from and to, or sees where it is one with its own."""
        flags = cuda.host_alloc_flags.DEVICEMAP if self.model.memory.shared else 0
        array: NDArray[np.uint8] = cuda.pagelocked_empty(shape, np.uint8, mem_flags=flags)
        self.held.append(array.base)
        return array

    def new_context(self) -> Context:
        """An execution context on this slot's memory; MemoryError where there is none left for it."""
        context = self.model.engine.context(self.activations, self.batch, self.answers, self.stream.handle)
        if context is None:
            raise cuda.MemoryError("no execution context")
        return context

    def key(self, batch: int) -> int:
        """Which context runs so many views plainly: one for all, or one for each number."""
        return batch if self.model.engine.context_per_shape else 0

    def context(self, batch: int) -> Context:
        """The one that runs so many views plainly; another one's where there is no memory for one more."""
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
        for at, tile in zip(self.tiles, tiles, strict=False):
            at[...] = tile
        with self.under_way(Run(self, shape)) as run:
            self.launch(shape)
        return run

    @contextmanager
    def under_way(self, run: Run) -> Iterator[Run]:
        """The slot is a run's until it is collected; where its launch breaks off, until the stream has ended."""
        self.run = run
        try:
            yield run
        except BaseException:
            self.stream.synchronize()
            self.run = None
            raise

    def launch(self, shape: Shape) -> None:
        """Put a run on the stream: as a graph, or plainly the first time and where it can't be one."""
        if shape in self.graphs:
            self.graphs.move_to_end(shape)
            self.graphs[shape][0].launch(self.stream.handle)
            return
        alike = len({len(part) for part in shape.parts(self.model.max_tiles)}) == 1  # else shapes would change
        if not self.model.captures or shape in self.plain or not alike:
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
            self.stream.synchronize()  # the context, which now goes, is at work
            return
        self.graphs[shape] = graph, context
        if len(self.graphs) > GRAPHS:
            self.graphs.popitem(last=False)[1][0].close()

    def give_up(self, shape: Shape, why: Exception) -> None:
        self.plain.add(shape)
        log.warning("%d tiles, views %s: not as a CUDA graph, launched plainly: %s", shape.tiles, shape.views, str(why))

    def enqueue(self, shape: Shape, context: Context | None = None) -> None:
        """The run's work in order; none of it waits. A context that a graph is made of is that graph's own."""
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
        """Put it on the stream that no tile is at fault."""
        cuda.memset_d32_async(self.faults_at, 0, len(self.faults), self.stream)

    def fetch_faults(self) -> None:
        """Put it on the stream that `faults` become the host's."""
        if not self.model.memory.shared:
            cuda.memcpy_dtoh_async(self.faults, self.faults_at, self.stream)

    def read(self, shape: Shape) -> Roads:
        """The host's buffer as the run's result."""
        side, dtype = self.model.spec.tile, np.dtype(np.float32 if shape.form == "probability" else np.uint8)
        size = shape.tiles * side * side
        roads: Roads = self.roads[: size * dtype.itemsize].view(dtype).reshape(shape.tiles, side, side)
        return roads

    def collect(self, run: Run | None = None) -> None:
        """Wait for a run, or for whichever is under way, keep its result for its caller, and be free again."""
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
                    self.model.missed(e.with_traceback(None))  # whose frames hold arrays
            self.run = current.held = None

    def check(self, run: Run) -> None:
        """NoProbability where the kernels found tiles at fault."""
        bad = np.flatnonzero(self.faults).tolist()
        if bad and run.roads is None:
            raise NoProbability("an image on the GPU")
        if bad:
            raise NoProbability.of(bad, run.roads)

    def close(self) -> None:
        """Free everything, in an order that a context's graphs go before it."""
        for graph, _ in self.graphs.values():
            graph.close()
        self.graphs.clear()
        vars(self).pop("contexts", None)
        while self.held:  # now, and not when the last exception that has seen it is gone
            self.held.pop().free()
        vars(self).pop("stream", None)
