"""An earlier result beside a new one, and the conditions that a user's CI holds it to.

A condition is a figure, > or <, and a limit: `p99>1.1x` fails where p99 is more than 1.1 times the baseline's,
`p99>50ms` where it is more than 50 ms. It holds for each row of the run: each number of views, each rate. A baseline is
what `dlink-bench --json` printed, or a file of rows that `--append` wrote, of which the last such row counts.

Only like is compared with like. What must be the same unless the user allows it: see UNLIKE. Another file of the same
network, another version of an engine or of dlink are what one compares, so they are said and not refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlink.bench.headline import row_name
from dlink.runtime.errors import BadInput
from dlink.runtime.values import load_json

Row = Mapping[str, Any]

CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*(\d+(?:\.\d+)?)\s*([A-Za-z%0-9/]*)\s*")
TIMES = {"ms": 1.0, "s": 1e3}  # of a row's milliseconds
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
PLAIN = {"": 1.0}
SHARES = {"": 1.0, "%": 0.01}
METRICS: Mapping[str, tuple[str, Mapping[str, float]]] = {  # the name: where it stands in a row, and its units
    "p50": ("p50_ms", TIMES),
    "p90": ("p90_ms", TIMES),
    "p99": ("p99_ms", TIMES),
    "max": ("max_ms", TIMES),
    "tiles_per_s": ("tiles_per_s", PLAIN),
    "mpx_per_s": ("mpx_per_s", PLAIN),
    "km2_per_h": ("km2_per_h", PLAIN),
    "joules": ("joules_per_tile", {"J": 1.0, "mJ": 1e-3}),
    "age_p50": ("age_p50_ms", TIMES),
    "age_p99": ("age_p99_ms", TIMES),
    "age_max": ("age_max_ms", TIMES),
    "dropped": ("dropped_share", SHARES),
    "achieved": ("achieved_per_s", PLAIN),
    "p50_change": ("p50_change", PLAIN),
    "p99_change": ("p99_change", PLAIN),
    "memory_growth": ("memory_bytes_per_h", BYTES),
    "gpu_memory_growth": ("gpu_memory_bytes_per_h", BYTES),
    "peak": ("peak_bytes", BYTES),
}
FACTOR = "x"
UNLIKE = ("engine", "precision", "tile", "network", "pictures", "machine")


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
        if unit == FACTOR:
            return cls(text, metric, sign, float(number), factor=True)
        units = METRICS[metric][1]
        if unit not in units:
            known = [name or "no unit" for name in (*units, FACTOR)]
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
        if self.before:
            words += f", {self.value / self.before:.3g} times the baseline's {shown(self.before, unit)}"
        return words

    def to_json(self) -> dict[str, Any]:
        c = self.condition
        return {
            "condition": c.text, "row": self.row, "value": self.value, "baseline": self.before, "failed": self.failed,
        }  # fmt: skip


def shown(value: float, units: Mapping[str, float]) -> str:
    """A value in the first of its units, sizes in MB."""
    unit = "MB" if units is BYTES else next(iter(units))
    return f"{value / units[unit]:.4g}" + (f" {unit}" if unit else "")


def read_baseline(path: Path) -> Row:
    """The result in a file, or the last one of a file of rows."""
    try:
        text = path.read_text()
    except UnicodeDecodeError as e:
        raise BadInput(f"{path}: not a result of dlink-bench, whose --json and --append write JSON") from e
    try:
        values = [load_json(text)]
    except ValueError:
        values = [parsed(line) for line in text.splitlines() if line.strip()]
    found = [value for value in values if isinstance(value, dict) and "network" in value and "latency" in value]
    if not found:
        raise BadInput(f"{path}: has no result of dlink-bench; dlink-bench MODEL --json > {path.name} writes one")
    last: Row = found[-1]
    return last


def parsed(line: str) -> Any:
    try:
        return load_json(line)
    except ValueError:
        return None  # a line that was cut off; append_row goes on after it


def rows_of(result: Row) -> list[Row]:
    """All rows of a result, each with what is known of the whole run."""
    soak = result.get("soak")
    rows = [*result["latency"], *(result.get("rate") or []), *([flat(soak)] if soak else [])]
    return [{**row, "peak_bytes": result.get("peak_bytes")} for row in rows]


def flat(soak: Row) -> Row:
    """A soak as a row: the figures of its last minute, and what has changed."""
    growth = {f"{name}_bytes_per_h": (soak.get(name) or {}).get("bytes_per_h") for name in ("memory", "gpu_memory")}
    last = soak["last"]
    return {**soak, "p50_ms": last["p50_ms"], "p99_ms": last["p99_ms"], **growth, "soak": True}


def key_of(row: Row) -> tuple[object, ...]:
    return row["views"], row.get("rate"), bool(row.get("soak"))


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


def facts_of(result: Row) -> dict[str, object]:
    """What two results must have in common, by the names of UNLIKE."""
    network, machine = result["network"], result["machine"]
    return {
        "engine": str(result["engine"]).partition(" ")[0],
        "precision": network["precision"],
        "tile": network["tile"],
        "network": f"{network['arch']} width {network['width']:g}",
        "pictures": result.get("tiles"),
        "machine": f"{machine['cpu']}, {machine['cores']} cores",
    }


def unlike(result: Row, baseline: Row, path: Path, allowed: Sequence[str]) -> list[str]:
    """What differs and may: sentences. What differs and may not raises BadInput."""
    ours, theirs = facts_of(result), facts_of(baseline)
    differ = [name for name in UNLIKE if ours[name] != theirs[name]]
    if refused := [name for name in differ if name not in allowed]:
        words = "; ".join(f"its {name} is {theirs[name]}, this run's is {ours[name]}" for name in refused)
        options = " ".join(f"--allow {name}" for name in refused)
        raise BadInput(f"{path}: cannot be compared: {words}; {options} compares them all the same")
    said = [f"another {name} than the baseline's {theirs[name]}" for name in differ]
    for name, found, before in (
        ("file", result["file"]["sha256"], baseline["file"]["sha256"]),
        ("version of the engine", result["engine"], baseline["engine"]),
        ("version of dlink", version_of(result), version_of(baseline)),
    ):
        if found != before:
            said.append(f"another {name} than the baseline's {before[:40]}")
    if baseline.get("headline") is False:
        said.append("the baseline is no headline: " + "; ".join(baseline.get("no_headline", [])))
    return said


def version_of(result: Row) -> str:
    return str(result["machine"]["versions"].get("dlink", ""))
