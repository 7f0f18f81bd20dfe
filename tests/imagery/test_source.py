"""Rasters of any kind: the same picture in many forms gives the same pixels, and lies where its file says."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp as Colour
from rasterio.shutil import copy
from rasterio.transform import from_gcps

from dlink.cli.options import Picture
from dlink.imagery.gdal_file import NETWORK
from dlink.imagery.images import read_image, read_with_tags, write_image
from dlink.imagery.jobs import OutputOptions, find_jobs
from dlink.imagery.kinds import georeferenced, raster_reason
from dlink.imagery.notes import SAID
from dlink.imagery.pictures import segment_picture
from dlink.imagery.raster import segment_raster
from dlink.imagery.reading import Reading
from dlink.imagery.resolution import metres_a_pixel
from dlink.imagery.source import opened
from dlink.runtime import BadInput, Spec, open_model
from tests.support.models import write_pointwise

HEIGHT, WIDTH = 90, 130


def from_origin(west, north, right, down):
    return rasterio.Affine(right, 0, west, 0, -down, north)


CRS, GRID = "EPSG:32611", from_origin(664000, 4005000, 0.5, 0.5)
WORLD = "0.5\n0\n0\n-0.5\n664000.25\n4004999.75\n"
RGB = [Colour.red, Colour.green, Colour.blue]
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(autouse=True)
def nothing_said():
    SAID.clear()


@pytest.fixture(scope="module")
def image():
    """uint8 (H, W, 3), 0 and 255 in it."""
    coarse = np.random.default_rng(3).integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3), np.uint8)
    coarse[0, 0], coarse[0, 1] = 0, 255
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The model whose probability at a pixel is the share of red in it; trained at 0.5 m."""
    path = write_pointwise(tmp_path_factory.mktemp("model") / "red.onnx", Spec(tile=64, views=(0,)))
    with open_model(path, halo=8, threads=1) as model:
        yield model


def write(path, bands, colours=None, named=(), **kind):
    """A raster of (bands, H, W)."""
    size = {"width": bands.shape[2], "height": bands.shape[1], "count": len(bands), "dtype": bands.dtype}
    with rasterio.open(path, "w", **({"crs": CRS, "transform": GRID} | size | kind)) as file:
        if colours:
            file.colorinterp = colours
        file.write(bands)
        for band, word in enumerate(named, 1):
            file.set_band_description(band, word)
    return path


def converted(path, image, **kind):
    write(path.with_name("source.tif"), image)
    with rasterio.open(path.with_name("source.tif")) as file:
        copy(file, str(path), **kind)
    return path


def with_world(path, image, world):
    write_image(path, np.moveaxis(image, 0, -1))
    path.with_name(world).write_text(WORLD)
    return path


def cmyk(rgb):
    """Bands of cyan, magenta, yellow and black that print this picture."""
    black = 255 - rgb.max(axis=0)
    ink = np.where(black < 255, 255 - np.rint(rgb * 255.0 / np.maximum(255 - black, 1)), 0)
    return np.concatenate([ink, black[None]]).astype(np.uint8)


