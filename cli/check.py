"""`dlink-check`: does a model draw the roads of what it was made from?"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli.plans import manifest_of, open_here, plan_options, record
from dlink.cli.step import IN_FILE, IN_FOLDER, OUT_PATH, Step, progress
from dlink.runtime.errors import BadInput, CheckFailed

if TYPE_CHECKING:  # NumPy and an engine are loaded when the command runs
    from dlink.accuracy.agreement import Agreement
    from dlink.accuracy.gates import Verdict
    from dlink.accuracy.iou import IoU
    from dlink.accuracy.pixels import Mask
    from dlink.accuracy.report.evidence import Evidence
    from dlink.accuracy.roads import Connectivity
    from dlink.imagery.images import TileFile
    from dlink.runtime import Segmenter, Spec

TIMED = 2.0  # seconds that a report times a tile for
FRACTION = click.FloatRange(0, 1)
AT_LEAST_1 = click.IntRange(1)
POSITIVE = click.FloatRange(0, min_open=True)
COLUMNS = "views  agreement  worst tile  pooled IoU  reference  drop  mean IoU  reference  drop  probability off by"
ROAD_COLUMNS = "views  model  precision  recall  F1  APLS  broken/km  bridged/km"
GATE_COLUMNS = "gate  views  figure  95 % interval  limit"


@click.command(cls=Step)
@click.argument("model", type=IN_FILE)
@click.argument("tiles", type=IN_FOLDER)
@click.option("--against", type=IN_FILE, help="The reference: a checkpoint, or another ONNX file.")
@click.option("--gate", "gates", multiple=True, metavar="LIMITS", help="Such as iou=0.003,apls=0.01; see below.")
@click.option(
    "--max-iou-drop", type=FRACTION, help="The same as --gate iou=...  [default: 0.005, where there are labels]"
)
@click.option("--min-agreement", type=FRACTION, help="The same as --gate agreement=...  [default: 0.99; INT8 0.97]")
@click.option("--gsd", "gsd_m", type=POSITIVE, help="Metres a pixel, for apls and broken.  [default: the model's]")
@click.option("--report", type=OUT_PATH, help="Write a page with charts and the worst tiles to this .html file.")
@click.option("--tune", "tuning", is_flag=True, help="Find the threshold with the highest IoU instead; no --against.")
@click.option("-o", "--output", "out", type=OUT_PATH, help="With --tune: write MODEL with that threshold here (.onnx).")
@click.option("--layers", is_flag=True, help="Compare layer by layer with ONNX Runtime instead; no --against.")
@click.option("--views", type=click.Choice(["both", "8", "1"]), help="[default: both; for --tune the model's]")
@click.option("--limit", type=AT_LEAST_1, help="Take only so many tiles, the first by name.")
@click.option("--threads", type=AT_LEAST_1, help="Of the CPU.  [default: all]")
@plan_options
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
def check(
    model: Path, tiles: Path, against: Path | None, gates: tuple[str, ...], max_iou_drop: float | None,
    min_agreement: float | None, gsd_m: float | None, report: Path | None, tuning: bool, out: Path | None,
    layers: bool, views: str | None, limit: int | None, threads: int | None, keys: tuple[Path, ...], rebuild: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Compare MODEL's roads with its reference's on TILES, with eight views and with one.

    A plan (.plan) runs on the GPU, and its manifest gets the verdict. TILES is a folder of <id>_sat.jpg with
    <id>_mask.png, or of pictures: then the masks are compared with each other alone. Exits with 1 where a limit is not
    held.

    Gates: agreement (IoU between the masks, at least), and against the labels, at most: iou (drop of the pooled IoU),
    apls (drop of the mean APLS), broken (rise of broken links a km). The last two are looked at where they have a
    limit, and for a report. A gate compares the figure of all tiles together; its 95 % interval over tiles is shown,
    and the verdict says what so many tiles cannot rule out.
    """
    from dlink.accuracy.agreement import BOTH, compare
    from dlink.accuracy.gates import GateLimits, Verdict, limits_of
    from dlink.accuracy.report.evidence import Evidence
    from dlink.imagery.images import find_tiles

    given = limits_of([*gates, *options(max_iou_drop, min_agreement)])
    chosen = find_tiles(tiles)[:limit]
    if layers:
        from dlink.cli.layers import compare_layers

        if against or given or report or gsd_m or tuning:
            raise BadInput("--layers looks at MODEL alone: leave out --against, --gate, --report, --gsd and --tune")
        compare_layers(model, chosen[0], as_json)
        return
    if tuning:
        from dlink.cli.tune import find_threshold

        if against or given or report or gsd_m:
            raise BadInput("--tune looks at MODEL alone: leave out --against, --gate, --report and --gsd")
        find_threshold(model, chosen, out, None if views in (None, "both") else int(views), threads, as_json)
        return
    if out:
        raise BadInput(f"--output {out}: a model is written with --tune alone; a page is written with --report")
    if not against:
        raise BadInput("--against is missing: name the checkpoint or ONNX file to compare with, or give --tune")
    need_labels(given, chosen, tiles)
    if report:
        from dlink.accuracy.report.page import check_path

        check_path(report)
    counts = BOTH if views in (None, "both") else (int(views),)
    with open_here(model, keys, rebuild, threads=threads) as candidate:
        limits = GateLimits.of(candidate.spec.precision, **given)
        graphs = (limits.graphs or report) and any(tile.label for tile in chosen)
        connectivity = connectivity_of(gsd_m or candidate.spec.gsd_m) if graphs else None
        evidence = Evidence() if report else None
        with open_reference(against, model, candidate.spec, threads) as reference:
            found = compare(
                candidate, reference, chosen, counts, progress("check"), connectivity=connectivity, evidence=evidence
            )
            pair = {model: candidate, against: reference}
            times = latencies(candidate, chosen[0], counts) if report else []
        manifest = manifest_of(candidate)
    verdict = Verdict(found, limits)
    if report and evidence:
        write_page(report, verdict, evidence, pair, tiles, times)
    if as_json:
        named = {"model": str(model), "against": str(against), "tiles": str(tiles)}
        click.echo(json.dumps({**named, **verdict.to_json()}, indent=2))
    else:
        click.echo(f"{model.name} against {against.name}: {say(verdict)}")
    if manifest:
        record(verdict, say(verdict).splitlines()[-1], model, manifest, against)
    if why := verdict.why:
        raise CheckFailed(f"{model}: does not draw the roads of {against}: {why[0]}" + more(len(why) - 1))


