"""`dlink-check`: checks that a model draws the same roads as its reference."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import IN_FILE, OUT_PATH, together
from dlink.cli.plans import OpenOptions, manifest_of, open_here, record
from dlink.cli.step import Moved, Step, progress
from dlink.nets.options import NetworkOptions
from dlink.runtime.errors import BadInput, CheckFailed
from dlink.runtime.words import counted

if TYPE_CHECKING:  # NumPy and an engine are loaded when the command runs
    from dlink.accuracy.agreement import Agreement, CheckOptions
    from dlink.accuracy.gates import AskedLimits, Verdict
    from dlink.accuracy.iou import IoU
    from dlink.accuracy.pixels import Mask
    from dlink.accuracy.report.evidence import Evidence
    from dlink.accuracy.roads import Connectivity
    from dlink.imagery.images import TileFile
    from dlink.runtime import Segmenter, Spec

TIMED = 2.0  # seconds for which a report times a tile
COLUMNS = "views  agreement  worst tile  pooled IoU  reference  drop  mean IoU  reference  drop  probability off by"
ROAD_COLUMNS = "views  model  precision  recall  F1  APLS  broken/km  bridged/km"
GATE_COLUMNS = "gate  views  figure  95 % interval  limit"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a model is compared with."""

    against: Path | None = None
    network: NetworkOptions = field(default_factory=NetworkOptions)  # of a checkpoint


@click.command(
    cls=Step,
    short_help="Compare a model's roads with a reference's.",
    moved=[Moved(to="tune", option="--tune", unknown={"--views": "both"}), Moved(to="layers", option="--layers")],
)
@options.model
@options.tiles
@together(
    "reference",
    "cli.check:Reference",
    click.option("--against", type=IN_FILE, help="The reference: a checkpoint, or another ONNX file."),
    options.network(
        "against-", click.option("--against-arch", "arch", help="The reference's network.  [default: the model's]")
    ),
)
@together(
    "asked",
    "accuracy.gates:AskedLimits",
    click.option("--gate", "gates", multiple=True, metavar="LIMITS", help="Such as iou=0.003,apls=0.01; see above."),
    options.max_iou_drop("The same as --gate iou=...  [default: 0.005, where there are labels]"),
    options.min_agreement("The same as --gate agreement=...  [default: 0.99; INT8 0.97]"),
)
@together(
    "how",
    "accuracy.agreement:CheckOptions",
    options.reading(options.road_value),
    click.option("--report", type=OUT_PATH, help="Write a page with charts and the worst tiles to this .html file."),
    click.option(
        "--views", type=click.Choice(["both", "8", "1"]), default="both", show_default=True, help="Numbers of views."
    ),
    options.limit,
)
@options.scouted
@options.as_json
def check(
    model: Path, tiles: Path, reference: "Reference", asked: "AskedLimits", how: "CheckOptions", opening: OpenOptions,
    as_json: bool,
) -> None:  # fmt: skip
    """Compare MODEL's roads with its reference's on TILES, with eight views and with one.

    A plan (.plan) runs on the GPU, and its manifest gets the verdict. TILES is a folder of <id>_sat.jpg with
    <id>_mask.png, or of pictures. Without labels only the models' masks are compared. Exits with 1 if a limit is not
    met.

    Gates: agreement is the least IoU between the masks. Three gates compare with the labels and have upper limits:
    iou (drop of the pooled IoU), apls (drop of the mean APLS) and broken (rise of broken links a km). apls and broken
    are measured if they have a limit, or for a report. A gate compares the figure of all tiles together. Its 95 %
    interval over tiles is shown, and the verdict says what this number of tiles cannot rule out.
    """
    from dlink.accuracy.agreement import compare
    from dlink.accuracy.gates import GateLimits, Verdict
    from dlink.accuracy.report.evidence import Evidence
    from dlink.imagery.images import find_tiles, for_network

    given, against = asked.given, reference.against
    chosen = find_tiles(tiles, how.reading)[: how.limit]
    if not against:
        raise BadInput("--against is missing: name the checkpoint or ONNX file to compare with")
    need_labels(given, chosen, tiles)
    if how.report:
        from dlink.accuracy.report.page import check_path

        check_path(how.report)
    with open_here(model, opening) as candidate:
        chosen = for_network(chosen, candidate.spec)
        limits = GateLimits.of(candidate.spec.precision, **given)
        target = candidate.spec.target
        graphs = (limits.graphs or (how.report and target == "road")) and any(tile.label for tile in chosen)
        connectivity = connectivity_of(how.reading.metres or candidate.spec.gsd_m) if graphs else None
        evidence = Evidence() if how.report else None
        with open_against(against, model, candidate.spec, opening.threads, reference.network) as other:
            found = compare(
                candidate,
                other,
                chosen,
                how.counts,
                progress("check"),
                connectivity=connectivity,
                evidence=evidence,
            )
            pair = {model: candidate, against: other}
            times = latencies(candidate, chosen[0], how.counts) if how.report else []
        manifest = manifest_of(candidate)
    verdict = Verdict(found, limits, target)
    if how.report and evidence:
        write_page(how.report, verdict, evidence, pair, tiles, times)
    if as_json:
        named = {"model": str(model), "against": str(against), "tiles": str(tiles)}
        click.echo(json.dumps({**named, **verdict.to_json()}, indent=2))
    else:
        click.echo(f"{model.name} against {against.name}: {verdict_in_words(verdict)}")
    if manifest:
        record(verdict, verdict_in_words(verdict).splitlines()[-1], model, manifest, against)
    if why := verdict.why:
        raise CheckFailed(f"{model}: does not draw the {target}s of {against}: {why[0]}" + more(len(why) - 1))


