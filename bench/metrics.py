"""The figures of a result by the names that a condition has for them, and a result's rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

TIMES = {"ms": 1.0, "s": 1e3}  # of a row's milliseconds
BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
PLAIN = {"": 1.0}
SHARES = {"": 1.0, "%": 0.01}
LATENCY, RATE, SOAK = "a run of one tile after the other", "a run with --rate", "a run with --soak"
ALL = (LATENCY, RATE, SOAK)


@dataclass(frozen=True)
class Metric:
    """A figure: where it stands in a row, its units, and the runs that have it."""

    key: str
    units: Mapping[str, float]
    runs: tuple[str, ...] = ALL


METRICS: Mapping[str, Metric] = {
    "p50": Metric("p50_ms", TIMES),
    "p90": Metric("p90_ms", TIMES, (LATENCY, RATE)),
    "p99": Metric("p99_ms", TIMES),
    "max": Metric("max_ms", TIMES, (LATENCY, RATE)),
    "tiles_per_s": Metric("tiles_per_s", PLAIN, (LATENCY,)),
    "mpx_per_s": Metric("mpx_per_s", PLAIN, (LATENCY,)),
    "km2_per_h": Metric("km2_per_h", PLAIN, (LATENCY, RATE)),
    "joules": Metric("joules_per_tile", {"J": 1.0, "mJ": 1e-3}),
    "age_p50": Metric("age_p50_ms", TIMES, (RATE,)),
    "age_p99": Metric("age_p99_ms", TIMES, (RATE,)),
    "age_max": Metric("age_max_ms", TIMES, (RATE,)),
    "dropped": Metric("dropped_share", SHARES, (RATE,)),
    "achieved": Metric("achieved_per_s", PLAIN, (RATE,)),
    "p50_change": Metric("p50_change", PLAIN, (SOAK,)),
    "p99_change": Metric("p99_change", PLAIN, (SOAK,)),
    "memory_growth": Metric("memory_bytes_per_h", BYTES, (SOAK,)),
    "gpu_memory_growth": Metric("gpu_memory_bytes_per_h", BYTES, (SOAK,)),
    "peak": Metric("peak_bytes", BYTES),
}
GROWTHS = ("memory_growth", "gpu_memory_growth")  # may be 0 or negative


def shown(value: float, units: Mapping[str, float]) -> str:
    """A value in the first of its units, sizes in MB."""
    unit = "MB" if units is BYTES else next(iter(units))
    return f"{value / units[unit]:.4g}" + (f" {unit}" if unit else "")


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


def run_of(row: Row) -> str:
    """Which kind of run a row is of: LATENCY, RATE or SOAK."""
    return SOAK if row.get("soak") else RATE if row.get("rate") else LATENCY
