"""`dlink-check`: does a model draw the roads of what it was made from?"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli.step import IN_FILE, IN_FOLDER, Step, progress
from dlink.trt_runtime.errors import CheckFailed

if TYPE_CHECKING:  # NumPy and an engine are loaded when the command runs
    from dlink.accuracy.agreement import Agreement, Limits
    from dlink.accuracy.iou import IoU
    from dlink.trt_runtime import Segmenter, Spec

FRACTION = click.FloatRange(0, 1)
AT_LEAST_1 = click.IntRange(1)
COLUMNS = "views  agreement  worst tile  pooled IoU  reference  drop  mean IoU  reference  drop  probability off by"


@click.command(cls=Step)
@click.argument("model", type=IN_FILE)
@click.argument("tiles", type=IN_FOLDER)
@click.option("--against", type=IN_FILE, required=True, help="The reference: a checkpoint, or another ONNX file.")
@click.option("--max-iou-drop", type=FRACTION, help="Of the pooled IoU, where there are labels.  [default: 0.005]")
@click.option("--min-agreement", type=FRACTION, help="IoU between the masks.  [default: 0.99; for an INT8 file 0.97]")
@click.option("--views", type=click.Choice(["both", "8", "1"]), default="both", show_default=True)
@click.option("--limit", type=AT_LEAST_1, help="Take only so many tiles, the first by name.")
@click.option("--threads", type=AT_LEAST_1, help="Of the CPU.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
def check(
    model: Path, tiles: Path, against: Path, views: str, limit: int | None, threads: int | None, as_json: bool,
    **limits: float | None,
) -> None:  # fmt: skip
    """Compare MODEL's roads with its reference's on TILES, with eight views and with one.

    TILES is a folder of <id>_sat.jpg with <id>_mask.png, or of pictures: then the masks are compared with each other
    alone. Exits with 1 where a limit is not held.
    """
    from dlink.accuracy.agreement import BOTH, Limits, compare
    from dlink.trt_runtime import open_model
    from dlink.trt_runtime.images import find_tiles

    chosen = find_tiles(tiles)[:limit]
    counts = BOTH if views == "both" else (int(views),)
    with open_model(model, threads=threads) as candidate:
        allowed = Limits.of(candidate.spec.precision, **limits)
        with open_reference(against, model, candidate.spec, threads) as reference:
            found = compare(candidate, reference, chosen, counts, progress("check"))
    why = allowed.broken(found)
    if as_json:
        verdict = {"same": not why, "why": why, "limits": asdict(allowed), "agreement": found.to_json()}
        click.echo(json.dumps({"model": str(model), "against": str(against), "tiles": str(tiles), **verdict}, indent=2))
    else:
        click.echo(f"{model.name} against {against.name}: {say(found, allowed, why)}")
    if why:
        raise CheckFailed(f"{model}: does not draw the roads of {against}: {why[0]}" + more(len(why) - 1))


def open_reference(path: Path, model: Path, spec: "Spec", threads: int | None) -> "Segmenter":
    """An ONNX file as it is; a checkpoint in PyTorch, prepared and thresholded as the model's spec says."""
    from dlink.trt_runtime import Segmenter, open_model

    if path.suffix == ".onnx":
        reference = open_model(path, threads=threads)
        note_origin(path, reference.spec.checkpoint_sha256, model, spec)
        return reference

    import torch

    from dlink.export import torch_backend
    from dlink.trt_runtime.files import file_sha256

    if threads is not None:
        torch.set_num_threads(threads)
    backend = torch_backend.open(path, replace(spec, precision="fp32"))
    note_origin(path, file_sha256(path), model, spec)
    return Segmenter(backend)


def note_origin(path: Path, sha256: str, model: Path, spec: "Spec") -> None:
    """Say so where the reference has other weights than the model was exported from, if both are known."""
    if sha256 and spec.checkpoint_sha256 and sha256 != spec.checkpoint_sha256:
        click.echo(f"note: {path} is another checkpoint than {model} was exported from", err=True)


def say(found: "Agreement", allowed: "Limits", why: list[str]) -> str:
    """The result as a person reads it: what was compared, a row for each number of views, the verdict."""
    labels = f"{found.labelled} with labels" if found.labelled else "no labels, so the masks' agreement alone"
    rows = [tuple(COLUMNS.split("  "))]
    for s in found.settings:
        agreement = "no road" if s.agreement is None else f"{s.agreement:.4f}"
        worst = f"{s.worst:.4f} ({s.worst_tile})"
        pairs = [iou_of(i, form) for form in ("pooled", "mean") for i in (s.candidate, s.reference, s.drop)]
        rows.append((str(s.views), agreement, worst, *pairs, f"{s.max_difference:.2g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    held = f"same roads (agreement at least {allowed.min_agreement:g}"
    held += f", IoU drop at most {allowed.max_iou_drop:g})" if found.labelled else ")"
    verdict = f"NOT the same roads: {'; '.join(why)}" if why else held
    return "\n".join([f"{found.tiles} tiles, {labels}", *table, verdict])


def iou_of(iou: "IoU | None", form: str) -> str:
    value = getattr(iou, form, None)
    return "-" if value is None else f"{value:.4f}"


def more(count: int) -> str:
    return f" (and {count} more)" if count else ""
