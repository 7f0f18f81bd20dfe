"""`dlink-finetune`: float ONNX + ranges + tiles -> INT8 ONNX, trained."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import IN_FILE, together
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.imagery.reading import Reading
    from dlink.training.quantised import FineTuneOptions

TUNED_ON, HELD_BACK = 240, 24  # tiles, if there are enough


@click.command(cls=Step, short_help="Train an INT8 file if calibration is not enough.")
@options.tiles
@options.output("The INT8 file to write (.onnx).", required=True)
@click.option("--init", type=IN_FILE, required=True, help="The float ONNX file of the ranges.")
@click.option("--ranges", type=IN_FILE, required=True, help="The file of dlink-calibrate --ranges.")
@together(
    "how",
    "training.quantised:FineTuneOptions",
    click.option("--epochs", default=8, show_default=True, help="Passes over the tiles."),
    click.option("--batch", default=4, show_default=True, help="Tiles a step."),
    click.option("--rate", default=5e-5, show_default=True, help="Adam's rate at the start."),
    options.seed("Seed of the choice of tiles, their order and views."),
    click.option("--everything", is_flag=True, help="Put all layers in int8, none in FP16."),
)
@options.reading(options.road_value)
def finetune(tiles: Path, out: Path, init: Path, ranges: Path, how: "FineTuneOptions", reading: "Reading") -> None:
    """Train the INT8 file of --init to draw the float network's roads on TILES; labels are not needed.

    Use it if calibration alone does not meet its limits. On some tiles, which are kept back, the file must come nearer
    to the float network than calibration does. If it does not, nothing is written and the exit status is 1.
    """
    if init.suffix != ".onnx" or out.suffix != ".onnx":
        raise BadInput(f"--init {init}, -o {out}: the float ONNX file and the INT8 one to write; both end in .onnx")
    if init.resolve() == out.resolve():
        raise BadInput(f"{out}: is the file to fine-tune, and would be replaced; choose another output")
    from dlink.calib.evaluator import scores_in_words
    from dlink.calib.network import read_network
    from dlink.calib.sample import sample
    from dlink.training.quantised import finetune as write_tuned

    spec = read_network(init).spec
    chosen = sample(tiles, spec.tile, TUNED_ON, HELD_BACK, how.seed, reading.of_network(spec))
    tuned = write_tuned(init, ranges, out, chosen, how, progress)
    result, count = tuned.result, counted(len(chosen.tiles), "tile")
    click.echo(f"{out}: {result.share:.1%} of the multiply-adds in int8, fine-tuned on {count}")
    click.echo(f"calibration alone: {scores_in_words(tuned.before)}")
    click.echo(f"fine-tuned:        {result.verdict}")


if __name__ == "__main__":
    finetune()
