"""TensorRT as a Backend: runs a verified plan on the GPU, through pycuda.

It uses CUDA's primary context, which PyTorch and OpenCV use too, and pushes and pops it around each call on any thread.
All memory is allocated when the model opens, and too little memory is an error then. Runs use the slots (slot.py) in
turn, so the pixels of one run are copied while another run is computed.
"""

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pycuda.driver as cuda

from dlink.runtime.backend import OutputForm, Probs, Running, Tiles, check_form, check_tiles
from dlink.runtime.errors import BadInput, Closed, GpuFailed, NoEngine, NoProbability
from dlink.runtime.life import CLOSED, ENGINES, check_process
from dlink.runtime.precision import shares_in_words
from dlink.runtime.views import check_views
from dlink.runtime.windows import Window, cover
from dlink.trt_runtime.cuda_graphs import LEGACY, follow
from dlink.trt_runtime.device_arrays import DeviceArray, copy, new_array, number_of, read_array
from dlink.trt_runtime.kernel_cache import KernelCache
from dlink.trt_runtime.kernels.launch import PTX, Kernels
from dlink.trt_runtime.manifest import Manifest
from dlink.trt_runtime.memory import PlanMemory, free_memory, mb
from dlink.trt_runtime.nvidia_driver import HARMLESS, DriverError, Gpu
from dlink.trt_runtime.plan import fit, read_plan
from dlink.trt_runtime.primary_context import release_pycudas
from dlink.trt_runtime.slot import Run, Shape, Share, Slot
from dlink.trt_runtime.tensorrt_engine import TensorRTEngine

log = logging.getLogger(__name__)


def memory_needed(path: str | os.PathLike[str], slots: int = 2) -> PlanMemory:
    """GPU memory that a plan needs. The plan is verified and loaded for this, but no slot is allocated.

    Args:
        path: The plan. Its manifest must lie beside it.
        slots: Runs that can be under way at once.

    Returns:
        The bytes by purpose; `total` is their sum over all slots.

    Raises:
        BadPlan: The plan or its manifest is damaged.
        Mismatch: The plan is for another GPU, TensorRT or driver.
        NoEngine: This machine lacks a GPU, a driver, TensorRT, or memory for the weights.

    Example:
        >>> from dlink.trt_runtime.tensorrt_backend import memory_needed  # doctest: +SKIP
        >>> fits = memory_needed("roads.plan", slots=2).total < 4 << 30  # bytes  # doctest: +SKIP
    """
    path = Path(path)
    plan, manifest = read_plan(path)
    backend = TensorRTBackend(path, plan, manifest, fit(path, manifest), slots, measure=True)
    backend.close()
    return backend.memory


