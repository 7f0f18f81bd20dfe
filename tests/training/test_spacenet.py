"""A SpaceNet area -> tiles: which files belong together, what is drawn, and how a picture becomes 8 bits."""

import json

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from dlink.imagery.images import find_tiles, read_image
from dlink.imagery.labels import read_label, read_tile
from dlink.imagery.reading import RGB, Reading
from dlink.runtime import BadInput
from dlink.training.places import place_of
from dlink.training.spacenet import find_chips, key_of, tile_image
from tests.support.command import call
from tests.support.models import shared

UTM = CRS.from_epsg(32611)
GRID = Affine(0.5, 0, 664_000, 0, -0.5, 4_005_000)
HEIGHT, WIDTH = 80, 96
NAMES = [  # an image and its labels, and the tile's id
    ("RGB-PanSharpen_AOI_2_Vegas_img0.tif", "AOI_2_Vegas_img0.geojson", "AOI_2_Vegas_img0"),
    (
        "RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img7.tif",
        "geojson/spacenetroads/spacenetroads_AOI_2_Vegas_img7.geojson",
        "AOI_2_Vegas_img7",
    ),
    (
        "MUL-PanSharpen/MUL-PanSharpen_AOI_4_Shanghai_img12.tif",
        "geojson/buildings/buildings_AOI_4_Shanghai_img12.geojson",
        "AOI_4_Shanghai_img12",
    ),
    (
        "PS-RGB/SN5_roads_train_AOI_7_Moscow_PS-RGB_chip0.tif",
        "geojson_roads_speed/SN5_roads_train_AOI_7_Moscow_geojson_roads_speed_chip0.geojson",
        "AOI_7_Moscow_chip0",
    ),
    (
        "PS-RGB/SN5_roads_test_public_AOI_10_Dar_Es_Salaam_PS-RGB_chip3.tif",
        "geojson_roads/SN5_roads_test_public_AOI_10_Dar_Es_Salaam_geojson_roads_chip3.geojson",
        "AOI_10_Dar_Es_Salaam_chip3",
    ),
    ("3band/3band_AOI_1_RIO_img100.tif", "vectordata/geojson/Geo_AOI_1_RIO_img100.geojson", "AOI_1_RIO_img100"),
    ("3band_013022223130_Public_img1.tif", "013022223130_Public_img1_Geo.geojson", "img1"),
]


