"""`dlink-calibrate`: ONNX + tiles -> INT8 ONNX."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli.step import IN_FILE, IN_PATH, OUT_PATH, Step, progress
from dlink.runtime.errors import BadInput

if TYPE_CHECKING:
    from dlink.calib.placement import Unit

METHODS = ("auto", "entropy", "percentile", "mse", "max")
AT_LEAST_1 = click.IntRange(1)
FRACTION = click.FloatRange(0, 1)


@click.command(cls=Step)
@click.argument("onnx", type=IN_FILE)
@click.argument("tiles", type=IN_PATH)
@click.option("-o", "--output", "out", type=OUT_PATH, required=True, help="The INT8 file to write (.onnx).")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="How ranges are cut; auto tries all.",
)
@click.option("--samples", type=AT_LEAST_1, default=32, show_default=True, help="Tiles to gather ranges from.")
@click.option("--held", type=AT_LEAST_1, default=8, show_default=True, help="Tiles kept back to judge the result by.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of tiles.")
@click.option("--max-iou-drop", type=FRACTION, default=0.005, show_default=True, help="Of the pooled IoU.")
@click.option("--min-agreement", type=FRACTION, default=0.97, show_default=True, help="IoU between the masks.")
@click.option("--keep", multiple=True, metavar="fp16:NAME", help="A layer to keep FP16; NAME may hold * and ?.")
@click.option(
    "--deconv",
    type=click.Choice(["int8", "conv", "fp16"]),
    default="int8",
    show_default=True,
    help="Transposed convolutions: in int8, rewritten as convolutions, or kept FP16.",
)
@click.option("--base", type=click.Choice(["fp16", "fp32"]), default="fp16", show_default=True, help="Of all the rest.")
@click.option("--ranges", type=OUT_PATH, help="Reuse the ranges in this JSON file; write it if it is not there.")
@click.option("--views/--no-views", default=True, show_default=True, help="See tiles through the eight views in turn.")
@click.option("--layers", is_flag=True, help="Print every layer, its precision and why.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as JSON.")
def calibrate(
    onnx: Path, tiles: Path, out: Path, method: str, samples: int, held: int, seed: int, max_iou_drop: float,
    min_agreement: float, keep: tuple[str, ...], deconv: str, base: str, ranges: Path | None, views: bool,
    layers: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the ONNX file of dlink-export as INT8, with ranges from TILES.

    TILES is a DeepGlobe folder (<id>_sat.*, <id>_mask.png or not), a folder of pictures, or one large picture, best of
    the kind that the network will see. Some are kept back: there the file's roads must be the float network's, with
    one view and with eight, or the layers that cost most are put back to FP16 until they are. Exits with 1 and writes
    nothing where that does not help.
    """
    if out.suffix != ".onnx":
        raise BadInput(f"{out}: the name must end in .onnx")
    if out.resolve() == onnx.resolve():
        raise BadInput(f"{out}: is the file to calibrate, and would be replaced; choose another output")
    if ranges and not ranges.parent.is_dir():
        raise BadInput(f"{ranges}: there is no folder {ranges.parent}; make it first")
    from dlink.calib.calibrate import CalibrationOptions, NotHeld
    from dlink.calib.calibrate import calibrate as write_int8
    from dlink.calib.evaluator import HoldoutLimits
    from dlink.calib.network import read_network
    from dlink.calib.sample import sample

    how = CalibrationOptions(
        method=method, deconv=deconv, base=base, keep=tuple(map(layer_of, keep)), views=views,
        limits=HoldoutLimits(max_iou_drop, min_agreement),
    )  # fmt: skip
    chosen = sample(tiles, read_network(onnx).spec.tile, samples, held, seed)
    for line in chosen.skipped:
        click.echo(f"skipped: {line}", err=True)
    try:
        result = write_int8(onnx, out, chosen, how, ranges, progress)
    except NotHeld as e:
        click.echo("\n".join(table(e.units)), err=True)
        raise
    if result.ranges.tiles_sha256 != chosen.sha256:
        click.echo(f"note: {ranges} was gathered on other tiles; those kept back now may be among them", err=True)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1))
        return
    smaller = out.stat().st_size / onnx.stat().st_size
    click.echo(
        f"{out}: {result.share:.1%} of the multiply-adds in int8, {out.stat().st_size / 1e6:.1f} MB ({smaller:.0%})"
    )
    click.echo(f"ranges by {result.method} from {result.ranges.tiles} tiles; {result.verdict}")
    if layers:
        click.echo("\n".join(table(result.units)))


def layer_of(keep: str) -> str:
    precision, _, name = keep.partition(":")
    if precision != "fp16" or not name:
        raise BadInput(f"--keep {keep}: expected fp16:NAME, such as fp16:decoder1.*")
    return name


def table(units: "Sequence[Unit]") -> list[str]:
    """A line for each layer."""
    width = max(len(u.name) for u in units)
    head = f"{'layer':<{width}}  type           share  precision"
    return [head] + [
        f"{u.name:<{width}}  {u.op:<13} {u.share:>6.2%}  {u.precision}" + (f"  {u.why}" if u.why else "") for u in units
    ]
