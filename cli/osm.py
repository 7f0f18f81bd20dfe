"""`dlink-osm`: tiles + OpenStreetMap -> pseudo masks."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import IN_FILE
from dlink.cli.step import Step, progress
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.training.places import Place
    from dlink.training.streets import Street


@click.command(cls=Step, short_help="Draw OpenStreetMap's roads as masks to train on.")
@options.tiles
@click.argument("extract", type=IN_FILE, required=False)
@options.output("Folder for <id>_mask.png.", required=True)
@click.option("--bounds", type=IN_FILE, help="CSV with id, west, south, east, north: where the pictures are.")
@click.option("--crs", metavar="EPSG:N", help="System of world files and --bounds.  [default of --bounds: EPSG:4326]")
@click.option("--skip", multiple=True, metavar="TAG", help="Leave out tunnel, bridge, or a highway such as track.")
@click.option("--fetch", is_flag=True, help="Fetch roads from OpenStreetMap's servers instead of EXTRACT.")
def osm(
    tiles: Path, extract: Path | None, out: Path, bounds: Path | None, crs: str | None, skip: tuple[str, ...],
    fetch: bool,
) -> None:  # fmt: skip
    """Draw the roads of EXTRACT (.osm, .osm.pbf, .geojson, .gpkg, .fgb, .shp) over TILES as masks to train on.

    A road is drawn 4 m wide per lane, as by PP-LinkNet. A GeoTIFF, a world file or --bounds places a tile.
    Train on the masks first, then on hand-made ones: dlink-train --init. OpenStreetMap's data is under the ODbL.
    """
    if bool(extract) == fetch:
        raise BadInput("EXTRACT or --fetch: give exactly one of them")
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    from dlink.imagery.images import find_tiles, write_image
    from dlink.training.places import place_of, read_bounds
    from dlink.training.pseudo import draw
    from dlink.training.streets import fetch_streets, read_streets, skipped

    try:
        system = CRS.from_user_input(crs) if crs else None
    except CRSError as e:
        raise BadInput(f"--crs {crs}: not a coordinate system; expected such as EPSG:32633") from e
    table = read_bounds(bounds) if bounds else None
    chosen = find_tiles(tiles)
    places = [place_of(tile.image, table, system) for tile in chosen]
    streets = skipped(read_streets(extract), skip) if extract else []
    labels = {tile.label.resolve() for tile in chosen if tile.label}
    masks = [out / f"{tile.id}_mask.png" for tile in chosen]
    if taken := [path for path in masks if path.resolve() in labels]:
        raise BadInput(f"{taken[0]}: is the label of a tile, and would be replaced; choose another output")
    out.mkdir(parents=True, exist_ok=True)
    show = progress("osm")
    empty = 0
    for i, (path, place) in enumerate(zip(masks, places, strict=True)):
        mask = draw(skipped(fetch_streets(place.bounds), skip) if fetch else streets, place)
        empty += not mask.any()
        write_image(path, mask)
        show(i + 1, len(chosen), path.name)
    click.echo(f"{out}: {counted(len(chosen), 'mask')}" + (f", {empty} of them without a road" if empty else ""))
    if empty == len(chosen):
        click.echo(f"note: no tile has a road; {around(streets, places)}", err=True)


def around(streets: "list[Street]", places: "list[Place]") -> str:
    """Where the roads are and where the first tile is, in words."""
    lon, lat = places[0].centre
    if not streets:
        return f"the first is at {lon:.4f}, {lat:.4f}"
    first = streets[0].line[0]
    return f"the first road is at {first[0]:.4f}, {first[1]:.4f}, the first tile at {lon:.4f}, {lat:.4f}"
