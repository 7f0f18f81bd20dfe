"""What a worker does with a block of a map: find its roads, and find their lines. Each result is a file of the store.

A worker opens the model and the rasters at its first block and keeps them. The windows of all blocks are those of the
whole grid, so a block's roads are those of the whole map, whoever computes them.
"""

import atexit
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from dlink.imagery.gdal_file import GDAL_ERRORS, allow_network, gdal, why
from dlink.imagery.kinds import remote
from dlink.imagery.notes import LOG
from dlink.imagery.source import Image
from dlink.maps.blocks import BLOCK, Part, Probable, Reach, lines_of
from dlink.maps.job.mosaic import Mosaic
from dlink.maps.job.mosaic_file import around
from dlink.maps.job.plan import Plan
from dlink.maps.job.store import Store
from dlink.maps.mask import beyond
from dlink.maps.thinning import Mask
from dlink.runtime import open_model
from dlink.runtime.backend import to_form
from dlink.runtime.errors import BadInput, DlinkError
from dlink.runtime.files import file_sha256
from dlink.runtime.segmenter import Segmenter, Views
from dlink.runtime.windows import Window

ROAD = 255


@dataclass(frozen=True)
class Job:
    """What a worker must know of a map, and what may differ from run to run."""

    folder: str
    store: str  # where the blocks lie
    mark: str  # the plan's hash
    threads: int  # of a worker
    state: str = ""  # the plan's: of its rasters' files too

    @property
    def path(self) -> Path:
        return Path(self.folder)


@dataclass(frozen=True)
class Done:
    """What became of a block. `error`: why not, in one line; empty if it is there."""

    block: int
    windows: int = 0  # that the network has seen
    error: str = ""
    ends: bool = False  # whether the error concerns all blocks
    notes: tuple[tuple[str, str, str], ...] = ()  # what was assumed: of which file, the words, and a detail


Task = Callable[[Job, int], Done]
RETRIES = 3  # of a block whose worker was lost
ONE = threading.Lock()  # a worker of a cluster may have several threads, and GDAL's files are for one at a time
AGAIN = "run this again, and it goes on"


class EngineLost(DlinkError, RuntimeError):
    """The cluster that did the work is gone, or its workers die again and again."""


def roads_task(job: Job, block: int) -> Done:
    """Find the roads of a block."""
    return attempted(block, lambda: find_roads(job, block))


def lines_task(job: Job, block: int) -> Done:
    """Find the lines of a block, whose neighbours' roads must be there."""
    return attempted(block, lambda: find_lines(job, block))


def attempted(block: int, work: Callable[[], int]) -> Done:
    """Do the work, and gather what was assumed."""
    notes: list[tuple[str, str, str]] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(tuple(map(str, record.args or ())))  # type: ignore[method-assign, arg-type]
    LOG.addHandler(handler)
    LOG.propagate = False
    try:
        with ONE:
            return replace(outcome(block, work), notes=tuple(notes))
    finally:
        LOG.removeHandler(handler)


def outcome(block: int, work: Callable[[], int]) -> Done:
    """Do the work. What is wrong with a raster fails this block alone; anything else would fail the others too."""
    try:
        return Done(block, work())
    except BadInput as e:
        return Done(block, error=" ".join(str(e).split()))
    except DlinkError as e:
        return Done(block, error=" ".join(str(e).split()), ends=True)
    except OSError as e:
        words = f"{e.filename}: {e.strerror}" if e.filename and e.strerror else str(e)
        return Done(block, error=" ".join(words.split()), ends=True)
    except MemoryError as e:
        return Done(block, error=f"not enough memory: {e}; give fewer --workers", ends=True)


@dataclass
class Opened:
    """What a worker keeps open of a job."""

    plan: Plan
    store: Store
    mosaic: Mosaic | None = None
    model: Segmenter | None = None

    def close(self) -> None:
        if self.mosaic:
            self.mosaic.close()
        if self.model:
            self.model.close()


OPENED: dict[Job, Opened] = {}  # the one job of this worker


def opened(job: Job) -> Opened:
    """What is open of a job. What was open of another one is closed."""
    if job not in OPENED:
        close_all()
        plan = Plan.read(job.path)
        if (plan.mark, plan.state) != (job.mark, job.state):
            raise BadInput(f"{job.folder}: its plan has changed; run this again")
        if any(remote(Path(name)) for name in (job.store, *(source.name for source in plan.sources))):
            allow_network()
        OPENED[job] = Opened(plan, Store(job.store, plan.mark))
    return OPENED[job]


@atexit.register
def close_all() -> None:
    """Close what is open, in the order that GDAL's settings need."""
    for each in OPENED.values():
        each.close()
    OPENED.clear()


def model_of(job: Job, here: Opened) -> Segmenter:
    """The open model, which must be the plan's."""
    if here.model is None:
        path = Path(here.plan.model_path)
        if file_sha256(path) != here.plan.model.sha256:
            raise DlinkError(f"{path}: is another model than the map was planned with; bring that one back")
        mark, scout = here.plan.scout, here.plan.asked.scout
        if mark and scout and file_sha256(Path(scout)) != mark.sha256:
            raise DlinkError(f"{scout}: is another scout than the map was planned with; bring that one back")
        here.model = open_model(
            path, halo=here.plan.halo, threshold=here.plan.threshold, threads=job.threads, scout=scout
        )
    return here.model


