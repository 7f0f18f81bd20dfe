"""What has no data is the same for all types of samples, read as they are and warped."""

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import ColorInterp as Colour

from dlink.imagery.notes import SAID
from dlink.imagery.reading import Reading
from dlink.imagery.source import opened
from dlink.imagery.warped import Onto, opened_onto
from dlink.maps.report.preview import preview
from tests.maps.job.scenes import roads
from tests.maps.job.test_replaced import plan_of

SIDE = 64
ZONE, DOWN = "EPSG:32633", Affine(0.5, 0, 400_000, 0, -0.5, 5_500_000)
UP = Affine(0.5, 0, 400_000, 0, 0.5, 5_500_000 - SIDE / 2)  # the same pixels from the south up, so they are warped
RGBA = [Colour.red, Colour.green, Colour.blue, Colour.alpha]
ALL = slice(0, SIDE), slice(0, SIDE)
ALPHAS = [
    ("uint8", 255), ("uint8", 1), ("uint16", 65535), ("uint16", 255), ("uint16", 1), ("int16", 255), ("int16", 1),
    ("float32", 1), ("float32", 255), ("float64", 1), ("uint32", 1),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_said():
    SAID.clear()


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(20, 200, (3, SIDE, SIDE))


@pytest.fixture
def there():
    found = np.ones((SIDE, SIDE), bool)
    found[10:30, 20:50] = False
    return found


def write(path, bands, colours=None, place=DOWN, **more):
    form = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": len(bands), "dtype": bands.dtype}
    with rasterio.open(path, "w", **form, crs=ZONE, transform=place, **more) as file:
        file.write(bands)
        if colours:
            file.colorinterp = colours
    return path


def seen(path, warped, how):
    """Pixels, and where there is data."""
    if not warped:
        with opened(path, how) as source:
            return source.read(*ALL)
    with opened_onto(path, how, Onto(rasterio.crs.CRS.from_string(ZONE), DOWN, (SIDE, SIDE), 0.5)) as source:
        return source.read(*ALL)


def both(tmp_path, bands, how, colours=None, **more):
    """What is read of a raster as it is, and warped."""
    write(tmp_path / "down.tif", bands, colours, **more)
    write(tmp_path / "up.tif", bands[:, ::-1], colours, UP, **more)
    return seen(tmp_path / "down.tif", False, how), seen(tmp_path / "up.tif", True, how)


@pytest.mark.parametrize(("dtype", "full"), ALPHAS)
def test_an_alpha_band_of_any_type_and_range_is_the_mask(tmp_path, image, there, dtype, full):
    bands = np.concatenate([image, there[None] * full]).astype(dtype)
    for pixels, valid in both(tmp_path, bands, Reading(gsd="native", stretch="0:255"), RGBA):
        np.testing.assert_array_equal(valid, there)
        np.testing.assert_array_equal(pixels[there], np.moveaxis(image, 0, -1)[there])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_band_that_is_asked_for_is_no_mask_though_it_is_declared_alpha(tmp_path, image, there, dtype):
    bands = np.concatenate([image, there[None] * 77]).astype(dtype)
    how = Reading(gsd="native", stretch="0:255", bands="1,2,4")
    for pixels, valid in both(tmp_path, bands, how, RGBA):
        assert valid is None or valid.all()
        np.testing.assert_array_equal(pixels, np.moveaxis(bands[[0, 1, 3]], 0, -1))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_band_that_looks_like_no_alpha_is_said(tmp_path, image, dtype, caplog):
    near_infrared = np.random.default_rng(2).integers(1, 200, (1, SIDE, SIDE))
    both(tmp_path, np.concatenate([image, near_infrared]).astype(dtype), Reading(gsd="native", stretch="0:255"), RGBA)
    assert "its alpha band has other values than 0 and 255" in caplog.text


def test_nan_takes_no_pixel_around_it_away(tmp_path, image, there):
    bands = np.where(there, image / 255, np.nan).astype(np.float32)
    for pixels, valid in both(tmp_path, bands, Reading(gsd="native", stretch="0:1")):
        np.testing.assert_array_equal(valid, there)
        np.testing.assert_array_equal(pixels[there], np.moveaxis(image, 0, -1)[there])


def test_the_picture_of_a_map_has_the_same_mask(tmp_path, image, there):
    bands = np.concatenate([image, there[None]]).astype(np.float32)
    write(tmp_path / "a.tif", bands, RGBA)
    shown = preview(plan_of(roads(tmp_path / "roads.onnx"), tmp_path / "a.tif"))
    assert (shown.pixels[12:28, 22:48] == 236).all()