NIR = np.full((1, HEIGHT, WIDTH), 77, np.uint8)
STRETCHED = Reading(stretch="200:1475")
FORMS = {  # a file of a picture (3, H, W), and how it is read
    "a.tif": lambda p, x: write(p, x),
    "zstd.tif": lambda p, x: write(p, x, compress="zstd"),
    "declared.tif": lambda p, x: write(p, np.concatenate([x[::-1], NIR]), [*RGB[::-1], Colour.undefined]),
    "described.tif": lambda p, x: write(
        p, np.concatenate([x[::-1], NIR]), named=["Blue", "Green", "Red", "NIR"], photometric="MINISBLACK"
    ),
    "eight.tif": lambda p, x: write(
        p, x[[2, 2, 1, 0, 0, 0, 1, 1]], photometric="MINISBLACK",
        named=["Coastal", "Blue", "Green", "Yellow", "Red", "Red edge", "NIR1", "NIR2"],
    ),
    "transparent.tif": lambda p, x: write(p, np.concatenate([x, NIR]), [*RGB, Colour.alpha]),
    "float.tif": lambda p, x: write(p, x.astype(np.float32) / 255),
    "bytes-in-16-bits.tif": lambda p, x: write(p, x.astype(np.uint16)),
    "lossless.jp2": lambda p, x: converted(p, x, driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY="100"),
    "a.vrt": lambda p, x: converted(p, x, driver="VRT"),
    "beside.tif": lambda p, x: converted(p, x, driver="GTiff", PROFILE="BASELINE"),
    "a.png": lambda p, x: with_world(p, x, "a.pgw"),
    "WORLD.TIF": lambda p, x: with_world(p, x, "WORLD.TFW"),
    "a.img": lambda p, x: converted(p, x, driver="HFA"),
    "no-photometric.tif": lambda p, x: write(p, x, photometric="MINISBLACK"),
}  # fmt: skip
OTHERS = {  # forms that lie nowhere, or that --bands and --stretch say how to read
    "deep.png": (lambda p, x: write_deep(p, x), Reading(stretch="0:65535")),
    "eleven.tif": (lambda p, x: write(p, x.astype(np.uint16) * 5 + 200), STRETCHED),
    "bands.tif": (lambda p, x: write(p, x[[1, 0, 2]], photometric="MINISBLACK"), Reading(bands="2,1,3")),
    "whole.tif": (lambda p, x: write(p, x, crs=None, transform=None), Reading()),
    "four.tif": (lambda p, x: write(p, np.concatenate([x, NIR]), [*RGB, Colour.alpha], crs=None), Reading()),
    "cmyk.tif": (lambda p, x: write(p, cmyk(x), photometric="CMYK"), Reading()),
    "white.tif": (lambda p, x: write(p, 255 - x[:1], photometric="MINISWHITE"), Reading()),
}


def write_deep(path, image):
    cv2.imwrite(str(path), np.moveaxis(image, 0, -1)[..., ::-1].astype(np.uint16) * 257)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_picture_give_its_pixels_and_its_place(tmp_path, form, image, plain):
    path = FORMS[form](tmp_path / form, np.moveaxis(image, -1, 0))
    np.testing.assert_array_equal(read_image(path), image)
    [job] = find_jobs([path], tmp_path / "out", OutputOptions())
    assert job.geo
    segment_raster(job, plain, OutputOptions())
    with rasterio.open(job.out) as out, rasterio.open(path) as source:
        np.testing.assert_array_equal(out.read(1), plain.mask(image))
        assert (out.crs, out.transform) == (source.crs, GRID)


@pytest.mark.parametrize("form", OTHERS)
def test_other_forms_give_its_pixels_too(tmp_path, form, image):
    make, how = OTHERS[form]
    shown = np.repeat(image[..., :1], 3, axis=-1) if form == "white.tif" else image
    np.testing.assert_allclose(read_image(make(tmp_path / form, np.moveaxis(image, -1, 0)), how), shown, atol=1)


def test_a_palette_is_its_colours(tmp_path, image):
    index = image[..., 0] // 64
    table = {0: (9, 8, 7, 255), 1: (0, 255, 0, 255), 2: (50, 60, 70, 255), 3: (255, 255, 255, 255)}
    size = {"width": WIDTH, "height": HEIGHT, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", **size, crs=CRS, transform=GRID) as file:
        file.write(index, 1)
        file.write_colormap(1, table)
    colours = np.array([table[i][:3] for i in range(4)], np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), colours[index])


