"""A scout: a small network looks at every tile first, and tiles in which it is sure of no road skip the large one.

A skipped tile has no road: probability 0, level 0, mask 0. `dlink-scout` calibrates when the scout is sure enough, with
a bound on the road that is missed; scout_limit.py says what the bound means. The scout takes one view. The other tiles
get the views that are asked for.
"""

import math
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlink.runtime.backend import (
    Backend,
    OutputForm,
    Probs,
    Roads,
    Running,
    Spent,
    Tiles,
    check_form,
    check_tiles,
)
from dlink.runtime.errors import BadInput, NoProbability
from dlink.runtime.scout_limit import ScoutLimit
from dlink.runtime.spec import Spec
from dlink.runtime.views import ALL, check_views

ONE_VIEW = ALL[:1]
ALIKE = 1.1  # ground resolutions within a tenth are one, as in imagery/


@dataclass
class Tally:
    """Tiles so far, and how many of them the large network has skipped."""

    tiles: int = 0
    skipped: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, tiles: int, skipped: int) -> None:
        with self.lock:
            self.tiles += tiles
            self.skipped += skipped


class Scouted:
    """A Backend of two: the scout looks at all tiles, and the large network computes those that may have road.

    An engine's failure is the call's, whichever of the two it is of. There is no falling back from one to the other.

    Args:
        scout: The small network. Its Spec has the limit. The Scouted closes both.
        large: The large network; for adaptive views an Adaptive around it.
        tally: Counts the tiles; `over` shares it.

    Raises:
        BadInput: The scout is not calibrated, or the two take different tiles.
    """

    def __init__(self, scout: Backend, large: Backend, tally: Tally | None = None) -> None:
        self.limit = limit_of(scout.spec, "the scout", large.spec, "the large network")
        self.scout, self.large, self.tally = scout, large, tally or Tally()
        self.spec, self.max_tiles, self.slots = large.spec, large.max_tiles, large.slots
        self.engine = f"{large.engine}; scout: {scout.engine}"
        self.executed = large.executed  # of the tiles that are not skipped

    @property
    def tiles(self) -> int:
        """Tiles so far."""
        return self.tally.tiles

    @property
    def skipped(self) -> int:
        """Tiles that the large network has skipped so far."""
        return self.tally.skipped

    @property
    def spent(self) -> Spent:
        """The time that both have spent so far, as far as they count it."""
        each = [getattr(backend, "spent", Spent()) for backend in (self.scout, self.large)]
        return Spent(sum(s.prepare for s in each), sum(s.network for s in each), sum(s.undo for s in each))

    def over(self, large: Backend) -> "Scouted":
        """The same scout in front of another backend, with one count."""
        return Scouted(self.scout, large, self.tally)

    def tiles_per_batch(self, views: Sequence[int] | None = None) -> int:
        return self.large.tiles_per_batch(views)

    def start(
        self, tiles: Tiles, views: Sequence[int] | None = None, form: OutputForm = "probability", threshold: float = 0.5
    ) -> Running:
        check_form(form)
        return self.begun(tiles, views, form, lambda some: self.large.start(some, views, form, threshold))

    def probabilities(self, tiles: Tiles, views: Sequence[int] | None = None) -> Probs:
        def compute(some: Tiles) -> Running:
            prob = self.large.probabilities(some, views)
            return lambda: prob

        found: Probs = self.begun(tiles, views, "probability", compute)()
        return found

    def begun(
        self, tiles: Tiles, views: Sequence[int] | None, form: OutputForm, compute: Callable[[Tiles], Running]
    ) -> Running:
        """Let the scout look, and begin to compute the tiles that are not skipped."""
        check_views(self.spec.views if views is None else views)
        check_tiles(tiles, self.spec, self.max_tiles)
        levels, faults = self.looked(tiles)
        wanted = [i for i, level in enumerate(levels) if i not in faults and not self.limit.skips(level)]
        self.tally.add(len(tiles), len(tiles) - len(faults) - len(wanted))
        out = Parts(len(tiles), self.spec.tile, form, wanted, faults)
        return out.of(compute, [tiles[i] for i in wanted])

    def looked(self, tiles: Tiles) -> tuple[Roads, list[int]]:
        """The scout's levels of all tiles, and the tiles whose result is not a probability."""
        levels: list[Roads] = []
        faults: list[int] = []
        most = self.scout.tiles_per_batch(ONE_VIEW)
        for i in range(0, len(tiles), most):
            try:
                levels += list(self.scout.start(tiles[i : i + most], ONE_VIEW, "level")())
            except NoProbability as e:
                levels += list(e.roads)
                faults += [i + k for k in e.tiles]
        return np.stack(levels), faults

    def close(self) -> None:
        try:
            self.scout.close()
        finally:
            self.large.close()


