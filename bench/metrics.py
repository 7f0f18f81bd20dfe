"""The figures of a result by the names that a condition has for them, and a result's rows."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

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
