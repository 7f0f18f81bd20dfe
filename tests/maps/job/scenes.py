"""A scene with roads, as one raster and as many, a network that finds them, and maps of them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.transform import array_bounds
from rasterio.warp import Resampling, reproject, transform_bounds
from scipy.ndimage import gaussian_filter

from dlink.imagery.affine import shifted
from dlink.maps.job.plan import MapOptions
from dlink.maps.job.planning import planned
from dlink.maps.job.run import Where, make_map
from dlink.maps.job.tasks import Job
from dlink.runtime.onnx_bytes import read_onnx
from dlink.runtime.spec import Spec
from tests.support.models import write_blur

GRID = Affine(0.5, 0, 718_000, 0, -0.5, 5_400_000)  # near the edge of UTM's zones 33 and 34
ZONE, NEXT = "EPSG:32633", "EPSG:32634"
BLOCK = MapOptions(windows=4)  # blocks of 128 px


def roads(path, radius=3):
    """A network of tiles of 64 px that looks 3 px around each pixel."""
    return write_blur(path, Spec(tile=64, views=(0, 1, 2, 3)), radius)


def scene(shape=(400, 500), seed=3):
    """uint8 (3, H, W): bright winding roads on dark ground, nowhere 0."""
    random = np.random.default_rng(seed)
    hills = gaussian_filter(random.normal(size=shape), 30)
    image = random.integers(20, 90, (3, *shape))
    image[0] += np.where(np.abs(hills / hills.std()) < 0.12, 140, 0)
    return image.astype(np.uint8)


def write(path, image, crs=ZONE, transform=GRID, **more):
    """Bands (C, H, W) as a GeoTIFF."""
    form = {"driver": "GTiff", "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype}
    with rasterio.open(path, "w", **form, count=len(image), crs=crs, transform=transform, **more) as file:
        file.write(image)
    return path


def cut(folder, image, side=190, apart=150):
    """The image as overlapping rasters on one grid."""
    folder.mkdir()
    for top in range(0, image.shape[1], apart):
        for left in range(0, image.shape[2], apart):
            part = image[:, top : top + side, left : left + side]
            write(folder / f"{top:03}_{left:03}.tif", part, transform=shifted(GRID, top, left))
    return folder


def warped(path, image, transform=GRID, crs=NEXT, metres=0.5):
    """The image in another system, with no data around it."""
    left, bottom, right, top = transform_bounds(ZONE, crs, *array_bounds(*image.shape[1:], transform))
    other = Affine(metres, 0, np.floor(left), 0, -metres, np.ceil(top))
    shape = int((top - bottom) / metres) + 4, int((right - left) / metres) + 4
    out = np.zeros((len(image), *shape), image.dtype)
    how = {"src_transform": transform, "src_crs": ZONE, "dst_transform": other, "dst_crs": crs}
    finer = Resampling.cubic if metres <= 0.5 else Resampling.average
    reproject(image, out, **how, resampling=finer)
    return write(path, out, crs, other, nodata=0)


def made(folder, model, sources, how=BLOCK, **more):
    """A map of some rasters."""
    return make_map(model, [str(source) for source in sources], Where(folder=folder), how, **more)


def read(path):
    """A mask, and where it has data."""
    with rasterio.open(path) as file:
        return file.read(1), file.dataset_mask() > 0


def blocks_of(folder):
    """The hashes of a map's blocks, by name."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / "blocks").iterdir())}


def options(**given):
    return replace(BLOCK, **given)


def leftovers(folder):
    """What a run left that is no result."""
    return [p.name for p in Path(folder).rglob(".*") if p.name != ".lock"]


def plan_of(model, *names, how=BLOCK):
    return planned(model, read_onnx(model).spec, [str(name) for name in names], how)


def job_of(folder, plan):
    (folder / "blocks").mkdir()
    plan.write(folder)
    return Job(str(folder), str(folder / "blocks"), plan.mark, 1, plan.state)