def need_labels(given: Iterable[str], chosen: "Sequence[TileFile]", tiles: Path) -> None:
    """Raise BadInput if a limit needs labels and no tile has one."""
    from dlink.accuracy.gates import GATES

    needy = [gate.name for gate in GATES.values() if gate.labels and gate.field in given]
    if needy and all(tile.label is None for tile in chosen):
        raise BadInput(
            f"--gate {needy[0]}: needs labels, and none of {counted(len(chosen), 'tile')} of {tiles} has one; "
            f"add <id>_mask.png, or leave the gate out"
        )


def connectivity_of(gsd_m: float) -> "Callable[[Mask], Connectivity]":
    """What compares masks with a label as road graphs."""
    from dlink.accuracy.road_graphs.connectivity import connectivity_with

    return lambda label: connectivity_with(label, gsd_m)


def write_page(
    report: Path, verdict: "Verdict", evidence: "Evidence", pair: "Mapping[Path, Segmenter]", tiles: Path,
    times: "list[dict[str, object]]",
) -> None:  # fmt: skip
    """Write the report, and print its path."""
    from dlink.accuracy.report.page import About, write_report
    from dlink.bench.machine import machine
    from dlink.runtime.files import file_sha256

    facts = machine()
    for path, segmenter in pair.items():
        spec = segmenter.spec
        facts[path.name] = (
            f"{spec.network_in_words}, {spec.precision}, tile {spec.tile} px, threshold "
            f"{segmenter.threshold:g}; {segmenter.backend.engine}; SHA-256 {file_sha256(path)}"
        )
    model, against = (path.name for path in pair)
    about = About(
        model=model, reference=against, tiles=tiles.name, facts=facts, layers=layers_of(next(iter(pair))), latency=times
    )
    write_report(report, verdict, evidence, about)
    click.echo(f"{report}: the report", err=True)


def layers_of(model: Path) -> "list[dict[str, object]]":
    """The layers that an INT8 file lists in its metadata; none for other files."""
    from dlink.runtime.onnx_bytes import read_onnx
    from dlink.runtime.spec import INT8_KEY
    from dlink.trt_runtime.manifest import parse, read_bytes

    if model.suffix == ".plan":
        manifest = parse(read_bytes(model), model)
        model = model.parent / manifest.onnx.name
        if not model.exists():
            return []
    stored = read_onnx(model).metadata.get(INT8_KEY)
    names = ("name", "op", "share", "precision", "why")
    return [{name: row[name] for name in names} for row in json.loads(stored)["layers"]] if stored else []


def latencies(model: "Segmenter", tile: "TileFile", counts: Sequence[int]) -> "list[dict[str, object]]":
    """The times of a tile with each number of views."""
    from dlink.bench.latency import latency
    from dlink.imagery.images import read_image
    from dlink.runtime.windows import square

    side = model.spec.tile
    image = square(read_image(tile.image, tile.how)[:side, :side], side)
    found = [latency(model, [image], count, seconds=TIMED) for count in sorted(counts)]
    return [{"views": r.views, "p50_ms": r.p50_ms, "p90_ms": r.p90_ms, "tiles_per_s": r.tiles_per_s} for r in found]


