"""What dlink-train, dlink-distil and dlink-slim share: the options of a recipe, a training run, its progress."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlink.cli import options
from dlink.cli.options import IN_FILE, IN_FOLDER, Option, Together, together
from dlink.cli.step import Show, progress
from dlink.imagery.reading import RGB, Reading
from dlink.nets.options import NetworkOptions
from dlink.runtime.errors import BadInput

if TYPE_CHECKING:
    from dlink.training.recipe import Recipe, Start, TrainingStep

NAMES = (".th", ".pth", ".pt")  # of the files that torch.save writes

init = click.option("--init", type=IN_FILE, help="Begin from this checkpoint, for a second stage.")
resume = click.option("--resume", is_flag=True, help="Continue a stopped training from its .state file.")
output = options.output("The checkpoint to write (.th).", required=True)
half = click.option("--half", is_flag=True, help="Store the checkpoint in float16.")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Which tiles are read, and how."""

    valid: Path | None = None
    workers: int = 0
    reading: Reading = RGB


def loading_of(valid: str) -> Together:
    """The options of `Loading`; `valid` says what the labelled tiles are for."""
    return together(
        "loading",
        "cli.courses:Loading",
        click.option("--valid", type=IN_FOLDER, help=valid),
        options.workers("Processes that load tiles.", 0, least=0),
        options.own_reading(options.road_value),
    )


loading = loading_of("Labelled tiles for IoU after each epoch; the best is kept.")


def steps(crop: str, epochs: int, words: str) -> tuple[Option, ...]:
    """The options of a recipe's steps."""
    return (
        click.option("--crop", default=1024, show_default=True, help=crop),
        click.option("--batch", default=4, show_default=True, help="Crops a step."),
        click.option("--epochs", default=epochs, show_default=True, help=words),
        click.option("--rate", default=2e-4, show_default=True, help="Adam's rate at the start."),
    )


seed = options.seed("Seed of the weights, the order and the crops.")
amp = click.option("--amp/--no-amp", default=False, help="Mixed precision: bfloat16 (float16 on GPUs without it).")


def recipe(crop: str, *more: Option) -> Together:
    """The options of a recipe: those that every training has, and `more`."""
    return together(
        "recipe",
        "training.recipe:Recipe",
        click.option("--arch", default="dlinknet34", show_default=True, help="The network."),
        click.option("--width", default=1.0, show_default=True, help="Multiplies the channels of every layer."),
        *steps(crop, 300, "Passes over the tiles, at most."),
        click.option(
            "--schedule", default="plateau", show_default=True, help="plateau (the authors') or poly (PP-LinkNet's)."
        ),
        *more,
        click.option(
            "--patience", default=0, help="Stop after this many epochs without a better IoU.  [default: never]"
        ),
        *options.preparation,
        seed,
        amp,
    )


def check_name(out: Path) -> None:
    """Raise BadInput for a checkpoint's name that torch.save does not use."""
    if out.suffix not in NAMES:
        raise BadInput(f"--output {out}: a checkpoint's name ends in {', '.join(NAMES)}; name it {out.stem}.th")


def run(tiles: Path, out: Path, recipe: "Recipe", start: "Start", loading: Loading, **how: Any) -> None:
    """Train, show the progress and print the result. `how` goes to training.loop.train."""
    check_name(out)
    from dlink.imagery.images import find_tiles
    from dlink.runtime.words import counted
    from dlink.training.loop import train
    from dlink.training.world import speaks

    if start.init is None and start.network != NetworkOptions():
        raise BadInput("--key and --class choose in the checkpoint of --init, which is missing")
    begun: dict[str, Any] = {"init": start.init, "encoder": start.encoder, "resume": start.resume}
    valid = loading.valid
    checked = find_tiles(valid, loading.reading) if valid else None
    shown = Shown()
    course = train(
        find_tiles(tiles, loading.reading), out, recipe, **begun, valid=checked, workers=loading.workers, **how,
        network=start.network, report=shown.step, drawing=shown.drawing, say=shown.note,
    )  # fmt: skip
    if not speaks():
        return
    losses = f"loss {course.losses[-1]:.4f} at the end, {course.best:.4f} at best"
    click.echo(f"{out}: {counted(course.done, 'epoch')}, {losses}")
    if course.ious:
        one, eight = max(course.ious)
        click.echo(f"IoU on {valid}: {one:.4f} with one view, {eight:.4f} with eight, in the epoch that was kept")


class Shown:
    """The progress of a training on stderr: the eight views that are drawn first, and the steps."""

    def __init__(self) -> None:
        self.drawn: Show = progress("eight views")
        self.trained: Show = progress("train")

    def step(self, s: "TrainingStep") -> None:
        done = (s.epoch - 1) * s.steps + s.step
        self.trained(done, s.epochs * s.steps, f"epoch {s.epoch}/{s.epochs} loss {s.loss:.4f} rate {s.rate:.2g}")

    def drawing(self, done: int, total: int) -> None:
        self.drawn(done, total, "tiles")
        self.trained = progress("train")  # its clock starts after the last tile is drawn

    def note(self, words: str) -> None:
        click.echo(words, err=True)
