"""The aims: limits for the figures that the stages measure, and one table of both.

A row is a line of results.jsonl: {"when", "gpu", "driver", "tensorrt", "stage", "step", ...} and either the end of a
step ("ok", "seconds", "said") or its measurements. `tensorrt` is empty if none was used. A later row replaces an
earlier one.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = Sequence[Row]
Figure: TypeAlias = Callable[[Rows], float | None]

TABLE_TILES, TABLE_VIEWS = 1, 8  # the row of the runtime's table that gives the figures
SIDE = 1024  # px, of the tiles in the times of the full-size network
SOAK = 500  # tiles; a shorter soak does not count
FP16_MS = 4.3  # for 8 x 1024 on an H200; scaled by the matrix speeds on other cards
REFERENCE = r"\bH200\b"  # in the card's name; a GH200 is another card
REFERENCE_TFLOPS = 788.0  # of card.py's product on an H200: PyTorch 2.11 on random numbers, October 2026
NEEDED = ("fp16", "int8")  # a figure over files is None without these kinds of files
MB = 1e6


@dataclass(frozen=True)
class Aim:
    """One aim: a function that takes its figure from rows, None without a measurement, and its limit."""

    name: str
    stages: tuple[int, ...]  # that can measure it
    figure: Figure
    limit: float = 1.0
    at_most: bool = False
    unit: str = ""  # of figure and limit; "yes": 1 or 0
    scaled: bool = False  # the limit is for REFERENCE

    def words(self, limit: float) -> str:
        """A limit in words."""
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
    limit: float | None  # None if the card's matrix speed is not known

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


def ended_well(step: str) -> Figure:
    """Whether a step ended well."""
    return lambda rows: next(
        (float(row["ok"]) for row in reversed(rows) if row.get("step") == step and "ok" in row), None
    )


def tests_passed(rows: Rows) -> float | None:
    """Whether the tests for a GPU ran and none failed. pytest also ends well if all are skipped."""
    step = next((row for row in reversed(rows) if row.get("step") == "tests" and "ok" in row), None)
    if step is None:
        return None
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|skipped)", step.get("said", ""))}
    return float(step["ok"] and counts.get("passed", 0) > counts.get("skipped", 0))


def newest(rows: Rows, key: str, file: str = "") -> Any:
    """The newest value of a key, in the rows of files whose names begin with `file`."""
    found = (r[key] for r in reversed(rows) if r.get(key) is not None and name_of(r).startswith(file))
    return next(found, None)


def name_of(row: Row) -> str:
    return str((row.get("file") or {}).get("name", ""))


def way_ms(way: str, file: str, rows: Rows) -> float | None:
    """The time of one way in the runtime's table, in ms, for one tile with eight views."""
    timings = newest(rows, "rows", file) or []
    return next(
        (r["p50"] for r in timings if (r["way"], r["tiles"], r["views"]) == (way, TABLE_TILES, TABLE_VIEWS)), None
    )


def torch_ms(way: str, rows: Rows) -> float | None:
    """The time of one of PyTorch's ways, in ms, for one tile with eight views."""
    mine = (r for r in reversed(rows) if (r.get("peer"), r.get("views"), r.get("tile")) == (way, TABLE_VIEWS, SIDE))
    return next(mine, {}).get("p50")


def ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def of_each(rows: Rows, stem: str, keys: Sequence[str]) -> dict[str, Row]:
    """The newest row of each file of a network that has one of some keys, or an error."""
    mine = (r for r in rows if name_of(r).startswith(f"{stem}.") and ("error" in r or any(r.get(k) for k in keys)))
    return {name_of(row).removeprefix(f"{stem}."): row for row in mine}


def worst(found: Mapping[str, float | None], choose: Callable[..., float] = max) -> float | None:
    """The worst of several files' figures: nan if one is nan, None while a kind of NEEDED is missing."""
    values = {ending: value for ending, value in found.items() if value is not None}
    if any(not any(ending.startswith(kind) for ending in values) for kind in NEEDED):
        return None
    return math.nan if any(math.isnan(value) for value in values.values()) else choose(values.values())


def runtime_share(stem: str) -> Figure:
    """The runtime's time as a multiple of engine and copies; the worst of the files."""

    def figure(rows: Rows) -> float | None:
        found = {}
        for ending, row in of_each(rows, stem, ("rows",)).items():
            ways = () if "error" in row else ("graph", "network", "copies")
            parts = [way_ms(way, f"{stem}.{ending}", rows) for way in ways] or [None] * 3
            whole, network, copies = (math.nan if part is None else part for part in parts)
            found[ending] = whole / (network + copies)
        return worst(found)

    return figure


def network_ms(ending: str) -> Figure:
    """The time of the full-size network on a batch of eight, in ms; the fastest file with that ending."""

    def figure(rows: Rows) -> float | None:
        by_ending = of_each(rows, "full", ("network_ms",)).items()
        sized = [(e, row) for e, row in by_ending if (row.get("tile"), row.get("batch")) == (SIDE, TABLE_VIEWS)]
        found = [row["network_ms"]["p50"] for e, row in sized if e.startswith(ending) and "error" not in row]
        return min(found, default=None)

    return figure


def int8_of_fp16(rows: Rows) -> float | None:
    return ratio(network_ms("int8")(rows), network_ms("fp16")(rows))


def faster_than(way: str) -> Figure:
    """The time of one of PyTorch's ways as a multiple of the full-size FP16 plan's."""
    return lambda rows: (
        ratio(torch_ms(way, rows), way_ms("graph", "full.fp16", rows))
        if newest(rows, "tile", "full.fp16") == SIDE
        else None
    )


