"""What an application embeds: an image of any size in, its roads out."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.trt_runtime.backend import Backend, Probs
from dlink.trt_runtime.errors import BadInput, Closed
from dlink.trt_runtime.spec import Spec
from dlink.trt_runtime.views import BY_COUNT
from dlink.trt_runtime.windows import Window, cover, square

HALO = 64  # px; measured, see "Halo" in DESIGN.md

Image: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.uint8]


class Segmenter:
    """A Backend and how it is used on whole images. A context manager; any thread may call.

    Images are uint8 (H, W, 3) RGB, from 1 x 1 up. Others are refused, since only the caller knows what they mean:
    repeat grey three times, drop alpha, scale 16 bits to 8. `views` is 8, 4 (flips alone) or 1, `threshold` a
    probability; both are the model's own where None.
    """

    def __init__(self, backend: Backend, *, halo: int | None = None, threshold: float | None = None) -> None:
        self.backend = backend
        self.halo = default_halo(backend.spec) if halo is None else halo
        self.threshold = backend.spec.threshold if threshold is None else threshold
        if not 0 <= self.threshold < 1:
            raise BadInput(f"threshold must be in [0, 1), got {self.threshold}")
        cover(1, 1, backend.spec.tile, self.halo)  # refuses a halo that does not fit
        self.pool: ThreadPoolExecutor | None = None
        self.lock = threading.Lock()
        self.closed = False

    @property
    def spec(self) -> Spec:
        return self.backend.spec

    def probabilities(self, image: Image, views: int | None = None) -> Probs:
        """Road probability of every pixel: float32 (H, W) in [0, 1]."""
        check_image(image)
        out = np.empty(image.shape[:2], np.float32)
        for window, prob in self.pieces(lambda w: image[w.outer], image.shape[0], image.shape[1], views):
            out[window.core] = prob
        return out

    def mask(self, image: Image, views: int | None = None) -> Mask:
        """uint8 (H, W), 255 where the probability is greater than the threshold, 0 elsewhere."""
        return as_mask(self.probabilities(image, views), self.threshold)

    def submit(self, image: Image, views: int | None = None) -> "Future[Mask]":
        """`mask` in the background: images are done in the order in which they came."""
        with self.lock:
            if self.closed:
                raise Closed("this model is closed; open it again")
            if self.pool is None:
                self.pool = ThreadPoolExecutor(1, "dlink")
            return self.pool.submit(self.mask, image, views)

    def pieces(
        self, read: Callable[[Window], Image], height: int, width: int, views: int | None = None
    ) -> Iterator[tuple[Window, Probs]]:
        """Each window's core, row by row, of an image that `read` gives a window at a time. Bounded memory."""
        chosen = views_of(views)
        tile, most = self.spec.tile, self.backend.max_tiles
        windows = cover(height, width, tile, self.halo)
        for i in range(0, len(windows), most):
            batch = windows[i : i + most]
            probs = self.backend.probabilities(np.stack([square(read(w), tile) for w in batch]), chosen)
            for window, prob in zip(batch, probs, strict=True):
                yield window, prob[window.inner]

    def close(self) -> None:
        """Finish what was submitted, then free the model. A second call does nothing."""
        with self.lock:
            pool, self.pool, closed, self.closed = self.pool, None, self.closed, True
        if pool:
            pool.shutdown()
        if not closed:
            self.backend.close()

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def default_halo(spec: Spec) -> int:
    """HALO, or what fits a small tile."""
    return min(HALO, spec.tile // 4)


def views_of(count: int | None) -> Sequence[int] | None:
    """The views that a number of them stands for; None, the model's own, stays None."""
    if count is None:
        return None
    if count not in BY_COUNT:
        raise BadInput(f"views must be {', '.join(map(str, BY_COUNT))}, got {count}")
    return BY_COUNT[count]


def as_mask(prob: Probs, threshold: float) -> Mask:
    mask: Mask = (prob > threshold).astype(np.uint8)
    mask *= 255
    return mask


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