class TensorRTBackend:
    """A verified plan as a Backend. It holds GPU memory until `close`."""

    def __init__(
        self, path: Path, plan: bytes, manifest: Manifest, gpu: Gpu, slots: int = 2, *, measure: bool = False,
        cache: KernelCache | None = None,
    ) -> None:  # fmt: skip
        self.path, self.manifest, self.cache = path, manifest, cache
        self.spec, self.max_tiles, self.slots = manifest.spec, manifest.options.batch, slots
        self.executed: Mapping[str, float] = dict(manifest.precision.shares)
        self.engine = f"{manifest.title}, {shares_in_words(dict(self.executed))}, {gpu.name}"
        self.lock = threading.Lock()
        self.pid, self.closed, self.fault = os.getpid(), False, ""
        self.kept_fault: NoProbability | None = None  # of a run that nobody waited for
        self.at_work: list[Slot] = []
        try:
            cuda.init()
            device = cuda.Device(0)
            self.gpu = device.retain_primary_context()
        except cuda.Error as e:
            raise NoEngine(f"{path}: CUDA does not start: {e}") from e
        try:
            with self.current():
                self.shared_memory = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))  # a Jetson
                self.load(plan)
                if not measure:
                    self.allocate()
        except cuda.Error as e:
            self.close()
            raise NoEngine(f"{path}: CUDA fails while the model opens: {e}") from e
        except BaseException:
            self.close()
            raise
        ENGINES.add(self)

    def load(self, plan: bytes) -> None:
        """Load the engine and compute the memory that it needs."""
        free = free_memory(self.shared_memory)
        if len(plan) > free:
            self.report_shortage(
                f"{self.path}: not enough memory on the GPU: its weights take {mb(len(plan))}, {mb(free)} free"
            )
        self.loaded = TensorRTEngine(self.path, plan, self.manifest, self.cache)
        if self.loaded.remark:
            self.engine += f", {self.loaded.remark}"
        if not self.loaded.many_contexts:
            self.slots = 1
            log.info("%s: one slot and no CUDA graphs: %s has one context a plan", self.path, self.manifest.title)
        batch, area, planes = self.max_tiles, self.spec.tile**2, len(self.spec.bands)
        self.memory = PlanMemory(
            plan=len(plan),
            activations=self.loaded.activations,
            tiles=0 if self.shared_memory else batch * area * planes,
            batch=batch * area * planes * self.loaded.types[0].itemsize,
            answers=batch * area * self.loaded.types[1].itemsize,
            roads=area * 4 + (0 if self.shared_memory else batch * (area * 4 + 4)),
            slots=self.slots,
            shared=self.shared_memory,
        )

    def allocate(self) -> None:
        """Allocate the slots. If they do not fit, NoEngine says what would."""
        free = free_memory(self.shared_memory)
        if self.slots * self.memory.slot > free:
            self.report_shortage(self.shortage(free))
        try:
            self.share = self.new_share()
            for _ in range(self.slots):
                self.at_work.append(Slot(self.share))
                self.at_work[-1].allocate()
        except cuda.MemoryError as e:
            raise NoEngine(self.shortage(free)) from e

    def new_share(self) -> Share:
        return Share(
            spec=self.spec,
            max_tiles=self.max_tiles,
            engine=self.loaded,
            kernels=Kernels(PTX.read_bytes(), self.spec, *self.loaded.types),
            memory=self.memory,
            working=self.working,
            captures=self.loaded.captures and self.loaded.many_contexts,
            keep_fault=self.keep_fault,
        )

    def keep_fault(self, fault: NoProbability) -> None:
        """Keep the fault of a run that nobody waits for; the model's next call raises it."""
        self.kept_fault = fault

    def report_shortage(self, words: str) -> None:
        """Raise NoEngine. With shared memory only warn: Linux may still free enough."""
        if not self.shared_memory:
            raise NoEngine(words)
        log.warning("%s", words)

    def shortage(self, free: int) -> str:
        """The message: needed memory, free memory, and what would fit."""
        need, options = self.memory, self.manifest.options
        found = f"{self.path}: not enough memory on the GPU: {self.slots} slots need {mb(self.slots * need.slot)}"
        found += f" beside the weights, {mb(free)} free"
        if self.slots > 1 and need.slot < free:
            return f"{found}; open it with slots={free // need.slot}"
        max_tiles = int(free * options.max_tiles / need.slot)
        if 1 <= max_tiles < options.max_tiles:
            return f"{found}; build it with --max-tiles {max_tiles}"
        return f"{found}; build it with --views 1, or with a smaller tile"

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make CUDA's context current on this thread for the block."""
        self.gpu.push()
        try:
            yield
        finally:
            cuda.Context.pop()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Like `current`, for a usable model. CUDA's errors become GpuFailed, and after one nothing runs again."""
        self.check()
        try:
            with self.current():
                yield
        except (cuda.Error, DriverError) as e:
            if not isinstance(e, cuda.MemoryError) and getattr(e, "code", 0) not in HARMLESS:
                self.fault = str(e)
            raise GpuFailed(
                f"{self.path}: the GPU failed: {e}; open the model again, if need be in a new process"
            ) from e

    def check(self) -> None:
        """Raise the error that keeps the model from being used now, if there is one."""
        check_process(self.pid)
        if self.closed:
            raise Closed(CLOSED)
        if self.fault:
            raise GpuFailed(
                f"{self.path}: the GPU has failed before: {self.fault}; open the model again, if need be in "
                f"a new process"
            )
        if self.kept_fault:
            fault, self.kept_fault = self.kept_fault, None
            raise fault

    def in_batch_order(self, views: Sequence[int] | None) -> tuple[int, ...]:
        """The views (None: the spec's) in the order of the batch."""
        views = self.spec.views if views is None else views
        check_views(views)
        return tuple(sorted(views))

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return max(1, self.max_tiles // len(self.in_batch_order(views)))

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        shape = self.shape(len(tiles), views, form, threshold)
        check_tiles(tiles, self.spec, self.tiles_per_batch(views))
        self.check()
        with self.lock, self.free_slot() as slot:
            return slot.begin(tiles, shape)

    def shape(self, tiles: int, views: Sequence[int] | None, form: OutputForm, threshold: float) -> Shape:
        check_form(form)
        return Shape(tiles, self.in_batch_order(views), form, threshold if form == "mask" else 0.0)

    @contextmanager
    def free_slot(self) -> Iterator[Slot]:
        """The next slot, once its last run has ended. The block runs with CUDA's context current."""
        self.check()
        slot = self.at_work.pop(0)
        self.at_work.append(slot)
        slot.collect()
        with self.working():
            yield slot

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        check_tiles(tiles, self.spec, self.max_tiles)
        per_batch = self.tiles_per_batch(views)
        runs = [self.start(tiles[i : i + per_batch], views) for i in range(0, len(tiles), per_batch)]
        return np.concatenate([run() for run in runs]) if len(runs) > 1 else runs[0]()

    def segment_device(
        self, image: Any, views: Sequence[int] | None, form: OutputForm, threshold: float, halo: int, out: Any = None,
        stream: int | None = None,
    ) -> DeviceArray:  # fmt: skip
        """See Segmenter.segment_device."""
        callers = number_of(stream)
        order = callers or LEGACY  # our streams do not wait for the default stream by themselves
        source = read_array(image, "an image", order, bands=self.spec.bands)
        height, width = source.shape[:2]
        side, per_batch = self.spec.tile, self.tiles_per_batch(views)
        if min(height, width) < side:
            raise BadInput(f"an image on the GPU must have {side} x {side} px or more, got {width} x {height}")
        windows, target = cover(height, width, side, halo), None
        earlier = [callers, source.stream]
        if out is not None:
            target = read_array(out, "out", order, form, (height, width))
            if target.read_only:
                raise BadInput("out must not be read-only")
            earlier.append(target.stream)
        shape = replace(self.shape(per_batch, views, form, threshold), copies=False)
        self.check()
        with self.lock, self.free_slot() as slot, slot.under_way(Run(slot, shape)) as run:
            target = target or new_array((height, width), form)
            run.held = source, target
            for other in {stream for stream in earlier if stream is not None}:
                follow(slot.stream.handle, other)
            slot.clear_faults()
            for i in range(0, len(windows), per_batch):
                self.put_batch(slot, shape, windows[i : i + per_batch], source, target)
            slot.fetch_faults()
            run.unattended = callers is not None
            if callers is not None:
                follow(callers, slot.stream.handle)
        if callers is None:
            slot.collect(run)
            if run.error:
                raise run.error
        target.stream = callers
        return target

    def put_batch(
        self, slot: Slot, shape: Shape, batch: list[Window], source: DeviceArray, target: DeviceArray
    ) -> None:
        """Put one batch of windows on the slot's stream: copy the tiles in, launch, copy the cores out."""
        side, planes = self.spec.tile, len(self.spec.bands)
        tiles = DeviceArray(slot.tiles_at, (len(batch) * side, side, planes), "|u1", side * planes)
        roads = DeviceArray(slot.roads_at, (len(batch) * side, side), target.typestr, side * target.itemsize)
        for i, window in enumerate(batch):
            copy(source, window.outer, tiles, (i * side, 0), slot.stream)
        slot.launch(replace(shape, tiles=len(batch)))
        for i, window in enumerate(batch):
            rows, cols = window.inner
            inner = slice(i * side + rows.start, i * side + rows.stop), cols
            copy(roads, inner, target, (window.rows.lo, window.cols.lo), slot.stream)

    def layer_times(self, runs: int) -> dict[str, float]:
        """Each layer's time for a full batch by TensorRT's profiler: the median of some runs, in ms."""
        self.check()
        times: dict[str, list[float]] = defaultdict(list)

        class Profiler(self.loaded.trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times[layer_name].append(ms)

        with self.lock, self.free_slot() as slot:
            context = slot.new_context() if self.loaded.many_contexts else slot.context(self.max_tiles)
            for run in range(runs + 1):
                if run == 1:  # the first run is slower
                    context.execution.profiler = profiler = Profiler()
                context.run(self.max_tiles, slot.stream.handle)
                slot.stream.synchronize()
            if not self.loaded.many_contexts:
                context.execution.profiler = None
            del profiler
        return {name: median(ms) for name, ms in times.items()}

    def close(self) -> None:
        """Finish the runs under way and free everything in CUDA's context. A second call does nothing."""
        if os.getpid() != self.pid:
            return
        with self.lock:
            if self.gpu is None:
                return
            for slot in self.at_work:
                slot.collect()
            self.closed = True
            try:
                with self.current():
                    if "loaded" in vars(self) and not self.fault:
                        self.loaded.save_kernels()
                    for slot in self.at_work:
                        slot.close()
                    self.at_work.clear()
                    if share := vars(self).pop("share", None):
                        share.close()
                    vars(self).pop("loaded", None)
                release_pycudas(self.gpu)
            except (cuda.Error, DriverError) as e:  # after a GPU error freeing fails too
                log.warning("%s: closing: %s", self.path, str(e))
            self.gpu = None
