"""Measures what reading at the network's ground resolution is worth: pictures of other resolutions, read both ways.

    python -m dlink.bench.resolution roads.onnx tiles/ --own 0.6 [--metres 0.3,0.5,1] [--append results.jsonl]

Each labelled tile of `--own` metres a pixel is resampled to a GeoTIFF of another resolution, as a camera at another
height would see it (averaged if coarser, interpolated if finer), and segmented as it is (--gsd native) and at the
network's resolution. Both masks lie on the GeoTIFF's grid and are compared with the label, resampled likewise.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray

from dlink.accuracy.iou import Overlap
from dlink.bench.machine import machine
from dlink.bench.rows import append_row
from dlink.imagery.images import find_tiles
from dlink.imagery.jobs import OutputOptions, find_jobs
from dlink.imagery.labels import read_tile
from dlink.imagery.raster import segment_raster
from dlink.imagery.reading import NATIVE, Reading
from dlink.runtime import Segmenter, open_model
from dlink.runtime.files import file_mark

ROAD = 128
NORTH_WEST = 664000, 4005000  # anywhere in a UTM zone


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("tiles", type=click.Path(exists=True, path_type=Path))
@click.option("--own", type=float, required=True, help="Ground resolution of the tiles, metres a pixel.")
@click.option("--metres", default="0.3,0.5,1", show_default=True, help="Resolutions to resample them to.")
@click.option("--views", type=int, default=8, show_default=True)
@click.option("--append", type=click.Path(path_type=Path))
def main(model: Path, tiles: Path, own: float, metres: str, views: int, append: Path | None) -> None:
    """Print the pooled IoU of each resolution, read at the network's and as it is, and the seconds of both."""
    with open_model(model) as segmenter:
        for size in (own, *map(float, metres.split(","))):
            ious, seconds = measured(segmenter, tiles, own, size, views)
            row = {
                "when": time.strftime("%Y-%m-%d", time.gmtime()), "figure": "ground resolution", "tiles": tiles.name,
                "file": file_mark(model).name, "trained_m": segmenter.spec.gsd_m, "own_m": own, "read_m": size,
                "views": views, "iou": ious, "seconds": seconds, "machine": machine(),
            }  # fmt: skip
            append_row(append, row)
            both = "  ".join(f"{how} {ious[how]:.4f} ({seconds[how]:.1f} s)" for how in ious)
            click.echo(f"{size:>5g} m a pixel: IoU {both}")


def measured(
    model: Segmenter, tiles: Path, own: float, size: float, views: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Pooled IoU and seconds, by how the pictures are read."""
    overlaps = {"at the network's": Overlap(), NATIVE: Overlap()}
    seconds = dict.fromkeys(overlaps, 0.0)
    with TemporaryDirectory() as folder:
        path, out = Path(folder) / "a.tif", Path(folder) / "m.tif"
        for tile in find_tiles(tiles):
            image, label = read_tile(tile)
            if label is None:
                continue
            write(path, resized(image, own / size), size)
            truth = resized(label.astype(np.uint8) * 255, own / size) >= ROAD
            for how, overlap in overlaps.items():
                reading = Reading(gsd=NATIVE if how == NATIVE else None)
                options = OutputOptions(views=views)
                [job] = find_jobs([path], out, options, reading)
                begun = time.perf_counter()
                segment_raster(job, model, options)
                seconds[how] += time.perf_counter() - begun
                with rasterio.open(out) as file:
                    overlap.add(file.read(1) > 0, truth)
    pooled = {how: (iou.pooled or 0.0) if (iou := overlap.iou()) else 0.0 for how, overlap in overlaps.items()}
    return pooled, seconds


def resized(pixels: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return pixels
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    out: NDArray[np.uint8] = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=how)  # type: ignore[assignment]
    return out


def write(path: Path, image: NDArray[np.uint8], metres: float) -> None:
    """A GeoTIFF of an image (H, W, 3)."""
    place = {"crs": "EPSG:32611", "transform": rasterio.Affine(metres, 0, NORTH_WEST[0], 0, -metres, NORTH_WEST[1])}
    size = {"width": image.shape[1], "height": image.shape[0], "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as file:
        file.write(np.moveaxis(image, -1, 0))


if __name__ == "__main__":
    main()
