"""Makes the results of a map from its blocks: a mask, lines or polygons in each format, a report, a STAC item."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio

from dlink.imagery.notes import say
from dlink.imagery.reading import TARGET_TAG
from dlink.maps.choice import refuse_others
from dlink.maps.job.areas import draw_areas
from dlink.maps.job.areas import in_words as areas_in_words
from dlink.maps.job.mosaic_file import write_cog
from dlink.maps.job.plan import Plan
from dlink.maps.job.store import Store
from dlink.maps.job.tasks import unpacked
from dlink.maps.osm_options import OsmOptions
from dlink.maps.pmtiles import check_pmtiles
from dlink.maps.polygons import FORMATS as POLYGON_FORMATS
from dlink.maps.polygons import AreaSummary, PolygonOptions
from dlink.maps.report.page import Report, write_report
from dlink.maps.report.preview import preview
from dlink.maps.stac_item import Made, item
from dlink.maps.vectorize import LineOptions, Summary, comparison, roads_of, say_areas, summary_of
from dlink.maps.write import Points, write_roads
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing
from dlink.runtime.progress import Tick

COARSE = 4096  # px of the side of a mask from which the area is counted
WHAT = {
    ".tif": "the mask, 255 where there is road; a Cloud Optimized GeoTIFF",
    ".gpkg": "the roads as lines, GeoPackage",
    ".fgb": "the roads as lines, FlatGeobuf",
    ".geojson": "the roads as lines, GeoJSON in longitude and latitude",
    ".geojsonl": "the roads as lines, a GeoJSON feature a line",
    ".osm": "the roads for JOSM, to be reviewed",
    ".pmtiles": "the roads as lines in tiles for web maps, PMTiles",
    ".html": "a picture, the figures, how it was made, what was left out",
    ".json": "a STAC item of these files",
}
OPTIONS = "options.json"  # of the last run
FORMATS = ("gpkg", "fgb", "geojson", "geojsonl", "pmtiles", "osm")
if TYPE_CHECKING:
    from dlink.maps.conflate import Conflated

LINES, POLYGONS = "the roads as lines", "as polygons"
ITEM = "item.json"


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """What is made of a map's blocks. These may change from run to run."""

    formats: tuple[str, ...] = ()  # of FORMATS; none: GeoPackage
    min_length: float = 20.0  # metres; see LineOptions
    simplify: float = 1.0
    smooth: bool = True
    bridge: float = 0.0
    min_area: float = 10.0  # square metres; see PolygonOptions
    square: bool = False
    osm: OsmOptions | None = None  # None: roads are not compared with OpenStreetMap

    def __post_init__(self) -> None:
        if "pmtiles" in self.formats:
            check_pmtiles("--format pmtiles")

    def lines(self, widest: float) -> LineOptions:
        return LineOptions(
            min_length=self.min_length, simplify=self.simplify, smooth=self.smooth, bridge=self.bridge, widest=widest
        )

    @property
    def polygons(self) -> PolygonOptions:
        return PolygonOptions(min_area=self.min_area, simplify=self.simplify, square=self.square)


def keep_results(folder: Path, how: ResultOptions) -> None:
    """Keep in the folder what is made of its blocks, for runs that do not say it."""
    values = asdict(how)
    if how.osm:
        values["osm"]["extract"] = how.osm.extract and str(how.osm.extract.absolute())
    with replacing(folder / OPTIONS, lasting=True) as part:
        part.write_text(json.dumps(values))


def last_results(folder: Path) -> ResultOptions:
    """What the last run made of the blocks, or the defaults."""
    path = folder / OPTIONS
    try:
        values = json.loads(path.read_text())
        osm = values.pop("osm")
        extract = osm and osm["extract"] and Path(osm["extract"])
        beside = OsmOptions(extract=extract, distance=osm["distance"]) if osm else None
        return ResultOptions(**{**values, "formats": tuple(values["formats"]), "osm": beside})
    except FileNotFoundError:
        return ResultOptions()
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"{path}: damaged: {e}; remove it") from e


def remove_others(folder: Path, plan: Plan, files: Sequence[Path]) -> None:
    """Remove results of earlier runs that are none of this one, for they may show other lines."""
    for format in FORMATS:
        old = folder / f"{plan.result}.{format}"
        if old.exists() and old not in files:
            old.unlink()
            say(old, "was of an earlier run and is removed; --format may be repeated")


