"""The class that an application embeds: an image of any size in, its roads out."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from numbers import Integral
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast, overload
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.adaptive import DOUBT, Adaptive
from dlink.runtime.backend import Backend, OutputForm, Probs, Roads, Running, check_form, shape_of, to_form
from dlink.runtime.errors import BadInput, NoProbability
from dlink.runtime.life import Life
from dlink.runtime.pipeline import Pipeline, Turn
from dlink.runtime.scout import Scouted
from dlink.runtime.spec import COLOURS, LARGEST_TILE, Spec
from dlink.runtime.values import real, whole
from dlink.runtime.views import BY_COUNT
from dlink.runtime.windows import Window, cover, fault_of, square

HALO = 64  # px; measured, see "Halo" in DESIGN.md
MOST_HALO = LARGEST_TILE // 2
MOST_PRIORITY, MOST_LIMIT = 1000, 1_000_000

Image: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.uint8]
Views: TypeAlias = int | Literal["adaptive"] | None


class Segmenter:
    """An open model. It runs a Backend on whole images; any thread may call, and it is a context manager.

    Images are uint8 (H, W, 3) RGB of any size from 1 x 1 px up. Other arrays raise BadInput, because only the caller
    knows what they mean: repeat grey three times, drop alpha, scale 16 bits to 8. A network of other bands takes
    uint8 (H, W, C), with the planes in the order of `spec.bands`.

    `views` of the methods is the number of views (test-time augmentation): 8, 4 (flips only), 1, "adaptive" (one view,
    and all eight for tiles with more doubt than `doubt`), or None for the model's own. Calls on a closed model raise
    Closed; an engine that fails, or a result that is not a probability, raises EngineFailed.

    Args:
        backend: The network. The Segmenter closes it.
        halo: Context read around each core, in pixels. None: 64, or a quarter of the tile where that is less.
        threshold: A pixel is road where its probability is greater, in [0, 1). None: the model's own.
        doubt: With views="adaptive", a tile whose doubt is greater gets all eight views, from 0 to 0.5.

    Raises:
        BadInput: An option cannot be used; for instance, the halo leaves no core.

    Example:
        >>> from dlink.runtime import open_model
        >>> model = open_model("roads.onnx")
        >>> model.spec.tile, model.halo, model.threshold
        (64, 16, 0.5)
        >>> model.mask(image).shape
        (100, 150)
        >>> model.close()
    """

    def __init__(
        self, backend: Backend, *, halo: int | None = None, threshold: float | None = None, doubt: float = DOUBT
    ) -> None:
        self.backend = backend
        self.halo = default_halo(backend.spec) if halo is None else whole("halo", halo, 0, MOST_HALO)
        self.threshold = backend.spec.threshold
        if threshold is not None:
            self.threshold = real("threshold", threshold, "in [0, 1)", lambda t: 0 <= t < 1)
        cover(1, 1, backend.spec.tile, self.halo)  # raises BadInput for a halo that does not fit
        scouted = backend if isinstance(backend, Scouted) else None
        self.adaptive = Adaptive(scouted.large if scouted else backend, doubt)
        self.doubting: Backend = scouted.over(self.adaptive) if scouted else self.adaptive
        self.life = Life(backend)
        finalize(self, self.life.close, wait=False).atexit = False  # at exit life.close_all does it

    @property
    def spec(self) -> Spec:
        """The contract of the network."""
        return self.backend.spec

    def probabilities(self, image: Image, views: Views = None) -> Probs:
        """Road probability of every pixel.

        Args:
            image: uint8 (H, W, 3) RGB.
            views: 8, 4, 1, "adaptive", or None for the model's own.

        Returns:
            float32 (H, W) in [0, 1].

        Raises:
            BadInput: The image or the number of views cannot be used.
            Closed: The model is closed.
            EngineFailed: The engine failed, or a result is not a probability (NoProbability).

        Example:
            >>> from dlink.runtime import open_model
            >>> with open_model("roads.onnx") as model:
            ...     prob = model.probabilities(image)
            >>> prob.shape, prob.dtype, round(float(prob.max()), 3)
            ((100, 150), dtype('float32'), 0.961)
        """
        return self.roads(image, views, "probability")

    def levels(self, image: Image, views: Views = None) -> NDArray[np.uint8]:
        """Road probability in 255 steps: a quarter of the memory, and of what a GPU sends back.

        Args:
            image: uint8 (H, W, 3) RGB.
            views: 8, 4, 1, "adaptive", or None for the model's own.

        Returns:
            uint8 (H, W); 255 stands for probability 1.

        Raises:
            BadInput: The image or the number of views cannot be used.
            Closed: The model is closed.
            EngineFailed: The engine failed, or a result is not a probability (NoProbability).

        Example:
            >>> import numpy as np
            >>> from dlink.runtime import open_model
            >>> with open_model("roads.onnx") as model:
            ...     level = model.levels(image, views=1)
            >>> np.unique(level)
            array([ 10, 245], dtype=uint8)
        """
        return self.roads(image, views, "level")

    def mask(self, image: Image, views: Views = None) -> Mask:
        """The road mask.

        Args:
            image: uint8 (H, W, 3) RGB.
            views: 8, 4, 1, "adaptive", or None for the model's own.

        Returns:
            uint8 (H, W): 255 where the probability is greater than the threshold, 0 elsewhere.

        Raises:
            BadInput: The image or the number of views cannot be used.
            Closed: The model is closed.
            EngineFailed: The engine failed, or a result is not a probability (NoProbability).

        Example:
            >>> from dlink.runtime import open_model
            >>> with open_model("roads.onnx") as model:
            ...     mask = model.mask(image)
            >>> int((mask == 255).sum()), int((mask == 0).sum())  # pixels
            (3000, 12000)
        """
        return self.roads(image, views, "mask")

    def roads(self, image: Image, views: Views, form: OutputForm) -> Roads:
        check_image(image, self.spec)
        out = np.empty(image.shape[:2], np.float32 if form == "probability" else np.uint8)
        for window, core in self.pieces(lambda w: image[w.outer], image.shape[0], image.shape[1], views, form):
            out[window.core] = core
        return out

    @overload
    def submit(
        self,
        image: Image,
        views: Views = None,
        *,
        form: Literal["mask", "level"] = "mask",
        priority: int = 0,
        limit: int | None = None,
        wait: bool = True,
        copy: bool = True,
    ) -> "Future[Mask]": ...

    @overload
    def submit(
        self,
        image: Image,
        views: Views = None,
        *,
        form: OutputForm,
        priority: int = 0,
        limit: int | None = None,
        wait: bool = True,
        copy: bool = True,
    ) -> "Future[Roads]": ...

    def submit(
        self,
        image: Image,
        views: Views = None,
        *,
        form: OutputForm = "mask",
        priority: int = 0,
        limit: int | None = None,
        wait: bool = True,
        copy: bool = True,
    ) -> "Future[Roads]":
        """Compute an image in the background. Images are done in order, and small images share batches.

        Args:
            image: uint8 (H, W, 3) RGB.
            views: 8, 4, 1, "adaptive", or None for the model's own.
            form: The output form: "mask" or "level" (uint8), or "probability" (float32).
            priority: Images of a higher one go first, between the tiles of others that are under way.
            limit: The most images that may be submitted and not done, this one with them. None: any number.
            wait: At the limit, wait until there is room. False: raise Busy.
            copy: Copy the image. False: it must not change until the future is done.

        Returns:
            A future of the roads (H, W). The future raises EngineFailed where the engine fails. It can be cancelled
            until it is done: then no further tile of the image is begun. Its callbacks run in a thread of their own,
            one after another.

        Raises:
            BadInput: The image or an option cannot be used.
            Busy: As many images as the limit allows are submitted and not done, and `wait` is False.
            Closed: The model is closed.

        Example:
            >>> from dlink.runtime import open_model
            >>> with open_model("roads.onnx") as model:
            ...     futures = [model.submit(picture) for picture in (image, image[:50])]
            ...     masks = [future.result() for future in futures]
            >>> [mask.shape for mask in masks]
            [(100, 150), (50, 150)]
        """
        check_image(image, self.spec)
        check_form(form)
        turn = Turn(
            whole("priority", priority, -MOST_PRIORITY, MOST_PRIORITY),
            None if limit is None else whole("limit", limit, 1, MOST_LIMIT),
            wait,
        )
        backend, numbers = self.backend_for(views)
        key = (backend, None if numbers is None else tuple(numbers), form, self.threshold)
        with self.life.use():
            pipeline = cast(Pipeline, self.life.work(self.pipeline))
            return pipeline.submit(np.array(image) if copy else image, key, turn)

    def pipeline(self, ended: Callable[[], None]) -> Pipeline:
        return Pipeline(self.spec.tile, self.halo, self.backend.slots, ended)

    def segment_device(
        self, image: Any, views: Views = None, form: OutputForm = "mask", out: Any = None, stream: int | None = None
    ) -> Any:
        """Roads of an image on the GPU, written on the GPU: nothing passes through the host.

        Args:
            image: uint8 (H, W, 3) RGB on the GPU, at least one tile high and wide, with `__cuda_array_interface__` or
                DLPack. Its rows may be padded. If it names no stream, it is read in the order of `stream`, or else of
                the default stream.
            views: 8, 4, 1, or None for the model's own.
            form: The output form: "mask" or "level" (uint8), or "probability" (float32).
            out: Array (H, W) on the GPU to write to. None: a new array.
            stream: The caller's CUDA stream, as an integer handle. The work waits for what is on the stream, and later
                work on the stream waits for the result. None: the result is complete when the call returns.

        Returns:
            An array (H, W) on the GPU with `__cuda_array_interface__` and DLPack.

        Raises:
            BadInput: The model is not a plan or has a scout, or an array or option cannot be used.
            Closed: The model is closed.
            EngineFailed: The GPU failed, or a result is not a probability (NoProbability). After a call with a stream,
                NoProbability is raised by a later call of the model.

        Example:
            >>> import torch  # doctest: +SKIP
            >>> from dlink.runtime import open_model
            >>> with open_model("roads.plan") as model:  # doctest: +SKIP
            ...     roads = model.segment_device(torch.from_numpy(image).cuda())
            ...     mask = torch.as_tensor(roads, device="cuda")  # uint8 (H, W), not copied
        """
        if isinstance(self.backend, Scouted):
            raise BadInput(
                "segment_device runs without a scout, which needs the tiles in the host's memory: open the plan "
                "without scout=, or call mask() with a NumPy array"
            )
        on_gpu = getattr(self.backend, "segment_device", None)
        if on_gpu is None:
            raise BadInput("segment_device is for plans; this model runs on the CPU, where mask() takes NumPy arrays")
        if views == "adaptive":
            raise BadInput("segment_device takes 8, 4 or 1 views; adaptive views are for images in the host's memory")
        with self.life.use():
            return on_gpu(image, views_of(views), form, self.threshold, self.halo, out, stream)

    def pieces(
        self,
        read: Callable[[Window], Image],
        height: int,
        width: int,
        views: Views = None,
        form: OutputForm = "probability",
    ) -> Iterator[tuple[Window, Roads]]:
        """Roads of an image that does not fit in memory, a window at a time. Memory stays bounded.

        Args:
            read: Returns the pixels of a window, `image[window.outer]`: uint8 (h, w, 3) RGB, at most one tile.
            height: Height of the image, in pixels.
            width: Width of the image, in pixels.
            views: 8, 4, 1, "adaptive", or None for the model's own.
            form: The output form: "probability" (float32), "level" or "mask" (uint8).

        Yields:
            Each window and the roads of its core, row by row. `roads[window.core]` is where the core belongs. Every
            pixel is in exactly one core.

        Raises:
            BadInput: The number of views cannot be used.
            Closed: The model is closed.
            EngineFailed: The engine failed, or a result is not a probability (NoProbability).

        Example:
            >>> import numpy as np
            >>> from dlink.runtime import open_model
            >>> roads = np.empty((100, 150), np.uint8)
            >>> with open_model("roads.onnx") as model:
            ...     for window, core in model.pieces(lambda w: image[w.outer], 100, 150, form="mask"):
            ...         roads[window.core] = core
            >>> int((roads == 255).sum())  # pixels
            3000
        """
        yield from self.begun(read, cover(height, width, self.spec.tile, self.halo), views, form)

    def begun(
        self,
        read: Callable[[Window], Image],
        windows: Sequence[Window],
        views: Views = None,
        form: OutputForm = "probability",
    ) -> Iterator[tuple[Window, Roads]]:
        """As `pieces`, for some windows of an image, with a run under way in each slot when this returns."""
        backend, numbers = self.backend_for(views)
        per_batch = backend.tiles_per_batch(numbers)

        def start(batch: Sequence[Window]) -> tuple[list[Window], Running]:
            tiles = [square(read(w), self.spec.tile) for w in batch]
            with self.life.use(), fault_located(list(batch)):
                return list(batch), backend.start(tiles, numbers, form, self.threshold)

        started = (start(windows[i : i + per_batch]) for i in range(0, len(windows), per_batch))
        return self.found(deque(islice(started, backend.slots)), started)

    def found(
        self, running: deque[tuple[list[Window], Running]], started: Iterator[tuple[list[Window], Running]]
    ) -> Iterator[tuple[Window, Roads]]:
        """The cores of the runs under way; for each run that has ended the next one is started."""
        while running:
            yield from self.cores(*running.popleft())
            running.extend(islice(started, 1))

    def cores(self, batch: list[Window], running: Running) -> Iterator[tuple[Window, Roads]]:
        """Wait for a batch; yield each window and its core."""
        with self.life.use(), fault_located(batch):
            tiles = running()
        for window, roads in zip(batch, tiles, strict=True):
            yield window, roads[window.inner]

    def backend_for(self, views: Views) -> tuple[Backend, Sequence[int] | None]:
        """The backend that runs so many views, and the views' numbers; None: the model's own."""
        if views == "adaptive":
            return self.doubting, None
        return self.backend, views_of(views)

    def close(self, cancel: bool = False) -> None:
        """Free the model. Submitted images are finished first. A second call does nothing; life.py has all rules.

        Args:
            cancel: Cancel images that have not begun, instead of finishing them. Leaving a `with` block by an exception
                does this too.

        Example:
            >>> from dlink.runtime import Closed, open_model
            >>> model = open_model("roads.onnx")
            >>> model.close()
            >>> try:
            ...     model.mask(image)
            ... except Closed as e:
            ...     print(e)
            this model is closed; open it again
        """
        self.life.close(cancel)

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)


def default_halo(spec: Spec) -> int:
    """HALO, or a quarter of a small tile."""
    return min(HALO, spec.tile // 4)


@contextmanager
def fault_located(batch: list[Window]) -> Iterator[None]:
    """Make a NoProbability say where its first bad tile lies in the image."""
    try:
        yield
    except NoProbability as e:
        raise fault_of(batch[e.tiles[0]], e) from e


def views_of(count: int | None) -> Sequence[int] | None:
    """The numbers of 8, 4 or 1 views; None stays None."""
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, Integral) or count not in BY_COUNT:
        raise BadInput(f"views must be {', '.join(map(str, BY_COUNT))} or adaptive, got {count!r}")
    return BY_COUNT[int(count)]


def as_mask(prob: Probs, threshold: float) -> Mask:
    """255 where the probability is greater than the threshold, 0 elsewhere."""
    return to_form(prob, "mask", threshold)


def check_image(image: Any, spec: Spec) -> None:
    """Raise BadInput unless the image is uint8 (H, W, C) with the Spec's bands; the message says how to convert it."""
    if not isinstance(image, np.ndarray):
        raise BadInput(f"an image must be a NumPy array uint8 {shape_of(spec)}, got {type(image).__name__}")
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == len(spec.bands) and image.size:
        return
    got = f"an image must be uint8 {shape_of(spec)}{' RGB' * (spec.bands == COLOURS)}, got {image.dtype} {image.shape}"
    if image.ndim == 2:
        raise BadInput(got + (": repeat grey with np.dstack([grey] * 3)" if spec.bands == COLOURS else ""))
    if image.ndim == 3 and spec.bands != COLOURS:
        spec.check_planes(image.shape[2])
    if image.ndim != 3 or image.shape[2] != len(spec.bands):
        raise BadInput(f"{got}" + (": drop alpha with image[..., :3]" if image.shape[2:] == (4,) else ""))
    if image.dtype != np.uint8:
        raise BadInput(f"{got}: scale it to 0..255 and 8 bits")
    if not image.size:
        raise BadInput(f"{got}: it has no pixels")
