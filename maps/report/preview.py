"""A small picture of a whole map: its rasters one over the other, the first on top. Needs rasterio.

It is for the eye: rasters are read at their overviews, where they have some, and moved to the picture's pixels by the
nearest. Rasters of the internet are not read again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject

from dlink.imagery.affine import scaled, shifted
from dlink.imagery.gdal_file import GDAL_ERRORS, gdal
from dlink.imagery.kinds import remote
from dlink.imagery.longitudes import continued
from dlink.imagery.source import opened
from dlink.maps.job.plan import Plan, SourceFile
from dlink.runtime.errors import BadInput
from dlink.runtime.progress import Tick, ignore

SIDE = 1400  # px of the longer side, at most
COLOURS = 3
PAPER = 236  # grey where there is no data


@dataclass(frozen=True)
class Preview:
    """A picture uint8 (H, W, 3), and its pixels' place in the map's coordinate system."""

    pixels: NDArray[np.uint8]
    transform: Affine
    unread: int  # rasters that are not in it


def preview(plan: Plan, tick: Tick = ignore) -> Preview:
    """The picture of a map."""
    factor = max(1.0, max(plan.grid.shape) / SIDE)
    high, wide = (max(1, round(n / factor)) for n in plan.grid.shape)
    place = scaled(plan.grid.affine, plan.grid.rows / high, plan.grid.columns / wide)
    pixels = np.full((high, wide, COLOURS), PAPER, np.uint8)
    unread = 0
    for i, source in enumerate(reversed(plan.sources)):
        if remote(Path(source.name)):
            unread += 1
            continue
        try:
            lay(source, plan, factor, place, pixels)
        except BadInput:
            unread += 1
        tick(i + 1, len(plan.sources), "rasters in the preview")
    return Preview(pixels, place, unread)


def lay(source: SourceFile, plan: Plan, factor: float, place: Affine, pixels: NDArray[np.uint8]) -> None:
    """Lay a raster over a picture."""
    with opened(Path(source.name), plan.reading(source)) as file:
        finer = min(plan.grid.metres) * factor / (min(file.metres) if file.metres else 1.0)
        height, width = (max(1, min(n, round(n / finer))) for n in file.native)
        try:
            samples = file.reader.read(list(file.bands.numbers), out_shape=(len(file.bands.numbers), height, width))
            mask = file.mask.read(file.dataset, (height, width))
            image = file.image_of(samples)
            shown = np.moveaxis(image[..., :COLOURS] if image.shape[2] >= COLOURS else image[..., [0, 0, 0]], -1, 0)
            crs, own = continued(file.dataset.crs, file.dataset.transform, file.native)
            own = scaled(own, file.native[0] / height, file.native[1] / width)
            rows, cols = (
                slice(max(int(first / factor) - 1, 0), min(int(last / factor) + 2, side))
                for (first, last), side in zip((source.rows, source.columns), pixels.shape[:2], strict=True)
            )
            both = np.zeros((COLOURS + 1, rows.stop - rows.start, cols.stop - cols.start), np.uint8)
            reproject(
                np.concatenate([shown, mask[None]]),
                both,
                src_transform=own,
                src_crs=crs,
                dst_transform=shifted(place, rows.start, cols.start),
                dst_crs=plan.grid.system,
                resampling=Resampling.nearest,
            )
        except GDAL_ERRORS as e:
            raise BadInput(f"{source.name}: {e}") from e
    there = both[COLOURS] > 0
    pixels[rows, cols][there] = np.moveaxis(both[:COLOURS], 0, -1)[there]


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as a JPEG."""
    high, wide, bands = pixels.shape
    with gdal(Path()), rasterio.MemoryFile(ext=".jpg") as file:
        with file.open(driver="JPEG", height=high, width=wide, count=bands, dtype="uint8", quality=80) as picture:
            picture.write(np.moveaxis(pixels, -1, 0))
        return bytes(file.read())
