"""`dlink-calibrate`: ONNX + tiles -> INT8 ONNX."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import AT_LEAST_1, IN_FILE, IN_PATH, OUT_PATH, together
from dlink.cli.step import Step, progress
from dlink.imagery.reading import RGB, Reading
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.calib.calibrate import CalibrationOptions
    from dlink.calib.placement import Unit

METHODS = ("auto", "entropy", "percentile", "mse", "max")
ENOUGH = 8  # tiles kept back; with fewer the verdict comes with a note


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which tiles of a folder are used."""

    samples: int = 32
    held: int = 8
    seed: int = 0
    reading: Reading = RGB


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How the result is printed."""

    layers: bool = False
    as_json: bool = False


@click.command(cls=Step, short_help="Make an ONNX file INT8, and check its roads.")
@click.argument("onnx", type=IN_FILE)
@click.argument("tiles", type=IN_PATH)
@options.output("The INT8 file to write (.onnx).", required=True)
@together(
    "how",
    "calib.calibrate:CalibrationOptions",
    click.option(
        "--method",
        type=click.Choice(METHODS),
        default="auto",
        show_default=True,
        help="How the ranges are cut; auto tries all methods.",
    ),
    click.option(
        "--prefer",
        type=click.Choice(["speed", "roads"]),
        default="speed",
        show_default=True,
        help="All int8 that engines take while masks agree by 0.985 (8 views: 0.992); or float where int8 costs most.",
    ),
    click.option(
        "--keep", multiple=True, metavar="fp16:NAME", help="A layer to keep in FP16; NAME may contain * and ?."
    ),
    click.option(
        "--deconv",
        type=click.Choice(["int8", "conv", "fp16"]),
        default="int8",
        show_default=True,
        help="Transposed convolutions: in int8, rewritten as convolutions, or kept in FP16.",
    ),
    click.option(
        "--base",
        type=click.Choice(["fp16", "fp32"]),
        default="fp16",
        show_default=True,
        help="Precision of other layers.",
    ),
    click.option("--views/--no-views", default=True, show_default=True, help="Turn the tiles through the eight views."),
    together(
        "limits",
        "calib.evaluator:HoldoutLimits",
        options.max_iou_drop("Largest drop of the pooled IoU.", 0.005),
        options.min_agreement("Lowest IoU between the masks.  [default: 0.97; what is fast has more]"),
    ),
)
@together(
    "chosen",
    "cli.calibrate:Chosen",
    click.option("--samples", type=AT_LEAST_1, default=32, show_default=True, help="Tiles to gather ranges from."),
    click.option(
        "--held", type=AT_LEAST_1, default=8, show_default=True, help="Tiles kept back to evaluate the result."
    ),
    options.seed("Seed of the choice of tiles."),
    options.reading(options.road_value),
)
@click.option("--ranges", type=OUT_PATH, help="Reuse the ranges in this JSON file; write it if it is not there.")
@together(
    "show",
    "cli.calibrate:Shown",
    click.option("--layers", is_flag=True, help="Print every layer, its precision and why."),
    options.as_json,
)
def calibrate(
    onnx: Path, tiles: Path, out: Path, how: "CalibrationOptions", chosen: Chosen, ranges: Path | None, show: Shown
) -> None:
    """Write the ONNX file of dlink-export as INT8, with ranges from TILES.

    TILES is a DeepGlobe folder (<id>_sat.*, with or without <id>_mask.png), a folder of pictures, or one large
    picture, best of the kind that the network will see. On some tiles, which are kept back, the file's roads must be
    the float network's, with one view and with eight. If they are not, the layers that cost most return to FP16. If
    that does not help, nothing is written and the exit status is 1.
    """
    if out.suffix != ".onnx":
        raise BadInput(f"{out}: the name must end in .onnx")
    if out.resolve() == onnx.resolve():
        raise BadInput(f"{out}: is the file to calibrate, and would be replaced; choose another output")
    if ranges and not ranges.parent.is_dir():
        raise BadInput(f"{ranges}: there is no folder {ranges.parent}; make it first")
    from dlink.calib.calibrate import NotHeld
    from dlink.calib.calibrate import calibrate as write_int8
    from dlink.calib.evaluator import ENOUGH as AGREEING
    from dlink.calib.network import read_network
    from dlink.calib.sample import sample
    from dlink.onnx_graph.model import read_model
    from dlink.onnx_graph.sparsity import NOTABLE, in_words, sparse_share

    how = replace(how, keep=tuple(map(layer_of, how.keep)))
    spec = read_network(onnx).spec
    reading = chosen.reading.of_network(spec)
    taken = sample(tiles, spec.tile, chosen.samples, chosen.held, chosen.seed, reading)
    for line in taken.skipped:
        click.echo(f"skipped: {line}", err=True)
    try:
        result = write_int8(onnx, out, taken, how, ranges, progress)
    except NotHeld as e:
        click.echo("\n".join(layer_table(e.units)), err=True)
        raise
    if result.ranges.tiles_sha256 != taken.sha256:
        click.echo(f"note: {ranges} was gathered on other tiles, which may include those kept back now", err=True)
    if len(taken.holdout) < ENOUGH:
        tiles_held = counted(len(taken.holdout), "tile")
        click.echo(f"note: evaluated on {tiles_held} only; forty tiles or more let it keep {ENOUGH} back", err=True)
    if show.as_json:
        click.echo(json.dumps(result.to_json(), indent=1))
        return
    click.echo(f"{out}: {result.share:.1%} of the multiply-adds in int8, {size_in_words(out, onnx)}")
    if (share := sparse_share(read_model(out))) >= NOTABLE:
        click.echo(in_words(share))
    if how.prefer == "speed" and not how.limits.good(result.scores):
        fast = ", ".join(f"{least:g} with {counted(views, 'view')}" for views, least in AGREEING.items())
        click.echo(f"note: no fast file agrees to {fast}, so roads came first (--prefer roads)", err=True)
    click.echo(f"ranges by {result.method} from {counted(result.ranges.tiles, 'tile')}; {result.verdict}")
    if show.layers:
        click.echo("\n".join(layer_table(result.units)))


def size_in_words(path: Path, source: Path) -> str:
    size, before = path.stat().st_size, source.stat().st_size
    return f"{size / 1e6:.1f} MB, {size / before:.0%} of {source.name}'s"


def layer_of(keep: str) -> str:
    precision, _, name = keep.partition(":")
    if precision != "fp16" or not name:
        raise BadInput(f"--keep {keep}: expected fp16:NAME, such as fp16:decoder1.*")
    return name


def layer_table(units: "Sequence[Unit]") -> list[str]:
    """A line for each layer."""
    width = max(len(u.name) for u in units)
    head = f"{'layer':<{width}}  type           share  precision"
    return [head] + [
        f"{u.name:<{width}}  {u.op:<13} {u.share:>6.2%}  {u.precision}" + (f"  {u.why}" if u.why else "") for u in units
    ]
