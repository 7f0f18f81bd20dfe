"""Segments a raster into a GeoTIFF on the same grid, by windows. Memory does not grow with the scene. Needs rasterio.

The result has one band: uint8, 255 where there is road and 0 elsewhere, or float32 probabilities. An overlay has three
bands. Its metadata say what it shows, which bands were read, by which stretch, and at which ground resolution.

Where the raster is read at another ground resolution (source.py), the probabilities lie on that grid in a temporary
file first. From there they are interpolated to the raster's own grid, and then compared with the threshold.

A pixel without data in the source has no data in the result. An internal mask band says so, and the pixel's value is 0.
A nodata value cannot say so, because 0 means "no road" and 255 "road".
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling

from dlink.imagery.gdal_file import name_of
from dlink.imagery.geotiff import BLOCK, writing
from dlink.imagery.images import shown
from dlink.imagery.jobs import Job, OutputOptions
from dlink.imagery.pictures import Doing, begin, mask_of, paint, pieces
from dlink.imagery.reading import TARGET_TAG
from dlink.imagery.source import Image, Source, Valid, box_on, opened
from dlink.runtime.backend import Roads
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Count, ignore
from dlink.runtime.segmenter import Segmenter
from dlink.runtime.windows import Window, cover

AHEAD = 24 << 20  # bytes that are read at once
KINDS: dict[str, dict[str, Any]] = {"mask": {"dtype": "uint8"}, "probability": {"dtype": "float32", "predictor": 3}}
TEMPORARY: dict[str, Any] = {"count": 1, "dtype": "float32", "compress": "none"}  # deflate takes as long as a network
OVERLAY: dict[str, Any] = {"count": 3, "dtype": "uint8", "predictor": 2}


def segment_raster(job: Job, model: Segmenter, how: OutputOptions, tick: Count = ignore, doing: Doing = ignore) -> None:
    """Write the road mask or the probabilities of a raster, and its overlay if the job has one.

    Args:
        job: The raster and its outputs, from find_jobs.
        model: The open model.
        how: What to write.
        tick: Called with (windows done, all windows).
        doing: Called with the name of each long step of a scene of 50 megapixels or more.

    Raises:
        BadInput: The raster is damaged, has no georeference, or its bands cannot be used.
        EngineFailed: The engine failed, or a result is not a probability.
        OSError: An output cannot be written.

    Example:
        >>> from pathlib import Path
        >>> import rasterio
        >>> from dlink.imagery.jobs import OutputOptions, find_jobs
        >>> from dlink.imagery.raster import segment_raster
        >>> from dlink.runtime import open_model
        >>> how = OutputOptions()
        >>> [job] = find_jobs([Path("scene.tif")], Path("roads.tif"), how)
        >>> with open_model("roads.onnx") as model:
        ...     segment_raster(job, model, how)
        >>> with rasterio.open("roads.tif") as roads:
        ...     print(roads.crs, roads.shape, int((roads.read(1) == 255).sum()))
        EPSG:32633 (100, 150) 3000
    """
    with ExitStack() as stack:
        source = stack.enter_context(opened(job.image, job.reading.of_network(model.spec)))
        if not source.placed:
            raise BadInput(f"{job.image}: its georeference is damaged; restore it with gdal_edit.py -a_srs and -a_ullr")
        if source.levels_take_time:
            begin(doing, "finding the range of", *source.native)
        tags = source.tags() | {TARGET_TAG: model.spec.target}
        job.out.parent.mkdir(parents=True, exist_ok=True)
        file = source.dataset
        out = stack.enter_context(writing(job.out, file, source.masked, tags, count=1, **KINDS[how.form]))
        over = job.overlay and stack.enter_context(writing(job.overlay, file, source.masked, tags, **OVERLAY))
        found = scaled(source, model, how, tick, job) if source.scaled else plain(source, model, how, tick)
        for window, roads, image, valid in found:
            if valid is not None:
                roads = np.where(valid, roads, roads.dtype.type(0))
            out.put(window, roads[None], valid)
            if over:
                over.put(
                    window,
                    np.moveaxis(paint(np.ascontiguousarray(shown(image)), mask_of(roads, model, how)), -1, 0),
                    valid,
                )
        begin(doing, "reading back", *source.native)


Piece = tuple[Window, Roads, Image, Valid | None]  # a window of the file's grid, its core's roads, pixels and data


def plain(source: Source, model: Segmenter, how: OutputOptions, tick: Count) -> Iterator[Piece]:
    """The roads of a raster that is read as it is."""
    ahead = Ahead(source, model.spec.tile)
    for window, roads in pieces(model, ahead.read, source.shape, how, tick):
        yield window, roads, *ahead.cores.pop(window)


def scaled(source: Source, model: Segmenter, how: OutputOptions, tick: Count, job: Job) -> Iterator[Piece]:
    """The roads of a raster that is read at another ground resolution."""
    ahead = Ahead(source, model.spec.tile)
    probable = OutputOptions(views=how.views, probability=True)
    with TemporaryDirectory(prefix=".", dir=job.out.parent) as folder:
        path = Path(folder) / "probabilities.tif"
        try:
            with writing(path, source.dataset, False, {}, source.shape, **TEMPORARY) as coarse:
                for window, roads in pieces(model, ahead.read, source.shape, probable, tick):
                    del ahead.cores[window]
                    coarse.put(window, roads[None], None)
        except OSError as e:  # names the user's file, not the temporary one
            raise OSError(e.errno, e.strerror, str(job.out)) from e
        with ExitStack() as stack:
            dataset = stack.enter_context(rasterio.open(name_of(path, stack)))
            for window in cover(*source.native, 4 * BLOCK, 0):
                rows, cols = window.core
                box = box_on(source.shape, rows, cols, source.native)
                shape = rows.stop - rows.start, cols.stop - cols.start
                found = dataset.read(1, window=box, out_shape=shape, resampling=Resampling.bilinear)
                roads = found.clip(0, 1) if how.probability else mask_of(found.clip(0, 1), model, probable)
                image, valid = source.seen(rows, cols, job.overlay is not None)
                yield window, roads, image, valid


@dataclass(frozen=True)
class Strip:
    """Part of a raster in memory: one row of windows, columns [left, right)."""

    top: int
    left: int
    right: int
    pixels: Image
    valid: Valid | None  # (H, W); None: there is data everywhere

    def holds(self, window: Window) -> bool:
        return self.top == window.rows.start and self.left <= window.cols.start < window.cols.stop <= self.right


class Ahead:
    """Reads a raster's windows, several of a row at once.

    A file whose blocks are whole lines would otherwise be decoded from side to side for every window. `cores` holds the
    pixels of each window's core until they are popped.
    """

    def __init__(self, source: Source, tile: int) -> None:
        self.source = source
        size = source.dtype.itemsize * len(source.bands.numbers) + source.planes + source.masked
        self.columns = max(tile, AHEAD // (tile * size))
        self.cores: dict[Window, tuple[Image, Valid | None]] = {}
        self.strip: Strip | None = None

    def read(self, window: Window) -> Image:
        """A window's pixels, uint8 (H, W, planes)."""
        if self.strip is None or not self.strip.holds(window):
            self.strip = None  # frees its memory before the next one is read
            self.strip = self.read_strip(window)
        here = slice(window.cols.start - self.strip.left, window.cols.stop - self.strip.left)
        image, valid = self.strip.pixels[:, here], self.strip.valid
        self.cores[window] = image[window.inner], None if valid is None else valid[:, here][window.inner].copy()
        return image

    def read_strip(self, window: Window) -> Strip:
        """Read a window and those to its right, up to AHEAD bytes."""
        left = window.cols.start
        right = min(left + self.columns, self.source.shape[1])
        pixels, valid = self.source.read(slice(window.rows.start, window.rows.stop), slice(left, right))
        return Strip(window.rows.start, left, right, pixels, valid)
