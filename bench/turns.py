"""Procedures measured in turn, so that what the machine does meanwhile slows down all of them alike."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from dlink.bench.latency import timed
from dlink.runtime.segmenter import Views


@dataclass(frozen=True)
class Beside:
    """How many times as fast the first procedure is as another."""

    other: str
    median: float
    least: float
    most: float
    other_s: float  # median


@dataclass(frozen=True)
class Turns:
    """Procedures with one number of views."""

    views: Views
    rounds: int
    ours_s: float  # median
    beside: tuple[Beside, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def in_turn(procedures: Mapping[str, Callable[[], object]], views: Views, rounds: int) -> Turns:
    """Run warmed-up procedures in turn; in each round another one goes first. The first of them is ours."""
    names = list(procedures)
    took: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            took[name].append(timed(procedures[name]))
    ours = took[names[0]]
    beside = []
    for name in names[1:]:
        ratios = [theirs / own for theirs, own in zip(took[name], ours, strict=True)]
        beside.append(Beside(name, median(ratios), min(ratios), max(ratios), median(took[name])))
    return Turns(views, rounds, median(ours), tuple(beside))