def options(max_iou_drop: float | None, min_agreement: float | None) -> list[str]:
    """The two gates that have options of their own, as --gate has them."""
    given = {"iou": max_iou_drop, "agreement": min_agreement}
    return [f"{name}={limit!r}" for name, limit in given.items() if limit is not None]


def need_labels(given: Iterable[str], chosen: "Sequence[TileFile]", tiles: Path) -> None:
    """Refuse limits that were asked for and cannot be looked at."""
    from dlink.accuracy.gates import GATES

    needy = [gate.name for gate in GATES.values() if gate.labels and gate.field in given]
    if needy and all(tile.label is None for tile in chosen):
        raise BadInput(
            f"--gate {needy[0]}: needs labels, and none of the {len(chosen)} tiles of {tiles} has one; "
            f"add <id>_mask.png, or leave the gate out"
        )


def connectivity_of(gsd_m: float) -> "Callable[[Mask], Connectivity]":
    """Who compares roads as graphs."""
    from dlink.accuracy.road_graphs.connectivity import connectivity_with

    return lambda label: connectivity_with(label, gsd_m)


def write_page(
    report: Path, verdict: "Verdict", evidence: "Evidence", pair: "Mapping[Path, Segmenter]", tiles: Path,
    times: "list[dict[str, object]]",
) -> None:  # fmt: skip
    """The report, and where it is."""
    from dlink.accuracy.report.page import About, write_report
    from dlink.bench.machine import machine
    from dlink.runtime.files import file_sha256

    facts = machine()
    for path, segmenter in pair.items():
        spec = segmenter.spec
        facts[path.name] = (
            f"{spec.arch} width {spec.width:g}, {spec.precision}, tile {spec.tile} px, threshold "
            f"{segmenter.threshold:g}; {segmenter.backend.engine}; SHA-256 {file_sha256(path)}"
        )
    model, against = (path.name for path in pair)
    about = About(
        model=model, reference=against, tiles=tiles.name, facts=facts, layers=layers_of(next(iter(pair))), latency=times
    )
    write_report(report, verdict, evidence, about)
    click.echo(f"{report}: the report", err=True)


def layers_of(model: Path) -> "list[dict[str, object]]":
    """What an INT8 file says of its layers; nothing of others."""
    from dlink.runtime.onnx_bytes import read_onnx
    from dlink.runtime.spec import INT8_KEY
    from dlink.trt_runtime.manifest import parse, read_bytes

    if model.suffix == ".plan":
        manifest = parse(read_bytes(model), model)
        model = model.parent / manifest.onnx.name
        if not model.exists():
            return []
    said = read_onnx(model).metadata.get(INT8_KEY)
    names = ("name", "op", "share", "precision", "why")
    return [{name: row[name] for name in names} for row in json.loads(said)["layers"]] if said else []