def test_a_plain_tiff_with_alpha_is_not_multiplied(tmp_path, image):
    """OpenCV's reader multiplies colours by alpha."""
    write(tmp_path / "a.tif", np.concatenate([np.moveaxis(image, -1, 0), NIR]), [*RGB, Colour.alpha], crs=None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_all_levels_of_grey(tmp_path, image, bits):
    most = (1 << bits) - 1
    grey = (image[..., 0].astype(int) * most // 255).astype(np.uint8)
    write(tmp_path / "a.tif", grey[None], nbits=bits)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[..., 0], grey * (255 / most), atol=1)


def test_bands_of_a_plain_picture_are_its_colours(tmp_path, image):
    """Its EXIF orientation is applied as without --bands."""
    tall = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    (tmp_path / "a.jpg").write_bytes(tall[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + tall[2:])
    plain = read_image(tmp_path / "a.jpg")
    assert plain.shape == (WIDTH, HEIGHT, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", Reading(bands="3,1,1")), plain[..., [2, 0, 0]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", Reading(planes=("green",))), plain[..., 1:2])
    with pytest.raises(
        BadInput, match="a.jpg: the network takes red, nir; of its 3 bands .+ none is nir; --bands says"
    ):
        read_image(tmp_path / "a.jpg", Reading(planes=("red", "nir")))


def test_an_alpha_band_that_is_none_is_said(tmp_path, image, caplog):
    """NumPy's four bands become RGBA in GDAL, near infrared or not."""
    bands = np.concatenate([np.moveaxis(image, -1, 0), image[None, ..., 0]])
    path = write(tmp_path / "a.tif", bands, [*RGB, Colour.alpha])
    read_image(path)
    assert "a.tif: its alpha band has other values than 0 and 255; where it is 0 there is no data" in caplog.text
    nir = Reading(planes=("red", "green", "blue", "nir"), bands="1,2,3,4")
    with opened(path, nir) as source:
        pixels, valid = source.read(slice(0, HEIGHT), slice(0, WIDTH))
    assert valid is None
    np.testing.assert_array_equal(pixels[..., 3], image[..., 0])


def test_a_stretch_that_leaves_nothing_to_see_is_said(tmp_path, image, caplog):
    path = write(tmp_path / "a.tif", np.moveaxis(image, -1, 0).astype(np.float32) / 255)
    read_image(path, STRETCHED)
    assert "a.tif: most samples lie beyond the stretch, which leaves little to see (100%: 200:1475)" in caplog.text


@pytest.mark.parametrize("declared", [True, False])
def test_nan_and_nodata_are_no_data(tmp_path, image, plain, declared):
    bands = np.moveaxis(image, -1, 0).astype(np.float32) / 255
    bands[1, :20] = np.nan
    path = write(tmp_path / "a.tif", bands, **({"nodata": float("nan")} if declared else {}))
    with opened(path, Reading()) as source:
        pixels, valid = source.read(slice(0, HEIGHT), slice(0, WIDTH))
    assert valid[20:].all()
    assert not valid[:20].any()
    np.testing.assert_array_equal(pixels[20:], image[20:])
    [job] = find_jobs([path], tmp_path / "m.tif", OutputOptions())
    segment_raster(job, plain, OutputOptions())
    with rasterio.open(tmp_path / "m.tif") as out:
        np.testing.assert_array_equal(out.dataset_mask() > 0, valid)
        assert not out.read(1)[:20].any()


def test_the_stretch_is_of_the_whole_scene_and_kept_in_the_result(tmp_path, image, plain, caplog):
    bands = np.moveaxis(image, -1, 0).astype(np.uint16) * 5 + 200
    path = write(tmp_path / "a.tif", bands)
    ranges = [np.percentile(band, [2, 98], method="inverted_cdf") for band in bands]
    shown = ",".join(f"{low}:{high}" for low, high in ranges)
    with opened(path, Reading()) as source:
        parts = [source.read(slice(0, HEIGHT), slice(left, left + 10))[0] for left in range(0, WIDTH, 10)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), read_image(path))
    assert "a.tif: uint16 samples, stretched by percentiles 2,98 of the picture; --stretch gives" in caplog.text
    assert f"another range (here {shown})" in caplog.text
    for how, said in ((Reading(), shown), (STRETCHED, "200:1475")):
        [job] = find_jobs([path], tmp_path / "m.tif", OutputOptions(), how)
        segment_raster(job, plain, OutputOptions())
        with rasterio.open(tmp_path / "m.tif") as out:
            assert out.tags()["DLINK_STRETCH"] == said
            assert out.tags()["DLINK_BANDS"] == "1,2,3"


def test_a_pngs_metadata_keep_the_stretch(tmp_path, image, plain):
    path = write_deep(tmp_path / "a.png", np.moveaxis(image, -1, 0))
    [job] = find_jobs([path], tmp_path / "m.png", OutputOptions(), Reading(stretch="0:65535"))
    segment_picture(job, plain, OutputOptions())
    with rasterio.open(tmp_path / "m.png") as out:
        assert out.tags()["DLINK_STRETCH"] == "0:65535"
        np.testing.assert_array_equal(out.read(1), plain.mask(image))


def test_a_spec_says_its_stretch(tmp_path, image):
    path = write(tmp_path / "a.tif", np.moveaxis(image, -1, 0).astype(np.uint16) * 5 + 200)
    assert read_with_tags(path, Reading().of_network(Spec(stretch="200:1475")))[1]["DLINK_STRETCH"] == "200:1475"
    asked = Reading(stretch="0:2000").of_network(Spec(stretch="200:1475"))
    assert read_with_tags(path, asked)[1]["DLINK_STRETCH"] == "0:2000"


# Ground resolution


