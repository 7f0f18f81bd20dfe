"""The folder of a map: its plan, its blocks and its results; who works there, and how far it is.

plan.json      what the map is made of
blocks/        two files a block; elsewhere if `--blocks` says so
roads.vrt      all blocks as one raster; its name and those of the results begin with what the model finds
roads.tif, roads.gpkg, roads.qml, report.html, ...   the results
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlink.maps.job.plan import Plan
from dlink.maps.job.store import LINES, ROADS, Store
from dlink.runtime.errors import BadInput

LOCK = ".lock"
BLOCKS = "blocks"


@dataclass(frozen=True)
class Progress:
    """How far a map is, in blocks."""

    all: int
    roads: int
    lines: int | None  # None: there are none, but polygons of all blocks
    finished: bool
    running: bool
    unseen: str  # where blocks should lie, if results are there and no block is seen
    rate: float  # blocks of roads a second, of late; 0: not known

    @property
    def left(self) -> float | None:
        """Seconds left for the roads; None: not known."""
        return (self.all - self.roads) / self.rate if self.rate else None


@contextmanager
def locked(folder: Path, shared: bool) -> Iterator[bool]:
    """Holds the folder: alone, or together with others that do a part each. The system frees it however we end.

    Yields:
        Whether nobody else works there.

    Raises:
        BadInput: Another process works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"{folder}: another dlink-map works there; wait for it, or see --status") from None
        yield not shared
    finally:
        if [path.name for path in folder.iterdir()] == [LOCK]:  # nothing was begun
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
        os.close(file)


def is_locked(folder: Path) -> bool:
    """Whether a process works there."""
    try:
        file = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def done_blocks(plan: Plan, store: Store) -> tuple[set[int], set[int]]:
    """The blocks whose roads are there, and those whose lines are."""
    names = store.names()
    roads = {block for block in plan.blocks if plan.name(block) + ROADS in names}
    return roads, {block for block in plan.blocks if plan.name(block) + LINES in names}
