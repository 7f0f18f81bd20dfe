"""What the figures are held against: one table, computed from the rows that the stages leave.

A row is a line of results.jsonl: {"when", "gpu", "driver", "tensorrt", "stage", "step", ...} and either how a step
ended ("ok", "seconds", "said") or what it measured. `tensorrt` is empty where none was used. Later rows count before
earlier ones.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = Sequence[Row]
Figure: TypeAlias = Callable[[Rows], float | None]

TABLE_TILES, TABLE_VIEWS = 1, 8  # what the figures of the runtime's table are of
SIDE = 1024  # px, of the tiles that times of the full size are of
SOAK = 500  # tiles, the least that says something
FP16_MS = 4.3  # for 8 x 1024 on an H200; elsewhere in the ratio of the cards' matrix speeds
REFERENCE = r"\bH200\b"  # in its name; a GH200 is another
REFERENCE_TFLOPS = 788.0  # of card.py's product there: PyTorch 2.11 on random numbers, October 2026
NEEDED = ("fp16", "int8")  # kinds of files without which a figure of the files is not whole
MB = 1e6


@dataclass(frozen=True)
class Aim:
    """One promise: its figure of some rows, None where nothing was measured, and its limit."""

    name: str
    stages: tuple[int, ...]  # that can measure it
    figure: Figure
    limit: float = 1.0
    at_most: bool = False
    unit: str = ""  # of figure and limit; "yes": 1 or 0
    scaled: bool = False  # the limit is for REFERENCE

    def words(self, limit: float) -> str:
        """A limit, for people."""
        return "yes" if self.unit == "yes" else ("at most " if self.at_most else "at least ") + shown(limit, self.unit)

    def met(self, figure: float, limit: float) -> bool:
        return math.isfinite(figure) and (figure <= limit if self.at_most else figure >= limit)


@dataclass(frozen=True)
class AimOutcome:
    """An aim on one GPU with one TensorRT."""

    aim: Aim
    gpu: str
    tensorrt: str
    figure: float | None
    limit: float | None  # None where a card's own is not known

    @property
    def met(self) -> bool | None:
        return None if self.figure is None or self.limit is None else self.aim.met(self.figure, self.limit)

    def to_json(self) -> Row:
        return {
            "aim": self.aim.name,
            "figure": self.figure,
            "limit": self.limit,
            "unit": self.aim.unit,
            "met": self.met,
        }


def ended(step: str) -> Figure:
    """Whether a step ended well."""
    return lambda rows: next(
        (float(row["ok"]) for row in reversed(rows) if row.get("step") == step and "ok" in row), None
    )


def tests_passed(rows: Rows) -> float | None:
    """Whether the tests for a GPU ran, and none failed: where all are skipped pytest is content too."""
    step = next((row for row in reversed(rows) if row.get("step") == "tests" and "ok" in row), None)
    if step is None:
        return None
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped)", step.get("said", ""))}
    return float(step["ok"] and counts.get("passed", 0) > counts.get("skipped", 0))


def last(rows: Rows, key: str, file: str = "") -> Any:
    """The newest value of a key, of a file that begins so."""
    found = (r[key] for r in reversed(rows) if r.get(key) is not None and name_of(r).startswith(file))
    return next(found, None)


def name_of(row: Row) -> str:
    return str((row.get("file") or {}).get("name", ""))


def taken(way: str, file: str, rows: Rows) -> float | None:
    """ms of one way in the runtime's table, for one tile with eight views."""
    aims_table = last(rows, "rows", file) or []
    return next(
        (r["p50"] for r in aims_table if (r["way"], r["tiles"], r["views"]) == (way, TABLE_TILES, TABLE_VIEWS)), None
    )


def peer(way: str, rows: Rows) -> float | None:
    """ms of PyTorch's way, for the same."""
    mine = (r for r in reversed(rows) if (r.get("peer"), r.get("views"), r.get("tile")) == (way, TABLE_VIEWS, SIDE))
    return next(mine, {}).get("p50")


def ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def of_each(rows: Rows, stem: str, keys: Sequence[str]) -> dict[str, Row]:
    """The newest row of each file of a network that has one of some keys, or an error."""
    mine = (r for r in rows if name_of(r).startswith(f"{stem}.") and ("error" in r or any(r.get(k) for k in keys)))
    return {name_of(row).removeprefix(f"{stem}."): row for row in mine}


