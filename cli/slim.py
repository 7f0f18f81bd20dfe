"""`dlink-slim`: checkpoint -> one of fewer channels or of sparse weights, which draws the same roads for less work."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import courses, options
from dlink.cli.options import IN_FILE, OUT_PATH, together
from dlink.cli.step import Step

if TYPE_CHECKING:
    from dlink.training.recipe import Recipe, SlimOptions, Start
    from dlink.training.slim import Slimmed


@click.command(cls=Step, short_help="Take away channels or weights: less work for the same roads.")
@click.argument("checkpoint", type=IN_FILE)
@options.tiles
@courses.output
@together(
    "how",
    "training.recipe:SlimOptions",
    click.option("--flops", type=float, help="Share of the multiply-adds that is left.  [default: 0.4]"),
    click.option("--sparse", is_flag=True, help="Keep all channels, with zeros in two of four weights (2:4)."),
    click.option("--prunings", default=8, show_default=True, help="Prunings, in the first half of the epochs."),
    click.option(
        "--labels", default=0.5, show_default=True, help="Share of the labels, where there are, in the targets."
    ),
    click.option(
        "--variants", default=0, show_default=True, help="Of each tile, in other colours and sizes: for few tiles."
    ),
    click.option("--views", type=OUT_PATH, help="Keep the eight views in this folder, for further runs."),
    courses.half,
)
@together(
    "recipe",
    "training.recipe:Recipe",
    *courses.steps("Side of the crops, px; best is the tile of the export.", 30, "Passes over the tiles."),
    *options.preparation,
    courses.seed,
    courses.amp,
)
@together(
    "start",
    "training.recipe:Start",
    options.network("", click.option("--arch", help="The network.  [default: read from the checkpoint's keys]")),
    courses.resume,
)
@courses.loading_of("Labelled tiles for the IoU before and after.")
def slim(
    checkpoint: Path, tiles: Path, out: Path, how: "SlimOptions", recipe: "Recipe", start: "Start",
    loading: courses.Loading,
) -> None:  # fmt: skip
    """Write CHECKPOINT with fewer channels in each layer, trained on TILES to draw the original's eight-view roads.

    Channels that matter least for the multiply-adds that they cost are taken away, in several prunings with training
    between them. TILES are like those that the network will see; labels are used where there are any. What comes out
    is a checkpoint like any other.

    With --sparse all channels stay, and two of each four successive weights become zeros, which TensorRT can use on
    Ampere and newer: dlink-build --sparse.
    """
    courses.check_name(out)
    from dlink.imagery.images import find_tiles
    from dlink.nets.checkpoint import read_checkpoint
    from dlink.training.slim import slim as make_slim

    network = start.network
    original = read_checkpoint(checkpoint, network.arch, key=network.key, road=network.road)
    for note in original.notes:
        click.echo(f"note: {note}", err=True)
    valid = find_tiles(loading.valid, loading.reading) if loading.valid else None
    shown = courses.Shown()
    slimmed = make_slim(
        original, find_tiles(tiles, loading.reading), out, recipe, how, resume=start.resume, valid=valid,
        workers=loading.workers, report=shown.step, drawing=shown.drawing, say=shown.note,
    )  # fmt: skip
    click.echo(f"{out}: {original.arch} of width {original.width:g} with {slimmed.share:.1%} of its multiply-adds")
    if how.sparse:
        click.echo(f"2:4 sparse weights in {slimmed.sparse:.1%} of them")
    click.echo("\n".join(table(slimmed, loading.valid)))


def table(slimmed: "Slimmed", valid: Path | None) -> list[str]:
    """The multiply-adds of both networks by stage, and their IoU."""
    before, after = slimmed.before, slimmed.after
    rows = [("", "before", "after"), ("multiply-adds, billions", "", "")]
    for stage, count in before.by_stage.items():
        rows.append((f"  {stage}", billions(count), billions(after.by_stage[stage])))
    rows.append(("  all", billions(before.total), billions(after.total)))
    if before.ious and after.ious:
        rows.append((f"IoU on {valid}", "", ""))
        for words, was, now in zip(("one view", "eight views"), before.ious, after.ious, strict=True):
            rows.append((f"  {words}", f"{was:.4f}", f"{now:.4f}"))
    widest = max(len(name) for name, _, _ in rows)
    return [f"{name:{widest}} {was:>9} {now:>9}".rstrip() for name, was, now in rows]


def billions(count: int) -> str:
    return f"{count / 1e9:.2f}"


if __name__ == "__main__":
    slim()
