"""`dlink-vectorize`: mask -> roads as lines, or other things as polygons."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import POSITIVE, Picture, together
from dlink.cli.step import Step, progress

if TYPE_CHECKING:
    from dlink.imagery.reading import Reading
    from dlink.maps.choice import AreaOptions
    from dlink.maps.vectorize import LineOptions

METRES = click.FloatRange(0)
of_areas = (
    click.option("--min-area", type=METRES, metavar="M2", help="Of polygons: drop smaller areas.  [default: 10]"),
    click.option("--square", is_flag=True, help="Of polygons: square their corners, as buildings have them."),
)


@click.command(cls=Step, short_help="Draw the roads of a mask as lines, or polygons.")
@click.argument("mask", type=Picture(path_type=Path))
@options.output("The result: .gpkg, .fgb, .geojson or .geojsonl.", required=True)
@together(
    "how",
    "maps.vectorize:LineOptions",
    options.threshold("Of probabilities: road above it.  [default: 0.5 of real numbers]"),
    click.option(
        "--min-length", type=METRES, metavar="METRES", help="Drop shorter pieces on their own.  [default: 20]"
    ),
    click.option("--simplify", type=METRES, metavar="METRES", help="How far results may be simplified.  [default: 1]"),
    click.option("--bridge", type=METRES, metavar="METRES", help="Bridge gaps up to this length.  [default: 0]"),
    click.option("--smooth/--no-smooth", default=True, show_default=True, help="Smooth lines between junctions."),
    click.option("--widest", type=POSITIVE, metavar="METRES", help="Wider areas are no roads.  [default: 50]"),
    options.gsd("Metres a pixel of a mask that does not say it.  [default: the mask's, or 0.5]"),
)
@together(
    "areas",
    "maps.choice:AreaOptions",
    click.option(
        "--polygons/--lines",
        default=None,
        help="What to draw.  [default: polygons if the mask says that it shows no road]",
    ),
    *of_areas,
)
@together("reading", "imagery.reading:Reading", options.road_value)
def vectorize(mask: Path, out: Path, how: "LineOptions", areas: "AreaOptions", reading: "Reading") -> None:
    """Draw the roads of MASK as lines that meet at shared nodes, with their length and width.

    With --polygons, its areas, such as buildings, become polygons with their area.

    MASK is a raster of any size: two values, of which 0 is no road, or probabilities. GeoJSON is in longitude and
    latitude, other formats are in the mask's coordinate system.
    """
    from dlink.maps.choice import polygons_of
    from dlink.maps.polygons import polygons
    from dlink.maps.vectorize import vectorize as write_lines

    tick = progress("vectorize")
    if wanted := polygons_of(mask, how, areas, reading):
        made = polygons(mask, out, wanted, reading, tick)
        if not made.polygons:
            click.echo(f"note: {mask}: nothing was found; {out} has no polygons", err=True)
        click.echo(f"{out}: {made.words}")
        return
    found = write_lines(mask, out, how, reading, tick)
    if not found.lines:
        click.echo(f"note: {mask}: no road was found; {out} has no lines", err=True)
    click.echo(f"{out}: {found.words}")
