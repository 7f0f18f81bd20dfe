"""Labels: two values are background and road, whatever they are; what is not clear is refused."""

import logging

import cv2
import numpy as np
import pytest
import rasterio

from dlink.calib.sample import sample
from dlink.imagery.images import find_tiles, write_image
from dlink.imagery.labels import UnclearLabel, read_label, read_tile
from dlink.imagery.notes import SAID
from dlink.imagery.reading import Reading
from dlink.runtime import BadInput

SIDE = 64
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(autouse=True)
def nothing_said():
    SAID.clear()


@pytest.fixture
def road():
    """bool (SIDE, SIDE), a street with an edge in every direction."""
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    cv2.line(drawn, (5, 0), (50, 63), 1, 9)
    return drawn > 0


def palette(path, mask, colours, driver="PNG", **place):
    size = {"width": SIDE, "height": SIDE, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver=driver, **size, **place) as file:
        file.write(mask.astype(np.uint8), 1)
        file.write_colormap(1, colours)


FORMS = {
    "0 and 255": lambda path, road: write_image(path, road * np.uint8(255)),
    "0 and 1": lambda path, road: write_image(path, road.astype(np.uint8)),
    "0 and 7": lambda path, road: write_image(path, road * np.uint8(7)),
    "16 bits": lambda path, road: write_image(path, road * np.uint16(65535)),
    "16 bits, 0 and 1": lambda path, road: write_image(path, road.astype(np.uint16)),
    "red": lambda path, road: write_image(path, road[..., None] * np.array([255, 0, 0], np.uint8)),
    "three channels": lambda path, road: write_image(path, np.repeat(road[..., None] * np.uint8(255), 3, axis=-1)),
    "alpha": lambda path, road: write_alpha(path, road),
    "palette": lambda path, road: palette(path, road, {0: (0, 0, 0, 255), 1: (128, 0, 0, 255)}),
}


def write_alpha(path, road):
    cv2.imwrite(str(path), np.dstack([road * np.uint8(255)] * 3 + [np.full(road.shape, 255, np.uint8)]))


@pytest.mark.parametrize("form", FORMS)
def test_two_values_are_background_and_road(tmp_path, form, road):
    FORMS[form](tmp_path / "a.png", road)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), road)


@pytest.mark.parametrize("form", ["uint8", "uint16", "int16", "float32", "nodata", "road is nodata", "palette"])
def test_a_geotiff_is_a_label_like_any_other(tmp_path, form, road):
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 3e5, 0, -0.5, 5e6)}
    if form == "palette":
        palette(tmp_path / "a.tif", road, {0: (0, 0, 0, 255), 1: (0, 0, 255, 255)}, "GTiff", **place)
    else:
        dtype = "uint8" if "nodata" in form else form
        values = road.astype(dtype) * (-1 if form == "int16" else 1)
        if form == "nodata":
            values[:9] = 255
            road[:9] = False
            place["nodata"] = 255
        if form.startswith("road is"):
            values, place["nodata"] = values * 255, 255
        size = {"width": SIDE, "height": SIDE, "count": 1, "dtype": dtype}
        with rasterio.open(tmp_path / "a.tif", "w", **size, **place) as file:
            file.write(values, 1)
    np.testing.assert_array_equal(read_label(tmp_path / "a.tif"), road)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("colour", [[255, 255, 255], [255, 0, 0]])
def test_jpegs_noise_is_no_third_value(tmp_path, road, quality, colour):
    bgr = road[..., None] * np.array(colour[::-1], np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    found = read_label(tmp_path / "a.jpg")
    assert (found & road).sum() / (found | road).sum() > 0.8


def test_smooth_edges_are_road_from_128_on(tmp_path, road):
    smooth = cv2.GaussianBlur(road * np.uint8(255), (3, 3), 0)
    write_image(tmp_path / "a.png", smooth)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), smooth >= 128)


def test_edges_of_a_reduced_label_are_smooth_edges(tmp_path, road):
    half = cv2.resize(road * np.uint8(255), (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    assert 2 < len(np.unique(half)) < 9
    write_image(tmp_path / "a.png", half)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), half >= 128)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((0, 1, 2), "0, 1, 2; say which are road, such as --road-value 1"),
        ((0, 1, 255), "0, 1, 255; say which are road"),  # often 255 is "ignore"
        ((0, 128, 255), "0, 128, 255"),
        ((3, 200), "3, 200"),
        (tuple(range(0, 256, 17)), "0, 17, 34, 51, 68, 85, ..."),
    ],
)
def test_more_than_two_values_are_refused_with_what_was_found(tmp_path, values, found):
    write_image(tmp_path / "a.png", np.repeat(np.array(values, np.uint8), 16)[:, None].repeat(32, axis=1))
    with pytest.raises(UnclearLabel, match=f"a.png: a label has two values, 0 and the road's; this one has {found}"):
        read_label(tmp_path / "a.png")