def of_files(stem: str, good: Callable[[Row], bool | None]) -> Figure:
    """1 if the newest row of each file is good; 0 if one is not, or has an error."""

    def figure(rows: Rows) -> float | None:
        by_ending = of_each(rows, stem, ("network_ms",))
        found = {ending: False if "error" in row else good(row) for ending, row in by_ending.items()}
        if False in found.values():
            return 0.0
        return worst({ending: None if value is None else float(value) for ending, value in found.items()}, min)

    return figure


def same_roads(row: Row) -> bool | None:
    return bool(row["roads"]["same"]) if row.get("roads") else None


def proven(row: Row) -> bool | None:
    return bool(row["proven_by"] == "inspector") if "proven_by" in row else None


def largest(key: str, stem: str, scale: float = 1.0) -> Figure:
    """The largest value of a key over the files of one network."""

    def figure(rows: Rows) -> float | None:
        by_ending = of_each(rows, stem, (key,)).items()
        found = worst({ending: math.nan if "error" in row else row[key] for ending, row in by_ending})
        return None if found is None else found / scale

    return figure


def lost_mb(stem: str) -> Figure:
    """The largest loss of GPU memory in a soak, in MB."""

    def figure(rows: Rows) -> float | None:
        by_ending = of_each(rows, stem, ("soak",)).items()
        long = [(e, row) for e, row in by_ending if "error" in row or row["soak"]["tiles"] >= SOAK]
        found = worst({e: math.nan if "error" in row else abs(row["soak"]["gpu_bytes_lost"]) for e, row in long})
        return None if found is None else found / MB

    return figure


def slowest_kernel(rows: Rows) -> float | None:
    """The lowest bandwidth of a kernel with eight views, as a share of a copy's."""
    result = newest(rows, "kernels")
    if not isinstance(result, dict):
        result = next((r["kernels"] for r in reversed(rows) if isinstance(r.get("kernels"), dict)), None)
    return min((r["share"] for r in result["rows"] if r["views"] == TABLE_VIEWS), default=None) if result else None


def beside_torch(rows: Rows) -> float | None:
    """Whether captures worked beside PyTorch on the GPU; PyTorch on a CPU proves nothing."""
    if newest(rows, "beside") == "cpu":
        return None
    return ended_well("beside")(rows)


def takes_gpu(rows: Rows) -> float | None:
    answer = newest(rows, "takes")
    return None if answer is None else float(answer)


AIMS = (
    Aim("the driver loads the kernels' PTX", (1,), ended_well("card"), unit="yes"),
    Aim("kernels give NumPy's bits", (1,), ended_well("bits"), unit="yes"),
    Aim("memcheck finds nothing", (2,), ended_well("memcheck"), unit="yes"),
    Aim("racecheck finds nothing", (2,), ended_well("racecheck"), unit="yes"),
    Aim("kernels, share of the bandwidth", (2,), slowest_kernel, 0.6),
    Aim("captures beside PyTorch's default stream", (3,), beside_torch, unit="yes"),
    Aim("TensorRT-RTX accepts this GPU", (4,), takes_gpu, unit="yes"),
    Aim("tests for a GPU pass", (5, 7), tests_passed, unit="yes"),
    Aim("quarter width: same roads as PyTorch", (6, 8), of_files("quarter", same_roads), unit="yes"),
    Aim("quarter width: precision by the inspector", (6, 8), of_files("quarter", proven), unit="yes"),
    Aim("quarter width: runtime / (engine + copies)", (6, 8), runtime_share("quarter"), 1.05, at_most=True, unit="x"),
    Aim("quarter width: GPU memory lost in a soak", (6, 8), lost_mb("quarter"), 8.0, at_most=True, unit="MB"),
    Aim("same roads as PyTorch", (9,), of_files("full", same_roads), unit="yes"),
    Aim("precision by the inspector", (9,), of_files("full", proven), unit="yes"),
    Aim("FP16 network, 8 x 1024", (9,), network_ms("fp16"), FP16_MS, at_most=True, unit="ms", scaled=True),
    Aim("INT8 network / FP16 network", (9,), int8_of_fp16, 0.67, at_most=True),
    Aim("runtime / (engine + copies)", (10,), runtime_share("full"), 1.05, at_most=True, unit="x"),
    Aim("authors' procedure / dlink", (10,), faster_than("torch authors"), 15, unit="x"),
    Aim("torch.compile in FP16 / dlink", (10,), faster_than("torch compiled"), 1.5, unit="x"),
    Aim("first mask, RTX's kernels kept", (10,), largest("first_mask_s", "full"), 3.0, at_most=True, unit="s"),
    Aim("host memory of a process", (10,), largest("host_bytes", "full", MB), 600, at_most=True, unit="MB"),
    Aim("GPU memory lost in a soak", (10,), lost_mb("full"), 8.0, at_most=True, unit="MB"),
)  # fmt: skip


def outcomes(rows: Rows, aims: Iterable[Aim] = AIMS) -> Iterator[AimOutcome]:
    """Every aim on each GPU: an outcome for each TensorRT with a figure, or one outcome without a figure."""
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
    """An aim's figure; None without a measurement, or if a row has another form."""
    try:
        return aim.figure(rows)
    except (KeyError, TypeError, AttributeError):
        return None


def limit_on(gpu: str, aim: Aim, rows: Rows) -> float | None:
    """An aim's limit on a card, scaled by the matrix speeds if the aim is scaled; None if the card's is not known."""
    if not aim.scaled or not gpu or re.search(REFERENCE, gpu):
        return aim.limit
    here = newest([row for row in rows if row.get("gpu") == gpu], "matrix_tflops")
    there = newest([row for row in rows if re.search(REFERENCE, str(row.get("gpu")))], "matrix_tflops")
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