def worst(found: Mapping[str, float | None], choose: Callable[..., float] = max) -> float | None:
    """Of some files' figures, by their endings: no number where one is none, None while a kind of NEEDED lacks."""
    values = {ending: value for ending, value in found.items() if value is not None}
    if any(not any(ending.startswith(kind) for ending in values) for kind in NEEDED):
        return None
    return math.nan if any(math.isnan(value) for value in values.values()) else choose(values.values())


def around(stem: str) -> Figure:
    """The runtime as a multiple of engine and copies, the worst of the files."""

    def figure(rows: Rows) -> float | None:
        found = {}
        for ending, row in of_each(rows, stem, ("rows",)).items():
            ways = () if "error" in row else ("graph", "network", "copies")
            parts = [taken(way, f"{stem}.{ending}", rows) for way in ways] or [None] * 3
            whole, network, copies = (math.nan if part is None else part for part in parts)
            found[ending] = whole / (network + copies)
        return worst(found)

    return figure


def network(ending: str) -> Figure:
    """ms of the full-size network on a batch of eight, the fastest of the files with that ending."""

    def figure(rows: Rows) -> float | None:
        newest = of_each(rows, "full", ("network_ms",)).items()
        sized = [(e, row) for e, row in newest if (row.get("tile"), row.get("batch")) == (SIDE, TABLE_VIEWS)]
        found = [row["network_ms"]["p50"] for e, row in sized if e.startswith(ending) and "error" not in row]
        return min(found, default=None)

    return figure


def int8_of_fp16(rows: Rows) -> float | None:
    return ratio(network("int8")(rows), network("fp16")(rows))


def faster_than(way: str) -> Figure:
    """How many times as long as the full-size FP16 plan one of PyTorch's ways takes."""
    return lambda rows: (
        ratio(peer(way, rows), taken("graph", "full.fp16", rows)) if last(rows, "tile", "full.fp16") == SIDE else None
    )


def of_files(stem: str, good: Callable[[Row], bool | None]) -> Figure:
    """1 where something holds for the newest row of each file, 0 where it does not for one, or where one failed."""

    def figure(rows: Rows) -> float | None:
        newest = of_each(rows, stem, ("network_ms",))
        found = {ending: False if "error" in row else good(row) for ending, row in newest.items()}
        if False in found.values():
            return 0.0
        return worst({ending: None if value is None else float(value) for ending, value in found.items()}, min)

    return figure


def same_roads(row: Row) -> bool | None:
    return bool(row["roads"]["same"]) if row.get("roads") else None


def proven(row: Row) -> bool | None:
    return bool(row["proven_by"] == "inspector") if "proven_by" in row else None


def most(key: str, stem: str, scale: float = 1.0) -> Figure:
    """The largest of a figure over the files of one network."""

    def figure(rows: Rows) -> float | None:
        newest = of_each(rows, stem, (key,)).items()
        found = worst({ending: math.nan if "error" in row else row[key] for ending, row in newest})
        return None if found is None else found / scale

    return figure


def lost(stem: str) -> Figure:
    """MB of the GPU's memory that soaks lost, the most of all."""

    def figure(rows: Rows) -> float | None:
        newest = of_each(rows, stem, ("soak",)).items()
        long = [(e, row) for e, row in newest if "error" in row or row["soak"]["tiles"] >= SOAK]
        found = worst({e: math.nan if "error" in row else abs(row["soak"]["gpu_bytes_lost"]) for e, row in long})
        return None if found is None else found / MB

    return figure


def slowest_kernel(rows: Rows) -> float | None:
    """Share of the bandwidth of a copy, with eight views."""
    said = last(rows, "kernels")
    if not isinstance(said, dict):
        said = next((r["kernels"] for r in reversed(rows) if isinstance(r.get("kernels"), dict)), None)
    return min((r["share"] for r in said["rows"] if r["views"] == TABLE_VIEWS), default=None) if said else None


def beside_torch(rows: Rows) -> float | None:
    """Of a PyTorch on the GPU; its thread on a CPU proves nothing."""
    if last(rows, "beside") == "cpu":
        return None
    return ended("beside")(rows)


def takes(rows: Rows) -> float | None:
    said = last(rows, "takes")
    return None if said is None else float(said)


