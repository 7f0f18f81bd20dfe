"""`dlink-train`: tiles -> checkpoint."""

from pathlib import Path

import click

from dlink.cli.step import IN_FILE, IN_FOLDER, OUT_PATH, Step, progress


@click.command(cls=Step)
@click.argument("tiles", type=IN_FOLDER)
@click.option("-o", "--output", "out", type=OUT_PATH, required=True, help="The checkpoint to write (.th).")
@click.option("--arch", default="dlinknet34", show_default=True, help="The network.")
@click.option("--width", default=1.0, show_default=True, help="Multiplies the channels of every layer.")
@click.option("--crop", default=1024, show_default=True, help="Side of the training crops, px.")
@click.option("--batch", default=4, show_default=True, help="Crops a step.")
@click.option("--epochs", default=300, show_default=True, help="Passes over the tiles, at most.")
@click.option("--rate", default=2e-4, show_default=True, help="Adam's rate at the start.")
@click.option("--schedule", default="plateau", show_default=True, help="plateau (the authors') or poly (PP-LinkNet's).")
@click.option("--seed", default=0, show_default=True)
@click.option("--amp/--no-amp", default=False, help="Compute in bfloat16 where it is safe.")
@click.option("--workers", default=0, show_default=True, help="Processes that load tiles.")
@click.option("--init", type=IN_FILE, help="Begin from this checkpoint, for a second stage.")
@click.option("--half", is_flag=True, help="Store the checkpoint in float16.")
@click.option("--resume", is_flag=True, help="Go on where a stopped training left its .state file.")
def train(tiles: Path, out: Path, workers: int, resume: bool, init: Path | None, half: bool, **recipe: object) -> None:
    """Train a network on TILES (<id>_sat.jpg with <id>_mask.png) by the authors' recipe."""
    from dlink.training.loop import Recipe, Step, train
    from dlink.trt_runtime.images import find_tiles

    show = progress("train")

    def report(s: Step) -> None:
        done = (s.epoch - 1) * s.steps + s.step
        show(done, s.epochs * s.steps, f"epoch {s.epoch}/{s.epochs} loss {s.loss:.4f} rate {s.rate:.2g}")

    options = {"workers": workers, "resume": resume, "init": init, "half": half}
    course = train(find_tiles(tiles), out, Recipe(**recipe), **options, report=report)  # type: ignore[arg-type]
    click.echo(f"{out}: {course.done} epochs, loss {course.losses[-1]:.4f} at the end, {course.best:.4f} at best")