def geotiff(path, pixels=None, **more):
    """A picture (H, W, bands) at half a metre a pixel."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8) if pixels is None else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", **kind, crs=UTM, transform=GRID, **more) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    return path


def degrees(points):
    x, y = zip(*((GRID.a * x + GRID.c, GRID.e * y + GRID.f) for x, y in points), strict=True)
    return list(zip(*transform(UTM, "EPSG:4326", x, y), strict=True))


def road(points, **tags):
    geometry = {"type": "LineString", "coordinates": degrees(points)}
    return {"type": "Feature", "properties": tags, "geometry": geometry}


def building(*rings):
    """With heights of 0, as SpaceNet 2 has them."""
    high = [[(x, y, 0.0) for x, y in degrees(ring)] for ring in rings]
    return {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": high}}


def square(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def labels(path, *features):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


STREET = road([(-5, 40), (110, 40)], lane_number="3")


@pytest.fixture
def area(tmp_path):
    """Three chips of SpaceNet 3: with a road, with an empty file, and with 12 in its number to be sorted last."""
    folder = tmp_path / "AOI_2_Vegas"
    for i, features in ((12, [STREET]), (0, [STREET]), (3, [])):
        geotiff(folder / "RGB-PanSharpen" / f"RGB-PanSharpen_AOI_2_Vegas_img{i}.tif")
        labels(folder / "geojson" / "spacenetroads" / f"spacenetroads_AOI_2_Vegas_img{i}.geojson", *features)
    return folder


@pytest.mark.parametrize(("image", "truth", "id"), NAMES)
def test_images_and_labels_are_paired_by_area_and_number(tmp_path, image, truth, id):
    geotiff(tmp_path / image)
    labels(tmp_path / truth, STREET)
    [chip] = find_chips(tmp_path).chips
    assert (chip.id, chip.image, chip.labels) == (id, tmp_path / image, tmp_path / truth)


def test_a_name_without_a_number_has_no_key(tmp_path):
    assert key_of(tmp_path / "AOI_2_Vegas_Roads_Train.geojson") is None


def test_tiles_are_what_training_reads(area, tmp_path):
    said = call("spacenet", area, "-o", tmp_path / "tiles")
    assert said.stdout == f"{tmp_path / 'tiles'}: 3 tiles, 1 without a road\n"
    assert said.stderr == ""
    tiles = find_tiles(tmp_path / "tiles")
    assert sorted(t.id for t in tiles) == ["AOI_2_Vegas_img0", "AOI_2_Vegas_img12", "AOI_2_Vegas_img3"]
    for tile in tiles:
        image, label = read_tile(tile)
        assert (image == 90).all()
        assert label.any() == (not tile.id.endswith("3"))
        assert place_of(tile.image, None, None) == place_of(next(area.rglob(f"*{tile.id}.tif")), None, None)


def test_roads_are_4_m_wide_or_as_wide_as_their_lanes(area, tmp_path):
    call("spacenet", area, "-o", tmp_path / "plain")
    call("spacenet", area, "-o", tmp_path / "lanes", "--lanes")
    widths = [read_label(tmp_path / name / "AOI_2_Vegas_img0_mask.png").sum(0) for name in ("plain", "lanes")]
    np.testing.assert_allclose(widths[0], 8, atol=1)
    np.testing.assert_allclose(widths[1], 24, atol=1)


def test_buildings_are_filled_where_pixels_centres_lie_in_them(tmp_path):
    folder = tmp_path / "AOI_2_Vegas"
    geotiff(folder / "RGB-PanSharpen_AOI_2_Vegas_img1.tif")
    court = building(square(10.2, 10.2, 30.2, 30.2), square(15.2, 15.2, 20.2, 20.2))
    labels(folder / "buildings_AOI_2_Vegas_img1.geojson", court, building(square(60.6, 5.6, 70.4, 9.4)))
    call("spacenet", folder, "-o", tmp_path / "tiles")
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[10:30, 10:30] = True
    expected[15:20, 15:20] = False
    expected[6:9, 61:70] = True
    assert (read_label(tmp_path / "tiles" / "AOI_2_Vegas_img1_mask.png") == expected).all()


def test_an_area_with_both_asks_which(area, tmp_path):
    labels(area / "geojson" / "buildings" / "buildings_AOI_2_Vegas_img0.geojson", building(square(1, 1, 9, 9)))
    assert (
        "has roads and buildings; give --roads or --buildings" in call("spacenet", area, "-o", tmp_path, code=1).stderr
    )
    refused = call("spacenet", area, "-o", tmp_path / "tiles", "--roads", "--buildings", code=1).stderr
    assert "--roads and --buildings: give one of them" in refused
    said = call("spacenet", area, "-o", tmp_path / "houses", "--buildings")
    assert "1 tile\n" in said.stdout
    assert "note: left out, without a partner: 2 files: RGB-PanSharpen_AOI_2_Vegas_img3.tif" in said.stderr
    assert read_label(tmp_path / "houses" / "AOI_2_Vegas_img0_mask.png").sum() == 64
    assert "3 tiles" in call("spacenet", area, "-o", tmp_path / "streets", "--roads").stdout


def test_a_flat_folder_of_buildings_is_told_by_its_shapes(tmp_path):
    for i, features in ((0, []), (1, [building(square(1, 1, 9, 9))])):
        geotiff(tmp_path / "in" / f"AOI_2_Vegas_img{i}.tif")
        labels(tmp_path / "in" / f"AOI_2_Vegas_img{i}.geojson", *features)
    said = call("spacenet", tmp_path / "in", "-o", tmp_path / "out").stdout
    assert "2 tiles, 1 without a building" in said
    assert (
        "has no labels of roads, only of buildings"
        in call("spacenet", tmp_path / "in", "-o", tmp_path / "out", "--roads", code=1).stderr
    )


def test_of_several_products_the_colour_picture_is_read(area, tmp_path):
    other = np.full((HEIGHT, WIDTH, 8), 7, np.uint16)
    geotiff(area / "MUL-PanSharpen" / "MUL-PanSharpen_AOI_2_Vegas_img0.tif", other)
    geotiff(area / "PAN" / "PAN_AOI_2_Vegas_img0.tif", other[..., :1])
    labels(area / "geojson_roads_speed" / "geojson_roads_speed_AOI_2_Vegas_img0.geojson", STREET)
    chip = find_chips(area).chips[0]
    assert (chip.image.parent.name, chip.labels.parent.name) == ("RGB-PanSharpen", "spacenetroads")


def test_two_files_of_one_chip_are_refused(area):
    geotiff(area / "copy" / "RGB-PanSharpen_AOI_2_Vegas_img3.tif")
    with pytest.raises(BadInput, match="two files of one chip, AOI_2_Vegas_img3; move one away"):
        find_chips(area)


def test_the_limit_takes_the_first_by_number(area, tmp_path):
    call("spacenet", area, "-o", tmp_path / "tiles", "--limit", 2)
    assert [t.id for t in find_tiles(tmp_path / "tiles")] == ["AOI_2_Vegas_img0", "AOI_2_Vegas_img3"]


def test_tiles_within_the_area_are_no_part_of_it(area):
    call("spacenet", area, "-o", area / "tiles")
    assert "3 tiles" in call("spacenet", area, "-o", area / "tiles").stdout


@pytest.mark.parametrize("lost", ["*.tif", "*.geojson"])
def test_a_folder_without_pairs_is_refused_and_nothing_is_written(area, tmp_path, lost):
    for path in area.rglob(lost):
        path.unlink()
    said = call("spacenet", area, "-o", tmp_path / "tiles", code=1).stderr
    assert "AOI_2_Vegas: no image has labels; expected names such as RGB-PanSharpen_AOI_2_Vegas_img0.tif" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "tiles").exists()


def test_labels_of_another_place_are_said(area, tmp_path):
    for path in area.rglob("*.geojson"):
        labels(path, road([(5000, 5000), (6000, 6000)]))
    said = call("spacenet", area, "-o", tmp_path / "tiles")
    assert "note: no tile has a road; do images and labels show the same place?" in said.stderr


def test_damaged_files_are_named_in_one_line(area, tmp_path):
    path = next(area.rglob("*img3.tif"))
    path.write_bytes(path.read_bytes()[:-9000])
    assert (
        "img3.tif: damaged or cut short; GDAL says: " in call("spacenet", area, "-o", tmp_path / "tiles", code=1).stderr
    )
    assert [t.id for t in find_tiles(tmp_path / "tiles")] == ["AOI_2_Vegas_img0"]
    next(area.rglob("*img0.geojson")).write_text("{")
    said = call("spacenet", area, "-o", tmp_path / "other", code=1).stderr
    assert "img0.geojson: not GeoJSON" in said
    assert list((tmp_path / "other").iterdir()) == []


def test_eleven_bits_are_stretched_band_by_band_and_black_stays_black(area, tmp_path):
    rng = np.random.default_rng(0)
    pixels = (rng.random((HEIGHT, WIDTH, 3)) * (300, 500, 700) + (200, 300, 100)).astype(np.uint16)
    pixels[:20] = 0
    for path in area.rglob("*.tif"):
        geotiff(path, pixels)
    said = call("spacenet", area, "-o", tmp_path / "tiles")
    assert "3 images stretched to 8 bits\n" in said.stdout
    assert said.stderr.count("uint16 samples, stretched by percentiles 2,98 of the picture") == 1
    image = read_image(tmp_path / "tiles" / "AOI_2_Vegas_img0_sat.tif")
    assert not image[:20].any()
    for band in range(3):
        low, high = map(float, np.percentile(pixels[20:, :, band], (2, 98), method="inverted_cdf"))
        expected = ((pixels[20:, :, band] - low) / (high - low) * 255).clip(0, 255)
        np.testing.assert_allclose(image[20:, :, band], expected, atol=0.51)


def test_one_range_for_all_images_is_taken(area, tmp_path):
    for path in area.rglob("*.tif"):
        geotiff(path, np.full((HEIGHT, WIDTH, 3), 700, np.uint16))
    call("spacenet", area, "-o", tmp_path / "tiles", "--stretch", "200:1475")
    assert (read_image(tmp_path / "tiles" / "AOI_2_Vegas_img0_sat.tif") == 100).all()


@pytest.mark.parametrize("value", [0, 700])
def test_one_value_and_nothing_at_all_are_black(tmp_path, value):
    flat = geotiff(tmp_path / "a.tif", np.full((HEIGHT, WIDTH, 3), value, np.uint16))
    assert not tile_image(flat, Reading())[0].any()


def test_what_has_no_data_is_black_and_eight_bands_give_red_green_and_blue(tmp_path):
    seen = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    seen[:5, :, 3] = 0
    path = geotiff(tmp_path / "a.tif", seen, photometric="RGB", alpha="YES")
    image, _ = tile_image(path, RGB)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert not image[:5].any()
    assert (image[5:] == 200).all()
    bands = np.broadcast_to(np.arange(8, dtype=np.uint8), (HEIGHT, WIDTH, 8))
    eight = geotiff(tmp_path / "b.tif", np.ascontiguousarray(bands))
    assert tile_image(eight, RGB)[0][0, 0].tolist() == [4, 2, 1]


def test_a_real_chip_has_its_roads_where_the_asphalt_is(tmp_path):
    """The ground's red is brighter than its blue in the desert; asphalt is grey, and darker."""
    call("spacenet", shared("tiles/vegas"), "-o", tmp_path / "tiles")
    [tile] = find_tiles(tmp_path / "tiles")
    image, label = read_tile(tile)
    assert (tile.id, image.shape) == ("AOI_2_Vegas_img0", (1300, 1300, 3))
    assert label.mean() == pytest.approx(0.157, abs=0.005)
    desert = image[:300]
    assert not label[:300].any()
    assert image[label].mean() < desert.mean() - 30
    inner = label[410:1200]
    assert np.median(image[410:1200][inner]) < np.median(image[410:1200][~inner])
