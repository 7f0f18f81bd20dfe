"""`dlink-tune`: finds the threshold of the highest IoU, and writes a copy of the model with it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import together
from dlink.cli.plans import OpenOptions, open_here
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.accuracy.bootstrap import Estimate
    from dlink.accuracy.tune import TunedThreshold, TuneOptions

ELSEWHERE = "a threshold tuned on these tiles must be checked on others"


@click.command(cls=Step, short_help="Find the best threshold for your tiles.")
@options.model
@options.tiles
@options.output("Write MODEL with that threshold here (.onnx).")
@together(
    "how",
    "accuracy.tune:TuneOptions",
    options.views("Views of each tile.  [default: the model's]"),
    options.limit,
    options.reading(options.road_value),
)
@options.opening
@options.as_json
def tune(model: Path, tiles: Path, out: Path | None, how: "TuneOptions", opening: OpenOptions, as_json: bool) -> None:
    """Find the threshold at which MODEL's roads have the highest pooled IoU with the labels of TILES.

    TILES is a folder of <id>_sat.jpg with <id>_mask.png. The IoU on the tiles that chose a threshold is optimistic:
    check the copy that -o writes on other tiles.
    """
    from dlink.accuracy.tune import tune as find_threshold
    from dlink.imagery.images import find_tiles, for_network

    if out:
        check_out(out, model, "tune")
    chosen = find_tiles(tiles, how.reading)[: how.limit]
    with open_here(model, opening) as opened:
        spec = opened.spec
        found = find_threshold(opened, for_network(chosen, spec), how.views, progress("tune"))
    if out:
        from dlink.onnx_graph.retuned import write_retuned

        write_retuned(model, out, spec, found.best)
    if as_json:
        result = {"model": str(model), "output": str(out) if out else None, **found.to_json(), "note": ELSEWHERE}
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo(threshold_in_words(model, out, found))


def check_out(out: Path, model: Path, verb: str) -> None:
    """Raise BadInput if the copy can't be written there, before minutes of work. `verb` is what the command does."""
    if model.suffix != ".onnx":
        raise BadInput(f"--output {out}: only an ONNX file can be copied; {verb} the file that {model} was built from")
    if out.suffix != ".onnx":
        raise BadInput(f"--output {out}: the name must end in .onnx")
    if out.is_dir():
        raise BadInput(f"--output {out}: a folder; name a file in it")
    if not out.parent.is_dir():
        raise BadInput(f"--output {out}: there is no folder {out.parent}; make it first")
    if out.exists() and out.samefile(model):
        raise BadInput(f"--output {out}: the model itself; name another file")


def threshold_in_words(model: Path, out: Path | None, found: "TunedThreshold") -> str:
    lines = [
        f"{model.name} on {counted(found.tiles, 'labelled tile')} with {counted(found.views, 'view')}:",
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