@dataclass(frozen=True)
class Parts:
    """The roads of a call, of which some tiles are computed and the others have none."""

    tiles: int
    side: int
    form: OutputForm
    wanted: list[int]  # the tiles that are computed
    faults: list[int]  # of the scout

    def of(self, compute: Callable[[Tiles], Running], tiles: Tiles) -> Running:
        """Begin to compute the wanted tiles, whose pixels are given."""
        fault: NoProbability | None = None
        running: Running | None = None
        try:
            running = compute(tiles) if self.wanted else None
        except NoProbability as e:  # raised by the result: the other tiles of the call are sound
            fault = e
        return lambda: self.joined(running, fault)

    def joined(self, running: Running | None, fault: NoProbability | None) -> Roads:
        """Wait for the computed tiles. Raises NoProbability with the roads of all tiles if some are worthless."""
        roads: Roads = np.zeros(
            (self.tiles, self.side, self.side), np.float32 if self.form == "probability" else np.uint8
        )
        try:
            if running:
                roads[self.wanted] = running()
        except NoProbability as e:
            fault = e
        if fault:
            roads[self.wanted] = fault.roads
        if faults := sorted([*self.faults, *(self.wanted[i] for i in (fault.tiles if fault else ()))]):
            raise NoProbability.of(faults, roads, "the scout" if self.faults else "the network")
        return roads


def limit_of(scout: Spec, scouts: object, large: Spec, larges: object) -> ScoutLimit:
    """The limit of a scout that fits a large network. `scouts` and `larges` are their names, for the message.

    Raises:
        BadInput: The scout is not calibrated, or the two take different tiles or find different things.
    """
    check_alike(scout, scouts, large, larges)
    if scout.scout is None:
        raise BadInput(
            f"{scouts}: is not calibrated as a scout; do it on your tiles: "
            f"dlink-scout {larges} {scouts} TILES -o scouted.onnx"
        )
    return scout.scout


def check_alike(scout: Spec, scouts: object, large: Spec, larges: object) -> None:
    """Raise BadInput if two networks take different tiles or find different things."""
    again = f"export both alike, then calibrate: dlink-scout {larges} {scouts} TILES -o scouted.onnx"
    for what, small, big in (
        ("tiles of px", scout.tile, large.tile),
        ("bands", ", ".join(scout.bands), ", ".join(large.bands)),
        ("a stretch of", scout.stretch or "none", large.stretch or "none"),
        ("a target of", scout.target, large.target),
    ):
        if small != big:
            raise BadInput(f"{scouts}: has {what} {small}, and {larges} {big}; {again}")
    if not 1 / ALIKE <= scout.gsd_m / large.gsd_m <= ALIKE:
        raise BadInput(f"{scouts}: is for {scout.gsd_m:g} m a pixel, and {larges} for {large.gsd_m:g} m; {again}")


def check_scout(limit: ScoutLimit, scouts: object, larges: object, marks: Collection[str], threshold: float) -> None:
    """Raise BadInput unless a scout's limit is for this large network and threshold.

    `marks` are the SHA-256s that the large network goes by: its file's, and that of the file a plan was built from.
    """
    again = f"dlink-scout {larges} {scouts} TILES -o scouted.onnx"
    if limit.large_sha256 not in marks:
        raise BadInput(f"{scouts}: was calibrated for another file than {larges}; calibrate it for this one: {again}")
    if threshold < limit.threshold and not math.isclose(threshold, limit.threshold):
        raise BadInput(
            f"{scouts}: was calibrated for roads above {limit.threshold:g}, and a threshold of {threshold:g} draws "
            f"more; take that one, or calibrate it for a model with this threshold (dlink-tune): {again}"
        )
