"""An earlier result beside a new one: which may be compared.

A baseline is what `dlink-bench --json` printed, or a file of rows that `--append` wrote, of which the last such row
counts. Only like is compared with like. What must be the same unless the user allows it: see UNLIKE. Another file of
the same network, another version of an engine or of dlink are what one compares, so they are said and not refused.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlink.bench.metrics import METRICS, Row, rows_of
from dlink.runtime.errors import BadInput
from dlink.runtime.values import load_json

THREADS = re.compile(r", (\d+) threads\b")  # in an engine's words
LARGEST = 1e300
NUMBER, NONE, TEXT = (int, float), (type(None),), (str,)
PLACES: Mapping[str, tuple[type, ...]] = {  # what is read of a result
    "file.sha256": TEXT,
    "network.arch": TEXT,
    "network.width": NUMBER,
    "network.tile": (int,),
    "network.precision": TEXT,
    "engine": TEXT,
    "tiles": TEXT + NONE,
    "machine.cpu": TEXT,
    "machine.cores": (int, *NONE),
    "machine.versions": (dict,),
    "latency": (list,),
    "rate": (list, *NONE),
    "soak": (dict, *NONE),
    "no_headline": (list, *NONE),
    "how": (dict, *NONE),
    "how.threads": (int, *NONE),
    "how.slots": (int, *NONE),
    "how.halo": (int, *NONE),
    "how.gsd_m": NUMBER + NONE,
    "how.soak_s": NUMBER + NONE,
    "how.scout": (dict, *NONE),
}
SCOUT_PLACES: Mapping[str, tuple[type, ...]] = {"sha256": TEXT, "arch": TEXT, "width": NUMBER, "precision": TEXT}
SOAK_PLACES: Mapping[str, tuple[type, ...]] = {
    "seconds": NUMBER,
    "last.p50_ms": NUMBER,
    "last.p99_ms": NUMBER,
    "memory": (dict, *NONE),
    "gpu_memory": (dict, *NONE),
}
ROW_PLACES: Mapping[str, tuple[type, ...]] = {
    "views": (int, str),
    "rate": NUMBER + NONE,
    **{metric.key: NUMBER + NONE for metric in METRICS.values()},
}
UNLIKE = (
    "engine", "precision", "tile", "network", "pictures", "machine", "threads", "scout", "gsd", "slots", "halo", "soak",
)  # fmt: skip
ALIKE = 1.1  # lengths of a soak within a tenth are one
UNNAMED = "a scout that the file does not describe"


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
    if fault := fault_of(last):
        raise BadInput(f"{path}: is no whole result of dlink-bench: {fault}; measure it again with --json or --append")
    return last


def parsed(line: str) -> Any:
    try:
        return load_json(line)
    except ValueError:
        return None  # a line that was cut off; append_row goes on after it


def fault_of(result: Row) -> str:
    """What is missing in a result, or of another type than dlink-bench writes; empty if there is nothing."""
    for place, kinds in PLACES.items():
        if not fits(value := at(result, place), kinds):
            return f"its {place} is {in_words(value)}"
    rows = [*result["latency"], *(result.get("rate") or [])]
    for row in rows:
        if not isinstance(row, dict):
            return f"it has a row {in_words(row)}"
    for part, places in (("soak", SOAK_PLACES), ("how.scout", SCOUT_PLACES)):
        for place, kinds in places.items() if at(result, part) else ():
            if not fits(value := at(result, f"{part}.{place}"), kinds):
                return f"its {part}.{place} is {in_words(value)}"
    for row in rows_of(result):
        for key, kinds in ROW_PLACES.items():
            if not fits(value := row.get(key), kinds):
                return f"the {key} of a row is {in_words(value)}"
    return ""


def at(values: Any, place: str) -> Any:
    """The value at a place such as machine.cpu; None where there is none."""
    for name in place.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a JSON value is of one of these types. true is no number, and a number is no larger than a float."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    return not isinstance(value, NUMBER) or abs(value) <= LARGEST


def in_words(value: Any) -> str:
    return "missing" if value is None else f"{value!r:.40}"


def threads_of(engine: str) -> int | None:
    """The processor's threads that an engine says it has, a scout's left out; None if it says nothing of them."""
    found = THREADS.search(engine.partition("; scout: ")[0])
    return int(found[1]) if found else None


def facts_of(result: Row) -> dict[str, object]:
    """What two results must have in common, by the names of UNLIKE. None: the file does not say it."""
    network, machine = result["network"], result["machine"]
    return {
        "engine": str(result["engine"]).partition(" ")[0],
        "precision": network["precision"],
        "tile": network["tile"],
        "network": f"{network['arch']} width {network['width']:g}",
        "pictures": result.get("tiles"),
        "machine": f"{machine['cpu']}, {machine['cores']} cores",
        **how_facts(result),
    }


def how_facts(result: Row) -> dict[str, object]:
    """How the model was opened and run. Results of before have less of it."""
    how, soak, engine = result.get("how") or {}, result.get("soak") or {}, str(result["engine"])
    metres = how.get("gsd_m")
    return {
        "threads": how.get("threads") or threads_of(engine),
        "scout": scout_fact(how, engine),
        "gsd": (f"{metres:g} m" if metres else "native") if "gsd_m" in how else None,
        "slots": how.get("slots"),
        "halo": f"{how['halo']} px" if how.get("halo") is not None else None,
        "soak": float(how.get("soak_s") or soak.get("seconds") or 0),
    }


def scout_fact(how: Row, engine: str) -> str | None:
    """A scout's network. Its file is another one after each calibration, and that is only said."""
    if scout := how.get("scout"):
        return f"{scout['arch']} width {scout['width']:g}, {scout['precision']}"
    return UNNAMED if "; scout: " in engine else "none"


