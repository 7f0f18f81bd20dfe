"""The life of an open model: who may use it, how it is closed, and what happens when the process exits or forks.

A model is open, then closed (it accepts no new work), then freed. These rules hold for every engine:

- `close()` may be called from any thread, from a Future's callback, from `__del__`, at exit, twice, and while other
  threads use the model. It returns once the engine is freed. A thread that is inside a call of a model does not wait,
  because it would wait for itself; the model is freed when that thread leaves the call.
- Submitted images are finished first. With `cancel`, or when a `with` block ends by an exception, images that have not
  begun are cancelled, and images under way end with Closed at their next tile.
- A model that is dropped without `close()` finishes its submitted images and is freed.
- A process that exits closes its models with `cancel`, because engines abort when their threads are cut off. The exit
  code does not change.
- A forked child cannot use its parent's model: calls raise Closed, and `close()` does nothing. The engines' threads and
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
AT_MOST = 60.0  # seconds that an exiting process waits for an engine
log = logging.getLogger(__name__)


class Closing(Protocol):
    """The part of a Backend that this module needs."""

    def close(self) -> None: ...


class Worker(Protocol):
    """Uses a model from background threads, which are listed in WORKERS. A Pipeline is one."""

    def close(self, cancel: bool) -> None:
        """Accept no more work and return at once; the worker frees the model when it ends."""
        ...


class Life:
    """The life of one open model, shared by everything that uses it."""

    def __init__(self, engine: Closing) -> None:
        self.engine = engine
        self.pid = os.getpid()
        self.lock = threading.RLock()  # reentrant: `close` may interrupt its own thread (a signal handler, __del__)
        self.worker: Worker | None = None
        self.calls: Counter[int] = Counter()  # calls under way, by thread
        self.closed = self.free_after_call = False
        self.freed = threading.Event()
        LIVES.add(self)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Wraps each call of the engine. Raises Closed where the model cannot be used."""
        check_process(self.pid)
        if self.closed:
            raise Closed(CLOSED)
        me = threading.get_ident()
        self.calls[me] += 1
        try:
            yield
        finally:
            self.calls[me] -= 1
            if not self.calls[me]:
                del self.calls[me]
                if self.free_after_call:
                    self.free()

    def work(self, make: Callable[[Callable[[], None]], Worker]) -> Worker:
        """The model's worker, made at its first use. `make` gets the function that frees the model at the end."""
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
        elif first and self.must_not_wait():
            self.free_after_call = True
            if not self.calls:  # looked at last: no call is left that would free it
                self.free()
        elif first:
            self.free()
        if wait and not self.must_not_wait():
            self.freed.wait()

    def must_not_wait(self) -> bool:
        """Whether this thread is inside a call of this model, or a worker of any model: waiting could deadlock."""
        return threading.get_ident() in self.calls or threading.current_thread() in WORKERS

    def free(self) -> None:
        self.free_after_call = False
        try:
            self.engine.close()
        finally:
            LIVES.discard(self)
            self.freed.set()


WORKERS: "WeakSet[threading.Thread]" = WeakSet()  # background threads of all models
LIVES: set[Life] = set()  # models that are not freed yet, dropped ones too
ENGINES: "WeakSet[Closing]" = WeakSet()  # all engines, also those without a Life


def check_process(pid: int) -> None:
    """Raise Closed unless this process opened the model."""
    if os.getpid() != pid:
        raise Closed(
            "this model was opened in another process, and its engine does not survive a fork; open one here, or start "
            "processes by spawn"
        )


@atexit.register
def close_all() -> None:
    """Close all models at exit."""
    lives = list(LIVES)
    for life in lives:
        life.close(cancel=True, wait=False)
        if life.free_after_call:  # a signal cut off this thread's call, so nothing will leave it
            life.free()
    end = time.monotonic() + AT_MOST
    for life in lives:
        if life.pid == os.getpid() and not life.freed.wait(max(0, end - time.monotonic())):
            log.warning("a model's engine has not ended within %g s", AT_MOST)
    for engine in list(ENGINES):
        engine.close()


def keep_all() -> None:
    """In a forked child, keep its copies of the parent's engines: to destroy one would wait for lost threads."""
    for engine in ENGINES:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=keep_all)
