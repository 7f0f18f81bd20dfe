"""An earlier result beside a new one: which may be compared.

A baseline is what `dlink-bench --json` printed, or a file of rows that `--append` wrote, of which the last such row
counts. Only like is compared with like. What must be the same unless the user allows it: see UNLIKE. Another file of
the same network, another version of an engine or of dlink are what one compares, so they are said and not refused.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlink.bench.metrics import Row
from dlink.runtime.errors import BadInput
from dlink.runtime.values import load_json

THREADS = re.compile(r", (\d+) threads\b")  # in an engine's words
UNLIKE = ("engine", "precision", "tile", "network", "pictures", "machine")


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


def threads_of(engine: str) -> int | None:
    """The processor's threads that an engine says it has, a scout's left out; None if it says nothing of them."""
    found = THREADS.search(engine.partition("; scout: ")[0])
    return int(found[1]) if found else None


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
