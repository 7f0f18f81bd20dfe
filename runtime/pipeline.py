"""Runs submitted images in the background, in order, and keeps all slots of a backend busy.

Tiles of several images share a batch where their keys are equal, so small images fill batches too. life.py has the
rules for closing.
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
from dlink.runtime.windows import Window, cover, fault_of, square

log = logging.getLogger(__name__)

Key: TypeAlias = tuple[Backend, tuple[int, ...] | None, OutputForm, float]  # equal for all tiles of a batch


@dataclass(eq=False)
class Request:
    """One submitted image."""

    image: NDArray[np.uint8]
    key: Key
    roads: Roads
    left: int  # windows not done yet
    future: "Future[Any]" = field(default_factory=Future)
    begun: bool = False


@dataclass(frozen=True)
class Piece:
    """A window of an image."""

    job: Request
    window: Window


class Pipeline:
    """One thread starts runs, at most one a slot; another thread waits for them and calls `ended` last."""

    def __init__(self, tile: int, halo: int, slots: int, ended: Callable[[], None]) -> None:
        self.tile, self.halo, self.ended = tile, halo, ended
        self.pieces: deque[Piece] = deque()
        # A signal can interrupt Condition.__enter__ and leave it locked. It cannot interrupt a lock's __enter__.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
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
        """Queue an image (H, W, C); the future's result is (H, W). The image must not change until then."""
        windows = cover(image.shape[0], image.shape[1], self.tile, self.halo)
        roads = np.empty(image.shape[:2], np.float32 if form == "probability" else np.uint8)
        key = (backend, None if views is None else tuple(views), form, threshold)
        job = Request(image, key, roads, len(windows))
        with self.lock:
            if self.closed:
                raise Closed(CLOSED)
            self.pieces.extend(Piece(job, window) for window in windows)
            self.changed.notify()
        return job.future

    def begin(self) -> None:
        """Start a run of the queued tiles as soon as a slot is free."""
        while True:
            batch = tiles = None  # hold no image while waiting
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
        """Wait for each run in order and write its tiles into their images."""
        while (under_way := self.running.get()) is not None:
            batch, running = under_way
            try:
                write_tiles(batch, running())
            except Exception as e:
                fail(batch, e)
            self.free.release()
            del batch, running, under_way  # hold no image or result while waiting
        self.ended()

    def next_batch(self) -> list[Piece]:
        """Wait for a batch. It is empty when the pipeline is closed and nothing is queued."""
        with self.lock:
            while not (batch := self.take_batch()) and not self.closed:
                self.changed.wait()
            return batch

    def take_batch(self) -> list[Piece]:
        """Take queued pieces while their keys match and the batch has room; drop pieces of cancelled images."""
        batch: list[Piece] = []
        while self.pieces:
            job = self.pieces[0].job
            backend, views, *_ = job.key
            if batch and (job.key != batch[0].job.key or len(batch) == backend.tiles_per_batch(views)):
                break
            piece = self.pieces.popleft()
            if is_wanted(job):
                batch.append(piece)
        return batch

    def close(self, cancel: bool = False) -> None:
        """Accept no more images. End after the submitted ones, or with `cancel` after the runs under way."""
        with self.lock:
            self.closed = True
            dropped = dict.fromkeys(piece.job for piece in self.pieces) if cancel else {}
            if cancel:
                self.pieces.clear()
            self.changed.notify_all()
        for job in dropped:
            with callbacks_contained():
                if job.future.cancel():
                    is_wanted(job)  # notifies concurrent.futures.wait
            finish_job(job, error=Closed("this model was closed before the image was done"))


def is_wanted(job: Request) -> bool:
    """Whether the image is still to be done. The first call ends the time in which it can be cancelled."""
    if not job.begun:
        job.begun = True
        job.future.set_running_or_notify_cancel()
    return not job.future.done()


def write_tiles(batch: list[Piece], tiles: Roads) -> None:
    """Write each tile's core into its image; finish the images that are complete."""
    for piece, roads in zip(batch, tiles, strict=True):
        job, window = piece.job, piece.window
        job.roads[window.core] = roads[window.inner]
        job.left -= 1
        if not job.left:
            finish_job(job)


def fail(batch: list[Piece], error: Exception) -> None:
    """Give the error to the images of a batch; a NoProbability only to the images of the bad tiles."""
    if isinstance(error, NoProbability):
        for index in error.tiles:
            finish_job(batch[index].job, error=fault_of(batch[index].window))
        write_tiles(batch, error.roads)
        return
    for piece in batch:
        finish_job(piece.job, error=error)


@contextmanager
def callbacks_contained() -> Iterator[None]:
    """Wraps what calls a Future's callbacks: the Future may be done already, and a callback must not end the worker."""
    try:
        yield
    except InvalidStateError:
        pass
    except SystemExit as e:
        log.warning("a callback of an image's Future raised SystemExit (%s); a worker thread ignores it", e)


def finish_job(job: Request, error: Exception | None = None) -> None:
    """Set the result or the error of an image's future, unless it is done."""
    with callbacks_contained():
        if error is None:
            job.future.set_result(job.roads)
        else:
            job.future.set_exception(error)
