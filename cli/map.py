"""`dlink-map`: model + any number of rasters -> one mask, and roads as lines."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlink.cli import options
from dlink.cli.options import IN_FILE, together
from dlink.cli.step import Step, progress
from dlink.cli.vectorize import in_words
from dlink.runtime.errors import BadInput
from dlink.runtime.words import counted

if TYPE_CHECKING:
    from dlink.maps.job.engines import EngineOptions
    from dlink.maps.job.finish import ResultOptions
    from dlink.maps.job.plan import MapOptions
    from dlink.maps.job.run import Where

INTERRUPTED = 130


@click.command(cls=Step, short_help="Make a map of many rasters.")
@click.argument("model", type=IN_FILE, required=False)
@click.argument("sources", nargs=-1)
@together(
    "where",
    "maps.job.run:Where",
    click.option(
        "-o", "--output", "folder", type=options.OUT_PATH, required=True, help="The map's folder, new or begun."
    ),
    click.option("--part", metavar="K/N", help="Do one of N parts of the blocks, and no results: for arrays of jobs."),
    click.option(
        "--replaced",
        type=click.Choice(["redo", "keep"]),
        help="Compute the done blocks of rasters that were replaced since again, or keep them.  [default: refuse]",
    ),
)
@together(
    "how",
    "maps.job.plan:MapOptions",
    options.bands,
    options.stretch,
    options.read_at("the model's"),
    click.option("--views", metavar="8|4|1|adaptive", help="Test-time augmentation.  [default: the model's]"),
    options.threshold("Road where the probability is greater.  [default: the model's]"),
    click.option("--halo", type=int, help="Context around every window's core, px.  [default: 64]"),
    options.scout,
    click.option("--aoi", metavar="FILE", help="Polygons; there is no map outside of them."),
    click.option("--crs", metavar="EPSG:N", help="The map's coordinate system.  [default: that of most rasters]"),
    click.option("--asset", metavar="NAME", help="Which asset of STAC items.  [default: the only raster]"),
    click.option("--skip-bad", is_flag=True, help="Leave out rasters that cannot be used, and say so in the report."),
    options.widest,
    click.option(
        "--windows", type=options.AT_LEAST_1, help="Windows of a block, down and across.  [default: 5 or more]"
    ),
    click.option(
        "--blocks", metavar="PATH", help="Where blocks lie, such as /vsis3/bucket/map.  [default: the folder]"
    ),
)
@together(
    "engine",
    "maps.job.engines:EngineOptions",
    click.option("--engine", type=click.Choice(["local", "dask", "ray"]), help="Who does the work.  [default: local]"),
    click.option("--engine-address", "address", metavar="ADDRESS", help="A running Dask or Ray cluster."),
    options.workers("Processes.  [default: one for each core; one on a GPU]"),
    click.option("--threads", type=options.AT_LEAST_1, help="CPU threads of each.  [default: cores / workers]"),
)
@together(
    "results",
    "maps.job.finish:ResultOptions",
    click.option(
        "--format",
        "formats",
        multiple=True,
        type=click.Choice(["gpkg", "fgb", "geojson", "geojsonl", "pmtiles", "osm"]),
        help="Of lines or polygons; may be repeated.  [default: gpkg]",
    ),
    *options.lines,
    *options.areas,
    options.beside_osm,
)
@click.option("--status", is_flag=True, help="Say how far the map is, from any shell; change nothing.")
def map(
    model: Path | None,
    sources: tuple[str, ...],
    where: "Where",
    how: "MapOptions",
    engine: "EngineOptions",
    results: "ResultOptions",
    status: bool,
) -> None:
    """Make one map of the roads that MODEL finds in SOURCES: a mask, lines and a report.

    Of a model that finds other things, such as buildings, there are polygons instead of lines.

    SOURCES are rasters of any kind, folders of them, patterns of names, .txt files of names, addresses,
    paths of GDAL's file systems, and STAC items; where several overlap, the first is on top. The same command again
    goes on where the last one ended. So does -o FOLDER alone, with the options of the last run.
    """
    from dlink.maps.job.run import make_map

    if status:
        show_status(where)
        return
    if (model is None) != (not sources):
        raise BadInput("give a model and rasters, or neither to go on with the map of the folder")
    asked = how if model else of_the_plan(where, how, options.given("how"))
    wanted = results if model or options.given("results") else None  # None: as in the last run
    try:
        made = make_map(model, sources, where, asked, engine, wanted, progress("map"), tell)
    except KeyboardInterrupt:
        click.echo(f"\n{stopped(where)}", err=True)
        raise SystemExit(INTERRUPTED) from None
    if made is None:
        click.echo(f"{where.folder}: part {where.part} is done; when all are, dlink-map -o {where.folder} finishes")
        return
    for file in made.files:
        click.echo(str(file))
    click.echo(made.summary.words)
    if made.beside and results.osm:
        click.echo(f"{results.osm.extract}: {in_words(made.beside, 'osm' in results.formats)}")


def of_the_plan(where: "Where", how: "MapOptions", given: set[str]) -> "MapOptions | None":
    """The options of the plan of a folder, with what is given beside it; None if nothing is."""
    from dlink.maps.job.plan import Plan

    return replace(Plan.read(where.folder).asked, **{name: getattr(how, name) for name in given}) if given else None


def stopped(where: "Where") -> str:
    """What is said after Ctrl-C."""
    from dlink.maps.job.run import progress_of

    try:
        at = progress_of(where)
    except BadInput:
        return "stopped before the map was planned; the same command begins again"
    return f"stopped; {at.roads} of {counted(at.all, 'block')} done: dlink-map -o {where.folder} goes on"


def tell(line: str) -> None:
    click.echo(line, err=True)


def show_status(where: "Where") -> None:
    from dlink.maps.job.run import progress_of

    at = progress_of(where)
    if at.finished:
        click.echo(f"{where.folder}: finished, {counted(at.all, 'block')}")
        return
    if at.unseen:
        click.echo(f"{where.folder}: no block is seen in {at.unseen}; are its keys and its address set here?")
        return
    state = "running" if at.running else "not running"
    left = f", {duration(at.left)} left for the roads" if at.running and at.left else ""
    lines = "" if at.lines is None else f"; lines {at.lines}/{at.all}"
    click.echo(f"{where.folder}: {state}; roads {at.roads}/{at.all} blocks{left}{lines}")
    if not at.running:
        click.echo(f"dlink-map -o {where.folder} goes on")


def duration(seconds: float) -> str:
    """Such as 3 h 20 min."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
