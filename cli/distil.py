"""`dlink-distil`: checkpoint -> a checkpoint whose one view gives what eight views gave."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import courses, options
from dlink.cli.options import IN_FILE, together
from dlink.cli.step import Step

if TYPE_CHECKING:
    from dlink.training.recipe import Recipe, Start


@click.command(cls=Step, short_help="Train one view to give what eight views give.")
@options.tiles
@courses.output
@together(
    "start",
    "training.recipe:Start",
    click.option("--init", type=IN_FILE, required=True, help="The trained network: teacher and first weights."),
    options.network(),
    courses.resume,
)
@courses.recipe("Side of the windows, px; best is the tile of the export.")
@courses.loading
@courses.half
def distil(tiles: Path, out: Path, recipe: "Recipe", start: "Start", loading: courses.Loading, half: bool) -> None:
    """Train a network on TILES so that one view gives what eight views give. Labels are not needed.

    --arch and --width are those of --init. Its eight-view roads are drawn first, in windows of --crop px.

    Several GPUs: torchrun --nproc-per-node=4 -m dlink.cli.distil TILES ...
    """
    courses.run(tiles, out, recipe, start, loading, distil=True, half=half)


if __name__ == "__main__":
    distil()
