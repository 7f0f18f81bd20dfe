"""Keeps an engine open: one that ends, fails or is stuck is closed and opened again, with a growing pause.

A picture is never tried twice, because the picture may be what ended the engine.
"""

import logging
import threading
import time
from collections.abc import Callable

from dlink.live.engine import About, Computed, Engine, Lost
from dlink.live.frame import Image
from dlink.runtime import Closed, DlinkError
from dlink.runtime.life import CLOSED
from dlink.runtime.segmenter import Views

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before an engine is opened that failed twice or more in a row
STUCK, LEAST_PATIENCE = 10.0, 5.0  # an answer may take so many times the predicted seconds, and at least these seconds
AT_MOST = 5.0  # seconds that closing waits for an engine that is being opened
LOOK = 0.02  # seconds between looks at an idle engine
log = logging.getLogger(__name__)

Open = Callable[[], Engine]


class Supervisor:
    """An engine that is opened again when it is lost. A thread of its own opens and closes.

    Args:
        start: Opens an engine.
        standby: Keep a second engine open, so that a lost one is replaced at once. It takes as much memory again.

    Raises:
        DlinkError: The engine cannot be opened at the first time.
    """

    def __init__(self, start: Open, standby: bool = False) -> None:
        self.start, self.standby = start, standby
        self.restarts = 0
        self.failures = 0  # in a row, without a picture between them
        self.error = ""  # of the last loss
        self.again = 0.0  # when a spare may be opened, time.monotonic()
        self.closed = False
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.engine: Engine | None = start()
        self.spare: Engine | None = None
        self.about: About = self.engine.about
        self.thread = threading.Thread(target=self.keep, name="dlink-supervisor", daemon=True)
        self.thread.start()

    @property
    def ready(self) -> bool:
        """Whether an engine is open."""
        return self.engine is not None

    def wait(self, seconds: float) -> bool:
        """Wait until an engine is open; whether one is."""
        with self.lock:
            self.changed.wait_for(lambda: self.engine is not None or self.closed, seconds)
            return self.engine is not None and not self.closed

    def levels(self, image: Image, views: Views, predicted: float) -> Computed:
        """The roads of uint8 (H, W, C), which should take so many seconds.

        Raises:
            Lost: The engine was lost, or is not open. It is being opened again.
            Closed: This was closed.
            DlinkError: This picture has no roads.
        """
        engine = self.engine
        if self.closed:
            raise Closed(CLOSED)
        if engine is None:
            raise Lost(f"the engine is being opened again: {self.error}")
        try:
            made = engine.levels(image, views, max(STUCK * predicted, LEAST_PATIENCE))
        except Lost as e:
            self.lose(engine, str(e))
            if self.closed:
                raise Closed(CLOSED) from e
            raise
        self.failures = 0
        return made

    def lose(self, engine: Engine, error: str) -> None:
        """Have an engine replaced."""
        with self.lock:
            if self.engine is not engine or self.closed:
                return
            self.engine, self.error = None, error
            self.restarts += 1
            self.failures += 1
            self.changed.notify_all()
        log.warning("the engine was lost and is opened again: %s", error)
        engine.close()

    def keep(self) -> None:
        """Open engines until this is closed."""
        while not self.closed:
            with self.lock:
                self.changed.wait_for(lambda: self.engine is None or self.closed, LOOK)
                engine = self.engine
            if self.closed:
                return
            if engine is None:
                self.replace()
            elif not engine.alive():
                self.lose(engine, "it ended by itself")
            elif self.standby and (self.spare is None or not self.spare.alive()) and time.monotonic() >= self.again:
                spare = self.opened(spare=True)
                self.again = 0.0 if spare else time.monotonic() + LONGEST_PAUSE
                self.take(spare, spare=True)

    def replace(self) -> None:
        """Put an open engine in the place of a lost one."""
        spare, self.spare = self.spare, None
        if spare is None or not spare.alive():
            self.pause()
            spare = self.opened()
        self.take(spare)

    def take(self, engine: Engine | None, spare: bool = False) -> None:
        """Use an engine that was opened, or free it where this was closed meanwhile."""
        with self.lock:
            if engine and not self.closed:
                self.engine, self.spare = (self.engine, engine) if spare else (engine, self.spare)
                self.changed.notify_all()
                return
        if engine:
            engine.close()

    def pause(self) -> None:
        """Wait before another try. The first one follows at once."""
        if self.failures < 2:
            return
        seconds = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (self.failures - 2))
        with self.lock:
            self.changed.wait_for(lambda: self.closed, seconds)

    def opened(self, spare: bool = False) -> Engine | None:
        """A new engine, or None where it cannot be opened or is not wanted any more."""
        if self.closed:
            return None
        try:
            return self.start()
        except Exception as e:  # whatever it is, the next try may succeed
            if not spare:
                self.failures += 1
            self.error = f"{e}" if isinstance(e, DlinkError) else f"{type(e).__name__}: {e}"
            log.warning("%s cannot be opened: %s", "a spare engine" if spare else "the engine", self.error)
            return None

    def close(self) -> None:
        """Free the engine. A call under way raises Closed, or ends with its roads."""
        with self.lock:
            self.closed = True
            self.changed.notify_all()
        for engine in (self.engine, self.spare):
            if engine:
                engine.close()
        if threading.current_thread() is not self.thread:
            self.thread.join(AT_MOST)
