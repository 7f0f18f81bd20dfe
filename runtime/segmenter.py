"""What an application embeds: an image of any size in, its roads out."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from numbers import Integral
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.adaptive import DOUBT, Adaptive
from dlink.runtime.backend import Backend, OutputForm, Probs, Roads, Running, formed
from dlink.runtime.errors import BadInput, NoProbability
from dlink.runtime.life import Life
from dlink.runtime.pipeline import Pipeline
from dlink.runtime.spec import LARGEST_TILE, Spec
from dlink.runtime.values import real, whole
from dlink.runtime.views import BY_COUNT
from dlink.runtime.windows import Window, cover, placed, square

HALO = 64  # px; measured, see "Halo" in DESIGN.md
MOST_HALO = LARGEST_TILE // 2

Image: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.uint8]
Views: TypeAlias = int | Literal["adaptive"] | None


class Segmenter:
    """A Backend and how it is used on whole images. A context manager; any thread may call. life.py says how it ends.

    Images are uint8 (H, W, 3) RGB, from 1 x 1 up. Others are refused, since only the caller knows what they mean:
    repeat grey three times, drop alpha, scale 16 bits to 8. `views` is 8, 4 (flips alone), 1, or "adaptive": one first,
    and all eight for those tiles that leave more than `doubt` (adaptive.py). `threshold` is a probability. Views and
    threshold are the model's own where None.
    """

    def __init__(
        self, backend: Backend, *, halo: int | None = None, threshold: float | None = None, doubt: float = DOUBT
    ) -> None:
        self.backend = backend
        self.halo = default_halo(backend.spec) if halo is None else whole("halo", halo, 0, MOST_HALO)
        self.threshold = backend.spec.threshold
        if threshold is not None:
            self.threshold = real("threshold", threshold, "in [0, 1)", lambda t: 0 <= t < 1)
        cover(1, 1, backend.spec.tile, self.halo)  # refuses a halo that does not fit
        self.adaptive = Adaptive(backend, doubt)
        self.life = Life(backend)
        finalize(self, self.life.close, wait=False).atexit = False  # a process that ends has life.close_all

    @property
    def spec(self) -> Spec:
        return self.backend.spec

    def probabilities(self, image: Image, views: Views = None) -> Probs:
        """Road probability of every pixel: float32 (H, W) in [0, 1]."""
        return self.roads(image, views, "probability")

    def levels(self, image: Image, views: Views = None) -> NDArray[np.uint8]:
        """The same in 255 steps, uint8 (H, W): a quarter of the memory, and of what a GPU sends back."""
        return self.roads(image, views, "level")

    def mask(self, image: Image, views: Views = None) -> Mask:
        """uint8 (H, W), 255 where the probability is greater than the threshold, 0 elsewhere."""
        return self.roads(image, views, "mask")

    def roads(self, image: Image, views: Views, form: OutputForm) -> Roads:
        check_image(image)
        out = np.empty(image.shape[:2], np.float32 if form == "probability" else np.uint8)
        for window, core in self.pieces(lambda w: image[w.outer], image.shape[0], image.shape[1], views, form):
            out[window.core] = core
        return out

    def submit(self, image: Image, views: Views = None) -> "Future[Mask]":
        """`mask` in the background: images are done in the order in which they came, and small ones share batches.

        The image must not change until then.
        """
        check_image(image)
        backend, chosen = self.chosen(views)
        with self.life.use():
            pipeline = cast(Pipeline, self.life.work(self.pipeline))
            return pipeline.submit(backend, image, chosen, "mask", self.threshold)

    def pipeline(self, ended: Callable[[], None]) -> Pipeline:
        return Pipeline(self.spec.tile, self.halo, self.backend.slots, ended)

    def segment_device(
        self, image: Any, views: Views = None, form: OutputForm = "mask", out: Any = None, stream: int | None = None
    ) -> Any:
        """Roads of an image that is on the GPU, on the GPU: nothing goes through the host.

        image: uint8 (H, W, 3) RGB, at least a tile high and wide, with `__cuda_array_interface__` or DLPack; lines may
        lie further apart than they are long. out: an array (H, W) to write, uint8, or float32 for probabilities; made
        where None. stream: the caller's, as the number that CUDA knows it by; the work follows what is on it, and what
        comes on it afterwards follows the work. Without one the result is there when this returns. An array that names
        no stream itself is read in the order of the caller's, or else of the default one. The result has
        `__cuda_array_interface__` and DLPack. Where the network gives what is no probability, a call without a stream
        says so, and after one with a stream a later call of the model does.
        """
        on_gpu = getattr(self.backend, "segment_device", None)
        if on_gpu is None:
            raise BadInput("segment_device is for plans; this model runs on the CPU, where mask() takes NumPy arrays")
        if views == "adaptive":
            raise BadInput("segment_device takes 8, 4 or 1 views; adaptive ones are for images of the host")
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
        """Each window's core, row by row, of an image that `read` gives a window at a time. Bounded memory."""
        backend, chosen = self.chosen(views)
        most, windows = backend.tiles_per_batch(chosen), cover(height, width, self.spec.tile, self.halo)
        running: deque[tuple[list[Window], Running]] = deque()
        for i in range(0, len(windows), most):
            batch = windows[i : i + most]
            tiles = [square(read(w), self.spec.tile) for w in batch]
            with self.life.use(), where(batch):
                running.append((batch, backend.start(tiles, chosen, form, self.threshold)))
            if len(running) == backend.slots:
                yield from self.cores(*running.popleft())
        for done in running:
            yield from self.cores(*done)

    def cores(self, batch: list[Window], running: Running) -> Iterator[tuple[Window, Roads]]:
        """What a batch's windows keep, once it is there."""
        with self.life.use(), where(batch):
            found = running()
        for window, roads in zip(batch, found, strict=True):
            yield window, roads[window.inner]

    def chosen(self, views: Views) -> tuple[Backend, Sequence[int] | None]:
        """Who runs a number of views, and which those are; None are the model's own."""
        if views == "adaptive":
            return self.adaptive, None
        return self.backend, views_of(views)

    def close(self, cancel: bool = False) -> None:
        """Finish what was submitted, or cancel what has not begun, then free the model. Twice is once; see life.py."""
        self.life.close(cancel)

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)


