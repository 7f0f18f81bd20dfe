"""The conditions that a user's CI holds a result to.

A condition is a figure, > or <, and a limit: `p99>1.1x` fails where p99 is more than 1.1 times the baseline's,
`p99>50ms` where it is more than 50 ms. It holds for each row of the run: each number of views, each rate.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlink.bench.headline import row_name
from dlink.bench.metrics import GROWTHS, METRICS, Row, key_of, rows_of, run_of, shown
from dlink.runtime.errors import BadInput

CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*(\d+(?:\.\d+)?)\s*([A-Za-z%0-9/]*)\s*")
FACTOR = "x"


@dataclass(frozen=True)
class Condition:
    """A condition under which a run fails."""

    text: str
    metric: str
    sign: str  # > or <
    limit: float  # in the row's unit, or a multiple of the baseline's
    factor: bool

    def needs_no_baseline(self) -> None:
        """Raise BadInput for a multiple of a baseline that nobody gave."""
        if self.factor:
            raise BadInput(f"--fail-if {self.text}: needs --baseline FILE, an earlier result")

    @classmethod
    def of(cls, text: str) -> "Condition":
        """Read `p99>1.1x` or `p99>50ms`."""
        found = CONDITION.fullmatch(text)
        if not found:
            raise BadInput(f"--fail-if {text}: must be a figure, > or <, and a limit, such as p99>1.1x or p99>50ms")
        metric, sign, number, unit = found.groups()
        if metric not in METRICS:
            raise BadInput(f"--fail-if {text}: no figure {metric}; there are {', '.join(METRICS)}")
        if unit == FACTOR and metric in GROWTHS:
            raise BadInput(
                f"--fail-if {text}: growth may be 0 or negative, so a multiple of the baseline's says nothing; give a "
                f"limit an hour, such as {metric}>2MB"
            )
        if unit == FACTOR:
            return cls(text, metric, sign, float(number), factor=True)
        units = METRICS[metric].units
        if unit not in units:
            known = [name or "no unit" for name in (*units, *([] if metric in GROWTHS else [FACTOR]))]
            raise BadInput(f"--fail-if {text}: the unit of {metric} is {' or '.join(known)}, got {unit or 'none'}")
        return cls(text, metric, sign, float(number) * units[unit], factor=False)


@dataclass(frozen=True)
class Held:
    """A condition held against one row."""

    condition: Condition
    row: str  # which row
    value: float
    before: float | None  # the baseline's

    @property
    def failed(self) -> bool:
        limit = self.condition.limit * (self.before or 0.0) if self.condition.factor else self.condition.limit
        return self.value > limit if self.condition.sign == ">" else self.value < limit

    def __str__(self) -> str:
        unit = METRICS[self.condition.metric].units
        words = f"{self.condition.text}: {self.condition.metric} with {self.row} is {shown(self.value, unit)}"
        if self.before and self.condition.metric not in GROWTHS:
            words += f", {self.value / self.before:.3g} times the baseline's {shown(self.before, unit)}"
        return words

    def to_json(self) -> dict[str, Any]:
        c = self.condition
        return {
            "condition": c.text, "row": self.row, "value": self.value, "baseline": self.before, "failed": self.failed,
        }  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """What is known of a run before it begins."""

    rows: tuple[Row, ...]  # views, rate, soak of each
    ground: bool = True  # whether the metres of a pixel are known
    gpu: bool = False  # whether a GPU runs the model


def check_possible(conditions: Sequence[Condition], planned: Planned, baseline: Row | None) -> None:
    """Raise BadInput for a figure that the run, or the baseline beside it, can never have."""
    for condition in conditions:
        metric, where = METRICS[condition.metric], f"--fail-if {condition.text}"
        for row in planned.rows:
            if run_of(row) not in metric.runs:
                raise BadInput(f"{where}: {run_of(row)} has no {condition.metric}; {' and '.join(metric.runs)} has it")
            if words := lacking(condition, row, baseline):
                raise BadInput(words)
        if condition.metric == "km2_per_h" and not planned.ground:
            raise BadInput(f"{where}: the ground is not known with --gsd native; --gsd METRES says it")
        if condition.metric == "gpu_memory_growth" and not planned.gpu:
            raise BadInput(f"{where}: is for plans, which a GPU runs")


def lacking(condition: Condition, row: Row, baseline: Row | None) -> str:
    """Why the baseline has nothing of which the condition could be a multiple; empty if it has."""
    if not condition.factor:
        return ""
    if baseline is None:
        return f"--fail-if {condition.text}: needs --baseline FILE, an earlier result"
    value = earlier(condition, row, baseline)
    if value == 0:
        return (
            f"--fail-if {condition.text}: the baseline's {condition.metric} of {row_name(row)} is 0, and so is every "
            f"multiple of it; give a limit"
        )
    if value is None:
        return (
            f"--fail-if {condition.text}: the baseline has no {condition.metric} of {row_name(row)}; "
            f"measure it again with the same options"
        )
    return ""


def earlier(condition: Condition, row: Row, baseline: Row | None) -> float | None:
    """The baseline's figure for a row of as many views, at the same rate."""
    alike = [each for each in rows_of(baseline) if key_of(each) == key_of(row)] if baseline else []
    return alike[-1].get(METRICS[condition.metric].key) if alike else None


def hold(conditions: Sequence[Condition], result: Row, baseline: Row | None) -> tuple[list[Held], list[str]]:
    """Each condition against each row of the runs that have its figure, and what could not be held, in words.

    It raises nothing for a figure that is missing: what was measured is to be written first.
    """
    held, missing = [], []
    for condition in conditions:
        metric = METRICS[condition.metric]
        for row in (row for row in rows_of(result) if run_of(row) in metric.runs):
            if row.get(metric.key) is None:
                missing.append(f"--fail-if {condition.text}: this run has no {condition.metric} of {row_name(row)}")
            elif words := lacking(condition, row, baseline):
                missing.append(words)
            else:
                before = earlier(condition, row, baseline)
                held.append(Held(condition, row_name(row), row[metric.key], before))
    return held, missing
