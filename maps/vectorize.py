"""A mask of any size becomes a file of roads as lines: blocks.py finds them, network.py tidies them, write.py writes.

Memory grows with the roads and not with the mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dlink.imagery.notes import say
from dlink.imagery.reading import Reading
from dlink.maps.blocks import BLOCK, Metres, Part, Reach, cores, join, lines_of
from dlink.maps.bridging import bridged
from dlink.maps.mask import ROAD, RoadMask, opened_mask
from dlink.maps.network import (
    Net,
    gathered,
    length,
    net_of,
    pruned,
    simplified,
    smoothed,
    smoothed_ring,
    straightened,
    without_pieces,
)
from dlink.maps.osm_options import OsmOptions
from dlink.maps.write import Points, Roads, driver_of, ground_length, in_degrees, write_roads
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick, ignore
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.maps.conflate import Conflated

MOST_HALF = 400  # px, of the widest road: with its halo a block takes a gigabyte
AT_ONCE = 4096  # lines that are smoothed before they are simplified
HALF_PIXEL = 0.5  # of a road's width: the distance to the nearest pixel beside it is counted from centre to centre


@dataclass(frozen=True, kw_only=True)
class LineOptions:
    """What lines are made of a mask. Lengths are metres.

    Raises:
        BadInput: A value is out of range.
    """

    threshold: float | None = None  # of probabilities: road above it; None: 0.5 of real numbers, else two values
    min_length: float = 20.0  # shorter pieces that touch no other are dropped
    simplify: float = 1.0  # how far a simplified line may be from the whole one
    smooth: bool = True
    bridge: float = 0.0  # the longest gap that is bridged
    widest: float = 50.0  # wider areas are no roads
    gsd_m: float | None = None  # of a mask that does not say it
    block: int = BLOCK

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise BadInput(f"--threshold {self.threshold:g}: must be at least 0 and less than 1")


@dataclass(frozen=True)
class Summary:
    """What a file of lines holds."""

    lines: int
    km: float
    nodes: int
    beside: "Conflated | None" = None  # what they are beside OpenStreetMap, if they were compared

    @property
    def words(self) -> str:
        return f"{counted(self.lines, 'line')}, {self.km:.2f} km, {counted(self.nodes, 'node')}"


class Ground(Protocol):
    """Where the pixels of a mask lie. A RoadMask is one."""

    path: Path  # for messages
    shape: tuple[int, int]
    metres: Metres
    crs: Any  # None: of no known system
    transform: Any
    probable: bool  # whether lines have probabilities


def vectorize(
    mask: Path, out: Path, how: LineOptions | None = None, reading: Reading | None = None, tick: Tick = ignore,
    osm: OsmOptions | None = None,
) -> Summary:  # fmt: skip
    """Write the roads of a mask as lines.

    Args:
        mask: A raster that GDAL reads, of two values or of probabilities.
        out: .gpkg, .fgb, .geojson, .geojsonl, .pmtiles, or .osm. An existing file is replaced.
        how: What lines are made.
        reading: Its `road_value` says which values are road.
        tick: Called with (blocks done, all blocks, words).
        osm: Its extract has roads that are left out, and joined.

    Returns:
        What the file holds.

    Raises:
        BadInput: The mask is no mask, or `out` is of no known format.
        OSError: The mask cannot be read, or `out` not be written.

    Example:
        >>> from pathlib import Path
        >>> from dlink.maps.vectorize import vectorize
        >>> vectorize(Path("mask.tif"), Path("roads.gpkg")).lines
        1
    """
    how = how or LineOptions()
    with opened_mask(mask, reading or Reading(), how.threshold, how.gsd_m) as road:
        driver_of(out, road.crs)
        compare = comparison(road.crs, osm, how.min_length)
        if osm and osm.extract and out.exists() and out.samefile(osm.extract):
            raise BadInput(f"{out}: is the extract, and would be replaced; choose another output")
        if out.exists() and out.samefile(mask):
            raise BadInput(f"{out}: is the mask, and would be replaced; choose another output")
        say_system(road)
        if road.target not in ("", ROAD):
            say(road.path, f"shows {road.target}, by its metadata; lines are drawn as if it were road")
        parts = find(road, how, tick)
        tick(0, 0, "joining")
        roads, nodes = roads_of(parts, road, how)
    beside = None
    if compare:
        tick(0, 0, "comparing")
        beside = compare(roads)
        roads, nodes = beside.roads, beside.nodes
    tick(0, 0, "writing")
    write_roads(out, roads)
    return summary_of(roads, nodes, beside)


def comparison(crs: Any, osm: OsmOptions | None, shortest: float) -> "Callable[[Roads], Conflated] | None":
    """What compares roads with OpenStreetMap; None if they are not compared. What can't be is refused here."""
    if osm is None or osm.extract is None:
        return None
    from dlink.maps.conflate import check_conflation, conflated  # needs pyosmium

    check_conflation(crs, osm)
    return partial(conflated, how=osm, shortest=shortest)


