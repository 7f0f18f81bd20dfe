"""Masks become files of polygons; whether lines or polygons are drawn is asked for, or the mask says it."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from rasterio import Affine

from dlink.cli.vectorize import vectorize as command
from dlink.maps.areas import ring_area
from dlink.maps.polygons import PolygonOptions, polygons
from dlink.maps.vectorize import vectorize
from tests.maps.masks import blobs, cross, rectangle, town, write_mask

FIELDS = ["id", "area_m2", "perimeter_m"]


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def read(path, layer="polygons"):
    meta, _, shapes, columns = pyogrio.raw.read(path, layer=layer)
    return meta, shapely.from_wkb(shapes), dict(zip(meta["fields"], columns, strict=True))


def shows(path, target):
    """The mask says in its metadata what it shows."""
    with rasterio.open(path, "r+") as file:
        file.update_tags(DLINK_TARGET=target)
    return path


@pytest.fixture
def mask(tmp_path):
    """A house of 60 m x 30 m at 30 degrees, with a courtyard of 20 m x 10 m."""
    house = rectangle((300, 300), (150, 150), (120, 60), 30) & ~rectangle((300, 300), (150, 150), (40, 20), 30)
    return write_mask(tmp_path / "mask.tif", house)


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".geojsonl"])
def test_every_format_is_read_back_with_its_fields(mask, tmp_path, suffix):
    out = tmp_path / f"houses{suffix}"
    done = call(mask, "-o", out, "--polygons", "--square")
    assert (done.exit_code, done.stderr) == (0, "")
    meta, [shape], fields = read(out, "polygons" if suffix != ".geojsonl" else None)
    assert list(fields) == [*FIELDS, "squared"]
    assert done.stdout == f"{out}: 1 polygon, {fields['area_m2'][0]:,.0f} m², 1 squared\n"
    assert fields["area_m2"][0] == pytest.approx((60 * 30 - 20 * 10) * 1.0008, rel=0.003)  # UTM's scale is 0.9996
    assert fields["perimeter_m"][0] == pytest.approx(2 * (90 + 30) * 1.0004, rel=0.005)
    assert meta["crs"] == ("EPSG:32633" if suffix in (".gpkg", ".fgb") else "EPSG:4326")
    assert [len(ring.coords) for ring in (shape.exterior, *shape.interiors)] == [5, 5]
    assert shape.is_valid
    assert {path.name for path in tmp_path.iterdir()} == {"mask.tif", out.name}


def test_the_file_does_not_depend_on_the_blocks(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", blobs(5, (300, 340), 5, 0.3))
    found = []
    for block in (61, 128, 4096):
        polygons(mask, tmp_path / "areas.geojson", PolygonOptions(block=block, square=True, min_area=4))
        found.append((tmp_path / "areas.geojson").read_bytes())
    assert found[0] == found[1] == found[2]
    data = json.loads(found[0])
    assert len(data["features"]) > 10
    assert all(shapely.from_geojson(json.dumps(feature["geometry"])).is_valid for feature in data["features"])


def test_degrees_have_their_areas_on_the_ground(tmp_path):
    """At 60 degrees north a degree of longitude is half as long."""
    grid = Affine(1e-5, 0, 15, 0, -0.5e-5, 60)  # 0.558 m x 0.557 m
    house = rectangle((200, 200), (100, 100), (100, 60), 0)
    polygons(write_mask(tmp_path / "mask.tif", house, crs="EPSG:4326", transform=grid), tmp_path / "houses.gpkg")
    _, _, fields = read(tmp_path / "houses.gpkg")
    assert fields["area_m2"][0] == pytest.approx(100 * 0.5580 * 60 * 0.5571, rel=1e-3)
    assert fields["perimeter_m"][0] == pytest.approx(200 * 0.5580 + 120 * 0.5571, rel=1e-3)


def test_the_area_of_a_quarter_of_the_earth_is_right():
    """From pole to pole; the whole ellipsoid of WGS 84 has 510,065,621.7 km2."""
    ring = np.array([[0, -90], [0, 90], [90, 90], [90, -90], [0, -90.0]])
    assert ring_area(ring) / 1e6 == pytest.approx(510_065_621.7 / 4, rel=1e-9)
    assert ring_area(ring[::-1]) == -ring_area(ring)
    across = np.array([[179.999, 10], [179.999, 10.001], [-179.999, 10.001], [-179.999, 10], [179.999, 10]])
    assert ring_area(across) == pytest.approx(ring_area(across - (170, 0)), rel=1e-6)


def test_the_mean_probability_of_an_area_is_a_field(tmp_path):
    prob = np.full((200, 400), np.float32(0.2))
    prob[50:100, 50:150], prob[50:100, 200:250], prob[50:100, 250:300] = 0.7, 0.6, 0.9
    mask = write_mask(tmp_path / "prob.tif", prob)
    for block in (64, 4096):
        polygons(mask, tmp_path / "houses.gpkg", PolygonOptions(block=block))
        _, _, fields = read(tmp_path / "houses.gpkg")
        assert list(fields) == [*FIELDS, "probability"]
        np.testing.assert_allclose(fields["probability"], [0.7, 0.75], atol=1e-4)
    assert polygons(mask, tmp_path / "houses.gpkg", PolygonOptions(threshold=0.8)).polygons == 1


def test_areas_and_holes_below_the_least_are_left_out_and_filled(tmp_path):
    values = np.zeros((100, 300), bool)
    values[10:60, 10:60], values[20:24, 20:24], values[70:76, 100:106] = True, False, True  # 4 m2 and 9 m2
    mask = write_mask(tmp_path / "mask.tif", values)
    assert polygons(mask, tmp_path / "houses.gpkg").polygons == 1
    _, [shape], _ = read(tmp_path / "houses.gpkg")
    assert (shape.area, len(shape.interiors)) == (625, 0)
    assert polygons(mask, tmp_path / "houses.gpkg", PolygonOptions(min_area=3)).polygons == 2
    _, (shape, _), _ = read(tmp_path / "houses.gpkg")
    assert shape.area == 621
    assert call(mask, "-o", tmp_path / "houses.gpkg", "--polygons", "--min-area", 9.5).stdout.count("1 polygon,") == 1


def test_a_mask_that_shows_no_road_becomes_polygons_and_says_so(mask, tmp_path):
    out = tmp_path / "houses.gpkg"
    done = call(shows(mask, "building"), "-o", out, "--square")
    assert done.stderr == f"note: {mask}: shows building, by its metadata, and becomes polygons; --lines draws lines\n"
    assert len(read(out, "building")[1]) == 1
    done = call(mask, "-o", out, "--lines")
    assert "shows building, by its metadata; lines are drawn as if it were road" in done.stderr
    assert "line" in done.stdout


def test_a_mask_that_shows_road_becomes_lines_unless_polygons_are_asked_for(tmp_path):
    mask = shows(write_mask(tmp_path / "mask.tif", cross()), "road")
    assert call(mask, "-o", tmp_path / "roads.gpkg").stdout.count("4 lines") == 1
    done = call(mask, "-o", tmp_path / "areas.gpkg", "--polygons")
    assert (done.stderr, done.stdout.count("1 polygon,")) == ("", 1)
    assert len(read(tmp_path / "areas.gpkg", "road")[1]) == 1


def test_options_of_the_other_kind_are_refused(mask, tmp_path):
    out = tmp_path / "houses.gpkg"
    for args, words in (
        (("--square",), "--square: is of polygons; --polygons draws them"),
        (("--min-area", 5), "--min-area: is of polygons; --polygons draws them"),
        (("--polygons", "--bridge", 5), "--bridge: is of lines, and the result is polygons; leave it out"),
        (("--polygons", "--no-smooth"), "--no-smooth: is of lines, and the result is polygons; leave it out"),
        (("--polygons", "--threshold", 2), "must be at least 0 and less than 1"),
    ):
        done = call(mask, "-o", out, *args)
        assert done.exit_code == 1
        assert words in done.stderr
        assert not out.exists()


def test_a_mask_without_a_system_has_polygons_in_pixels_and_says_so(tmp_path):
    house = rectangle((100, 100), (50, 50), (40, 20), 0)
    mask = write_mask(tmp_path / "mask.tif", house, crs=None, transform=None)
    done = call(mask, "-o", tmp_path / "houses.gpkg", "--polygons")
    assert "the polygons are in its pixels, x to the right and y down" in done.stderr
    assert "0.5 m a pixel is assumed, --gsd says another" in done.stderr
    _, [shape], fields = read(tmp_path / "houses.gpkg")
    assert shape.bounds == (30, 40, 70, 60)
    assert (fields["area_m2"][0], fields["perimeter_m"][0]) == (200, 60)
    done = call(mask, "-o", tmp_path / "houses.geojson", "--polygons")
    assert (done.exit_code, "the mask has no coordinate system" in done.stderr) == (1, True)


def test_an_empty_mask_gives_an_empty_layer(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", np.zeros((80, 80), bool))
    for suffix in (".gpkg", ".fgb", ".geojson"):
        out = tmp_path / f"houses{suffix}"
        done = call(mask, "-o", out, "--polygons", "--square")
        assert (done.exit_code, done.stderr) == (0, f"note: {mask}: nothing was found; {out} has no polygons\n")
        assert done.stdout == f"{out}: 0 polygons, 0 m², 0 squared\n"
        assert len(read(out)[1]) == 0


def test_a_mosaic_of_masks_is_one_mask(tmp_path):
    """A house on the seam of two files is one polygon."""
    whole = town(240)
    write_mask(tmp_path / "whole.tif", whole)
    sources = ""
    for i, cols in enumerate((slice(0, 100), slice(100, 240))):
        write_mask(tmp_path / f"{i}.tif", whole[:, cols])
        sources += (
            f'<SimpleSource><SourceFilename relativeToVRT="1">{i}.tif</SourceFilename><SourceBand>1</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{cols.stop - cols.start}" ySize="240"/>'
            f'<DstRect xOff="{cols.start}" yOff="0" xSize="{cols.stop - cols.start}" ySize="240"/></SimpleSource>'
        )
    (tmp_path / "all.vrt").write_text(
        '<VRTDataset rasterXSize="240" rasterYSize="240"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 0.5, 0, 5400000, 0, -0.5</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )
    for name in ("whole.tif", "all.vrt"):
        polygons(tmp_path / name, tmp_path / f"{name}.geojson", PolygonOptions(square=True, block=70))
    assert (tmp_path / "whole.tif.geojson").read_bytes() == (tmp_path / "all.vrt.geojson").read_bytes()


def test_the_mask_is_not_replaced(mask, tmp_path):
    link = tmp_path / "mask.gpkg"
    link.symlink_to(mask)
    done = call(mask, "-o", link, "--polygons")
    assert "is the mask, and would be replaced" in done.stderr


def test_lines_of_a_mask_that_shows_no_road_are_noted_in_programs_too(mask, tmp_path, caplog):
    vectorize(shows(mask, "pool"), tmp_path / "lines.gpkg")
    assert "shows pool" in caplog.text
