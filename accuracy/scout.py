"""Calibrates a scout: finds the greatest limit below which a large network may skip tiles, with a bound on missed road.

Road is what the large network draws, and where a tile has a label, what the label confirms of it. A tile counts if at
least a thousandth of it is road (`scout_limit.SHARE`), and its loss is the share of its road that lies in skipped
windows. Tiles are the units, because the pixels and windows of one tile share its streets and its light. Every tile
counts alike: a bound on pixels would have to allow for an unseen tile that is all road, and would take twenty times as
many tiles. The share of missed pixels is measured and printed beside it.

There are 255 limits, fixed beforehand. They are tested from the strictest on, each with the bound of bounds.py, until
the first whose bound is greater than what was asked for ("fixed sequence": Angelopoulos et al., Learn then Test,
arXiv:2110.01052). So the limit found misses more than was asked for with a probability of at most 1 - confidence,
although 255 were tried. This is so for tiles that are drawn as the calibration's were. Tiles that are kept back are
counted with the limit found, and it is refused where they contradict it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dlink.accuracy.bounds import fewest, lower_bound, p_value, upper_bound
from dlink.imagery.images import TileFile
from dlink.imagery.labels import read_tile
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.errors import BadInput, CheckFailed, within
from dlink.runtime.progress import Tick, ignore
from dlink.runtime.scout import ONE_VIEW
from dlink.runtime.scout_limit import HIGHEST, SHARE, least_limit
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.windows import cover, square
from dlink.runtime.words import counted

HELD_BACK = 0.25  # of the tiles
SEED = 0  # of the choice of those
SHOWN = (0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224)  # levels of the table, beside the one found


@dataclass(frozen=True, kw_only=True)
class ScoutOptions:
    """What is asked of a calibration.

    Raises:
        BadInput: A share is out of range.
    """

    missed: float = 0.01  # of a tile's road, in the mean over tiles
    confidence: float = 0.95
    views: int | None = None  # of the large network; None: its own
    limit: int | None = None  # tiles, the first by name
    reading: Reading = RGB

    def __post_init__(self) -> None:
        for name, value in (("missed", self.missed), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise BadInput(f"--{name} must be greater than 0 and less than 1, got {value:g}")


@dataclass(frozen=True)
class Seen:
    """What both networks made of a tile, window by window."""

    id: str
    levels: tuple[int, ...]  # the least limits by which the windows are skipped
    roads: tuple[int, ...]  # px of road in their cores
    pixels: int  # of the tile

    @property
    def counts(self) -> bool:
        """Whether the tile has road enough to count."""
        return sum(self.roads) >= self.pixels * SHARE

    def skipped(self, level: int) -> int:
        """Windows that a limit skips."""
        return sum(least <= level for least in self.levels)

    def lost(self, level: int) -> int:
        """Px of road in them."""
        return sum(road for least, road in zip(self.levels, self.roads, strict=True) if least <= level)


@dataclass(frozen=True)
class Row:
    """What a limit does on some tiles."""

    level: int
    tiles: int  # with road
    windows: int  # of all tiles
    skipped: float  # share of them
    missed: float  # mean share of a tile's road
    bound: float  # of that, with the confidence asked for
    pixels: float  # share of all road's pixels that is missed


@dataclass(frozen=True)
class FoundLimit:
    """The limit that was found, and what it does on the tiles of the calibration and on those kept back."""

    asked: float
    confidence: float
    threshold: float  # of the large network
    views: int  # of the large network
    halo: int  # px
    labelled: int  # tiles whose label confirmed the road
    chosen: Row
    held: Row
    rows: tuple[Row, ...]  # of some limits, the strictest first

    def to_json(self) -> dict[str, Any]:
        """Plain values: the fields."""
        return asdict(self)


def find_limit(
    scout: Segmenter, large: Segmenter, tiles: Sequence[TileFile], how: ScoutOptions, tick: Tick = ignore
) -> FoundLimit:
    """Find the greatest limit whose missed road is bounded as asked.

    `tick` is called with (tiles done, all, the tile's id). One tile at a time is in memory.

    Raises:
        BadInput: There are too few tiles for the bound.
        CheckFailed: No limit is good enough, none saves anything, or the tiles kept back contradict it.
    """
    order = np.random.default_rng(SEED).permutation(len(tiles))
    back = set(order[: int(len(tiles) * HELD_BACK)].tolist())
    enough(len(tiles) - len(back), len(tiles) - len(back), how)
    seen = list(looked_at(scout, large, tiles, how, tick))
    kept = [one for i, one in enumerate(seen) if i not in back]
    enough(sum(one.counts for one in kept), len(kept), how)
    level = greatest(kept, how)
    chosen = row_of(kept, level, how.confidence)
    if not chosen.skipped:
        raise CheckFailed(
            f"the scout is sure of no window: up to level {level} none is skipped, so it would save nothing; "
            f"train it longer on such tiles, or allow more than --missed {how.missed:g}"
        )
    shown = sorted({*SHOWN, level, min(level + 1, HIGHEST)})
    held = row_of([seen[i] for i in sorted(back)], chosen.level, how.confidence)
    contradicted([seen[i] for i in sorted(back)], held, how)
    return FoundLimit(
        asked=how.missed,
        confidence=how.confidence,
        threshold=large.threshold,
        views=len(large.spec.views) if how.views is None else how.views,
        halo=large.halo,
        labelled=sum(tile.label is not None for tile in tiles),
        chosen=chosen,
        held=held,
        rows=tuple(row_of(kept, one, how.confidence) for one in shown),
    )


def looked_at(
    scout: Segmenter, large: Segmenter, tiles: Sequence[TileFile], how: ScoutOptions, tick: Tick
) -> Iterator[Seen]:
    """What both make of each tile."""
    side = large.spec.tile
    for done, tile in enumerate(tiles, 1):
        image, label = read_tile(tile)
        with within(f"tile {tile.id}"):
            road = large.mask(image, how.views) > 0
            if label is not None:
                road &= label
            height, width = road.shape
            windows = cover(height, width, side, large.halo)
            levels = [scout.backend.start([square(image[w.outer], side)], ONE_VIEW, "level")()[0] for w in windows]
        roads = tuple(int(np.count_nonzero(road[w.core])) for w in windows)
        yield Seen(tile.id, tuple(map(least_limit, levels)), roads, road.size)
        tick(done, len(tiles), tile.id)


def enough(road: int, tiles: int, how: ScoutOptions) -> None:
    """Raise BadInput if so many tiles with road, of so many, cannot show the bound even where none is missed."""
    need = fewest(how.missed, how.confidence)
    if road >= need:
        return
    best = 1 - (1 - how.confidence) ** (1 / road) if road else 1.0
    instead = f"--missed {math.ceil(best * 1000) / 1000:g}, or " if best < 1 else ""
    found = f"{road} of {counted(tiles, 'tile')}"
    share = f" ({need * tiles / road:.0f} like these)" if 0 < road < tiles else ""
    raise BadInput(
        f"--missed {how.missed:g} with confidence {how.confidence:g} takes {counted(need, 'tile')} with road to "
        f"calibrate on, even if none is missed; without the quarter that is kept back there are {found}: "
        f"give {instead}more tiles{share}"
    )


def row_of(seen: Sequence[Seen], level: int, confidence: float) -> Row:
    """What a limit does on some tiles."""
    road, losses = [one for one in seen if one.counts], losses_of(seen, level)
    windows, pixels = sum(len(one.levels) for one in seen), sum(sum(one.roads) for one in seen)
    return Row(
        level=level,
        tiles=len(road),
        windows=windows,
        skipped=sum(one.skipped(level) for one in seen) / max(windows, 1),
        missed=sum(losses) / max(len(losses), 1),
        bound=upper_bound(losses, confidence, binary(seen)),
        pixels=sum(one.lost(level) for one in seen) / max(pixels, 1),
    )


def losses_of(seen: Sequence[Seen], level: int) -> list[float]:
    """The share of each tile's road that a limit skips."""
    return [one.lost(level) / sum(one.roads) for one in seen if one.counts]


def binary(seen: Sequence[Seen]) -> bool:
    """Whether a tile is lost as a whole or not at all: each is one window."""
    return all(len(one.levels) == 1 for one in seen)


def greatest(seen: Sequence[Seen], how: ScoutOptions) -> int:
    """The last limit before the first that may miss more than was asked for."""
    one_window = binary(seen)
    for level in range(HIGHEST + 1):
        losses = losses_of(seen, level)
        if p_value(len(losses), sum(losses), how.missed, one_window) > 1 - how.confidence:
            break
    else:
        return HIGHEST
    if level:
        return level - 1
    strict = row_of(seen, 0, how.confidence)
    raise CheckFailed(
        f"no limit is good enough: the strictest one skips {strict.skipped:.1%} of the windows and misses "
        f"{strict.missed:.2%} of a tile's road, at most {strict.bound:.2%}; train the scout longer on such tiles, "
        f"or allow --missed {math.ceil(strict.bound * 1000) / 1000:g}"
    )


def contradicted(seen: Sequence[Seen], held: Row, how: ScoutOptions) -> None:
    """Raise CheckFailed if the tiles that were kept back show that more is missed than was asked for."""
    low = lower_bound(losses_of(seen, held.level), how.confidence, binary(seen))
    if low > how.missed:
        raise CheckFailed(
            f"the tiles kept back contradict the limit: {held.missed:.2%} of a tile's road is missed there, at least "
            f"{low:.2%}, and --missed allows {how.missed:.2%}; give tiles that are drawn alike, such as every tenth of "
            f"all your flights"
        )
