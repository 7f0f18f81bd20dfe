"""`dlink-bench`: times a model on this machine."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.bench.baseline import UNLIKE, read_baseline, unlike
from dlink.bench.conditions import Condition, Planned, check_possible, hold
from dlink.cli import options
from dlink.cli.bench_results import Results, end, write_result
from dlink.cli.bench_tables import latency_table
from dlink.cli.models import Wanted
from dlink.cli.options import IN_FILE, together
from dlink.cli.plans import OpenOptions, open_here
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput, DlinkError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlink.bench.latency import BenchOptions
    from dlink.runtime import Segmenter

TORCH = ("torch", "best-torch")  # values of --baseline; a file of such a name is ./torch


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a model is compared with."""

    baseline: tuple[str | Path, ...] = ()  # torch, best-torch, files
    fail_if: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()  # what may differ from an earlier result

    @property
    def ways(self) -> list[str]:
        """Of PyTorch."""
        return [each for each in self.baseline if isinstance(each, str)]

    @property
    def file(self) -> Path | None:
        files = [each for each in self.baseline if isinstance(each, Path)]
        if len(files) > 1:
            raise BadInput(f"--baseline: one earlier result, got {', '.join(map(str, files))}")
        return files[0] if files else None


class Baseline(click.Path):
    """PyTorch in one of two ways, or a file of an earlier result."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value in TORCH else super().convert(value, param, ctx)


@click.command(cls=Step, short_help="Time a model on this machine.")
@click.argument("model", type=IN_FILE, required=False)
@together(
    "wanted",
    "cli.models:Wanted",
    options.precision("fp32", "fp16", "int8", default="fp16", words="Precision of the file made from a checkpoint."),
    options.tile("Tile of that file, px."),
    options.pictures("Pictures to run on.  [default: generated scenes]"),
    options.reading(),
)
@together(
    "how",
    "bench.latency:BenchOptions",
    click.option(
        "--views",
        help="Numbers of views or adaptive, separated by commas.  [default: 1,4,8; 1 with --rate or --soak]",
    ),
    click.option("--seconds", default=10.0, show_default=True, help="Time for each number of views."),
    click.option("--rounds", default=3, show_default=True, help="Rounds of --baseline or --compare."),
    click.option("--rate", type=options.POSITIVE, help="Frames a second that do not wait; the newest is next."),
    click.option("--soak", metavar="10m", help="One long run: the first minute against the last, memory."),
)
@together(
    "against",
    "cli.bench:Against",
    click.option(
        "--baseline",
        type=Baseline(exists=True, dir_okay=False, path_type=Path),
        metavar="torch|best-torch|FILE",
        multiple=True,
        help="Also time the authors' eight views in PyTorch, or the best of PyTorch; or compare with what an earlier "
        "dlink-bench wrote by --json or --append. May be repeated.",
    ),
    click.option(
        "--fail-if", metavar="p99>1.1x", multiple=True, help="Exit with 1 if so; also p99>50ms. May be repeated."
    ),
    click.option(
        "--allow", type=click.Choice(UNLIKE), multiple=True, help="What may differ from the FILE of --baseline."
    ),
)
@click.option("--compare", is_flag=True, help="Compare FP32, FP16 and INT8: speed, roads, size.")
@options.scouted
@together(
    "results",
    "cli.bench_results:Results",
    options.as_json,
    options.append,
    click.option("--strict", is_flag=True, help="Exit with 1 if the machine was busy or the times vary too much."),
)
def bench(
    model: Path | None, wanted: Wanted, how: "BenchOptions", against: Against, compare: bool, opening: OpenOptions,
    results: Results,
) -> None:  # fmt: skip
    """Time MODEL: an ONNX file of dlink, a plan or a checkpoint. Without MODEL, time the embedded network.

    The files that a checkpoint needs are made once and kept in a cache folder ($DLINK_CACHE). An INT8 file is
    calibrated on --tiles, or on generated scenes. A result of a busy machine, or whose times vary widely, is marked as
    no headline.
    """
    if compare:
        if opening.scout:
            raise BadInput("--compare makes its own files, and --scout is for one; leave one of them out")
        from dlink.cli.bench_compare import side_by_side

        side_by_side(model, wanted, how.rounds, opening.threads, results)
        return
    from dlink.bench.machine import peak_bytes
    from dlink.bench.opened import check_processor, how_opened
    from dlink.bench.run import measure
    from dlink.cli.models import model_file, pictures

    if opening.scout and against.ways:
        raise BadInput(
            f"--baseline {against.ways[0]}: times one tile, and with --scout that tile would decide; "
            "python -m dlink.bench.together times both on all of your tiles"
        )
    conditions, earlier = conditions_of(against)
    path = model_file(model, wanted)
    show = progress("bench")
    with open_here(path, opening) as segmenter:
        gsd_m = wanted.reading.of_network(segmenter.spec).metres
        about = about_of(segmenter, path, wanted)
        about["how"] = how_opened(segmenter, gsd_m, how.soak, opening.scout)
        notes = unlike(about, earlier, against.file, against.allow) if earlier and against.file else []
        if "best-torch" in against.ways:
            check_processor(segmenter)
        check_possible(conditions, planned(segmenter, how, gsd_m), earlier)
        images = pictures(wanted.tiles, segmenter.spec, wanted.reading)
        measured = measure(segmenter, images, how, gsd_m, show)
        peak = peak_bytes()  # before PyTorch is loaded
        skipped = getattr(segmenter.backend, "skipped", None)
        share = skipped / segmenter.backend.tiles if skipped is not None else None  # type: ignore[attr-defined]
        beside, fault = beside_torch(segmenter, model, images, how, against.ways, opening.threads)
    result = {**about, **measured.to_json(), "skipped": share, "peak_bytes": peak, **beside}
    result["no_headline"] += [why for found in beside["best_torch"] for why in found["no_headline"]]
    result["headline"] = not result["no_headline"]
    held, missing = hold(conditions, result, earlier)
    result |= {"fail_if": [each.to_json() for each in held], "missing": missing, "notes": notes}
    write_result(result, "\n".join([latency_table(result), *map(str, held), *(f"note: {n}" for n in notes)]), results)
    if fault:
        raise fault
    end(held, missing, result["no_headline"] if results.strict else [])


def planned(segmenter: "Segmenter", how: "BenchOptions", gsd_m: float | None) -> Planned:
    """The rows that the run will have."""
    from dlink.bench.opened import is_plan

    rows = tuple({"views": views, "rate": how.rate, "soak": bool(how.soak)} for views in how.counts)
    return Planned(rows, ground=gsd_m is not None, gpu=is_plan(segmenter))


def about_of(segmenter: "Segmenter", path: Path, wanted: Wanted) -> dict[str, Any]:
    """What is measured, and where."""
    from dlink.bench.machine import machine
    from dlink.runtime.files import file_mark

    spec, backend = segmenter.spec, segmenter.backend
    return {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "executed": backend.executed,
        "file": asdict(file_mark(path)),
        "network": {
            "arch": spec.arch,
            "width": spec.width,
            "slim": spec.slim,
            "tile": spec.tile,
            "precision": spec.precision,
        },
        "engine": backend.engine,
        "tiles": wanted.tiles.name if wanted.tiles else "generated",
        "machine": machine(),
    }


def conditions_of(against: Against) -> tuple[list[Condition], Mapping[str, Any] | None]:
    """The conditions and the earlier result, before anything is measured."""
    conditions = [Condition.of(text) for text in against.fail_if]
    if against.file is None:
        for condition in conditions:
            condition.needs_no_baseline()
        if against.allow:
            raise BadInput("--allow: is for --baseline FILE, an earlier result")
        return conditions, None
    return conditions, read_baseline(against.file)


def beside_torch(
    segmenter: "Segmenter", model: Path | None, images: "list[NDArray[np.uint8]]", how: "BenchOptions",
    asked: Sequence[str], threads: int | None,
) -> tuple[dict[str, Any], Exception | None]:  # fmt: skip
    """Time the model beside PyTorch in the ways that are asked for.

    An error of PyTorch is returned and not raised, because the model has been measured by then.
    """
    found: dict[str, Any] = {"baseline": None, "best_torch": []}
    try:
        found |= timed_beside(segmenter, model, images[0], how, asked, threads) if asked else {}
    except (DlinkError, ImportError, RuntimeError) as e:
        return found, e
    return found, None


def timed_beside(
    segmenter: "Segmenter", model: Path | None, image: "NDArray[np.uint8]", how: "BenchOptions",
    asked: Sequence[str], threads: int | None,
) -> dict[str, Any]:  # fmt: skip
    import torch

    from dlink.bench.authors import eight_view_sum
    from dlink.bench.beside_torch import beside_best, network_of
    from dlink.bench.best_torch import torch_threads
    from dlink.bench.latency import ratio
    from dlink.bench.opened import threads_beside

    found: dict[str, Any] = {}
    with torch_threads(threads_beside(segmenter, threads)):
        if "torch" in asked:
            net = network_of(model, segmenter.spec, "torch")
            other = f"the authors' eight views in PyTorch {torch.__version__}, eager, {torch.get_num_threads()} threads"
            turns = ratio(lambda: segmenter.mask(image, 8), lambda: eight_view_sum(net, image), other, how.rounds)
            found["baseline"] = turns.to_json()
        if "best-torch" in asked:
            net = network_of(model, segmenter.spec, "best-torch")
            say = partial(click.echo, err=True)
            found["best_torch"] = beside_best(segmenter, net, image, how.counts, how.rounds, say)
    return found
