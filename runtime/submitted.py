"""The Future of a submitted image: it can be cancelled until it is done, and its callbacks have their own thread."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeAlias

from dlink.runtime.life import WORKERS

log = logging.getLogger(__name__)

Callback: TypeAlias = "Callable[[Future[Any]], object]"


class Callbacks:
    """A thread that runs callbacks, so that a slow one holds up other callbacks alone. It calls `ended` last."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.ended = ended
        self.queue: SimpleQueue[tuple[Callback, Future[Any]] | None] = SimpleQueue()
        self.lock = threading.RLock()
        self.closed = False
        thread = threading.Thread(target=self.serve, name="dlink-callbacks", daemon=True)
        WORKERS.add(thread)
        thread.start()

    def put(self, callback: Callback, future: "Future[Any]") -> None:
        """Run a callback in the thread, or here where the thread ends."""
        with self.lock:
            if not self.closed:
                self.queue.put((callback, future))
                return
        run(callback, future)

    def close(self) -> None:
        """End the thread after the callbacks that wait."""
        with self.lock:
            self.closed = True
            self.queue.put(None)

    def serve(self) -> None:
        while (task := self.queue.get()) is not None:
            run(*task)
            del task  # hold no result while waiting
        self.ended()


def run(callback: Callback, future: "Future[Any]") -> None:
    """Call a callback. What it raises is logged, as Python's own Futures do."""
    try:
        callback(future)
    except SystemExit as e:
        log.warning("a callback of an image's Future raised SystemExit (%s); a worker thread ignores it", e)
    except Exception:
        log.exception("a callback of an image's Future failed")


class Submitted(Future[Any]):
    """The result of a submitted image. `cancel` works until it is done: no further tile of the image is begun."""

    def __init__(self, callbacks: Callbacks) -> None:
        super().__init__()
        self.callbacks = callbacks
        self.begun = False
        self.lock = threading.Lock()
        self.told = False  # whether those who wait for several Futures know that this one was cancelled

    def add_done_callback(self, fn: "Callable[[Future[Any]], object]") -> None:
        """Call `fn` with this Future when it is done, in the model's thread for callbacks."""
        super().add_done_callback(lambda future: self.callbacks.put(fn, future))

    def at_once(self, fn: "Callable[[Future[Any]], object]") -> None:
        """Call `fn` in the thread that ends this Future, before any callback."""
        super().add_done_callback(fn)

    def cancel(self) -> bool:
        """Cancel the image. False where it is done already."""
        if not super().cancel():
            return False
        with self.lock:
            first, self.told = not self.told, True
        if first:
            self.set_running_or_notify_cancel()
        return True

    def running(self) -> bool:
        """Whether a tile was begun, and the image is not done."""
        return self.begun and not self.done()
