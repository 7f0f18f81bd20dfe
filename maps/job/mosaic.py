"""Reads windows of a map's grid from its rasters: where several have data, from the first of them."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import numpy as np
import shapely
from rasterio.errors import EnvError
from rasterio.features import geometry_mask

from dlink.imagery.gdal_file import gdal
from dlink.imagery.source import Image, Source, Valid, opened
from dlink.imagery.warped import Onto, opened_onto
from dlink.maps.blocks import Reach, filled
from dlink.maps.job.plan import Plan, SourceFile, changed
from dlink.runtime.errors import BadInput

OPEN = 24  # rasters that are kept open


class Mosaic:
    """The open rasters of a plan, as one picture."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tree = shapely.STRtree(
            shapely.box(*np.array([(s.columns[0], s.rows[0], s.columns[1], s.rows[1]) for s in plan.sources]).T)
        )
        self.area = [shapely.from_wkt(text) for text in plan.area]
        self.hole = Reach(plan.grid.metres, plan.widest).hole
        self.open: OrderedDict[int, tuple[ExitStack, Source]] = OrderedDict()
        self.used: set[int] = set()  # rasters that were read since `changed` was asked
        self.settings = ExitStack()
        self.settings.enter_context(gdal(Path()))

    def read(self, rows: slice, cols: slice) -> tuple[Image, Valid]:
        """Pixels (H, W, planes) and where there is data (H, W).

        Holes in the data that fit into 6 m x 6 m are black pixels that are taken for no data, and become data.
        """
        high, wide = (side + 1 for side in self.hole)
        outer = slice(max(rows.start - high, 0), min(rows.stop + high, self.plan.grid.rows))
        along = slice(max(cols.start - wide, 0), min(cols.stop + wide, self.plan.grid.columns))
        image, valid = self.laid(outer, along)
        if valid.any() and not valid.all():
            valid = filled(valid, self.hole)
        inner = shifted(rows, outer.start), shifted(cols, along.start)
        image, valid = image[inner], valid[inner]
        return image, valid & self.within(rows, cols) if self.area else valid

    def laid(self, rows: slice, cols: slice) -> tuple[Image, Valid]:
        """The rasters' pixels, one over the other.

        Without data in any of them, a pixel is as the first stores it; where that one is warped it is 0, because GDAL's
        warper leaves such pixels out.
        """
        shape = rows.stop - rows.start, cols.stop - cols.start
        image = np.zeros((*shape, len(self.plan.of_model.bands)), np.uint8)
        valid, there = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        for index in self.touching(rows, cols):
            source = self.plan.sources[index]
            down, along = common(rows, source.rows), common(cols, source.columns)
            here = shifted(down, rows.start), shifted(along, cols.start)
            if valid[here].all():
                continue
            own = shifted(down, source.rows[0]), shifted(along, source.columns[0])
            raster = self.source(index)
            if raster.is_empty(*own):
                there[here] = True  # and 0
                continue
            pixels, has_data = raster.read(*own)
            data = np.ones(pixels.shape[:2], np.bool_) if has_data is None else has_data
            new = (data & ~valid[here]) | ~there[here]
            np.copyto(image[here], pixels, where=new[..., None])
            valid[here] |= data
            there[here] = True
        return image, valid

    def touching(self, rows: slice, cols: slice) -> Iterator[int]:
        """The numbers of the rasters that have pixels in a window, the first ones first."""
        found = self.tree.query(shapely.box(cols.start, rows.start, cols.stop, rows.stop))
        for index in sorted(found.tolist()):
            source = self.plan.sources[index]
            if nonempty(common(rows, source.rows)) and nonempty(common(cols, source.columns)):
                yield index

    def source(self, index: int) -> Source:
        """An open raster. The one that was used longest ago is closed for it."""
        self.used.add(index)
        if index in self.open:
            self.open.move_to_end(index)
            return self.open[index][1]
        if len(self.open) == OPEN:
            _, (stack, _) = self.open.popitem(last=False)
            stack.close()
        stack = ExitStack()
        found = stack.enter_context(self.opening(self.plan.sources[index]))
        self.open[index] = stack, found
        return found

    def opening(self, source: SourceFile) -> AbstractContextManager[Source]:
        if why := changed(source):
            raise BadInput(why)
        path, how = Path(source.name), self.plan.reading(source)
        if source.plain:
            return opened(path, how)
        grid = self.plan.grid
        rows, columns = slice(*source.rows), slice(*source.columns)
        shape = rows.stop - rows.start, columns.stop - columns.start
        return opened_onto(path, how, Onto(grid.system, grid.part(rows, columns), shape, min(grid.metres)))

    def changed(self) -> str:
        """Why a raster that was read since the last call is not as it was planned with; empty if all are.

        A file that is written over while it is read gives pixels of both.
        """
        used, self.used = self.used, set()
        return next((why for index in sorted(used) if (why := changed(self.plan.sources[index]))), "")

    def within(self, rows: slice, cols: slice) -> Valid:
        """Where a window lies in the map's area."""
        shape = rows.stop - rows.start, cols.stop - cols.start
        inside: Valid = geometry_mask(self.area, shape, self.plan.grid.part(rows, cols), invert=True)
        return inside

    def close(self) -> None:
        for stack in [*(stack for stack, _ in reversed(self.open.values())), self.settings]:
            with suppress(EnvError):  # the process ends on another thread than the tasks', without its GDAL settings
                stack.close()
        self.open.clear()


def common(span: slice, other: tuple[int, ...]) -> slice:
    return slice(max(span.start, other[0]), min(span.stop, other[1]))


def shifted(span: slice, start: int) -> slice:
    """A span, counted from `start` on."""
    return slice(span.start - start, span.stop - start)


def nonempty(span: slice) -> bool:
    return bool(span.start < span.stop)
