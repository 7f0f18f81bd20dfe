"""Polygons of a map whose model finds something else than road, from the raster of all its blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from dlink.imagery.gdal_file import GDAL_ERRORS, gdal, why
from dlink.maps.blocks import Probable
from dlink.maps.job.plan import Plan
from dlink.maps.job.store import Store
from dlink.maps.polygons import AreaSummary, PolygonOptions, areas_of, rings_of, summary_of, write_areas
from dlink.maps.thinning import Mask
from dlink.runtime.errors import DlinkError
from dlink.runtime.progress import Tick

FULL = 255  # where the mask is set, and the level of probability 1


@dataclass
class AreaGround:
    """Where the pixels of a map lie, for its polygons."""

    path: Path
    shape: tuple[int, int]
    metres: tuple[float, float]
    crs: Any
    transform: Any
    target: str
    probable: bool = True


def draw_areas(
    folder: Path, plan: Plan, store: Store, how: PolygonOptions, formats: Sequence[str], tags: Mapping[str, str],
    tick: Tick,
) -> tuple[AreaSummary, list[Path], list[NDArray[np.float64]]]:  # fmt: skip
    """Write a map's polygons in each format: what they are, the files, and their rings in the map's system."""
    grid = plan.grid
    ground = AreaGround(folder, grid.shape, grid.metres, grid.system, grid.affine, plan.of_model.target)
    with gdal(Path(store.place)), rasterio.open(folder / f"{plan.result}.vrt") as file:

        def read(rows: slice, cols: slice) -> tuple[Mask, Probable]:
            try:
                bands = file.read(window=((rows.start, rows.stop), (cols.start, cols.stop)))
            except GDAL_ERRORS as e:
                raise DlinkError(
                    f"a block of the map is damaged; GDAL says: {why(e)}; remove it, run this again"
                ) from e
            return bands[0] == FULL, bands[1] / np.float32(FULL)

        areas = replace(areas_of(read, ground, how, tick), tags=tags)
    files = []
    for format in formats:
        tick(0, 0, f"writing {plan.result}.{format}")
        files.append(folder / f"{plan.result}.{format}")
        write_areas(files[-1], areas)
    return summary_of(areas), files, [ring for shape in areas.shapes for ring in rings_of(shape)]


def in_words(how: PolygonOptions) -> str:
    square = "squared where they are near right angles" if how.square else "not squared"
    return f"simplified by {how.simplify:g} m, areas and holes from {how.min_area:g} m² on, corners {square}"
