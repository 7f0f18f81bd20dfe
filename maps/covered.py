"""Which stretches of new roads a map has already, and which parts of them are left.

A piece of a line is covered where it runs along an existing line, with all of it within the tolerance. From pieces to
stretches:

1. A gap shorter than `shortest` between two covered stretches is covered too: a line that strays a little.
2. A covered stretch shorter than two tolerances with uncovered ones on both sides is none: a crossing at a low angle.
3. The same at a line's end where it meets others: a fork at a low angle, or a junction near an existing road.
4. An uncovered end shorter than `shortest` goes, unless it leads to other new roads. So do short lines between places
   that are covered.

What goes by 1 and 4 is a rest, and not covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlink.maps.near import Walk

Flags = NDArray[np.bool_]


@dataclass
class Run:
    """A stretch of a line, from and to so many metres from its begin."""

    covered: bool
    begin: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class Part:
    """A stretch of a line that is left. Its ends are nodes: the line's own, or new numbers where it was cut."""

    line: int
    begin: float
    end: float
    nodes: tuple[int, int]


@dataclass(frozen=True)
class Left:
    """What is left of lines."""

    parts: list[Part]
    touching: set[int]  # nodes at which a covered stretch ends
    gone: Flags  # (P,) pieces of the walk that were dropped


def left_of(walk: Walk, covered: Flags, ends: NDArray[np.int64], tolerance: Sequence[float], shortest: float) -> Left:
    """The parts of lines that are not covered. `ends` (L, 2) are their nodes, `tolerance` (L,) is in metres."""
    bounds = np.searchsorted(walk.line, np.arange(len(ends) + 1))
    lines = [
        evened(runs_of(walk, covered, bounds[i], bounds[i + 1]), 2 * tolerance[i], shortest) for i in range(len(ends))
    ]
    degrees = np.bincount(ends.reshape(-1))
    firm = {
        node
        for i, runs in enumerate(lines)
        for node, run in zip(ends[i].tolist(), (runs[0], runs[-1]) if runs else (), strict=False)
        if run.covered and (len(runs) == 1 or run.length >= 2 * tolerance[i])
    }
    for i, runs in enumerate(lines):
        for node, k in zip(ends[i].tolist(), (0, -1), strict=True):
            if len(runs) > 1 and runs[k].covered and degrees[node] > 1 and runs[k].length < 2 * tolerance[i]:
                beside = runs[1] if k == 0 else runs[-2]
                runs[k].covered = node in firm and beside.length < shortest
        lines[i] = merged(runs)
    for i, runs in enumerate(lines):
        loose = [node in firm or degrees[node] == 1 for node in ends[i].tolist()]
        drop_ends(runs, loose, any(node in firm for node in ends[i].tolist()), shortest)
        lines[i] = merged(runs)
    return cut(lines, ends, gone_of(walk, bounds, lines))


def runs_of(walk: Walk, covered: Flags, start: int, stop: int) -> list[Run]:
    """The stretches of one line, whose pieces are start..stop."""
    return merged(
        [
            Run(bool(flag), begin, begin + length)
            for flag, begin, length in zip(
                covered[start:stop], walk.start[start:stop].tolist(), walk.length[start:stop].tolist(), strict=True
            )
        ]
    )


def merged(runs: list[Run]) -> list[Run]:
    """Stretches of one kind that follow each other as one."""
    found: list[Run] = []
    for run in runs:
        if found and found[-1].covered == run.covered:
            found[-1] = Run(run.covered, found[-1].begin, run.end)
        else:
            found.append(run)
    return found


def evened(runs: list[Run], grazing: float, shortest: float) -> list[Run]:
    """Without short gaps, and then without short covered stretches, both with neighbours on both sides."""
    for covered, limit in ((False, shortest), (True, grazing)):
        for run in runs[1:-1]:
            if run.covered == covered and run.length < limit:
                run.covered = not covered
        runs = merged(runs)
    return runs


def drop_ends(runs: list[Run], loose: list[bool], firm: bool, shortest: float) -> None:
    """Mark the short ends of a line, which lead nowhere, as covered. `loose`: whether no new road goes on there."""
    if len(runs) == 1 and not runs[0].covered and all(loose) and firm and runs[0].length < shortest:
        runs[0].covered = True
    if len(runs) > 1:
        for run, free in zip((runs[0], runs[-1]), loose, strict=True):
            if not run.covered and free and run.length < shortest:
                run.covered = True


def gone_of(walk: Walk, bounds: NDArray[np.int64], lines: list[list[Run]]) -> Flags:
    """Which pieces lie in covered stretches."""
    gone = np.zeros(len(walk.line), np.bool_)
    middle = walk.start + walk.length / 2
    for runs, start, stop in zip(lines, bounds[:-1], bounds[1:], strict=True):
        for run in runs:
            if run.covered:
                gone[start:stop] |= (middle[start:stop] > run.begin) & (middle[start:stop] < run.end)
    return gone


def cut(lines: list[list[Run]], ends: NDArray[np.int64], gone: Flags) -> Left:
    """The parts between covered stretches."""
    parts: list[Part] = []
    touching: set[int] = set()
    new = int(ends.max(initial=-1)) + 1
    for i, runs in enumerate(lines):
        nodes = ends[i].tolist()
        for k, run in enumerate(runs):
            if run.covered:
                touching |= {node for node, at_end in zip(nodes, (k == 0, k == len(runs) - 1), strict=True) if at_end}
                continue
            first, last = nodes
            if k:
                first, new = new, new + 1
                touching.add(first)
            if k < len(runs) - 1:
                last, new = new, new + 1
                touching.add(last)
            parts.append(Part(i, run.begin, run.end, (first, last)))
    return Left(parts, touching, gone)
