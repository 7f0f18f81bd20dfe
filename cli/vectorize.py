"""`dlink-vectorize`: mask -> roads as lines."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import POSITIVE, Picture, together
from dlink.cli.step import Step, progress
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.imagery.reading import Reading
    from dlink.maps.vectorize import LineOptions

METRES = click.FloatRange(0)


@click.command(cls=Step, short_help="Draw the roads of a mask as lines.")
@click.argument("mask", type=Picture(path_type=Path))
@options.output("The lines: .gpkg, .fgb, .geojson or .geojsonl.", required=True)
@together(
    "how",
    "maps.vectorize:LineOptions",
    options.threshold("Of probabilities: road above it.  [default: 0.5 of real numbers]"),
    click.option(
        "--min-length", type=METRES, metavar="METRES", help="Drop shorter pieces on their own.  [default: 20]"
    ),
    click.option("--simplify", type=METRES, metavar="METRES", help="How far lines may be simplified.  [default: 1]"),
    click.option("--bridge", type=METRES, metavar="METRES", help="Bridge gaps up to this length.  [default: 0]"),
    click.option("--smooth/--no-smooth", default=True, show_default=True, help="Smooth lines between junctions."),
    click.option("--widest", type=POSITIVE, metavar="METRES", help="Wider areas are no roads.  [default: 50]"),
    options.gsd("Metres a pixel of a mask that does not say it.  [default: the mask's, or 0.5]"),
)
@together("reading", "imagery.reading:Reading", options.road_value)
def vectorize(mask: Path, out: Path, how: "LineOptions", reading: "Reading") -> None:
    """Draw the roads of MASK as lines that meet at shared nodes, with their length and width.

    MASK is a raster of any size: two values, of which 0 is no road, or probabilities. GeoJSON is in longitude and
    latitude, other formats are in the mask's coordinate system.
    """
    from dlink.maps.vectorize import vectorize as write_lines

    found = write_lines(mask, out, how, reading, progress("vectorize"))
    if not found.lines:
        click.echo(f"note: {mask}: no road was found; {out} has no lines", err=True)
    click.echo(f"{out}: {counted(found.lines, 'line')}, {found.km:.2f} km, {counted(found.nodes, 'node')}")
