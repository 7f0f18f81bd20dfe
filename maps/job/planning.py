"""Makes the plan of a map: looks at every raster once, lays the grid, and finds the blocks that have data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError

from dlink.imagery.notes import say
from dlink.imagery.reading import NATIVE, Reading
from dlink.imagery.resolution import ALIKE, WGS84, refuse_coarse
from dlink.imagery.source import Source, opened
from dlink.maps.blocks import BLOCK
from dlink.maps.job.area import Area, area_of
from dlink.maps.job.grid import Footprint, Grid, grid_of, in_system, near_degrees
from dlink.maps.job.plan import LeftOut, MapOptions, Plan, SourceFile
from dlink.maps.job.ranges import ranges
from dlink.maps.job.watched import Watched, difference, mark_of, watched_files
from dlink.runtime import open_model
from dlink.runtime.errors import BadInput
from dlink.runtime.files import FileMark, file_mark, file_sha256
from dlink.runtime.onnx_bytes import read_onnx
from dlink.runtime.progress import Tick, ignore
from dlink.runtime.scout import check_scout, limit_of
from dlink.runtime.segmenter import default_halo
from dlink.runtime.spec import Spec
from dlink.runtime.versions import installed_version
from dlink.runtime.windows import cover
from dlink.runtime.words import counted

WINDOWS = 5  # of a block, down and across: 25 windows are a task of seconds to minutes
SHOWN = 3  # rasters that a message names


@dataclass(frozen=True)
class Seen:
    """A raster that can be used: where it lies, the type of its samples, and which files it was."""

    place: Footprint
    samples: str
    files: tuple[Watched, ...]


def planned(model: Path, spec: Spec, names: Sequence[str], how: MapOptions, tick: Tick = ignore) -> Plan:
    """The plan of a map.

    Args:
        model: The model's file.
        spec: The model's.
        names: The rasters, the first on top, as `found_sources` gives them.
        how: What is asked for.
        tick: Called with (rasters looked at, all rasters, words).

    Raises:
        BadInput: Rasters cannot be used, do not fit together, or none lies in the area.
    """
    halo = default_halo(spec) if how.halo is None else how.halo
    cover(1, 1, spec.tile, halo)  # raises BadInput for a halo that does not fit
    scout = scout_of(model, spec, how)
    reading = how.reading.of_network(spec)
    seen, bad = looked_at(names, reading, tick)
    refuse(bad, len(names), how.skip_bad)
    wanted = reading.metres
    grid = grid_of([each.place for each in seen], wanted, system_of(how.crs))
    area = None if how.aoi is None else area_of(Path(how.aoi), grid)
    grid = grid if area is None else cut(grid, area, str(how.aoi))
    placed = [source_of(each, grid) for each in seen]
    sources = [source for source in placed if touches(source, grid)]
    outside = [LeftOut(name=source.name, why="lies outside --aoi") for source in placed if not touches(source, grid)]
    if not sources:
        where = near_degrees(area.bounds if area else grid.bounds, grid.system)
        raise BadInput(f"{how.aoi or 'the grid'}: no raster lies in it; they lie at {extent(seen)}, it at {where}")
    stretch = ranges(sources, reading, tick)
    say_grid(seen, sources, grid, wanted)
    plan = Plan(
        dlink=installed_version("dlink"),
        model=file_mark(model),
        model_path=str(model.absolute()),
        asked=how,
        spec=spec.to_json(),
        grid=grid,
        sources=tuple(sources),
        left_out=(*bad, *outside),
        bands=how.bands or "",
        stretch=stretch,
        area=area.polygons if area else (),
        area_mark=area.mark if area else "",
        views=how.views or str(len(spec.views)),
        threshold=spec.threshold if how.threshold is None else how.threshold,
        halo=halo,
        side=how.windows or max(WINDOWS, -(-BLOCK // (spec.tile - 2 * halo))),
        widest=how.widest,
        blocks=(),
        scout=scout,
    )
    return replace(plan, blocks=tuple(with_data(plan)))


def scout_of(model: Path, spec: Spec, how: MapOptions) -> FileMark | None:
    """The scout's mark. Raises BadInput now, and not at the first block, if it is none for this model."""
    if how.scout is None:
        return None
    scout, mark = Path(how.scout), file_mark(Path(how.scout))
    if ".plan" in (model.suffix, scout.suffix):
        open_model(model, scout=scout, threshold=how.threshold).close()
        return mark
    limit = limit_of(read_onnx(scout).spec, scout, spec, model)  # no engine, which would keep memory
    check_scout(limit, scout, model, {file_sha256(model)}, spec.threshold if how.threshold is None else how.threshold)
    return mark


def looked_at(names: Sequence[str], reading: Reading, tick: Tick) -> tuple[list[Seen], list[LeftOut]]:
    """The rasters that can be used, and the others with the reason."""
    seen: list[Seen] = []
    bad: list[LeftOut] = []
    for i, name in enumerate(names):
        try:
            seen.append(look(name, reading))
        except BadInput as e:
            bad.append(LeftOut(name=name, why=str(e).removeprefix(f"{name}: ")))
        tick(i + 1, len(names), "rasters looked at")
    return seen, bad