def open_against(
    path: Path, model: Path, spec: "Spec", threads: int | None, network: NetworkOptions | None = None
) -> "Segmenter":
    """Open the reference: an ONNX file, or a checkpoint with the model's spec. Print a note if the weights differ."""
    from dlink.runtime import open_model

    network = network or NetworkOptions()
    if path.suffix == ".onnx":
        if network != NetworkOptions():
            raise BadInput(
                f"--against {path}: --against-arch, --against-key and --against-class are for checkpoints; "
                f"leave them out"
            )
        reference = open_model(path, threads=threads)
        if reference.spec.target != spec.target:
            reference.close()
            raise BadInput(f"{model} draws {spec.target}s and {path} {reference.spec.target}s; compare two of a kind")
        sha256 = reference.spec.checkpoint_sha256
    else:
        from dlink.nets.torch_backend import open_reference
        from dlink.runtime.files import file_sha256
        from dlink.runtime.spec import ADOPTED

        if spec.arch.startswith(ADOPTED):
            raise BadInput(
                f"--against {path}: {model} is of a network from elsewhere, which only its ONNX file runs; give the "
                "FP32 file of dlink-export"
            )
        sha256 = file_sha256(path)
        if sha256 == spec.checkpoint_sha256:
            network = as_exported(network, model, spec)
        reference = open_reference(path, spec, threads, network)
    if sha256 and spec.checkpoint_sha256 and sha256 != spec.checkpoint_sha256:
        click.echo(f"note: {path} is not the checkpoint that {model} was exported from", err=True)
    return reference


def as_exported(network: NetworkOptions, model: Path, spec: "Spec") -> NetworkOptions:
    """The options, with what the export took of the same checkpoint where nothing else is asked for."""
    key, road = spec.checkpoint_key or None, spec.checkpoint_class
    for option, took, asked in (("key", key, network.key), ("class", road, network.road)):
        if None not in (took, asked) and took != asked:
            click.echo(f"note: --against-{option} {asked}: {model} was exported with --{option} {took}", err=True)
    return replace(network, key=network.key or key, road=road if network.road is None else network.road)


def verdict_in_words(verdict: "Verdict") -> str:
    """The result as text: what was compared, a row for each number of views, the gates, the verdict."""
    from dlink.accuracy.gates import GATES

    found, limits = verdict.found, verdict.limits
    labels = f"{found.labelled} with labels" if found.labelled else "no labels, so only the masks' agreement"
    held = f"same {verdict.target}s (agreement at least {limits.min_agreement:g}"
    if found.labelled:
        held += "".join(
            f", {gate.title} at most {limit:g}"
            for gate in GATES.values()
            if gate.labels and (limit := getattr(limits, gate.field)) is not None
        )
    last = "; ".join([held + ")", *verdict.doubts, *verdict.notes])
    if verdict.why:
        last = f"NOT the same {verdict.target}s: {'; '.join([*verdict.why, *verdict.notes])}"
    return "\n".join(
        [
            f"{counted(found.tiles, 'tile')}, {labels}",
            *mask_rows(found, verdict.target),
            *road_rows(found),
            "",
            *gate_rows(verdict),
            last,
        ]
    )


def mask_rows(found: "Agreement", target: str) -> list[str]:
    rows = [COLUMNS.split("  ")]
    for s in found.settings:
        agreement = f"no {target}" if s.agreement is None else f"{s.agreement:.4f}"
        worst = f"{s.worst:.4f} ({s.worst_tile})"
        pairs = [iou_of(i, form) for form in ("pooled", "mean") for i in (s.candidate, s.reference, s.drop)]
        rows.append([str(s.views), agreement, worst, *pairs, f"{s.max_difference:.2g}"])
    return right_aligned(rows)


def road_rows(found: "Agreement") -> list[str]:
    """Rows of both models' figures against the labels, besides IoU; none without labels."""
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
    return ["", *right_aligned(rows)] if len(rows) > 1 else []


def gate_rows(verdict: "Verdict") -> list[str]:
    rows = [GATE_COLUMNS.split("  ")]
    for outcome in verdict.outcomes:
        found = outcome.found
        interval = "-" if found.low is None else f"{digits(found.low)} to {digits(found.high)}"
        limit = f"{'at least' if outcome.gate.least else 'at most'} {outcome.limit:g}"
        rows.append([outcome.gate.name, str(outcome.views), digits(found.value), interval, limit])
    return right_aligned(rows)


def right_aligned(rows: list[list[str]]) -> list[str]:
    """Lines of right-aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def iou_of(iou: "IoU | None", form: str) -> str:
    return digits(getattr(iou, form, None))


def digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def more(count: int) -> str:
    return f" (and {count} more)" if count else ""