AIMS = (
    Aim("the driver takes the kernels' PTX", (1,), ended("card"), unit="yes"),
    Aim("kernels give NumPy's bits", (1,), ended("bits"), unit="yes"),
    Aim("memcheck finds nothing", (2,), ended("memcheck"), unit="yes"),
    Aim("racecheck finds nothing", (2,), ended("racecheck"), unit="yes"),
    Aim("kernels, share of the bandwidth", (2,), slowest_kernel, 0.6),
    Aim("captures beside PyTorch's default stream", (3,), beside_torch, unit="yes"),
    Aim("TensorRT-RTX takes this GPU", (4,), takes, unit="yes"),
    Aim("tests for a GPU pass", (5, 7), tests_passed, unit="yes"),
    Aim("quarter width: same roads as PyTorch", (6, 8), of_files("quarter", same_roads), unit="yes"),
    Aim("quarter width: precision by the inspector", (6, 8), of_files("quarter", proven), unit="yes"),
    Aim("quarter width: of engine and copies", (6, 8), around("quarter"), 1.05, at_most=True, unit="x"),
    Aim("quarter width: soak loses on the GPU", (6, 8), lost("quarter"), 8.0, at_most=True, unit="MB"),
    Aim("same roads as PyTorch", (9,), of_files("full", same_roads), unit="yes"),
    Aim("precision by the inspector", (9,), of_files("full", proven), unit="yes"),
    Aim("FP16 network, 8 x 1024", (9,), network("fp16"), FP16_MS, at_most=True, unit="ms", scaled=True),
    Aim("INT8 network, of FP16's", (9,), int8_of_fp16, 0.67, at_most=True),
    Aim("of engine and copies", (10,), around("full"), 1.05, at_most=True, unit="x"),
    Aim("the authors' procedure takes", (10,), faster_than("torch authors"), 15, unit="x"),
    Aim("torch.compile in FP16 takes", (10,), faster_than("torch compiled"), 1.5, unit="x"),
    Aim("first mask, RTX's kernels kept", (10,), most("first_mask_s", "full"), 3.0, at_most=True, unit="s"),
    Aim("host memory of a process", (10,), most("host_bytes", "full", MB), 600, at_most=True, unit="MB"),
    Aim("soak loses on the GPU", (10,), lost("full"), 8.0, at_most=True, unit="MB"),
)  # fmt: skip


def outcomes(rows: Rows, aims: Iterable[Aim] = AIMS) -> Iterator[AimOutcome]:
    """Every aim on each GPU, with each TensorRT that has a figure of its own; without a figure where none has."""
    for gpu in dict.fromkeys(str(row.get("gpu", "")) for row in rows) or [""]:
        mine = [row for row in rows if row.get("gpu", "") == gpu]
        engines = list(dict.fromkeys(row["tensorrt"] for row in mine if row.get("tensorrt"))) or [""]
        for aim in aims:
            limit = limit_on(gpu, aim, rows)
            found = []
            bare = [row for row in mine if not row.get("tensorrt")]
            alone = figure_of(aim, bare)
            for engine in [""] if alone is not None else engines:
                seen = bare if alone is not None else [r for r in mine if r.get("tensorrt", "") in ("", engine)]
                if (figure := figure_of(aim, seen)) is not None:
                    found.append(AimOutcome(aim, gpu, engine, figure, limit))
            yield from found or [AimOutcome(aim, gpu, "", None, limit)]


def figure_of(aim: Aim, rows: Rows) -> float | None:
    """None where nothing was measured, or a row is not one of ours."""
    try:
        return aim.figure(rows)
    except (KeyError, TypeError, AttributeError):
        return None


def limit_on(gpu: str, aim: Aim, rows: Rows) -> float | None:
    """An aim's limit on a card, in the ratio of matrix speeds where it goes by that; None where that is not known."""
    if not aim.scaled or not gpu or re.search(REFERENCE, gpu):
        return aim.limit
    here = last([row for row in rows if row.get("gpu") == gpu], "matrix_tflops")
    there = last([row for row in rows if re.search(REFERENCE, str(row.get("gpu")))], "matrix_tflops")
    times = ratio(there or REFERENCE_TFLOPS, here)
    return None if times is None else aim.limit * times


def aims_table(rows: Rows) -> list[str]:
    """A line for each aim."""
    lines = [("aim", "figure", "limit", "", "on")]
    for o in outcomes(rows):
        verdict = {True: "met", False: "NOT MET", None: "not run" if o.figure is None else "no limit known"}[o.met]
        where = ", ".join(filter(None, (o.gpu, o.tensorrt)))
        figure = "" if o.figure is None else shown(o.figure, o.aim.unit)
        lines.append((o.aim.name, figure, "" if o.limit is None else o.aim.words(o.limit), verdict, where))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines]


def shown(value: float, unit: str) -> str:
    return ("yes" if value else "no") if unit == "yes" else f"{value:.3g} {unit}".strip()
