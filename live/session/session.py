"""The folder of a session, written while it runs. What was written before a crash can be read.

session.json        the model's hash, versions, options; `ended` is missing while it runs
video-0001.ts, ...  the video as it came, a file for each connection
roads.jsonl         a line for every offered frame, dropped ones too, in the order in which they ended
masks/00000012.png  the mask of frame 12: 255 is road
map.tif             the map, where the camera's poses are known
"""

import os
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import BinaryIO

import numpy as np

from dlink.imagery.images import write_image
from dlink.live.frame import Image, Outcome
from dlink.live.session.head import NAME, Head, write_head
from dlink.live.session.line import line_of
from dlink.runtime import BadInput

LINES, MASKS = "roads.jsonl", "masks"
MOST = 64  # masks that wait for the disk
NOTHING: Image = np.empty((0, 0, 3), np.uint8)
SYNC = 1.0  # seconds between the moments at which the lines are surely on the disk


class Session:
    """Writes a session. `put` may be the `outcomes` of a Live. It is a context manager; leaving it ends the session.

    Args:
        folder: A new or empty folder.
        head: What it is computed with.
        masks: Whether to write masks.

    A session of no frame leaves nothing: a source that could not be opened may be named again.

    Raises:
        BadInput: The folder has something in it.
    """

    def __init__(self, folder: Path, head: Head, masks: bool = True) -> None:
        if (folder / NAME).exists():
            raise BadInput(f"{folder}: has a session already; name a new folder")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(f"{folder}: is no empty folder; name a new one for the session")
        self.folder, self.head, self.masks = folder, head, masks
        self.own = not folder.exists()  # whether the folder is made here
        (folder / MASKS if masks else folder).mkdir(parents=True, exist_ok=True)
        write_head(folder, head)
        self.lines: BinaryIO = (folder / LINES).open("ab")
        self.queue: SimpleQueue[tuple[Outcome, bool] | None] = SimpleQueue()  # with it, whether it has its mask
        self.missing = 0  # masks that were not written
        self.frames = 0  # whose outcome was put
        self.failure: OSError | None = None
        self.thread = threading.Thread(target=self.write, name="dlink-session", daemon=True)
        self.thread.start()

    def put(self, outcome: Outcome) -> None:
        """Write an outcome. This returns at once; where the disk is too slow, a line says that its mask is missing."""
        self.frames += 1
        kept = outcome.roads is not None and self.masks and self.queue.qsize() < MOST
        self.queue.put((light(outcome, kept), kept))

    def write(self) -> None:
        """Write outcomes until there is a None. After a failure of the disk nothing more is written."""
        synced = time.monotonic()
        while True:
            try:
                if (taken := self.queue.get(timeout=SYNC)) is None:
                    return
                if self.failure is None:
                    self.write_one(*taken)
                del taken  # hold no pixels while waiting
            except Empty:
                pass
            except OSError as e:
                self.failure = e
            if time.monotonic() - synced > SYNC and self.failure is None:
                os.fsync(self.lines.fileno())
                synced = time.monotonic()

    def write_one(self, outcome: Outcome, kept: bool) -> None:
        mask, error = None, ""
        if outcome.roads and kept:
            mask = f"{MASKS}/{outcome.frame.id:08}.png"
            write_image(self.folder / mask, outcome.roads.mask)
        elif outcome.roads and self.masks:
            self.missing += 1
            error = "its mask was not written, because the disk is slower than the network"
        line = line_of(outcome, mask, error).to_json()
        self.lines.write(line.encode() + b"\n")
        self.lines.flush()

    def close(self) -> None:
        """Write what waits, and end the session.

        Raises:
            OSError: The disk failed; what was written before can be read.
        """
        self.queue.put(None)
        self.thread.join()
        if self.lines.closed:
            return
        try:
            if self.failure:
                raise self.failure
            os.fsync(self.lines.fileno())
            if self.frames:
                write_head(self.folder, replace(self.head, ended=time.time()))
        finally:
            self.lines.close()
            if not self.frames:
                self.remove()

    def remove(self) -> None:
        """Remove what was made for frames that never came."""
        for name in (NAME, LINES):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # something else lies there
            (self.folder / MASKS).rmdir()
        if self.own:
            with suppress(OSError):
                self.folder.rmdir()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def light(outcome: Outcome, with_levels: bool) -> Outcome:
    """An outcome without the pixels that are not written, so that a queue of them needs little memory."""
    frame, roads = replace(outcome.frame, pixels=NOTHING), outcome.roads
    if roads is not None:
        roads = replace(roads, frame=frame, image=NOTHING, levels=roads.levels if with_levels else NOTHING)
    return replace(outcome, frame=frame, roads=roads)
