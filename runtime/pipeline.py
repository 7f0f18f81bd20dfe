"""Runs submitted images in the background, in order, and keeps all slots of a backend busy.

Tiles of several images share a batch where their keys are equal, so small images fill batches too. Images of a higher
priority go first, between the tiles of others. life.py has the rules for closing.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dlink.runtime.backend import Backend, OutputForm, Roads, Running
from dlink.runtime.errors import Busy, Closed, NoProbability
from dlink.runtime.life import CLOSED, WORKERS
from dlink.runtime.submitted import Callbacks, Submitted
from dlink.runtime.windows import Window, cover, fault_of, square

Key: TypeAlias = tuple[Backend, tuple[int, ...] | None, OutputForm, float]  # equal for all tiles of a batch


@dataclass(eq=False)
class Request:
    """One submitted image."""

    image: NDArray[np.uint8]
    key: Key
    roads: Roads
    left: int  # windows not done yet
    future: Submitted


@dataclass(frozen=True)
class Turn:
    """When an image is done, and how many may be submitted and not done. None: any number."""

    priority: int = 0  # images of a higher one go first
    limit: int | None = None
    wait: bool = True  # until there is room, or raise Busy


@dataclass(frozen=True)
class Piece:
    """A window of an image."""

    job: Request
    window: Window


class Pipeline:
    """A thread starts runs, at most one a slot; a second waits for them; a third runs callbacks, and `ended` last."""

    def __init__(self, tile: int, halo: int, slots: int, ended: Callable[[], None]) -> None:
        self.tile, self.halo = tile, halo
        self.callbacks = Callbacks(ended)
        self.queues: dict[int, deque[Piece]] = {}  # by priority, none empty
        self.unfinished = 0  # images
        # A signal can interrupt Condition.__enter__ and leave it locked. It cannot interrupt a lock's __enter__.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.room = threading.Condition(self.lock)
        self.closed = False
        self.free = threading.Semaphore(slots)
        self.running: SimpleQueue[tuple[list[Piece], Running] | None] = SimpleQueue()
        threads = [threading.Thread(target=work, name="dlink", daemon=True) for work in (self.begin, self.finish)]
        WORKERS.update(threads)
        for thread in threads:
            thread.start()

    def submit(self, image: NDArray[np.uint8], key: Key, turn: Turn) -> Submitted:
        """Queue an image (H, W, C); the future's result is (H, W). The image must not change until then."""
        windows = cover(image.shape[0], image.shape[1], self.tile, self.halo)
        roads = np.empty(image.shape[:2], np.float32 if key[2] == "probability" else np.uint8)
        job = Request(image, key, roads, len(windows), Submitted(self.callbacks))
        with self.lock:
            self.wait_for_room(turn)
            self.unfinished += 1
            job.future.at_once(lambda _: self.leave(job))
            self.queues.setdefault(turn.priority, deque()).extend(Piece(job, window) for window in windows)
            self.changed.notify()
        return job.future

    def wait_for_room(self, turn: Turn) -> None:
        """Return when an image may be queued. Raises Busy, or Closed where the pipeline is closed."""
        while not self.closed and turn.limit is not None and self.unfinished >= turn.limit:
            if not turn.wait:
                raise Busy(f"{self.unfinished} images are submitted and not done, and the limit is {turn.limit}")
            self.room.wait()
        if self.closed:
            raise Closed(CLOSED)

    def leave(self, job: Request) -> None:
        """Called once an image is done, has failed or was cancelled."""
        with self.lock:
            self.unfinished -= 1
            self.room.notify_all()  # each waits for room of its own limit
            if job.left:  # no more of its tiles are wanted
                kept = {p: deque(piece for piece in q if piece.job is not job) for p, q in self.queues.items()}
                self.queues = {p: q for p, q in kept.items() if q}

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
        self.callbacks.close()

    def next_batch(self) -> list[Piece]:
        """Wait for a batch. It is empty when the pipeline is closed and nothing is queued."""
        with self.lock:
            while not (batch := self.take_batch()) and not self.closed:
                self.changed.wait()
            return batch

    def take_batch(self) -> list[Piece]:
        """Take queued pieces of the highest priority while their keys match and the batch has room."""
        batch: list[Piece] = []
        if not self.queues:
            return batch
        first = max(self.queues)
        queue = self.queues[first]
        key = queue[0].job.key
        most = key[0].tiles_per_batch(key[1])
        while queue and queue[0].job.key == key and len(batch) < most:
            batch.append(queue.popleft())
            batch[-1].job.future.begun = True
        if not queue:
            del self.queues[first]
        return batch

    def close(self, cancel: bool = False) -> None:
        """Accept no more images. End after the submitted ones, or with `cancel` after the runs under way."""
        with self.lock:
            self.closed = True
            queued = [piece.job for queue in self.queues.values() for piece in queue] if cancel else []
            if cancel:
                self.queues.clear()
            self.changed.notify_all()
            self.room.notify_all()
        for job in dict.fromkeys(queued):
            if job.future.begun:
                finish_job(job, error=Closed("this model was closed before the image was done"))
            else:
                job.future.cancel()


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
            finish_job(batch[index].job, error=fault_of(batch[index].window, error))
        write_tiles(batch, error.roads)
        return
    for piece in batch:
        finish_job(piece.job, error=error)


def finish_job(job: Request, error: Exception | None = None) -> None:
    """Set the result or the error of an image's future, unless it is done."""
    with suppress(InvalidStateError):
        if error is None:
            job.future.set_result(job.roads)
        else:
            job.future.set_exception(error)
