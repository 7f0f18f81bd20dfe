"""`dlink-check --tune`: the threshold of the highest IoU, and a copy of the model that has it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli.step import progress
from dlink.runtime.errors import BadInput

if TYPE_CHECKING:
    from dlink.accuracy.bootstrap import Estimate
    from dlink.accuracy.tune import TunedThreshold
    from dlink.imagery.images import TileFile

ELSEWHERE = "a threshold tuned on these tiles must be checked on others"


def find_threshold(
    model: Path, tiles: "Sequence[TileFile]", out: Path | None, views: int | None, threads: int | None, as_json: bool
) -> None:
    """Tune, say what was found, and write the copy where one is asked for."""
    from dlink.accuracy.tune import tune
    from dlink.runtime import open_model

    if out:
        check_out(out, model)
    with open_model(model, threads=threads) as opened:
        spec = opened.spec
        found = tune(opened, tiles, views, progress("tune"))
    if out:
        from dlink.onnx_graph.retuned import write_retuned

        write_retuned(model, out, spec, found.best)
    if as_json:
        click.echo(
            json.dumps(
                {"model": str(model), "output": str(out) if out else None, **found.to_json(), "note": ELSEWHERE},
                indent=2,
            )
        )
    else:
        click.echo(say(model, out, found))


def check_out(out: Path, model: Path) -> None:
    """Refuse what can't be the copy's name, before minutes of work."""
    if out.suffix != ".onnx":
        raise BadInput(f"--output {out}: the name must end in .onnx")
    if out.is_dir():
        raise BadInput(f"--output {out}: a folder; name a file in it")
    if not out.parent.is_dir():
        raise BadInput(f"--output {out}: there is no folder {out.parent}; make it first")
    if out.exists() and out.samefile(model):
        raise BadInput(f"--output {out}: the model itself; name another file")


def say(model: Path, out: Path | None, found: "TunedThreshold") -> str:
    views = "1 view" if found.views == 1 else f"{found.views} views"
    lines = [
        f"{model.name} on {found.tiles} labelled tiles with {views}:",
        f"best threshold {found.best:g}{between(found.threshold, 3)}",
        f"pooled IoU {found.iou.value:.4f}{between(found.iou, 4)}",
        f"at {found.before:g} it is {found.iou_before:.4f}: a gain of {found.gain.value:.4f}{between(found.gain, 4)}",
    ]
    if out:
        lines.append(f"{out}: the same model with threshold {found.best:g}; {ELSEWHERE}")
    else:
        lines.append(f"nothing is written without --output MODEL.onnx; {ELSEWHERE}")
    return "\n".join(lines)


def between(found: "Estimate", places: int) -> str:
    if found.low is None:
        return " (one tile: no interval)"
    return f" (95 % interval {found.low:.{places}f} to {found.high:.{places}f})"
