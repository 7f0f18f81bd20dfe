"""All blocks of a map as one raster: `roads.vrt`, which names them, and `roads.tif`, a Cloud Optimized GeoTIFF."""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError

from dlink.imagery.gdal_file import GDAL_ERRORS, checker_of, gdal, why
from dlink.imagery.geotiff import without_words
from dlink.maps.job.plan import Plan
from dlink.maps.job.store import PLAN_TAG, ROADS, Store
from dlink.runtime.errors import BadInput
from dlink.runtime.files import replacing

BANDS = 2
ROAD_BAND, PROBABILITY_BAND, MASK = "1", "2", "mask,1"
# Overviews are averages: the share of road. Of a majority, roads would vanish at the second level.
COG = {
    "driver": "COG",
    "compress": "deflate",
    "blocksize": 512,
    "overview_resampling": "average",
    "bigtiff": "IF_SAFER",
}


def check_blocks(plan: Plan, store: Store) -> None:
    """Raise BadInput if a block is of another plan, or is damaged."""
    for block in plan.blocks:
        path = store.path(plan.name(block) + ROADS)
        rows, cols = plan.core(block)
        try:
            with ExitStack() as stack:
                stack.enter_context(gdal(Path(path)))
                if checker := checker_of(Path(path), stack):
                    checker.check()
                file = stack.enter_context(rasterio.open(path))
                store.check(path, file.tags().get(PLAN_TAG))
                if file.shape != (rows.stop - rows.start, cols.stop - cols.start) or file.count != BANDS:
                    raise BadInput(f"{path}: is not of a block's size; remove it and run this again")
        except GDAL_ERRORS as e:
            raise BadInput(f"{path}: damaged; GDAL says: {why(e)}; remove it and run this again") from e
        except BadInput as e:
            raise BadInput(str(e).replace("copy it again", "remove it and run this again")) from e


def write_vrt(path: Path, plan: Plan, store: Store) -> None:
    """Write a raster of two bands that names the blocks: 255 where there is road, and the probability, 255 is 1."""
    with replacing(path) as part:
        part.write_text(vrt(plan, store, path.parent, (ROAD_BAND, PROBABILITY_BAND)))


def around(plan: Plan, store: Store, block: int, by: int) -> str:
    """The XML of the whole raster with the blocks alone that lie within `by` px of one: GDAL opens it faster."""
    return vrt(replace(plan, blocks=tuple(plan.around(block, by))), store, None, (ROAD_BAND, PROBABILITY_BAND))


def vrt(
    plan: Plan, store: Store, folder: Path | None, bands: Sequence[str], tags: Mapping[str, str] | None = None
) -> str:
    """The XML of a raster of some bands of all blocks, with metadata. Names of files in `folder` are relative."""
    said = "".join(f'<MDI key="{escape(key)}">{escape(value)}</MDI>' for key, value in (tags or {}).items())
    grid = plan.grid
    place = ", ".join(f"{value:.17g}" for value in grid.affine.to_gdal())
    layers = "".join(band(i, named, plan, store, folder) for i, named in enumerate(bands, 1))
    mask = f"<MaskBand>{band(0, MASK, plan, store, folder)}</MaskBand>"
    return (
        f'<VRTDataset rasterXSize="{grid.columns}" rasterYSize="{grid.rows}"><SRS>{escape(grid.crs)}</SRS>'
        f"<GeoTransform>{place}</GeoTransform><Metadata>{said}</Metadata>{layers}{mask}"
        f"</VRTDataset>"
    )


def band(number: int, named: str, plan: Plan, store: Store, folder: Path | None) -> str:
    head = f' band="{number}"' if number else ""
    return f'<VRTRasterBand dataType="Byte"{head}>{"".join(sources(named, plan, store, folder))}</VRTRasterBand>'


def sources(named: str, plan: Plan, store: Store, folder: Path | None) -> Iterable[str]:
    """Each block as a part of a band."""
    for block in plan.blocks:
        rows, cols = plan.core(block)
        high, wide = rows.stop - rows.start, cols.stop - cols.start
        name, relative = store.path(plan.name(block) + ROADS), 0
        if folder and not store.remote and store.folder.absolute().is_relative_to(folder.absolute()):
            name, relative = os.path.relpath(name, folder), 1
        yield (
            f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{escape(name)}</SourceFilename>'
            f'<SourceBand>{named}</SourceBand><SourceProperties RasterXSize="{wide}" RasterYSize="{high}" '
            f'DataType="Byte" BlockXSize="256" BlockYSize="256"/><SrcRect xOff="0" yOff="0" xSize="{wide}" '
            f'ySize="{high}"/><DstRect xOff="{cols.start}" yOff="{rows.start}" xSize="{wide}" ySize="{high}"/>'
            f"</SimpleSource>"
        )


def write_cog(path: Path, plan: Plan, store: Store, tags: Mapping[str, str]) -> None:
    """Write the road mask as one file, with overviews. It is read back before it gets its name."""
    listed = path.with_name(f".{path.stem}.{os.getpid()}.vrt")
    try:
        listed.write_text(vrt(plan, store, path.parent, (ROAD_BAND,), tags))
        with gdal(Path(store.place)), replacing(path) as part, rasterio.open(listed) as blocks:
            with without_words():
                rasterio.shutil.copy(blocks, part, **COG)
            with rasterio.open(part) as file:
                if file.checksum(1) != blocks.checksum(1):
                    raise RasterioError("what is there is not what was written")
    except GDAL_ERRORS as e:
        raise OSError(errno.EIO, f"can't be written, is the disk full? GDAL says: {why(e)}", str(path)) from e
    finally:
        listed.unlink(missing_ok=True)