def look(name: str, reading: Reading) -> Seen:
    """A raster as it is now.

    Raises:
        BadInput: It cannot be used, or it changes meanwhile.
    """
    path = Path(name)
    before = mark_of(path)
    with opened(path, replace(reading, gsd=NATIVE)) as source:
        files = watched_files(path, source.dataset)
        seen = Seen(footprint(name, source), f"{len(source.bands.numbers)} x {source.dtype}", files)
    if reading.metres is not None:
        refuse_coarse(path, seen.place.metres, reading.metres)
    if mark_of(path) != before or difference(files):
        raise BadInput(f"{name}: changes while it is looked at; run this again when it is whole")
    return seen


def footprint(name: str, source: Source) -> Footprint:
    file = source.dataset
    if not file.crs or source.metres is None:
        points = file.gcps[0] or file.rpcs
        how = "gdalwarp makes one of its control points" if points else "gdal_edit.py -a_srs EPSG:N"
        what = "place" if file.crs else "coordinate system"
        raise BadInput(f"{name}: has no {what}; give it one ({how})")
    return Footprint(name, file.crs, file.transform, source.native, source.metres)


def refuse(bad: Sequence[LeftOut], count: int, skip: bool) -> None:
    """Raise BadInput if rasters cannot be used, unless they are to be left out and others remain."""
    if not bad or (skip and len(bad) < count):
        for each in bad:
            say(Path(each.name), f"{each.why}; it is left out")
        return
    if len(bad) == 1:
        hint = "" if count == 1 else "; --skip-bad leaves it out"
        raise BadInput(f"{bad[0].name}: {bad[0].why}{hint}")
    shown = "; ".join(f"{each.name}: {each.why}" for each in bad[:SHOWN])
    more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    hint = "; --skip-bad leaves them out" if len(bad) < count else ""
    raise BadInput(f"{len(bad)} of {count} rasters cannot be used: {shown}{more}{hint}")


def system_of(name: str | None) -> CRS | None:
    if name is None:
        return None
    try:
        return CRS.from_user_input(name)
    except CRSError as e:
        raise BadInput(f"--crs {name[:60]}: no known coordinate system; expected such as EPSG:32633") from e


def source_of(seen: Seen, grid: Grid) -> SourceFile:
    """A raster on the grid."""
    at = seen.place.on(grid)
    if at is None:
        rows, columns = grid.pixels(seen.place.bounds(grid.system))
    else:
        rows, columns = (slice(first, first + n) for first, n in zip(at, seen.place.shape, strict=True))
    return SourceFile(
        name=seen.place.name,
        files=seen.files,
        samples=seen.samples,
        plain=at is not None,
        rows=(rows.start, rows.stop),
        columns=(columns.start, columns.stop),
    )


def touches(source: SourceFile, grid: Grid) -> bool:
    (top, bottom), (left, right) = source.rows, source.columns
    return top < grid.rows and bottom > 0 and left < grid.columns and right > 0


def cut(grid: Grid, area: Area, file: str) -> Grid:
    """The grid without what lies beyond the bounds of an area."""
    rows, columns = grid.pixels(area.bounds)
    rows = slice(max(rows.start, 0), min(rows.stop, grid.rows))
    columns = slice(max(columns.start, 0), min(columns.stop, grid.columns))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        there, here = near_degrees(area.bounds, grid.system), near_degrees(grid.bounds, grid.system)
        raise BadInput(f"{file}: no raster lies in it; it is at {there}, they at {here}")
    part = grid.part(rows, columns)
    return replace(grid, transform=tuple(part)[:6], rows=rows.stop - rows.start, columns=columns.stop - columns.start)


def extent(seen: Sequence[Seen]) -> str:
    """Where the rasters lie, in words."""
    boxes = np.array([in_system(each.place.bounds(each.place.crs), each.place.crs, WGS84) for each in seen])
    least, most = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
    return near_degrees((*least, *most), WGS84)


def say_grid(seen: Sequence[Seen], sources: Sequence[SourceFile], grid: Grid, wanted: float | None) -> None:
    """Say which rasters are not read as they are."""
    if warped := [source for source in sources if not source.plain]:
        own = {each.place.name: each.place.metres for each in seen}
        metres = [m for source in warped for m in own[source.name]]
        range_ = f"{min(metres):.3g}" + (f" to {max(metres):.3g}" if max(metres) / min(metres) > 1.01 else "")
        at = f"{min(grid.metres):.3g} m a pixel in {grid.system.to_string()[:60]}"
        other = wanted is not None and any(abs(m / wanted - 1) >= ALIKE for m in metres)
        native = "; --gsd native keeps the rasters' own" if other else ""
        say(
            Path(warped[0].name),
            f"{counted(len(warped), 'raster')} of {len(sources)} ({range_} m a pixel) warped to the map's grid",
            f": {at}{native}",
        )


def with_data(plan: Plan) -> Iterator[int]:
    """The blocks in which a raster, and the area, have pixels."""
    boxes = shapely.box(*np.array([(s.columns[0], s.rows[0], s.columns[1], s.rows[1]) for s in plan.sources]).T)
    tree = shapely.STRtree(boxes)
    area = shapely.union_all([shapely.from_wkt(text) for text in plan.area]) if plan.area else None
    if area is not None:
        shapely.prepare(area)
    rows, _ = plan.spans
    a, _, c, _, e, f = plan.grid.transform
    for block in range(-(-len(rows) // plan.side) * plan.across):
        down, along = plan.core(block)
        inside = shapely.box(along.start + 0.5, down.start + 0.5, along.stop - 0.5, down.stop - 0.5)
        if not len(tree.query(inside, predicate="intersects")):
            continue
        ground = shapely.box(a * along.start + c, e * down.stop + f, a * along.stop + c, e * down.start + f)
        if area is None or area.intersects(ground):
            yield block
