"""`dlink-distil`: a trained network's eight views -> a checkpoint that draws them with one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import courses, options
from dlink.cli.options import IN_FILE, together
from dlink.cli.step import Step

if TYPE_CHECKING:
    from dlink.training.recipe import Recipe, Start


@click.command(cls=Step, short_help="Teach a checkpoint's one view what its eight give.")
@options.tiles
@courses.output
@together(
    "start",
    "training.recipe:Start",
    click.option("--init", type=IN_FILE, required=True, help="The trained network: teacher, and where to begin."),
    courses.resume,
)
@courses.recipe("Side of the windows, px: best the tile to export for.")
@courses.valid
@courses.workers
@courses.half
def distil(
    tiles: Path, out: Path, recipe: "Recipe", start: "Start", valid: Path | None, workers: int, half: bool
) -> None:
    """Teach one view of a network what its eight views give, on TILES; labels are not needed.

    --arch and --width are those of --init. Its eight views are drawn first, windows of --crop px.

    Several GPUs: torchrun --nproc-per-node=4 -m dlink.cli.distil TILES ...
    """
    courses.run(tiles, out, recipe, start, valid, distil=True, workers=workers, half=half)


if __name__ == "__main__":
    distil()
