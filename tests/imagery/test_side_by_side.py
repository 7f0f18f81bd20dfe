"""When two tiles are computed side by side: where both slots have work nearly all the time."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from dlink.imagery.images import write_image
from dlink.imagery.jobs import Job
from dlink.imagery.reading import Reading
from dlink.imagery.side_by_side import slots_for, windows_of
from dlink.runtime import Spec

SPEC = Spec(tile=64, gsd_m=1.0)


def write(path, width, height=64):
    """A picture, or a GeoTIFF of 2 m a pixel."""
    image = np.zeros((height, width, 3), np.uint8)
    if path.suffix != ".tif":
        write_image(path, image)
        return Job(path, Path("m.png"), None, geo=False)
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 5, 0, -2, 9)}
    with rasterio.open(path, "w", count=3, height=height, width=width, dtype="uint8", **place) as file:
        file.write(np.moveaxis(image, -1, 0))
    return Job(path, Path("m.tif"), None, geo=True)


@pytest.mark.parametrize(
    ("name", "width", "windows", "slots"),
    [
        ("one.png", 64, 1, 1),  # keeps all threads
        ("two.png", 80, 2, 2),
        ("three.jpg", 128, 3, 1),  # the third would have half of the threads
        ("four.jpg", 160, 4, 2),
        ("many.png", 64 + 32 * 60, 61, 2),  # the last one is no longer felt
        ("raster.tif", 64, 9, 1),  # 128 px wide and high at the network's metre a pixel
        ("raster.tif", 80, 12, 2),
    ],
)
def test_an_image_takes_two_slots_where_its_windows_fill_them(tmp_path, name, width, windows, slots):
    job = write(tmp_path / name, width)
    assert windows_of(job, SPEC, None) == windows
    assert slots_for([job], SPEC, None) == slots


def test_the_halo_and_the_resolution_are_the_users(tmp_path):
    assert windows_of(write(tmp_path / "a.png", 80), SPEC, 0) == 2
    assert windows_of(write(tmp_path / "a.png", 128), SPEC, 0) == 2
    job = write(tmp_path / "a.tif", 128)
    native = Job(job.image, job.out, None, geo=True, reading=Reading(gsd="native"))
    assert windows_of(native, SPEC, 0) == 2


def test_pictures_follow_each_other_and_rasters_do_not(tmp_path):
    picture, raster = write(tmp_path / "a.png", 64), write(tmp_path / "a.tif", 32, 32)
    assert windows_of(raster, SPEC, None) == 1
    assert [slots_for([picture] * count, SPEC, None) for count in (1, 2, 3, 4, 99)] == [1, 2, 1, 2, 2]
    assert slots_for([raster] * 4, SPEC, None) == 1


def test_an_odd_number_of_threads_is_not_halved(tmp_path):
    job = write(tmp_path / "two.png", 80)
    assert [slots_for([job], SPEC, None, threads) for threads in (1, 2, 3, 4)] == [1, 2, 1, 2]


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n", b"roads"])
def test_what_cannot_be_read_is_left_to_the_reader(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    for geo in (False, True):
        assert windows_of(Job(path, Path("m.png"), None, geo=geo), SPEC, None) == 1
