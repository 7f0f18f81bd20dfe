"""`dlink-train`: tiles -> checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import courses, options
from dlink.cli.options import IN_FILE, together
from dlink.cli.step import Moved, Step

if TYPE_CHECKING:
    from dlink.training.recipe import Recipe, Start


@click.command(
    cls=Step,
    short_help="Train a checkpoint on tiles.",
    moved=[Moved(to="finetune", option="--int8", now="--ranges"), Moved(to="distil", option="--distil")],
)
@options.tiles
@courses.output
@courses.recipe(
    "Side of the training crops, px.",
    click.option("--loss", default="bce+dice", show_default=True, help="bce+dice (the authors'), focal or focal+dice."),
    click.option(
        "--colours", default="released", show_default=True, help="Amount of colour shifts: released (code) or slides."
    ),
)
@together(
    "start",
    "training.recipe:Start",
    courses.init,
    options.network(),
    click.option("--encoder", type=IN_FILE, help="A classifier's weights by torchvision's names (D-UNet: VGG-13)."),
    courses.resume,
)
@courses.loading
@courses.half
def train(tiles: Path, out: Path, recipe: "Recipe", start: "Start", loading: courses.Loading, half: bool) -> None:
    """Train a network on TILES (<id>_sat.jpg with <id>_mask.png) by the authors' recipe.

    Several GPUs: torchrun --nproc-per-node=4 -m dlink.cli.train TILES ...
    """
    courses.run(tiles, out, recipe, start, loading, half=half)


if __name__ == "__main__":
    train()
