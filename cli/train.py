"""`dlink-train`: tiles -> checkpoint."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dlink.cli.step import IN_FILE, IN_FOLDER, OUT_PATH, Step, progress
from dlink.runtime.errors import BadInput

TUNED_ON, HELD_BACK = 240, 24  # tiles, where there are as many


@click.command(cls=Step)
@click.argument("tiles", type=IN_FOLDER)
@click.option("-o", "--output", "out", type=OUT_PATH, required=True, help="The checkpoint to write (.th).")
@click.option("--arch", default="dlinknet34", show_default=True, help="The network.")
@click.option("--width", default=1.0, show_default=True, help="Multiplies the channels of every layer.")
@click.option("--crop", default=1024, show_default=True, help="Side of the training crops, px.")
@click.option("--batch", default=4, show_default=True, help="Crops a step.")
@click.option("--epochs", default=300, show_default=True, help="Passes over the tiles, at most.")
@click.option("--rate", default=2e-4, show_default=True, help="Adam's rate at the start.")
@click.option("--loss", default="bce+dice", show_default=True, help="bce+dice (the authors'), focal or focal+dice.")
@click.option("--schedule", default="plateau", show_default=True, help="plateau (the authors') or poly (PP-LinkNet's).")
@click.option("--colours", default="released", show_default=True, help="Shifts of the released code, or the slides.")
@click.option("--valid", type=IN_FOLDER, help="Labelled tiles: their IoU after each epoch; the best epoch is kept.")
@click.option("--patience", default=0, help="Stop after so many epochs without a better IoU.  [default: never]")
@click.option("--seed", default=0, show_default=True)
@click.option("--amp/--no-amp", default=False, help="Mixed precision: bfloat16 (float16 on GPUs without it).")
@click.option("--workers", default=0, show_default=True, help="Processes that load tiles.")
@click.option("--init", type=IN_FILE, help="Begin from this checkpoint, for a second stage.")
@click.option("--encoder", type=IN_FILE, help="A classifier's weights, torchvision's names (D-UNet: VGG-13).")
@click.option("--distil", is_flag=True, help="Teach one view of --init what its eight give; labels are not needed.")
@click.option("--int8", "ranges", type=IN_FILE, help="Fine-tune the ONNX file --init in int8; see above.")
@click.option("--everything", is_flag=True, help="With --int8: all layers in int8, none left in FP16.")
@click.option("--half", is_flag=True, help="Store the checkpoint in float16.")
@click.option("--resume", is_flag=True, help="Go on where a stopped training left its .state file.")
def train(
    tiles: Path, out: Path, workers: int, resume: bool, init: Path | None, encoder: Path | None, valid: Path | None,
    distil: bool, ranges: Path | None, everything: bool, half: bool, **recipe: object,
) -> None:  # fmt: skip
    """Train a network on TILES (<id>_sat.jpg with <id>_mask.png) by the authors' recipe.

    With --int8 RANGES (of dlink-calibrate --ranges) the float ONNX file --init becomes the INT8 file -o, and learns on
    TILES to draw the float network's roads in int8; --epochs, --batch, --rate and --seed count, labels are not needed.

    With --distil the eight views of --init are drawn first, windows of --crop px, which is best the tile to export for;
    --loss and --colours don't count, labels are not needed.

    Several GPUs: torchrun --nproc-per-node=4 -m dlink.cli.train TILES ...
    """
    if ranges:
        given = {k: v for k, v in recipe.items() if was_given(k) and k in ("epochs", "batch", "rate", "seed")}
        fine_tune(tiles, out, ranges, init, everything, given)
        return
    if everything:
        raise BadInput("--everything: goes with --int8")
    from dlink.imagery.images import find_tiles
    from dlink.training.loop import train
    from dlink.training.recipe import Recipe, TrainingStep
    from dlink.training.world import speaks

    show, drawn = progress("train"), progress("eight views")

    def report(s: TrainingStep) -> None:
        done = (s.epoch - 1) * s.steps + s.step
        show(done, s.epochs * s.steps, f"epoch {s.epoch}/{s.epochs} loss {s.loss:.4f} rate {s.rate:.2g}")

    def drawing(done: int, total: int) -> None:
        nonlocal show
        drawn(done, total, "tiles")
        show = progress("train")  # its clock starts when the last is drawn

    def scores_in_words(words: str) -> None:
        click.echo(words, err=True)

    course = train(
        find_tiles(tiles), out, Recipe(**recipe), workers=workers, resume=resume, init=init, encoder=encoder,  # type: ignore[arg-type]
        valid=find_tiles(valid) if valid else None, distil=distil, half=half, report=report,
        drawing=drawing, say=scores_in_words,
    )  # fmt: skip
    if not speaks():
        return
    click.echo(f"{out}: {course.done} epochs, loss {course.losses[-1]:.4f} at the end, {course.best:.4f} at best")
    if course.ious:
        one, eight = max(course.ious)
        click.echo(f"IoU on {valid}: {one:.4f} with one view, {eight:.4f} with eight, in the epoch that was kept")


def was_given(name: str) -> bool:
    """Whether an option stands on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def fine_tune(
    tiles: Path, out: Path, ranges: Path, init: Path | None, everything: bool, given: "dict[str, Any]"
) -> None:
    if init is None or init.suffix != ".onnx" or out.suffix != ".onnx":
        raise BadInput("--int8: --init names the float ONNX file that the ranges are of, and -o the INT8 one to write")
    if init.resolve() == out.resolve():
        raise BadInput(f"{out}: is the file to fine-tune, and would be replaced; choose another output")
    from dlink.calib.evaluator import scores_in_words
    from dlink.calib.network import read_network
    from dlink.calib.sample import sample
    from dlink.training.quantised import finetune

    chosen = sample(tiles, read_network(init).spec.tile, TUNED_ON, HELD_BACK, int(given.get("seed", 0)))
    tuned = finetune(init, ranges, out, chosen, everything=everything, progress=progress, **given)
    result = tuned.result
    click.echo(f"{out}: {result.share:.1%} of the multiply-adds in int8, fine-tuned on {len(chosen.tiles)} tiles")
    click.echo(f"calibration alone: {scores_in_words(tuned.before)}")
    click.echo(f"fine-tuned:        {result.verdict}")


if __name__ == "__main__":
    train()