def check_results(plan: Plan, how: ResultOptions) -> None:
    """Raise BadInput if a result is asked for that a map of this model has not, or what can't be compared."""
    comparison(plan.grid.system, how.osm, how.min_length)
    if plan.lined:
        if how.square or how.min_area != ResultOptions.min_area:
            raise BadInput(f"--{'square' if how.square else 'min-area'}: is of polygons, and the model finds road")
        return
    target = plan.of_model.target
    refuse_others(how.lines(plan.widest), f"the model finds {target}, which becomes polygons; leave it out")
    if how.osm and how.osm.extract:
        raise BadInput(f"--osm: compares lines, and the model finds {target}; leave it out")
    if lacking := [format for format in how.formats if format not in POLYGON_FORMATS]:
        known = ", ".join(POLYGON_FORMATS)
        raise BadInput(f"--format {lacking[0]}: holds lines alone, and the model finds {target}; expected {known}")


@dataclass
class MapGround:
    """Where the pixels of a map lie, for its lines."""

    path: Path
    shape: tuple[int, int]
    metres: tuple[float, float]
    crs: Any
    transform: Any
    probable: bool = True


@dataclass(frozen=True)
class Results:
    """What was made."""

    summary: Summary | AreaSummary
    files: tuple[Path, ...]

    @property
    def beside(self) -> "Conflated | None":
        """What the roads are beside OpenStreetMap, if they were compared."""
        return self.summary.beside if isinstance(self.summary, Summary) else None


def write_results(folder: Path, plan: Plan, store: Store, how: ResultOptions, tick: Tick) -> Results:
    """Write a map's mask and its lines or polygons, each whole or not at all."""
    summary: Summary | AreaSummary
    if plan.lined:
        summary, files, drawn = draw_lines(folder, plan, store, how, tick)
    else:
        formats = how.formats or POLYGON_FORMATS[:1]
        summary, files, drawn = draw_areas(folder, plan, store, how.polygons, formats, tags(plan), tick)
    tick(0, 0, "writing the mask")
    mask = folder / f"{plan.result}.tif"
    write_cog(mask, plan, store, tags(plan))
    files = [mask, *files]
    remove_others(folder, plan, files)
    page = folder / "report.html"
    report = report_of(folder, plan, store, how, summary, [*files, folder / ITEM])
    write_report(page, folder / "report.json", report, preview(plan, tick), drawn)
    write_item(folder / ITEM, plan, [*files, page])
    return Results(summary, (*files, page, folder / ITEM))


def draw_lines(
    folder: Path, plan: Plan, store: Store, how: ResultOptions, tick: Tick
) -> tuple[Summary, list[Path], list[Points]]:
    """Write a map's lines in each format: what they are, the files, and the lines in the map's system."""
    tick(0, 0, "joining lines")
    parts = [unpacked(store.lines(plan.name(block))) for block in plan.blocks]
    ground = MapGround(folder, plan.grid.shape, plan.grid.metres, plan.grid.system, plan.grid.affine)
    lines = how.lines(plan.widest)
    say_areas(ground, parts, plan.widest)
    roads, nodes = roads_of(parts, ground, lines)
    beside = None
    if compare := comparison(plan.grid.system, how.osm, how.min_length):
        tick(0, 0, "comparing with OpenStreetMap")
        beside = compare(roads)
        roads, nodes = beside.roads, beside.nodes
    roads = replace(roads, tags=tags(plan), source=f"dlink, {plan.model.name}")
    files = []
    for format in how.formats or FORMATS[:1]:
        out = folder / f"{plan.result}.{format}"
        tick(0, 0, f"writing {out.name}")
        if format == "pmtiles" and not roads.lines:
            out.unlink(missing_ok=True)
            say(out, "is not made: there is no road")
            continue
        write_roads(out, roads)
        files.append(out)
    return summary_of(roads, nodes, beside), files, roads.lines


def what(path: Path, plan: Plan) -> str:
    """What a result is, in words."""
    words = WHAT[path.suffix]
    if plan.lined:
        return words
    target = plan.of_model.target
    return words.replace(LINES, f"{target} {POLYGONS}").replace("there is road", f"there is {target}")


def write_item(path: Path, plan: Plan, results: Sequence[Path]) -> None:
    """Write the STAC item of a map's results, which are there."""
    grid = plan.grid
    made = Made(
        id=path.absolute().parent.name or plan.result,
        crs=grid.system,
        transform=grid.affine,
        shape=grid.shape,
        gsd_m=min(grid.metres),
        dlink=plan.dlink,
        model=plan.model,
        files={each: what(each, plan) for each in results},
        found="roads" if plan.lined else plan.of_model.target,
        created=datetime.now(timezone.utc),
    )
    with replacing(path) as part:
        part.write_text(json.dumps(item(made), indent=1))


