"""What a map is made of and how, decided once: `plan.json` of the job's folder.

A plan names its rasters and what each of their files was, the model by its hash, the grid, the blocks that have data,
and all that the pixels depend on. Its hash is in every block, so blocks of another plan are refused. What is made of
the blocks afterwards (lines, formats) is not part of it, and may change from run to run.
"""

import errno
import hashlib
import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dlink.imagery.reading import NATIVE, Reading
from dlink.maps.job.addresses import remote_path
from dlink.maps.job.grid import Grid
from dlink.maps.job.watched import Watched, difference
from dlink.maps.mask import ROAD, name_of
from dlink.runtime.errors import BadInput
from dlink.runtime.files import FileMark, replacing
from dlink.runtime.spec import Spec
from dlink.runtime.values import dataclass_of, load_json
from dlink.runtime.views import BY_COUNT
from dlink.runtime.windows import Span, Window, spans

FORMAT = 2
FILE = "plan.json"


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A raster of a map: where on the grid it lies, and which file it was."""

    name: str  # an absolute path, or a path of one of GDAL's file systems
    files: tuple[Watched, ...]  # that it is read from, itself first; none: of another file system, not watched
    samples: str  # such as 3 x uint8
    plain: bool  # its pixels are the grid's, and are read as they are
    rows: tuple[int, ...]  # first and last + 1 of the grid; beyond the grid where that is cut to an area
    columns: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A raster that was left out, and why."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What the pixels of a map depend on, beside its model and its rasters. None: the model's own.

    Raises:
        BadInput: A value is out of range.
    """

    bands: str | None = None  # see imagery/reading.py
    stretch: str | None = None
    gsd: str | None = None
    views: str | None = None  # 8, 4, 1 or adaptive
    threshold: float | None = None
    halo: int | None = None  # px
    aoi: str | None = None  # a file of polygons; there is no map outside of them
    crs: str | None = None  # the map's coordinate system; None: that of most rasters
    asset: str | None = None  # which of STAC items; None: the only raster of each
    skip_bad: bool = False  # leave out rasters that cannot be used
    widest: float = 50.0  # metres; wider areas are no roads
    windows: int | None = None  # of a block, down and across; None: 5, or more of small ones
    blocks: str | None = None  # where the blocks lie, such as /vsis3/bucket/map; None: in the map's folder
    scout: str | Path | None = None  # a small network that looks first; kept as an absolute path

    def __post_init__(self) -> None:
        _ = self.reading
        if self.scout is not None:
            object.__setattr__(self, "scout", str(Path(self.scout).absolute()))
        if self.views not in (None, "adaptive", *map(str, BY_COUNT)):
            raise BadInput(f"--views {str(self.views)[:20]}: expected 8, 4, 1 or adaptive")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise BadInput(f"--threshold {self.threshold:g}: must be at least 0 and less than 1")

    @property
    def reading(self) -> Reading:
        return Reading(bands=self.bands, stretch=self.stretch, gsd=self.gsd)

    def settled(self) -> "MapOptions":
        """The same for a run in any folder: with absolute paths."""
        blocks = self.blocks and (remote_path(self.blocks) or os.path.abspath(self.blocks))  # noqa: PTH100 - links stay
        return replace(self, aoi=self.aoi and os.path.abspath(self.aoi), blocks=blocks)  # noqa: PTH100

    def differing(self, other: "MapOptions") -> list[str]:
        """The options of which another has other values, as they are written. Of areas only whether there is one."""
        mine, others = asdict(self.settled()), asdict(other.settled())
        if self.aoi and other.aoi:
            del mine["aoi"]
        return [f"--{name.replace('_', '-')}" for name in mine if mine[name] != others[name]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """See above. `blocks` are numbers, counted row by row over all blocks of the grid, empty ones too."""

    dlink: str  # the version that made the plan
    model: FileMark
    model_path: str  # where the model was found; not part of the hash
    asked: MapOptions
    spec: str  # the model's, as JSON
    grid: Grid
    sources: tuple[SourceFile, ...]  # the first is on top
    left_out: tuple[LeftOut, ...]
    bands: str  # numbers of the rasters' bands; empty: by their names
    stretch: dict[str, str]  # of samples that are not 8 bits, by `samples`
    area: tuple[str, ...]  # polygons in the grid's system, WKT; empty: everywhere
    area_mark: str  # a hash of the polygons of --aoi's file
    views: str  # 8, 4, 1 or adaptive
    threshold: float
    halo: int  # px
    side: int  # windows of a block, down and across
    widest: float  # metres; wider areas are no roads
    blocks: tuple[int, ...]
    scout: FileMark | None = None  # of asked.scout

    @cached_property
    def mark(self) -> str:
        """The plan's hash. A raster that is replaced before any block of it is done does not change it."""
        sources = tuple(replace(source, files=()) for source in self.sources)
        return hashlib.sha256(replace(self, model_path="", sources=sources).to_json().encode()).hexdigest()[:16]

    @cached_property
    def state(self) -> str:
        """A hash of the plan and of its rasters' files as they were."""
        return hashlib.sha256(replace(self, model_path="").to_json().encode()).hexdigest()[:16]

    @cached_property
    def of_model(self) -> Spec:
        return Spec.from_json(self.spec, FILE)

    @cached_property
    def spans(self) -> tuple[list[Span], list[Span]]:
        """The windows' rows and columns."""
        tile = self.of_model.tile
        return spans(self.grid.rows, tile, self.halo), spans(self.grid.columns, tile, self.halo)

    @property
    def across(self) -> int:
        """Blocks of a row."""
        return -(-len(self.spans[1]) // self.side)

    def windows(self, block: int) -> list[list[Window]]:
        """The windows of a block, row by row."""
        row, column = divmod(block, self.across)
        rows, columns = self.spans
        down, along = (slice(i * self.side, (i + 1) * self.side) for i in (row, column))
        return [[Window(r, c) for c in columns[along]] for r in rows[down]]

    def core(self, block: int) -> tuple[slice, slice]:
        """The pixels that a block owns."""
        windows = self.windows(block)
        first, last = windows[0][0], windows[-1][-1]
        return slice(first.rows.lo, last.rows.hi), slice(first.cols.lo, last.cols.hi)

    def touching(self, source: SourceFile) -> set[int]:
        """The blocks that may need pixels of a raster."""
        near, found = self.of_model.tile, set()
        (top, bottom), (left, right) = source.rows, source.columns
        for block in self.blocks:
            rows, cols = self.core(block)
            if (
                top < rows.stop + near
                and bottom > rows.start - near
                and left < cols.stop + near
                and right > cols.start - near
            ):
                found.add(block)
        return found

    @cached_property
    def begins(self) -> tuple[list[int], list[int]]:
        """The first rows and columns of the blocks, in px."""
        rows, columns = self.spans
        return [span.lo for span in rows[:: self.side]], [span.lo for span in columns[:: self.side]]

    @cached_property
    def known(self) -> frozenset[int]:
        return frozenset(self.blocks)

    def around(self, block: int, by: int) -> Iterator[int]:
        """The blocks that have pixels within `by` px of a block, itself too."""
        (tops, lefts), (rows, cols) = self.begins, self.core(block)
        for row in range(max(bisect_right(tops, rows.start - by) - 1, 0), bisect_left(tops, rows.stop + by)):
            for column in range(max(bisect_right(lefts, cols.start - by) - 1, 0), bisect_left(lefts, cols.stop + by)):
                if (found := row * self.across + column) in self.known:
                    yield found

    def name(self, block: int) -> str:
        """A block's name: its row and column among the blocks."""
        row, column = divmod(block, self.across)
        return f"{row:04}_{column:04}"

    def reading(self, source: SourceFile) -> Reading:
        """How a raster is read: at the resolution of the grid that it is laid on."""
        bands, stretch = self.bands or None, self.stretch.get(source.samples)
        return Reading(bands=bands, stretch=stretch, gsd=NATIVE, planes=self.of_model.bands)

    @property
    def result(self) -> str:
        """How the results' names begin: roads, or what else the model finds, such as building."""
        target = self.of_model.target
        return "roads" if target == ROAD else name_of(target)

    @property
    def lined(self) -> bool:
        """Whether lines are drawn; otherwise polygons."""
        return self.of_model.target == ROAD

    def to_json(self) -> str:
        values = {"format": FORMAT, **asdict(self)}
        if self.scout is None:  # a plan without a scout is that of older versions, and its hash too
            del values["scout"], values["asked"]["scout"]
        return json.dumps(values, sort_keys=True)

    def write(self, folder: Path) -> None:
        with replacing(folder / FILE, lasting=True) as part:
            part.write_text(self.to_json())

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """The plan of a job's folder.

        Raises:
            BadInput: There is none, it is damaged, or of another version of dlink.
        """
        path = folder / FILE
        try:
            values: dict[str, Any] = load_json(path.read_bytes())
            if values.pop("format", None) != FORMAT:
                made = f"dlink {str(values.get('dlink', ''))[:20]}".strip()
                raise BadInput(
                    f"{path}: a plan of another version, {made}; finish it with that, or choose a new folder"
                )
            return dataclass_of(cls, values, {})
        except FileNotFoundError as e:
            raise BadInput(f"{folder}: no map is planned there; give a model and rasters") from e
        except (ValueError, TypeError, AttributeError) as e:
            if isinstance(e, BadInput):
                raise
            raise BadInput(f"{path}: damaged: {e}; remove the folder and begin again") from e


def changed(source: SourceFile) -> str:
    """Why a raster is not that of the plan; empty if it is."""
    if not (name := difference(source.files)):
        return ""
    own = "" if name == source.files[0].name else f"its file {name} "
    if gone(source):
        what = f"{own}is not there" if own else os.strerror(errno.ENOENT)
        return f"{source.name}: {what}; it is part of the map: bring it back, then run this again"
    return f"{source.name}: {own}has changed since the map was planned; run this again"


def gone(source: SourceFile) -> bool:
    """Whether a file of a raster is not there any more."""
    return not all(Path(each.name).exists() for each in source.files)
