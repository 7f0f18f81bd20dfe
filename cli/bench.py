"""`dlink-bench`: times a model on this machine."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.bench.baseline import UNLIKE, Condition, Held, hold, read_baseline, unlike
from dlink.bench.rows import append_row
from dlink.cli import options
from dlink.cli.bench_tables import machine_lines, or_dash, rate_table, soak_lines, turns_lines
from dlink.cli.models import Wanted
from dlink.cli.options import IN_FILE, together
from dlink.cli.plans import OpenOptions, open_here
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput, CheckFailed
from dlink.runtime.words import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dlink.bench.latency import BenchOptions
    from dlink.runtime import Segmenter

TORCH = ("torch", "best-torch")  # values of --baseline; a file of such a name is ./torch


@dataclass(frozen=True, kw_only=True)
class Results:
    """How results are printed, and where they are appended."""

    as_json: bool = False
    append: Path | None = None  # a file of rows
    strict: bool = False  # a result that is no headline is an error


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a model is compared with."""

    baseline: tuple[str | Path, ...] = ()  # torch, best-torch, files
    fail_if: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()  # what may differ from an earlier result

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
    "cli.bench:Results",
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
        side_by_side(model, wanted, how.rounds, opening.threads, results)
        return
    from dlink.bench.machine import peak_bytes
    from dlink.bench.run import measure
    from dlink.cli.models import model_file, pictures

    conditions, earlier = conditions_of(against)
    path = model_file(model, wanted)
    show = progress("bench")
    with open_here(path, opening) as segmenter:
        about = about_of(segmenter, path, wanted)
        notes = unlike(about, earlier, against.file, against.allow) if earlier and against.file else []
        images = pictures(wanted.tiles, segmenter.spec, wanted.reading)
        gsd_m = wanted.reading.of_network(segmenter.spec).metres
        measured = measure(segmenter, images, how, gsd_m, show)
        peak = peak_bytes()  # before PyTorch is loaded
        skipped = getattr(segmenter.backend, "skipped", None)
        share = skipped / segmenter.backend.tiles if skipped is not None else None  # type: ignore[attr-defined]
        beside = beside_torch(segmenter, model, images, how, against.baseline)
    result = {**about, **measured.to_json(), "skipped": share, "peak_bytes": peak, **beside}
    result["no_headline"] += [why for found in beside["best_torch"] for why in found["no_headline"]]
    result["headline"] = not result["no_headline"]
    held = hold(conditions, result, earlier)
    result |= {"fail_if": [each.to_json() for each in held], "notes": notes}
    write_result(result, "\n".join([latency_table(result), *map(str, held), *(f"note: {n}" for n in notes)]), results)
    end(held, result["no_headline"] if results.strict else [])


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


def end(held: Sequence[Held], no_headline: Sequence[str]) -> None:
    """Exit with 1, a line for each condition that failed, or with the reasons against a headline."""
    failed = [each for each in held if each.failed]
    for each in failed:
        click.echo(f"failed: {each}", err=True)
    if no_headline:
        raise CheckFailed(f"--strict: no headline: {'; '.join(no_headline)}")
    if failed:
        raise SystemExit(1)


def write_result(result: Mapping[str, Any], text: str, results: Results) -> None:
    append_row(results.append, result)
    click.echo(json.dumps(result, indent=1) if results.as_json else text)