@pytest.mark.parametrize(
    ("crs", "grid", "metres"),
    [
        ("EPSG:32611", from_origin(664000, 4005000, 0.5, 0.5), (0.5, 0.5)),
        ("EPSG:2229", from_origin(6450000, 1840000, 0.5 / 0.3048006, 0.5 / 0.3048006), (0.5, 0.5)),  # feet
        ("EPSG:4326", from_origin(-115.3, 36.12, 2.7e-6, 2.7e-6), (0.29959, 0.24314)),  # Vegas, as geopy has it
        ("EPSG:3857", from_origin(1500000, 8400000, 1, 1), (0.50041, 0.50126)),  # 60 degrees north
        ("EPSG:3460", from_origin(2110870, 3890000, 0.5, 0.5), (0.5, 0.5)),  # Fiji, across 180 degrees
        ("EPSG:32633", rasterio.Affine(0.3, 0.4, 500000, 0.4, -0.3, 5000000), (0.5, 0.5)),  # turned
    ],
)
def test_metres_a_pixel_are_metres_on_the_ground(crs, grid, metres):
    found = metres_a_pixel(grid, rasterio.crs.CRS.from_user_input(crs), 100, 100)
    np.testing.assert_allclose(found, metres, rtol=2e-3)


def test_a_finer_raster_is_read_at_the_networks_resolution(tmp_path, image, caplog):
    fine = np.kron(image, np.ones((2, 2, 1), np.uint8))
    path = write(tmp_path / "a.tif", np.moveaxis(fine, -1, 0), transform=from_origin(664000, 4005000, 0.25, 0.25))
    np.testing.assert_array_equal(read_image(path, Reading(trained_m=0.5)), image)
    assert "a.tif: has 0.25 m a pixel and is read at 0.5 m; --gsd native reads it as it is" in caplog.text
    np.testing.assert_array_equal(read_image(path, Reading(trained_m=0.5, gsd="native")), fine)
    np.testing.assert_array_equal(read_image(path, Reading(trained_m=9.0, gsd="0.5")), image)


def test_a_raster_that_is_far_too_coarse_is_refused(tmp_path, image):
    path = write(tmp_path / "a.tif", np.moveaxis(image, -1, 0), transform=from_origin(664000, 4005000, 10, 10))
    with pytest.raises(BadInput, match="a.tif: has 10 m a pixel, too coarse to be read at 0.5 m; --gsd native reads"):
        read_image(path, Reading(trained_m=0.5))
    assert read_image(path, Reading(trained_m=0.5, gsd="native")).shape == image.shape


def test_each_axis_has_its_own_resolution(tmp_path, image):
    wide = np.repeat(image, 4, axis=1)
    path = write(tmp_path / "a.tif", np.moveaxis(wide, -1, 0), transform=from_origin(664000, 4005000, 0.125, 0.5))
    np.testing.assert_array_equal(read_image(path, Reading(trained_m=0.5)), image)


@pytest.mark.parametrize("metres", [0.46, 0.54])
def test_resolutions_within_a_tenth_are_one(tmp_path, image, metres):
    path = write(tmp_path / "a.tif", np.moveaxis(image, -1, 0), transform=from_origin(664000, 4005000, metres, metres))
    np.testing.assert_array_equal(read_image(path, Reading(trained_m=0.5)), image)


def test_without_a_resolution_a_raster_is_read_as_it_is_and_it_is_said(tmp_path, image, caplog):
    path = write(tmp_path / "a.tif", np.moveaxis(image, -1, 0), crs=None, transform=GRID)
    np.testing.assert_array_equal(read_image(path, Reading(trained_m=0.3)), image)
    assert "does not say its ground resolution and is read as it is, not at 0.3 m a pixel" in caplog.text


@pytest.mark.parametrize("own", [0.2, 0.31, 0.9])
def test_windows_of_a_resampled_raster_are_parts_of_the_whole(tmp_path, own):
    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8), (0, 0), 3)
    path = write(tmp_path / "a.tif", np.moveaxis(smooth, -1, 0), transform=from_origin(664000, 4005000, own, own))
    whole = read_image(path, Reading(trained_m=0.5)).astype(int)
    with opened(path, Reading(trained_m=0.5)) as source:
        height, width = source.shape
        for top in range(0, height, 17):
            for left in range(0, width, 23):
                rows, cols = slice(top, min(top + 17, height)), slice(left, min(left + 23, width))
                assert np.abs(source.read(rows, cols)[0] - whole[rows, cols]).max() <= 3


