"""`dlink-spacenet`: a SpaceNet area -> training tiles."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import IN_FOLDER, together
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlink.training.spacenet import SpaceNetOptions

SHOWN = 3  # files without a partner


@click.command(cls=Step, short_help="Make training tiles of a SpaceNet area.")
@click.argument("area", type=IN_FOLDER)
@options.output("Folder for <id>_sat.tif and <id>_mask.png.", required=True)
@click.option("--roads", is_flag=True, help="Draw the roads of an area that has buildings too.")
@click.option("--buildings", is_flag=True, help="Draw the buildings of an area that has roads too.")
@together(
    "how",
    "training.spacenet:SpaceNetOptions",
    click.option("--lanes", is_flag=True, help="Draw roads 4 m wide per lane.  [default: 4 m]"),
    options.limit,
    together("reading", "imagery.reading:Reading", options.bands, options.own_stretch),
)
def spacenet(area: Path, out: Path, roads: bool, buildings: bool, how: "SpaceNetOptions") -> None:
    """Make training tiles of AREA, a folder of SpaceNet with images and GeoJSON.

    Roads (SpaceNet 3 and 5) are drawn 4 m wide around their centre lines, buildings (SpaceNet 1 and 2) are filled.
    Images of more than 8 bits are stretched to 8. A tile keeps its place on the ground.
    """
    if roads and buildings:
        raise BadInput("--roads and --buildings: give one of them, and another folder for the other")
    from dlink.training.spacenet import BUILDINGS, ROADS, find_chips, write_chip

    found = find_chips(area, ROADS if roads else BUILDINGS if buildings else None)
    if found.alone:
        click.echo(f"note: left out, {alone_in_words(found.alone)}", err=True)
    chips = found.chips[: how.limit]
    out.mkdir(parents=True, exist_ok=True)
    show = progress("spacenet")
    made = []
    for i, chip in enumerate(chips):
        made.append(write_chip(chip, out, found.target, how))
        show(i + 1, len(chips), chip.id)
    empty, stretched = (sum(getattr(tile, name) for tile in made) for name in ("empty", "stretched"))
    click.echo(f"{out}: {counted(len(made), 'tile')}" + (f", {empty} without a {found.target}" if empty else ""))
    if stretched:
        click.echo(f"{counted(stretched, 'image')} stretched to 8 bits")
    if empty == len(made):
        click.echo(f"note: no tile has a {found.target}; do images and labels show the same place?", err=True)


def alone_in_words(files: "Sequence[Path]") -> str:
    names = ", ".join(path.name for path in files[:SHOWN]) + (", ..." if len(files) > SHOWN else "")
    return f"without a partner: {counted(len(files), 'file')}: {names}"
