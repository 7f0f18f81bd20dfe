"""The conditions that a user's CI holds a result to.

A condition is a figure, > or <, and a limit: `p99>1.1x` fails where p99 is more than 1.1 times the baseline's,
`p99>50ms` where it is more than 50 ms. It holds for each row of the run: each number of views, each rate.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlink.bench.headline import row_name
from dlink.bench.metrics import GROWTHS, METRICS, Row, key_of, rows_of, shown
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
        units = METRICS[metric][1]
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
        unit = METRICS[self.condition.metric][1]
        words = f"{self.condition.text}: {self.condition.metric} with {self.row} is {shown(self.value, unit)}"
        if self.before and self.condition.metric not in GROWTHS:
            words += f", {self.value / self.before:.3g} times the baseline's {shown(self.before, unit)}"
        return words

    def to_json(self) -> dict[str, Any]:
        c = self.condition
        return {
            "condition": c.text, "row": self.row, "value": self.value, "baseline": self.before, "failed": self.failed,
        }  # fmt: skip


def hold(conditions: Sequence[Condition], result: Row, baseline: Row | None) -> list[Held]:
    """Each condition against each row that has its figure."""
    before = {key_of(row): row for row in rows_of(baseline)} if baseline else {}
    found = []
    for condition in conditions:
        if baseline is None:
            condition.needs_no_baseline()
        key = METRICS[condition.metric][0]
        rows = [row for row in rows_of(result) if row.get(key) is not None]
        if not rows:
            raise BadInput(f"--fail-if {condition.text}: this run has no {condition.metric}")
        for row in rows:
            earlier = (before.get(key_of(row)) or {}).get(key)
            if condition.factor and not earlier:
                raise BadInput(
                    f"--fail-if {condition.text}: the baseline has no {condition.metric} of {row_name(row)}; "
                    f"measure it again with the same options"
                )
            found.append(Held(condition, row_name(row), row[key], earlier))
    return found