def latencies(model: "Segmenter", tile: "TileFile", counts: Sequence[int]) -> "list[dict[str, object]]":
    """How long a tile takes, with each number of views."""
    from dlink.bench.latency import latency
    from dlink.imagery.images import read_image
    from dlink.runtime.windows import square

    side = model.spec.tile
    image = square(read_image(tile.image)[:side, :side], side)
    found = [latency(model, [image], count, seconds=TIMED) for count in sorted(counts)]
    return [{"views": r.views, "p50_ms": r.p50_ms, "p90_ms": r.p90_ms, "tiles_per_s": r.tiles_per_s} for r in found]


def open_reference(path: Path, model: Path, spec: "Spec", threads: int | None) -> "Segmenter":
    """An ONNX file as it is; a checkpoint in PyTorch, prepared and thresholded as the model's spec says."""
    from dlink.runtime import Segmenter, open_model

    if path.suffix == ".onnx":
        reference = open_model(path, threads=threads)
        note_origin(path, reference.spec.checkpoint_sha256, model, spec)
        return reference

    import torch

    from dlink.nets import torch_backend
    from dlink.runtime.files import file_sha256

    if threads is not None:
        torch.set_num_threads(threads)
    backend = torch_backend.open(path, replace(spec, precision="fp32"))
    note_origin(path, file_sha256(path), model, spec)
    return Segmenter(backend)


def note_origin(path: Path, sha256: str, model: Path, spec: "Spec") -> None:
    """Say so where the reference has other weights than the model was exported from, if both are known."""
    if sha256 and spec.checkpoint_sha256 and sha256 != spec.checkpoint_sha256:
        click.echo(f"note: {path} is another checkpoint than {model} was exported from", err=True)


def say(verdict: "Verdict") -> str:
    """The result as a person reads it: what was compared, a row for each number of views, the gates, the verdict."""
    from dlink.accuracy.gates import GATES

    found, limits = verdict.found, verdict.limits
    labels = f"{found.labelled} with labels" if found.labelled else "no labels, so the masks' agreement alone"
    held = f"same roads (agreement at least {limits.min_agreement:g}"
    if found.labelled:
        held += "".join(
            f", {gate.title} at most {limit:g}"
            for gate in GATES.values()
            if gate.labels and (limit := getattr(limits, gate.field)) is not None
        )
    last = "; ".join([held + ")", *verdict.doubts, *verdict.notes])
    if verdict.why:
        last = f"NOT the same roads: {'; '.join([*verdict.why, *verdict.notes])}"
    return "\n".join(
        [f"{found.tiles} tiles, {labels}", *mask_rows(found), *road_rows(found), "", *gate_rows(verdict), last]
    )


def mask_rows(found: "Agreement") -> list[str]:
    rows = [COLUMNS.split("  ")]
    for s in found.settings:
        agreement = "no road" if s.agreement is None else f"{s.agreement:.4f}"
        worst = f"{s.worst:.4f} ({s.worst_tile})"
        pairs = [iou_of(i, form) for form in ("pooled", "mean") for i in (s.candidate, s.reference, s.drop)]
        rows.append([str(s.views), agreement, worst, *pairs, f"{s.max_difference:.2g}"])
    return table(rows)


def road_rows(found: "Agreement") -> list[str]:
    """Both models against the labels, beyond IoU; nothing without labels."""
    rows = [ROAD_COLUMNS.split("  ")]
    for s in found.settings:
        for name, roads in (("candidate", s.candidate_roads), ("reference", s.reference_roads)):
            if roads:
                figures = (
                    roads.precision,
                    roads.recall,
                    roads.f1,
                    roads.apls,
                    roads.broken_per_km,
                    roads.bridged_per_km,
                )
                rows.append([str(s.views), name, *map(digits, figures)])
    return ["", *table(rows)] if len(rows) > 1 else []


def gate_rows(verdict: "Verdict") -> list[str]:
    rows = [GATE_COLUMNS.split("  ")]
    for outcome in verdict.outcomes:
        found = outcome.found
        interval = "-" if found.low is None else f"{digits(found.low)} to {digits(found.high)}"
        limit = f"{'at least' if outcome.gate.least else 'at most'} {outcome.limit:g}"
        rows.append([outcome.gate.name, str(outcome.views), digits(found.value), interval, limit])
    return table(rows)


def table(rows: list[list[str]]) -> list[str]:
    """Lines of right-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def iou_of(iou: "IoU | None", form: str) -> str:
    return digits(getattr(iou, form, None))


def digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def more(count: int) -> str:
    return f" (and {count} more)" if count else ""
