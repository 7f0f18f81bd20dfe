"""The life of an open model: who may use it, how it ends, and what becomes of it when a process ends or forks.

A model is open, then closed (it takes nothing new), then freed. What holds, whatever the engine:

- `close()` may come from any thread, from a Future's callback, from `__del__`, at the end of the process, twice, and
  while other threads use the model. Whoever calls it waits until the engine is freed, but for a thread that is itself
  at work for a model: it would wait for itself, so the model is freed when it lets go.
- Images that were submitted are finished first. With `cancel`, and where a `with` block is left by an exception, those
  that have not begun are cancelled, and those under way end with Closed at their next tile.
- A model that is dropped without `close()` finishes what was submitted, and is freed.
- A process that ends closes its models with `cancel` first: engines abort where their threads are cut off. Its exit
  code stays its own.
- In a forked child a model of its parent's is refused (Closed), and its `close()` does nothing: engines' threads and
  CUDA do not survive a fork. The child's copy is never freed, and its copy of a Future never ends.
"""

import atexit
import ctypes
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from dlink.runtime.errors import Closed

CLOSED = "this model is closed; open it again"
AT_MOST = 60.0  # seconds that a process which ends waits for an engine
log = logging.getLogger(__name__)


class Closing(Protocol):
    """What lives here: a Backend."""

    def close(self) -> None: ...


class Worker(Protocol):
    """Who uses a model for others, in threads that are among WORKERS: a Pipeline."""

    def close(self, cancel: bool) -> None:
        """Take nothing more, never wait, and free the model at the end."""
        ...


class Life:
    """Of one open model, shared by all who use it."""

    def __init__(self, engine: Closing) -> None:
        self.engine = engine
        self.pid = os.getpid()
        self.lock = threading.RLock()  # `close` may interrupt its own thread, as a signal's handler or by __del__
        self.worker: Worker | None = None
        self.inside: Counter[int] = Counter()  # threads by what they are in the middle of
        self.closed = self.owed = False  # owed: it is freed when the last of this thread's uses ends
        self.freed = threading.Event()
        LIVES.add(self)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Around each call of the engine; Closed where the model can't be used."""
        check_process(self.pid)
        if self.closed:
            raise Closed(CLOSED)
        me = threading.get_ident()
        self.inside[me] += 1
        try:
            yield
        finally:
            self.inside[me] -= 1
            if not self.inside[me]:
                del self.inside[me]
                if self.owed:
                    self.free()

    def work(self, make: Callable[[Callable[[], None]], Worker]) -> Worker:
        """The model's worker, made at its first use: `make` is given what frees the model at the worker's end."""
        with self.lock:
            if self.closed:
                raise Closed(CLOSED)
            self.worker = self.worker or make(self.free)
            return self.worker

    def close(self, cancel: bool = False, wait: bool = True) -> None:
        if os.getpid() != self.pid:
            return
        with self.lock:
            first, self.closed = not self.closed, True
        if self.worker:
            self.worker.close(cancel)
        elif first and self.here():
            self.owed = True
        elif first:
            self.free()
        if wait and not self.here():
            self.freed.wait()

    def here(self) -> bool:
        """Whether this thread is at work for the model, or for another: two that wait for each other never end."""
        return threading.get_ident() in self.inside or threading.current_thread() in WORKERS

    def free(self) -> None:
        """Free the engine."""
        self.owed = False
        try:
            self.engine.close()
        finally:
            LIVES.discard(self)
            self.freed.set()


WORKERS: "WeakSet[threading.Thread]" = WeakSet()  # of all models
LIVES: set[Life] = set()  # that are not freed yet, whoever has dropped them
ENGINES: "WeakSet[Closing]" = WeakSet()  # those, and engines that are used by themselves


def check_process(pid: int) -> None:
    """Closed where this is another process than the one that opened a model."""
    if os.getpid() != pid:
        raise Closed(
            "this model was opened in another process, and its engine does not survive a fork; open one here, or start "
            "processes by spawn"
        )


@atexit.register
def close_all() -> None:
    """All models, at the end of the process."""
    lives = list(LIVES)
    for life in lives:
        life.close(cancel=True, wait=False)
        if life.owed:  # by a use that a signal cut off: nobody is in the middle of this thread's any more
            life.free()
    end = time.monotonic() + AT_MOST
    for life in lives:
        if life.pid == os.getpid() and not life.freed.wait(max(0, end - time.monotonic())):
            log.warning("a model's engine has not ended within %g s", AT_MOST)
    for engine in list(ENGINES):
        engine.close()


def keep_all() -> None:
    """In a forked child: its copies of its parent's engines are never destroyed, which would wait for lost threads."""
    for engine in ENGINES:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=keep_all)