def views_of(plan: Plan) -> Views:
    return "adaptive" if plan.views == "adaptive" else int(plan.views)


def find_roads(job: Job, block: int) -> int:
    """Write a block's roads; the number of windows that the network has seen."""
    here = opened(job)
    here.mosaic = here.mosaic or Mosaic(here.plan)
    plan, core = here.plan, here.plan.core(block)
    shape = core[0].stop - core[0].start, core[1].stop - core[1].start
    bands, valid = np.zeros((2, *shape), np.uint8), np.zeros(shape, np.bool_)
    count = 0
    for row in plan.windows(block):
        strip = Strip(here.mosaic, row)
        wanted = [window for window in row if strip.core_valid(window).any()]
        if not wanted:
            continue
        count += len(wanted)
        for window, prob in model_of(job, here).begun(strip.pixels, wanted, views_of(plan)):
            data = strip.core_valid(window)
            into = within(window.core, core)
            bands[0][into] = to_form(prob, "mask", plan.threshold) * data
            bands[1][into] = to_form(prob, "level", plan.threshold) * data
            valid[into] = data
    if why := here.mosaic.changed():
        close_all()  # what is open may show pixels of both
        raise BadInput(why)
    here.store.put_roads(plan.name(block), plan.grid, core, bands, valid)
    return count


def within(part: tuple[slice, slice], core: tuple[slice, slice]) -> tuple[slice, slice]:
    """A part of a block, counted from the block's beginning."""
    rows, cols = (slice(p.start - c.start, p.stop - c.start) for p, c in zip(part, core, strict=True))
    return rows, cols


class Strip:
    """The pixels of a row of windows."""

    def __init__(self, mosaic: Mosaic, row: list[Window]) -> None:
        self.top, self.left = row[0].rows.start, row[0].cols.start
        self.image, self.valid = mosaic.read(row[0].outer[0], slice(self.left, row[-1].cols.stop))

    def pixels(self, window: Window) -> Image:
        """A window's pixels, uint8 (H, W, planes)."""
        return self.image[self.inside(window.outer)]

    def core_valid(self, window: Window) -> Mask:
        """Where a window's core has data."""
        return self.valid[self.inside(window.core)]

    def inside(self, part: tuple[slice, slice]) -> tuple[slice, slice]:
        rows, cols = part
        return slice(rows.start - self.top, rows.stop - self.top), slice(cols.start - self.left, cols.stop - self.left)


def find_lines(job: Job, block: int) -> int:
    """Write a block's lines."""
    here = opened(job)
    reach = Reach(here.plan.grid.metres, here.plan.widest)
    # Opened for each block: GDAL would keep pixels of a block that was made again since.
    with gdal(Path(job.store)), rasterio.open(around(here.plan, here.store, block, reach.halo)) as file:
        reader = RoadBlocks(file)
        parts = [lines_of(reader.read, core, here.plan.grid.shape, reach) for core in cores_of(here.plan.core(block))]
    here.store.put_lines(here.plan.name(block), packed(parts))
    return 0


def cores_of(core: tuple[slice, slice]) -> Iterator[tuple[slice, slice]]:
    """A block in pieces of at most BLOCK px, whose lines are found one after the other: less memory."""
    for top in range(core[0].start, core[0].stop, BLOCK):
        for left in range(core[1].start, core[1].stop, BLOCK):
            yield slice(top, min(top + BLOCK, core[0].stop)), slice(left, min(left + BLOCK, core[1].stop))


class RoadBlocks:
    """The roads of all blocks, by windows."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def read(self, rows: slice, cols: slice) -> tuple[Mask, Probable]:
        """Road and its probability in a window, which may go beyond the map."""
        both = list(zip((rows, cols), self.file.shape, strict=True))
        down, across = (slice(max(s.start, 0), min(s.stop, n)) for s, n in both)
        lacking = [(max(-s.start, 0), max(s.stop - n, 0)) for s, n in both]
        try:
            bands = self.file.read(window=((down.start, down.stop), (across.start, across.stop)))
        except GDAL_ERRORS as e:
            raise DlinkError(f"a block of the map is damaged; GDAL says: {why(e)}; remove it and run this again") from e
        return beyond(bands[0] == ROAD, lacking), beyond(bands[1] / np.float32(ROAD), lacking)


def packed(parts: list[Part]) -> dict[str, NDArray[Any]]:
    """The lines of a block's pieces as arrays."""
    lines = [line for part in parts for line in part.lines]
    return {
        "points": np.concatenate(lines) if lines else np.empty((0, 4), np.float32),
        "sizes": np.array([len(line) for line in lines], np.int64),
        "meeting": np.concatenate([part.meeting for part in parts]),
        "areas": np.array(any(part.areas for part in parts)),
    }


def unpacked(arrays: dict[str, NDArray[Any]]) -> Part:
    lines = np.split(arrays["points"], np.cumsum(arrays["sizes"])[:-1]) if len(arrays["sizes"]) else []
    return Part(lines, arrays["meeting"], bool(arrays["areas"]))