def default_halo(spec: Spec) -> int:
    """HALO, or what fits a small tile."""
    return min(HALO, spec.tile // 4)


@contextmanager
def where(batch: list[Window]) -> Iterator[None]:
    """Say of a tile at fault where it lies in the image."""
    try:
        yield
    except NoProbability as e:
        raise placed(batch, e.tiles[0]) from e


def views_of(count: int | None) -> Sequence[int] | None:
    """The views that a number of them stands for; None, the model's own, stays None."""
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, Integral) or count not in BY_COUNT:
        raise BadInput(f"views must be {', '.join(map(str, BY_COUNT))} or adaptive, got {count!r}")
    return BY_COUNT[int(count)]


def as_mask(prob: Probs, threshold: float) -> Mask:
    return formed(prob, "mask", threshold)


def check_image(image: Any) -> None:
    """Refuse what is not uint8 (H, W, 3), with the way to make it so."""
    if not isinstance(image, np.ndarray):
        raise BadInput(f"an image must be a NumPy array uint8 (H, W, 3), got {type(image).__name__}")
    got = f"an image must be uint8 (H, W, 3) RGB, got {image.dtype} {image.shape}"
    if image.ndim == 2:
        raise BadInput(f"{got}: repeat grey with np.dstack([grey] * 3)")
    if image.ndim != 3 or image.shape[2] != 3:
        raise BadInput(f"{got}" + (": drop alpha with image[..., :3]" if image.shape[2:] == (4,) else ""))
    if image.dtype != np.uint8:
        raise BadInput(f"{got}: scale it to 0..255 and 8 bits")
    if not image.size:
        raise BadInput(f"{got}: it has no pixels")