def report_of(
    folder: Path,
    plan: Plan,
    store: Store,
    how: ResultOptions,
    summary: Summary | AreaSummary,
    results: Sequence[Path],
) -> Report:
    """What the report of a map says."""
    grid, asked = plan.grid, plan.asked
    with rasterio.open(folder / f"{plan.result}.tif") as mask:
        factor = max(1, max(mask.shape) // COARSE)
        small = mask.dataset_mask(out_shape=(-(-mask.height // factor), -(-mask.width // factor)))
    area = float((small > 0).mean()) * grid.rows * grid.metres[0] * grid.columns * grid.metres[1] / 1e6
    begun, ended = store.times()
    return Report(
        title=f"{plan.result.capitalize()} of {folder.absolute().name}",
        drawn=plan.result if plan.lined else f"{plan.of_model.target} polygons",
        found={
            **figures(summary, area, plan.of_model.target),
            "Area with data": f"{area:,.3g} km²",
            "Grid": f"{grid.columns:,} x {grid.rows:,} px of {min(grid.metres):.3g} m, {grid.system.to_string()[:80]}",
        },
        how={
            "Model": f"{plan.model.name}, SHA-256 {plan.model.sha256}",
            **({"Scout": f"{plan.scout.name}, SHA-256 {plan.scout.sha256}"} if plan.scout else {}),
            "Views": plan.views,
            "Threshold": f"{plan.threshold:g}",
            "Bands": plan.bands or "by their names",
            "Stretch": "; ".join(
                f"{kind.replace(' x ', ' bands of ')}: {range_}" for kind, range_ in plan.stretch.items()
            )
            or "none",
            "Blocks": f"{len(plan.blocks):,} of {plan.side} x {plan.side} windows of {plan.of_model.tile} px",
            "Area of interest": asked.aoi or "all",
            **drawing(plan, how, summary),
            "Blocks made": f"{begun} to {ended}" if begun else "",
            "Finished on": f"{platform.node()}, dlink {plan.dlink}",
            "Plan": plan.mark,
        },
        files={path.name: what(path, plan) for path in results},
        sources=[{"name": s.name, "read": "as it is" if s.plain else "warped to the grid"} for s in plan.sources],
        left_out=[{"name": each.name, "why": each.why} for each in plan.left_out],
    )


def figures(summary: Summary | AreaSummary, area: float, target: str) -> dict[str, str]:
    """The figures of a report; `area`: square kilometres with data."""
    if isinstance(summary, Summary):
        return {
            "Roads": f"{summary.km:,.2f} km in {summary.lines:,} lines and {summary.nodes:,} nodes",
            "Roads per area": f"{summary.km / area:.2f} km a km²" if area else "no data",
        }
    return {
        "Polygons": summary.words,
        "Share of the area": f"{summary.area_m2 / area / 1e6:.2%} is {target}" if area else "no data",
    }


def drawing(plan: Plan, how: ResultOptions, summary: Summary | AreaSummary) -> dict[str, str]:
    """How lines or polygons were drawn, in words."""
    if isinstance(summary, Summary):
        return {"Lines": in_words(how.lines(plan.widest)), "OpenStreetMap": beside_osm(how.osm, summary)}
    return {"Polygons": areas_in_words(how.polygons)}


def beside_osm(how: OsmOptions | None, summary: Summary) -> str:
    if how is None or summary.beside is None:
        return "not compared"
    found = summary.beside
    return (
        f"{how.extract}: has {found.covered_km:,.2f} km of the roads within {how.distance:g} m, which are left out; "
        f"{found.joins:,} joins, {found.flagged:,} lines to review"
    )


def in_words(how: LineOptions) -> str:
    smooth = "smoothed" if how.smooth else "not smoothed"
    bridge = f"gaps bridged up to {how.bridge:g} m" if how.bridge else "no gaps bridged"
    return (
        f"{smooth}, simplified by {how.simplify:g} m, pieces from {how.min_length:g} m on, {bridge}, "
        f"no roads wider than {how.widest:g} m"
    )


def tags(plan: Plan) -> dict[str, str]:
    """What of a plan is kept in the mask's metadata."""
    said = {
        "DLINK_PLAN": plan.mark,
        TARGET_TAG: plan.of_model.target,
        "DLINK_MODEL": f"{plan.model.name} {plan.model.sha256}",
        **({"DLINK_SCOUT": f"{plan.scout.name} {plan.scout.sha256}"} if plan.scout else {}),
        "DLINK_BANDS": plan.bands,
        "DLINK_STRETCH": "; ".join(f"{samples}: {range_}" for samples, range_ in plan.stretch.items()),
        "DLINK_GSD_M": f"{min(plan.grid.metres):.4g}",
    }
    return {name: value for name, value in said.items() if value}