def side_by_side(model: Path | None, wanted: Wanted, rounds: int, threads: int | None, results: Results) -> None:
    """Compare the network in three precisions; files that the cache lacks are made."""
    from dlink.bench import compare as side
    from dlink.bench.machine import machine
    from dlink.cli.models import model_file, tiles_of

    if model is not None and model.suffix in (".onnx", ".plan"):
        raise BadInput(f"{model}: --compare makes its own files; give a checkpoint, or no model for the embedded one")
    files = {
        precision: model_file(model, replace(wanted, precision=precision)) for precision in ("fp32", "fp16", "int8")
    }
    chosen = tiles_of(wanted.tiles, wanted.tile, wanted.reading).holdout
    rows = side.compare(files, chosen, rounds, threads, progress("compare"))
    facts: Mapping[str, Any] = machine()
    labelled = sum(t.label is not None for t in chosen)
    source = wanted.tiles.name if wanted.tiles else "generated scenes"
    result = {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "compare": [row.to_json() for row in rows],
        "name": model.name if model else "embedded",
        "tile": wanted.tile,
        "tiles": f"{len(chosen)} of {source}, {labelled} with labels",
        "rounds": rounds,
        "machine": facts,
    }
    where = (
        f"{facts['cpu']}, {counted(facts['cores'], 'core')}; tile {wanted.tile}, "
        f"medians of {counted(rounds, 'round')}; roads on {result['tiles']}"
    )
    write_result(result, "\n".join([where, *side.comparison_table(rows), side.advice(rows)]), results)


def beside_torch(
    segmenter: "Segmenter", model: Path | None, images: "list[NDArray[np.uint8]]", how: "BenchOptions",
    asked: Sequence[str | Path],
) -> dict[str, Any]:  # fmt: skip
    """Time the model beside PyTorch in the ways that are asked for."""
    found: dict[str, Any] = {"baseline": None, "best_torch": []}
    if not any(each in TORCH for each in asked):
        return found
    import torch

    from dlink.bench.authors import eight_view_sum
    from dlink.bench.beside_torch import beside_best, network_of
    from dlink.bench.latency import ratio

    image = images[0]
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


def parts(r: Mapping[str, Any]) -> str:
    """The columns of where the time went; dashes for a plan, which does everything on the GPU."""
    if not r["network_ms"]:
        return f"{'-':>7} {'-':>8} {'-':>10} {'-':>7}"
    return f"{r['prepare_ms']:>7.1f} {r['network_ms']:>8.1f} {r['undo_ms']:>10.1f} {r['around_share']:>7.1%}"


def latency_table(result: Mapping[str, Any]) -> str:
    network, machine, file = result["network"], result["machine"], result["file"]
    slim = f", slim to {network['slim']:.1%}" if network["slim"] < 1 else ""
    lines = [
        f"{network['arch']} width {network['width']:g}{slim}, {network['precision']}, tile {network['tile']}, "
        f"{file['bytes'] / 1e6:.1f} MB; {result['engine']}",
        f"{machine['cpu']}, {counted(machine['cores'], 'core')}, {machine['system']}, Python {machine['python']}, "
        + ", ".join(f"{k} {v}" for k, v in machine["versions"].items()),
        "",
    ]
    if result["latency"]:
        lines.append(
            "   views  p50 ms  p90 ms  p99 ms  max ms  tiles/s   Mpx/s   km2/h  J/tile | "
            "prepare  network  undo+mean  around"
        )
    for r in result["latency"]:
        lines.append(
            f"{r['views']:>8} {r['p50_ms']:>7.1f} {r['p90_ms']:>7.1f} {r['p99_ms']:>7.1f} {r['max_ms']:>7.1f} "
            f"{r['tiles_per_s']:>8.2f} {r['mpx_per_s']:>7.2f} {or_dash(r['km2_per_h'], '>7.1f')} "
            f"{or_dash(r['joules_per_tile'], '>7.2f')} | {parts(r)}"
        )
    lines += [*rate_table(result["rate"]), *soak_lines(result["soak"]), "", *machine_lines(result)]
    if result["peak_bytes"]:
        lines += [f"peak memory of the process {result['peak_bytes'] / 1e6:.0f} MB"]
    if result["skipped"] is not None:
        lines += [f"{result['skipped']:.1%} of the tiles were skipped, and the times depend on that"]
    if b := result["baseline"]:
        lines.append(
            f"{b['median']:.2f} times as fast as {b['other']} ({b['least']:.2f} to {b['most']:.2f} over "
            f"{counted(b['rounds'], 'round')} in turn; {b['ours_s']:.2f} s and {b['theirs_s']:.2f} s for eight views)"
        )
    for found in result["best_torch"]:
        lines += turns_lines(found)
    return "\n".join(lines)
