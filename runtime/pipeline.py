"""Images from any thread, done in the order in which they came, with all slots of a backend busy.

Tiles of several images share a batch where they ask for the same, so that small images fill one too. How it ends,
life.py says.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.backend import Backend, OutputForm, Roads, Running
from dlink.runtime.errors import Closed, NoProbability
from dlink.runtime.life import CLOSED, WORKERS
from dlink.runtime.windows import Window, cover, placed, square

log = logging.getLogger(__name__)

Key: TypeAlias = tuple[Backend, tuple[int, ...] | None, OutputForm, float]  # what tiles of one batch have in common


@dataclass(eq=False)
class Request:
    """One image on its way."""

    image: NDArray[np.uint8]
    key: Key
    roads: Roads
    left: int  # windows to come
    future: "Future[Any]" = field(default_factory=Future)
    begun: bool = False


@dataclass(frozen=True)
class Piece:
    """A window of an image."""

    job: Request
    window: Window


class Pipeline:
    """One thread begins runs, as many as there are slots, and another one waits for them; `ended` is called last."""

    def __init__(self, tile: int, halo: int, slots: int, ended: Callable[[], None]) -> None:
        self.tile, self.halo, self.ended = tile, halo, ended
        self.pieces: deque[Piece] = deque()
        # Signals may interrupt the Condition's own __enter__ and leave it locked, but not a lock's.
        self.lock = threading.RLock()
        self.more = threading.Condition(self.lock)
        self.closed = False
        self.free = threading.Semaphore(slots)
        self.running: SimpleQueue[tuple[list[Piece], Running] | None] = SimpleQueue()
        threads = [threading.Thread(target=work, name="dlink", daemon=True) for work in (self.begin, self.finish)]
        WORKERS.update(threads)
        for thread in threads:
            thread.start()

    def submit(
        self,
        backend: Backend,
        image: NDArray[np.uint8],
        views: Sequence[int] | None,
        form: OutputForm,
        threshold: float,
    ) -> "Future[Any]":
        """An image (H, W, 3); its roads (H, W) in the future. The image must not change until then."""
        windows = cover(image.shape[0], image.shape[1], self.tile, self.halo)
        roads = np.empty(image.shape[:2], np.float32 if form == "probability" else np.uint8)
        key = (backend, None if views is None else tuple(views), form, threshold)
        job = Request(image, key, roads, len(windows))
        with self.lock:
            if self.closed:
                raise Closed(CLOSED)
            self.pieces.extend(Piece(job, window) for window in windows)
            self.more.notify()
        return job.future

    def begin(self) -> None:
        """Tiles that wait go through the network together as soon as a slot is free."""
        while True:
            batch = tiles = None  # while it waits, images are their owners'
            self.free.acquire()
            batch = self.next_batch()
            if not batch:
                self.running.put(None)
                return
            backend, views, form, threshold = batch[0].job.key
            try:
                tiles = [square(piece.job.image[piece.window.outer], self.tile) for piece in batch]
                self.running.put((batch, backend.start(tiles, views, form, threshold)))
            except Exception as e:
                fail(batch, e)
                self.free.release()

    def finish(self) -> None:
        """What comes out goes to its images, in the order in which it went in."""
        while (under_way := self.running.get()) is not None:
            batch, running = under_way
            try:
                put(batch, running())
            except Exception as e:
                fail(batch, e)
            self.free.release()
            del batch, running, under_way  # images and results are their owners'
        self.ended()

    def next_batch(self) -> list[Piece]:
        """Waits until there is one; empty where all is done."""
        with self.lock:
            while not (batch := self.take()) and not self.closed:
                self.more.wait()
            return batch

    def take(self) -> list[Piece]:
        """Of what waits the first that can share a batch; what nobody waits for any more is dropped."""
        batch: list[Piece] = []
        while self.pieces:
            job = self.pieces[0].job
            backend, views, *_ = job.key
            if batch and (job.key != batch[0].job.key or len(batch) == backend.tiles_per_batch(views)):
                break
            piece = self.pieces.popleft()
            if begins(job):
                batch.append(piece)
        return batch

    def close(self, cancel: bool = False) -> None:
        """Take nothing more, and end after what was submitted, or with `cancel` after what is in a slot."""
        with self.lock:
            self.closed = True
            dropped = dict.fromkeys(piece.job for piece in self.pieces) if cancel else {}
            if cancel:
                self.pieces.clear()
            self.more.notify_all()
        for job in dropped:
            with harmless():
                if job.future.cancel():
                    begins(job)  # tells those who wait for several
            settle(job, error=Closed("this model was closed before the image was done"))


def begins(job: Request) -> bool:
    """Whether anyone still waits for an image; then it can't be cancelled any more."""
    if not job.begun:
        job.begun = True
        job.future.set_running_or_notify_cancel()
    return not job.future.done()


def put(batch: list[Piece], found: Roads) -> None:
    """Each tile's core into its image."""
    for piece, roads in zip(batch, found, strict=True):
        job, window = piece.job, piece.window
        job.roads[window.core] = roads[window.inner]
        job.left -= 1
        if not job.left:
            settle(job)


def fail(batch: list[Piece], error: Exception) -> None:
    """The images of a batch have failed, or those whose tiles are at fault; what else of them waits is left out."""
    if isinstance(error, NoProbability):
        for at in error.tiles:
            settle(batch[at].job, error=placed([piece.window for piece in batch], at))
        put(batch, error.roads)
        return
    for piece in batch:
        settle(piece.job, error=error)


@contextmanager
def harmless() -> Iterator[None]:
    """Around what calls a Future's callbacks: it may have its end already, and one that exits must not end a worker."""
    try:
        yield
    except InvalidStateError:
        pass
    except SystemExit as e:
        log.warning("a callback of an image's Future wanted to exit (%s); it can't from there", e)


def settle(job: Request, error: Exception | None = None) -> None:
    """Give an image's future its end, unless it has one."""
    with harmless():
        if error is None:
            job.future.set_result(job.roads)
        else:
            job.future.set_exception(error)
