"""Makes the results of a map from its blocks: one mask, one file of lines for each format, and a report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlink.maps.job.mosaic_file import write_cog
from dlink.maps.job.plan import Plan
from dlink.maps.job.store import Store
from dlink.maps.job.tasks import unpacked
from dlink.maps.vectorize import LineOptions, Summary, roads_of, say_areas, summary_of
from dlink.maps.write import Roads, write_roads
from dlink.runtime.progress import Tick

NAME = "roads"
FORMATS = ("gpkg", "fgb", "geojson", "geojsonl")


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """What is made of a map's blocks. These may change from run to run."""

    formats: tuple[str, ...] = ()  # of FORMATS; none: GeoPackage
    min_length: float = 20.0  # metres; see LineOptions
    simplify: float = 1.0
    smooth: bool = True
    bridge: float = 0.0

    def lines(self, widest: float) -> LineOptions:
        return LineOptions(
            min_length=self.min_length, simplify=self.simplify, smooth=self.smooth, bridge=self.bridge, widest=widest
        )


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

    summary: Summary
    files: tuple[Path, ...]
    roads: Roads = field(repr=False)


def write_results(folder: Path, plan: Plan, store: Store, how: ResultOptions, tick: Tick) -> Results:
    """Write a map's mask and lines, each whole or not at all."""
    tick(0, 0, "writing the mask")
    mask = folder / f"{NAME}.tif"
    write_cog(mask, plan, store, tags(plan))
    tick(0, 0, "joining lines")
    parts = [unpacked(store.lines(plan.name(block))) for block in plan.blocks]
    ground = MapGround(folder, plan.grid.shape, plan.grid.metres, plan.grid.system, plan.grid.affine)
    lines = how.lines(plan.widest)
    say_areas(ground, parts, plan.widest)
    roads, nodes = roads_of(parts, ground, lines)
    files = [mask]
    for format in how.formats or FORMATS[:1]:
        tick(0, 0, f"writing {NAME}.{format}")
        write_roads(folder / f"{NAME}.{format}", roads)
        files.append(folder / f"{NAME}.{format}")
    return Results(summary_of(roads, nodes), tuple(files), roads)


def tags(plan: Plan) -> dict[str, str]:
    """What of a plan is kept in the mask's metadata."""
    said = {
        "DLINK_PLAN": plan.mark,
        "DLINK_MODEL": f"{plan.model.name} {plan.model.sha256}",
        "DLINK_BANDS": plan.bands,
        "DLINK_STRETCH": "; ".join(f"{samples}: {range_}" for samples, range_ in plan.stretch.items()),
        "DLINK_GSD_M": f"{min(plan.grid.metres):.4g}",
    }
    return {name: value for name, value in said.items() if value}
