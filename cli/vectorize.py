"""`dlink-vectorize`: mask -> roads as lines, or other things as polygons."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import Picture, together
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.imagery.reading import Reading
    from dlink.maps.choice import AreaOptions
    from dlink.maps.conflate import Conflated
    from dlink.maps.osm_options import OsmOptions
    from dlink.maps.vectorize import LineOptions

LEAST_KM = 0.005  # that is shown


@click.command(cls=Step, short_help="Draw the roads of a mask as lines, or polygons.")
@click.argument("mask", type=Picture(path_type=Path))
@options.output("The result: .gpkg, .fgb, .geojson, .geojsonl, .pmtiles for web maps, or .osm for JOSM.", required=True)
@together(
    "how",
    "maps.vectorize:LineOptions",
    options.threshold("Of probabilities: road above it.  [default: 0.5 of real numbers]"),
    *options.lines,
    options.widest,
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
    *options.areas,
)
@together("reading", "imagery.reading:Reading", options.road_value)
@options.beside_osm
def vectorize(
    mask: Path, out: Path, how: "LineOptions", areas: "AreaOptions", reading: "Reading", osm: "OsmOptions"
) -> None:
    """Draw the roads of MASK as lines that meet at shared nodes, with their length and width.

    With --polygons, its areas, such as buildings, become polygons with their area.

    MASK is a raster of any size: two values, of which 0 is no road, or probabilities. GeoJSON and .osm are in longitude
    and latitude, PMTiles in Web Mercator, other formats in the mask's coordinate system. --osm keeps what OpenStreetMap
    does not have yet.
    """
    from dlink.maps.choice import polygons_of
    from dlink.maps.polygons import polygons
    from dlink.maps.vectorize import vectorize as write_lines

    tick = progress("vectorize")
    if wanted := polygons_of(mask, how, areas, reading):
        if osm.extract:
            raise BadInput("--osm: compares lines, and the result is polygons; leave it out, or draw --lines")
        made = polygons(mask, out, wanted, reading, tick)
        if not made.polygons:
            click.echo(f"note: {mask}: nothing was found; {out} has no polygons", err=True)
        click.echo(f"{out}: {made.words}")
        return
    found = write_lines(mask, out, how, reading, tick, osm)
    if not found.lines:
        why = "no road was found" if found.beside is None or not found.beside.covered_km else "no road is new"
        click.echo(f"note: {mask}: {why}; {out} has no lines", err=True)
    click.echo(f"{out}: {found.words}")
    if found.beside:
        click.echo(f"{osm.extract}: {in_words(found.beside, out.suffix.lower() == '.osm')}")


def in_words(beside: "Conflated", changes: bool) -> str:
    """What the comparison with OpenStreetMap found. `changes`: the file has the existing ways that get nodes."""
    changed = f"{counted(beside.changed, 'existing way')} with new nodes, " if changes else ""
    rest = f", and {beside.rest_km:.2f} km of short rests" if beside.rest_km >= LEAST_KM else ""
    return (
        f"has {beside.covered_km:.2f} km of the roads already{rest}; {counted(len(beside.roads.lines), 'line')} new, "
        f"{counted(beside.joins, 'join')}, {changed}{counted(beside.flagged, 'line')} to review"
    )