def alike(name: str, ours: Any, theirs: Any) -> bool | None:
    """Whether a fact is the same in both; None where one of them does not say it."""
    if ours == theirs:
        return True
    if ours is None or theirs is None or (UNNAMED in (ours, theirs) and "none" not in (ours, theirs)):
        return None
    if name == "soak" and ours and theirs:
        return bool(max(ours, theirs) <= ALIKE * min(ours, theirs))
    return False


def fact_in_words(name: str, value: Any) -> str:
    """A soak's length with its unit; other facts as they are."""
    if name == "soak":
        return f"{value:g} s" if value else "none"
    return str(value)


def unlike(result: Row, baseline: Row, path: Path, allowed: Sequence[str]) -> list[str]:
    """What differs and may: sentences. What differs and may not raises BadInput."""
    ours, theirs = facts_of(result), facts_of(baseline)
    same = {name: alike(name, ours[name], theirs[name]) for name in UNLIKE}
    differ = [name for name in UNLIKE if same[name] is False]
    if refused := [name for name in differ if name not in allowed]:
        words = "; ".join(
            f"its {name} is {fact_in_words(name, theirs[name])}, this run's is {fact_in_words(name, ours[name])}"
            for name in refused
        )
        options = " ".join(f"--allow {name}" for name in refused)
        raise BadInput(f"{path}: cannot be compared: {words}; {options} compares them all the same")
    said = [f"another {name} than the baseline's {fact_in_words(name, theirs[name])}" for name in differ]
    if unsaid := [name for name in UNLIKE if same[name] is None]:
        said.append(f"the baseline does not say its {', '.join(unsaid)}, and that may differ")
    for name, found, before in (
        ("file", result["file"]["sha256"], baseline["file"]["sha256"]),
        ("scout's file", at(result, "how.scout.sha256"), at(baseline, "how.scout.sha256")),
        ("version of the engine", result["engine"], baseline["engine"]),
        ("version of dlink", version_of(result), version_of(baseline)),
    ):
        if found != before and found and before:
            said.append(f"another {name} than the baseline's {before[:40]}")
    if baseline.get("headline") is False:
        said.append("the baseline is no headline: " + "; ".join(map(str, baseline.get("no_headline") or [])))
    return said


def version_of(result: Row) -> str:
    return str(result["machine"]["versions"].get("dlink", ""))