@pytest.mark.parametrize("how", ["inside", "beside"])
def test_overviews_do_not_replace_the_pixels(tmp_path, image, how):
    """Most are made by leaving pixels out, and some are of an older picture."""
    fine = np.random.default_rng(0).integers(0, 256, (4 * HEIGHT, 4 * WIDTH, 3), np.uint8)
    place = {"transform": from_origin(664000, 4005000, 0.125, 0.125), "tiled": True, "blockxsize": 64, "blockysize": 64}
    path = write(tmp_path / "a.tif", np.moveaxis(fine, -1, 0), named=["Red", "Green", "Blue"], **place)
    plain = read_image(path, Reading(trained_m=0.5))
    with rasterio.Env(TIFF_USE_OVR=how == "beside"), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    assert (tmp_path / "a.tif.ovr").exists() is (how == "beside")
    np.testing.assert_array_equal(read_image(path, Reading(trained_m=0.5)), plain)
    (tmp_path / "sub").mkdir()
    for name in ("a.vrt", "sub/a.vrt"):
        with rasterio.open(path) as file:
            copy(file, str(tmp_path / name), driver="VRT")
        difference = read_image(tmp_path / name, Reading(trained_m=0.5)).astype(int) - plain
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("scale", [1 / 2, 1 / 4, 2])
def test_a_result_lies_on_the_rasters_own_grid(tmp_path, plain, scale):
    """A street of 30 px at 0.5 m, in finer and coarser pictures: the same street within a pixel."""
    side = int(200 / scale)
    picture = np.zeros((3, side, side), np.uint8)
    street = slice(int(60 / scale), int(90 / scale))
    picture[0, :, street] = 255
    own = 0.5 * scale
    path = write(tmp_path / "a.tif", picture, transform=from_origin(664000, 4005000, own, own))
    for probability in (False, True):
        how = OutputOptions(probability=probability, overlay=True)
        [job] = find_jobs([path], tmp_path / "m.tif", how)
        segment_raster(job, plain, how)
        with rasterio.open(job.out) as out, rasterio.open(path) as source, rasterio.open(job.overlay) as over:
            assert (out.crs, out.transform, out.shape) == (source.crs, source.transform, source.shape)
            assert over.shape == source.shape
            assert out.tags()["DLINK_GSD_M"] == "0.5"
            road = out.read(1) > (0.5 if probability else 0)
        np.testing.assert_array_equal(road[:, street.start + 1 : street.stop - 1], True)
        assert not road[:, : street.start - 1].any()
        assert not road[:, street.stop + 1 :].any()
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_ground_control_points_give_a_resolution(tmp_path, image):
    points = [
        rasterio.control.GroundControlPoint(r, c, 664000 + c / 4, 4005000 - r / 4)
        for r, c in [(0, 0), (0, WIDTH), (HEIGHT, 0), (HEIGHT, WIDTH)]
    ]
    path = tmp_path / "a.tif"
    size = {"width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8", "gcps": points, "crs": CRS}
    with rasterio.open(path, "w", **size) as file:
        file.write(np.moveaxis(image, -1, 0))
    assert from_gcps(points).a == pytest.approx(0.25)
    assert read_image(path, Reading(trained_m=0.5)).shape == (HEIGHT // 2, WIDTH // 2, 3)


# Files


def test_a_folder_of_all_kinds_is_done_whole(tmp_path, image):
    folder = tmp_path / "in"
    folder.mkdir()
    for form, make in FORMS.items():
        make(folder / form, np.moveaxis(image, -1, 0))
    jobs = find_jobs([folder], tmp_path / "out", OutputOptions())
    assert {job.image.name for job in jobs} == {*FORMS, "source.tif"}
    assert len({job.out for job in jobs}) == len(jobs)
    assert (tmp_path / "out/a_vrt_mask.tif") in {job.out for job in jobs}


def test_statistics_beside_a_picture_are_no_place(tmp_path, image):
    """QGIS writes such a file beside everything that it shows."""
    write_image(tmp_path / "a.png", image)
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><PAMRasterBand band='1'/></PAMDataset>")
    assert not georeferenced(tmp_path / "a.png")
    assert raster_reason(tmp_path / "a.png") == ""
    [job] = find_jobs([tmp_path / "a.png"], tmp_path / "m.png", OutputOptions())
    assert not job.geo


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: other systems have no such names")
def test_names_that_are_not_utf_8_are_read_and_written(tmp_path, image, plain):
    folder = tmp_path / os.fsdecode(b"stra\xdfe")
    folder.mkdir()
    write(tmp_path / "a.tif", np.moveaxis(image, -1, 0))
    path = folder / os.fsdecode(b"Stra\xdfe.tif")
    path.write_bytes((tmp_path / "a.tif").read_bytes())
    np.testing.assert_array_equal(read_image(path), image)
    [job] = find_jobs([path], folder / "out", OutputOptions())
    segment_raster(job, plain, OutputOptions())
    (tmp_path / "m.tif").write_bytes(job.out.read_bytes())
    with rasterio.open(tmp_path / "m.tif") as out:
        np.testing.assert_array_equal(out.read(1), plain.mask(image))
        assert out.crs == CRS


def test_a_file_in_an_archive_is_read_when_it_is_asked_for(tmp_path, image):
    write(tmp_path / "a.tif", np.moveaxis(image, -1, 0))
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "a.zip", "a.tif"], cwd=tmp_path, check=True)
    path = Path(f"/vsizip/{tmp_path}/a.zip/a.tif")
    np.testing.assert_array_equal(read_image(path), image)
    [job] = find_jobs([path], tmp_path / "out", OutputOptions())
    assert (job.geo, job.out.name) == (True, "a_mask.tif")


