"""Frames of a video that may break: it is opened again until the Source is closed, and no frame counts twice.

A killed server looks like the end of a file, a silent sender like nothing at all. So a live address is opened again
after its end and after some seconds of silence, with a growing pause. Each connection has a number, because the video's
own time stamps begin anew.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

from dlink.live.video.address import Address
from dlink.live.video.connection import Connection, LinkLost, OnData
from dlink.live.video.counters import Seen
from dlink.live.video.raw import raw_frames
from dlink.live.video.taken import Taken

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds before a live address is opened again
log = logging.getLogger(__name__)


class Source:
    """Frames of a video, in their order. Iterate it in one thread; `close` may come from any.

    Args:
        address: Where the video comes from: `address_of`.
        record: A folder for the recording. None: no recording.
        on_data: Called with each packet of KLV telemetry: bytes, its time stamp in seconds or None, when it was sent in
            seconds of `time.monotonic()`, and its connection; in the thread that iterates.
        pace: Give frames of a file at their own rate, not as fast as they are taken.
        damaged: Give frames too that are not sound: where data was lost, until the next key frame.

    Example:
        >>> from dlink.live.video.address import address_of
        >>> from dlink.live.video.source import Source
        >>> with Source(address_of("flight.ts")) as source:
        ...     first = next(iter(source))
        ...     shape = first.pixels().shape  # uint8 (H, W, 3) RGB
    """

    def __init__(
        self,
        address: Address,
        record: Path | None = None,
        on_data: OnData | None = None,
        pace: bool = False,
        damaged: bool = False,
    ) -> None:
        self.address, self.record, self.on_data, self.damaged = address, record, on_data, damaged
        self.pace = pace and address.kind == "file"
        self.seen = Seen()
        self.state: Literal["connecting", "running", "lost", "ended"] = "connecting"
        self.failure = ""  # of the recording
        self.files = 0
        self.closing = threading.Event()

    def __iter__(self) -> Iterator[Taken]:
        frames = self.raw() if self.address.raw else self.connections()
        for taken in self.paced(frames) if self.pace else frames:
            if self.closing.is_set():
                break
            self.state = "running"
            yield taken
        self.state = "ended"

    def raw(self) -> Iterator[Taken]:
        self.seen.connections = 1
        if self.address.raw:
            yield from raw_frames(sys.stdin.fileno(), self.address.raw, self.seen, self.closing.is_set)

    def connections(self) -> Iterator[Taken]:
        """Frames of one connection after another."""
        pause = FIRST_PAUSE
        while not self.closing.is_set():
            frames = self.seen.frames
            try:
                yield from self.one()
                return
            except LinkLost as e:
                if str(e) != self.seen.lost or self.seen.frames > frames:
                    log.warning("%s: %s; it is opened again", self.address.shown, e)
                self.seen.lost = str(e)
            if self.seen.frames > frames:
                pause = FIRST_PAUSE
            self.state = "lost"
            self.closing.wait(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def one(self) -> Iterator[Taken]:
        """Frames of one connection."""
        connection = Connection(self.address, self.seen, self.on_data, self.record, self.files, self.damaged)
        self.seen.connections += 1
        try:
            for taken in connection.frames():
                if self.closing.is_set():
                    return
                yield taken
        finally:
            connection.close()
            self.files, self.failure = connection.files, connection.failure or self.failure

    def paced(self, frames: Iterator[Taken]) -> Iterator[Taken]:
        """Frames at the rate of their time stamps."""
        begun = None
        for taken in frames:
            if taken.pts is not None:
                begun = time.monotonic() - taken.pts if begun is None else begun
                if self.closing.wait(max(0.0, begun + taken.pts - time.monotonic())):
                    return
            yield Taken(**(vars(taken) | {"captured": time.monotonic()}))

    def close(self) -> None:
        """End the iteration, at most some seconds later where a sender is silent."""
        self.closing.set()

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