def summary_of(roads: Roads, nodes: int, beside: "Conflated | None" = None) -> Summary:
    return Summary(len(roads.lines), float(roads.fields["length_m"].sum()) / 1000, nodes, beside)


def say_system(road: Ground) -> None:
    if road.crs:
        return
    if road.transform.is_identity:
        say(road.path, "has no coordinate system; the lines are in its pixels, x to the right and y down")
    else:
        say(road.path, "has no coordinate system; the lines are in the coordinates of its world file")


def reach_of(road: Ground, widest: float) -> Reach:
    reach = Reach(road.metres, widest)
    if reach.half > MOST_HALF:
        raise BadInput(
            f"{road.path}: at {min(road.metres):.2g} m a pixel roads {widest:g} m wide have {2 * reach.half} px; "
            f"the most are {2 * MOST_HALF}: give a smaller --widest, or a coarser mask (gdalwarp -tr)"
        )
    return reach


def find(road: RoadMask, how: LineOptions, tick: Tick) -> list[Part]:
    """The lines of each block of a mask, one pixel wide."""
    reach = reach_of(road, how.widest)
    blocks = list(cores(road.shape, how.block))
    parts: list[Part] = []
    for i, core in enumerate(blocks):
        parts.append(lines_of(road.read, core, road.shape, reach))
        tick(i + 1, len(blocks), "blocks")
    say_areas(road, parts, how.widest)
    return parts


def say_areas(road: Ground, parts: Sequence[Part], widest: float) -> None:
    """Say how much was too wide to be a road."""
    if areas := sum(part.areas for part in parts):
        where = f"in {areas} of {len(parts)} blocks" if len(parts) > 1 else "somewhere"
        say(road.path, f"is wider than {widest:g} m {where}; such areas are left out, --widest sets the width")


def roads_of(parts: list[Part], ground: Ground, how: LineOptions) -> tuple[Roads, int]:
    """The roads of all blocks of a mask, and how many nodes they have. `parts` is emptied, for its memory."""
    # One expression, so that each step frees what the one before has made.
    return placed(tidied(net_of(joined(parts), ground.shape, ground.metres), how), ground, how)


def joined(parts: list[Part]) -> "list[NDArray[np.float32]]":
    chains = join(parts)
    parts.clear()
    return chains


def tidied(net: Net, how: LineOptions) -> Net:
    """The lines as roads that a mapper keeps."""
    net = without_pieces(pruned(net), how.min_length)
    net = pruned(gathered(net))
    return straightened(bridged(net, how.bridge) if how.bridge else net)


def shaped(net: Net, metres: Metres, how: LineOptions) -> list[Points]:
    """The lines (K, 2) smoothed and simplified."""
    ring = (net.ends[:, 0] == net.ends[:, 1]) & (net.degrees[net.ends[:, 0]] == 2)
    found: list[Points] = []
    for start in range(0, len(net.lines), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        lines = [line[:, :2] for line in net.lines[some]]
        if how.smooth:
            kinds = [smoothed_ring if closed else smoothed for closed in ring[some]]
            lines = [smooth(line, min(metres)) for smooth, line in zip(kinds, lines, strict=True)]
        found += simplified(lines, how.simplify)
    return found


def placed(net: Net, road: Ground, how: LineOptions) -> tuple[Roads, int]:
    """The roads in the mask's coordinates with their fields, and how many nodes there are."""
    a, b, c, d, e, f = tuple(road.transform)[:6]
    down, across = road.metres
    matrix = np.array([[a / across, d / across], [b / down, e / down]])
    shapes = shaped(net, road.metres, how)
    lines = [line @ matrix + (c, f) for line in shapes]
    if road.crs:
        long = [ground_length(line) for line in in_degrees(lines, road.crs, road.path)]
    else:
        long = [length(line) for line in shapes]
    used, ends = np.unique(net.ends, return_inverse=True)
    ends = ends.reshape(-1, 2) + 1
    half = np.array([line[:, 2].mean() for line in net.lines], np.float64)
    fields: dict[str, NDArray[Any]] = {
        "id": np.arange(1, len(lines) + 1),
        "length_m": np.round(np.array(long, np.float64), 2),
        "width_m": np.round(2 * half - HALF_PIXEL * min(road.metres), 2),
        "from_node": ends[:, 0],
        "to_node": ends[:, 1],
    }
    if how.bridge:
        fields["bridge"] = np.array([np.isnan(line[:, 3]).any() for line in net.lines], np.int32)
    if road.probable:
        fields["probability"] = np.round(np.array([line[:, 3].mean() for line in net.lines], np.float64), 4)
    return Roads(lines, road.crs, fields, road.path.name, metres=min(road.metres)), len(used)