def test_two_colours_are_two_classes(tmp_path):
    two = np.zeros((SIDE, SIDE, 3), np.uint8)
    two[:20, :, 0], two[40:, :, 2] = 255, 255
    write_image(tmp_path / "a.png", two)
    with pytest.raises(UnclearLabel, match="this one has 0, #0000ff, #ff0000; say .+ --road-value #0000ff"):
        read_label(tmp_path / "a.png")
    found = read_label(tmp_path / "a.png", Reading(road_value="#ff0000"))
    np.testing.assert_array_equal(found, two[..., 0] > 0)


@pytest.mark.parametrize(("text", "wanted"), [("2", [2]), ("1,2", [1, 2]), ("#020202", [2]), ("0", [0])])
def test_road_value_says_which_values_are_road(tmp_path, text, wanted):
    values = np.arange(3, dtype=np.uint8).repeat(20)[:, None].repeat(60, axis=1)
    write_image(tmp_path / "grey.png", values)
    write_image(tmp_path / "rgb.png", np.dstack([values] * 3))
    for name in ("grey.png", "rgb.png"):
        found = read_label(tmp_path / name, Reading(road_value=text))
        np.testing.assert_array_equal(found, np.isin(values, wanted))


@pytest.mark.parametrize("text", ["road", "1.5", "1;2", "#ff", "700000"])
def test_a_road_value_that_is_none_is_refused(text):
    with pytest.raises(BadInput, match="--road-value .+: expected values such as 2 or 1,2, or a colour"):
        Reading(road_value=text)


def test_a_road_value_that_a_label_lacks_is_said(tmp_path, road, caplog):
    palette(tmp_path / "a.png", road, {0: (0, 0, 0, 255), 1: (128, 0, 0, 255)})
    assert not read_label(tmp_path / "a.png", Reading(road_value="1")).any()
    assert "a.png: has no pixel of --road-value 1; its values are 0, #800000" in caplog.text


def test_labels_of_one_folder_mean_the_same(tmp_path, road):
    """Class 1 alone in one label and class 2 alone in another are two classes, not twice a road."""
    write_image(tmp_path / "a.png", road.astype(np.uint8))
    write_image(tmp_path / "b.png", road * np.uint8(2))
    read_label(tmp_path / "a.png")
    with pytest.raises(
        UnclearLabel, match="b.png: its road is 2, that of a.png is 1; .+: --road-value 1,2 if both are"
    ):
        read_label(tmp_path / "b.png")
    assert read_label(tmp_path / "b.png", Reading(road_value="2")).sum() == road.sum()
    write_image(tmp_path / "a.png", road * np.uint8(2))  # mended
    assert read_label(tmp_path / "b.png").sum() == road.sum()


def test_lines_of_a_third_value_are_a_class(tmp_path):
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[:, 5:15], values[:, 40::6] = 255, 128
    write_image(tmp_path / "a.png", values)
    with pytest.raises(UnclearLabel, match="this one has 0, 128, 255; say which are road"):
        read_label(tmp_path / "a.png")


def test_a_picture_is_no_label(tmp_path):
    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    with pytest.raises(UnclearLabel, match=r"this one has .*, \.\.\.; make two values of it"):
        read_label(tmp_path / "a.png")


def test_an_inverted_label_is_said(tmp_path, road, caplog):
    write_image(tmp_path / "a.png", ~road * np.uint8(255))
    with caplog.at_level(logging.WARNING, "dlink.imagery"):
        np.testing.assert_array_equal(read_label(tmp_path / "a.png"), ~road)
    assert "a.png: a label with road in most of its pixels; is it inverted? --road-value 0 takes" in caplog.text
    assert "(here in 79%)" in caplog.text


def test_calibration_does_not_skip_labels_that_nobody_understands(tmp_path):
    for i in range(6):
        write_image(tmp_path / f"{i}_sat.png", np.full((SIDE, SIDE, 3), 90, np.uint8))
        write_image(tmp_path / f"{i}_mask.png", np.arange(SIDE, dtype=np.uint8)[:, None].repeat(SIDE, 1) // 22)
    with pytest.raises(UnclearLabel, match="0, 1, 2; say which are road"):
        sample(tmp_path, SIDE, 3, 1, seed=0)
    assert sample(tmp_path, SIDE, 3, 1, seed=0, how=Reading(road_value="2")).tiles[0].label.any()


def test_a_label_follows_its_image_to_the_networks_resolution(tmp_path, road):
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.25, 0, 3e5, 0, -0.25, 5e6)}
    fine = np.kron(road, np.ones((2, 2), np.uint8))
    size = {"width": 2 * SIDE, "height": 2 * SIDE, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    with rasterio.open(tmp_path / "a_sat.tif", "w", **size, **place) as file:
        file.write(np.stack([fine * 200] * 3))
    write_image(tmp_path / "a_mask.png", fine)
    [tile] = find_tiles(tmp_path, Reading(trained_m=0.5))
    image, label = read_tile(tile)
    np.testing.assert_array_equal(image[..., 0], road * np.uint8(200))
    np.testing.assert_array_equal(label, road)
    [native] = find_tiles(tmp_path, Reading(trained_m=0.5, gsd="native"))
    np.testing.assert_array_equal(read_tile(native)[1], fine > 0)
