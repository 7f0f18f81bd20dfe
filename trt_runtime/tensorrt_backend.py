"""TensorRT as a Backend: a verified plan on the GPU, through pycuda.

CUDA's primary context alone, the one that PyTorch and OpenCV use too: pushed and popped around each call, whatever
thread it comes from. Everything is allocated when the model opens, and what does not fit is said then. Runs go round
its slots (slot.py), so that one's pixels are copied while another one's are computed.
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
from typing import Any, get_args

import numpy as np
import pycuda.driver as cuda

from dlink.runtime.backend import OutputForm, Probs, Running, Tiles, check_tiles
from dlink.runtime.errors import BadInput, Closed, GpuFailed, NoEngine, NoProbability
from dlink.runtime.life import CLOSED, ENGINES, check_process
from dlink.runtime.precision import shares_in_words
from dlink.runtime.views import check_views
from dlink.runtime.windows import cover
from dlink.trt_runtime.cuda_graphs import LEGACY, follow
from dlink.trt_runtime.device_arrays import DeviceArray, copy, new_array, number_of, read_array
from dlink.trt_runtime.kernel_cache import KernelCache
from dlink.trt_runtime.kernels.launch import PTX, Kernels
from dlink.trt_runtime.manifest import Manifest
from dlink.trt_runtime.memory import PlanMemory, free_memory, mb
from dlink.trt_runtime.nvidia_driver import HARMLESS, DriverError, Gpu
from dlink.trt_runtime.plan import fit, read_plan
from dlink.trt_runtime.primary_context import let_go
from dlink.trt_runtime.slot import Run, Shape, Share, Slot
from dlink.trt_runtime.tensorrt_engine import TensorRTEngine

log = logging.getLogger(__name__)


def memory_needed(path: str | os.PathLike[str], slots: int = 2) -> PlanMemory:
    """What a plan would take. It is verified and loaded for that, and nothing more is allocated."""
    path = Path(path)
    plan, manifest = read_plan(path)
    backend = TensorRTBackend(path, plan, manifest, fit(path, manifest), slots, measure=True)
    backend.close()
    return backend.memory


class TensorRTBackend:
    """A plan that has been verified as a Backend; it holds memory of the GPU from its making to its `close`."""

    def __init__(
        self, path: Path, plan: bytes, manifest: Manifest, gpu: Gpu, slots: int = 2, *, measure: bool = False,
        kept: KernelCache | None = None,
    ) -> None:  # fmt: skip
        self.path, self.manifest, self.kept = path, manifest, kept
        self.spec, self.max_tiles, self.slots = manifest.spec, manifest.options.batch, slots
        self.executed: Mapping[str, float] = dict(manifest.precision.shares)
        self.engine = f"{manifest.title}, {shares_in_words(dict(self.executed))}, {gpu.name}"
        self.lock = threading.Lock()
        self.pid, self.closed, self.fault = os.getpid(), False, ""
        self.missed: NoProbability | None = None  # of a run that nobody waited for
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
        """The engine, and what it will take."""
        free = free_memory(self.shared_memory)
        if len(plan) > free:
            self.lacks(f"{self.path}: not enough memory on the GPU: its weights take {mb(len(plan))}, {mb(free)} free")
        self.loaded = TensorRTEngine(self.path, plan, self.manifest, self.kept)
        if self.loaded.remark:
            self.engine += f", {self.loaded.remark}"
        if not self.loaded.several:
            self.slots = 1
            log.info("%s: one slot and no CUDA graphs: %s has one context a plan", self.path, self.manifest.title)
        batch, area = self.max_tiles, self.spec.tile**2
        self.memory = PlanMemory(
            plan=len(plan),
            activations=self.loaded.activations,
            tiles=0 if self.shared_memory else batch * area * 3,
            batch=batch * area * 3 * self.loaded.types[0].itemsize,
            answers=batch * area * self.loaded.types[1].itemsize,
            roads=area * 4 + (0 if self.shared_memory else batch * (area * 4 + 4)),
            slots=self.slots,
            shared=self.shared_memory,
        )

    def allocate(self) -> None:
        """The slots; NoEngine says what would fit where they don't."""
        free = free_memory(self.shared_memory)
        if self.slots * self.memory.slot > free:
            self.lacks(self.too_much(free))
        try:
            self.share = self.what_slots_share()
            for _ in range(self.slots):
                self.at_work.append(Slot(self.share))
                self.at_work[-1].allocate()
        except cuda.MemoryError as e:
            raise NoEngine(self.too_much(free)) from e

    def what_slots_share(self) -> Share:
        return Share(
            spec=self.spec,
            max_tiles=self.max_tiles,
            engine=self.loaded,
            kernels=Kernels(PTX.read_bytes(), self.spec, *self.loaded.types),
            memory=self.memory,
            working=self.working,
            captures=self.loaded.captures and self.loaded.several,
            missed=self.miss,
        )

    def miss(self, fault: NoProbability) -> None:
        """Keep what a run found that nobody waits for, for the model's next call."""
        self.missed = fault

    def lacks(self, words: str) -> None:
        """NoEngine; a warning where memory is the computer's, and nobody knows before it is asked for."""
        if not self.shared_memory:
            raise NoEngine(words)
        log.warning("%s", words)

    def too_much(self, free: int) -> str:
        """What was needed, what was free, and what fits."""
        need, options = self.memory, self.manifest.options
        said = f"{self.path}: not enough memory on the GPU: {self.slots} slots need {mb(self.slots * need.slot)}"
        said += f" beside the weights, {mb(free)} free"
        if self.slots > 1 and need.slot < free:
            return f"{said}; open it with slots={free // need.slot}"
        fits = int(free * options.max_tiles / need.slot)
        if 1 <= fits < options.max_tiles:
            return f"{said}; build it with --max-tiles {fits}"
        return f"{said}; build it with --views 1, or with a smaller tile"

    @contextmanager
    def current(self) -> Iterator[None]:
        """CUDA's context on this thread, for the time of a call."""
        self.gpu.push()
        try:
            yield
        finally:
            cuda.Context.pop()

    @contextmanager
    def working(self) -> Iterator[None]:
        """The same for a model that can be used, with CUDA's errors as ours. After one of them nothing is run again."""
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
        """Whether the model can be used, here and now."""
        check_process(self.pid)
        if self.closed:
            raise Closed(CLOSED)
        if self.fault:
            raise GpuFailed(
                f"{self.path}: the GPU has failed before: {self.fault}; open the model again, if need be in "
                f"a new process"
            )
        if self.missed:
            missed, self.missed = self.missed, None
            raise missed

    def chosen(self, views: Sequence[int] | None) -> tuple[int, ...]:
        """Views in the order of the batch."""
        views = self.spec.views if views is None else views
        check_views(views)
        return tuple(sorted(views))

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return max(1, self.max_tiles // len(self.chosen(views)))

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        shape = self.shape(len(tiles), views, form, threshold)
        check_tiles(tiles, self.spec, self.tiles_per_batch(views))
        self.check()
        with self.lock, self.free_slot() as slot:
            return slot.begin(tiles, shape)

    def shape(self, tiles: int, views: Sequence[int] | None, form: OutputForm, threshold: float) -> Shape:
        if form not in get_args(OutputForm):
            raise BadInput(f"form must be {', '.join(get_args(OutputForm))}, got {form!r}")
        return Shape(tiles, self.chosen(views), form, threshold if form == "mask" else 0.0)

    @contextmanager
    def free_slot(self) -> Iterator[Slot]:
        """The slot whose turn it is, once its last run has ended, to be used in the context."""
        self.check()
        slot = self.at_work.pop(0)
        self.at_work.append(slot)
        slot.collect()
        with self.working():
            yield slot

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        check_tiles(tiles, self.spec, self.max_tiles)
        most = self.tiles_per_batch(views)
        runs = [self.start(tiles[i : i + most], views) for i in range(0, len(tiles), most)]
        return np.concatenate([run() for run in runs]) if len(runs) > 1 else runs[0]()

    def segment_device(
        self, image: Any, views: Sequence[int] | None, form: OutputForm, threshold: float, halo: int, out: Any = None,
        stream: int | None = None,
    ) -> DeviceArray:  # fmt: skip
        """See Segmenter.segment_device."""
        theirs = number_of(stream)
        order = theirs or LEGACY  # our streams do not wait for the default one by themselves
        source = read_array(image, "an image", 3, order)
        height, width = source.shape[:2]
        side, most = self.spec.tile, self.tiles_per_batch(views)
        if min(height, width) < side:
            raise BadInput(f"an image on the GPU must have {side} x {side} px or more, got {width} x {height}")
        windows, target = cover(height, width, side, halo), None
        before = [theirs, source.stream]
        if out is not None:
            target = read_array(out, "out", 2, order, form, (height, width))
            if target.fixed:
                raise BadInput("out must not be read-only")
            before.append(target.stream)
        shape = replace(self.shape(most, views, form, threshold), copies=False)
        self.check()
        with self.lock, self.free_slot() as slot, slot.under_way(Run(slot, shape)) as run:
            target = target or new_array((height, width), form)
            run.held = source, target
            for other in {earlier for earlier in before if earlier is not None}:
                follow(slot.stream.handle, other)
            slot.clear_faults()
            for i in range(0, len(windows), most):
                batch = windows[i : i + most]
                tiles = DeviceArray(slot.tiles_at, (len(batch) * side, side, 3), "|u1", side * 3)
                roads = DeviceArray(slot.roads_at, (len(batch) * side, side), target.typestr, side * target.itemsize)
                for at, window in enumerate(batch):
                    copy(source, window.outer, tiles, (at * side, 0), slot.stream)
                slot.launch(replace(shape, tiles=len(batch)))
                for at, window in enumerate(batch):
                    rows, cols = window.inner
                    inner = slice(at * side + rows.start, at * side + rows.stop), cols
                    copy(roads, inner, target, (window.rows.lo, window.cols.lo), slot.stream)
            slot.fetch_faults()
            run.unattended = theirs is not None
            if theirs is not None:
                follow(theirs, slot.stream.handle)
        if theirs is None:
            slot.collect(run)
            if run.error:
                raise run.error
        target.stream = theirs
        return target

    def layer_times(self, runs: int) -> dict[str, float]:
        """Each layer's time for a full batch by TensorRT's profiler, the median of some runs, in ms."""
        self.check()
        found: dict[str, list[float]] = defaultdict(list)

        class Profiler(self.loaded.trt.IProfiler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                found[layer_name].append(ms)

        with self.lock, self.free_slot() as slot:
            context = slot.new_context() if self.loaded.several else slot.context(self.max_tiles)
            for run in range(runs + 1):
                if run == 1:  # the first is slower
                    context.made.profiler = profiler = Profiler()
                context.run(self.max_tiles, slot.stream.handle)
                slot.stream.synchronize()
            if not self.loaded.several:
                context.made.profiler = None
            del profiler
        return {name: median(times) for name, times in found.items()}

    def close(self) -> None:
        """Finish what is under way and free what is held, in the context it was made in. Twice is once."""
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
                        self.loaded.keep()
                    for slot in self.at_work:
                        slot.close()
                    self.at_work.clear()
                    if share := vars(self).pop("share", None):
                        share.close()
                    vars(self).pop("loaded", None)
                let_go(self.gpu)
            except (cuda.Error, DriverError) as e:  # a GPU that has failed takes nothing back
                log.warning("%s: closing: %s", self.path, str(e))
            self.gpu = None