SERVER = """
import re, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

data = Path(sys.argv[1]).read_bytes()


class Ranges(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(data)

    def answer(self, data):
        asked = re.fullmatch(r"bytes=(\\d+)-(\\d*)", self.headers.get("Range", ""))
        first, last = asked.groups() if asked else (0, "")
        body = data[int(first) : int(last or len(data)) + 1]
        self.send_response(206 if asked and data else 200)
        if asked and data:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body) or Path(sys.argv[1]).stat().st_size))
        self.end_headers()
        self.wfile.write(body)


with HTTPServer(("127.0.0.1", 0), Ranges) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""


def test_an_address_is_read_when_it_is_asked_for(tmp_path, image, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    write(tmp_path / "a.tif", np.moveaxis(image, -1, 0))
    command = [sys.executable, "-c", SERVER, str(tmp_path / "a.tif")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            address = f"http://127.0.0.1:{int(server.stdout.readline())}/a.tif"
            path = Picture(path_type=Path).convert(address, None, None)
            np.testing.assert_array_equal(read_image(path), image)
        finally:
            server.kill()


def test_nothing_leads_to_the_internet_unasked(tmp_path, image):
    """A VRT of a remote picture, and a file that describes a map server."""
    converted(tmp_path / "a.vrt", np.moveaxis(image, -1, 0), driver="VRT")
    text = (
        (tmp_path / "a.vrt").read_text().replace('relativeToVRT="1">source.tif', ">/vsicurl/http://127.0.0.1:9/a.tif")
    )
    assert "vsicurl" in text
    (tmp_path / "a.vrt").write_text(text)
    (tmp_path / "b.vrt").write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service>'
    )
    for name in ("a.vrt", "b.vrt"):
        with pytest.raises(BadInput, match=f"{name}: (can't be opened|damaged)"):
            read_image(tmp_path / name)
    assert {"WMS", "WCS", "WMTS"} <= NETWORK


@pytest.mark.parametrize("name", ["a.tif", "a.jp2", "a.png"])
def test_a_damaged_raster_is_one_line(tmp_path, image, name):
    kinds = {
        "a.tif": {"driver": "GTiff", "COMPRESS": "LZW"},
        "a.jp2": {"driver": "JP2OpenJPEG"},
        "a.png": {"driver": "PNG"},
    }
    path = converted(tmp_path / name, np.moveaxis(image, -1, 0), **kinds[name])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=f"{name}: ") as e:
        read_image(path)
    assert "\n" not in str(e.value)


def test_complex_samples_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((3, 9, 9), np.complex64))
    with pytest.raises(BadInput, match="a.tif: complex64 samples; a picture's samples are whole or real numbers"):
        read_image(path)


def test_the_same_words_are_said_once(tmp_path, image, caplog):
    for name in "ab":
        write(tmp_path / f"{name}.tif", np.moveaxis(image, -1, 0), photometric="MINISBLACK")
        read_image(tmp_path / f"{name}.tif")
    assert [r.getMessage().partition(": ")[0] for r in caplog.records if r.levelno == logging.WARNING] == [
        str(tmp_path / "a.tif")
    ]
