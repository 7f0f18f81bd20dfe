"""A map of a model that finds buildings has polygons, those of the whole mask."""

import json
import re

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from click.testing import CliRunner

from dlink.cli.map import map as command
from dlink.cli.segment import segment
from dlink.cli.vectorize import vectorize
from dlink.imagery.images import write_image
from dlink.maps.job.finish import ResultOptions
from dlink.maps.job.run import Where, make_map, progress_of
from dlink.runtime.spec import Spec
from tests.maps.job.scenes import cut, leftovers, made, options, read, roads, write
from tests.maps.masks import town
from tests.support.models import write_blur


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    spec = Spec(tile=64, views=(0, 1, 2, 3), target="building")
    return write_blur(tmp_path_factory.mktemp("model") / "buildings.onnx", spec, 2)


@pytest.fixture(scope="module")
def scene():
    """Bright houses on dark ground, nowhere 0."""
    image = np.random.default_rng(6).integers(20, 90, (3, 240, 300))
    image[0] += 140 * np.pad(town(240), ((0, 0), (0, 60)))
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def whole(model, scene, tmp_path_factory):
    """A folder with a scene, what dlink-segment makes of it, its polygons, and its map."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "scene.tif", scene)
    for step, args in (
        (segment, (model, folder / "scene.tif", "-o", folder / "mask.tif")),
        (vectorize, (folder / "mask.tif", "-o", folder / "houses.geojson", "--square", "--min-area", "4")),
    ):
        assert CliRunner().invoke(step, [str(arg) for arg in args]).exit_code == 0
    how = ResultOptions(formats=("geojson", "gpkg"), square=True, min_area=4)
    made(folder / "map", model, [folder / "scene.tif"], results=how)
    return folder


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def geometries(path):
    return [feature["geometry"] for feature in json.loads(path.read_text())["features"]]


def test_a_map_of_one_raster_is_its_mask_and_its_polygons(whole):
    np.testing.assert_array_equal(read(whole / "map" / "building.tif")[0], read(whole / "mask.tif")[0])
    found = geometries(whole / "map" / "building.geojson")
    assert found == geometries(whole / "houses.geojson")
    assert len(found) > 12
    assert {shape["type"] for shape in found} == {"Polygon"}
    names = {path.name for path in (whole / "map").iterdir()} - {".lock"}
    assert names == {
        "blocks", "building.geojson", "building.gpkg", "building.tif", "building.vrt", "item.json", "options.json",
        "plan.json", "report.html", "report.json",
    }  # fmt: skip
    assert {path.suffix for path in (whole / "map" / "blocks").iterdir()} == {".tif"}  # no lines are looked for
    assert leftovers(whole / "map") == []


def test_results_say_what_they_show(whole):
    for path in (whole / "mask.tif", whole / "map" / "building.tif"):
        with rasterio.open(path) as file:
            assert file.tags()["DLINK_TARGET"] == "building"
    meta, _, shapes, columns = pyogrio.raw.read(whole / "map" / "building.gpkg", layer="building")
    assert list(meta["fields"]) == ["id", "area_m2", "perimeter_m", "squared", "probability"]
    assert shapely.is_valid(shapely.from_wkb(shapes)).all()
    probability = columns[list(meta["fields"]).index("probability")]
    assert 0.5 < probability.min() < probability.max() <= 1


@pytest.mark.parametrize("windows", [1, 40])
def test_rasters_and_blocks_of_any_size_make_the_same_polygons(whole, model, scene, tmp_path, windows):
    how = ResultOptions(formats=("geojson",), square=True, min_area=4)
    made(tmp_path / "map", model, [cut(tmp_path / "parts", scene, 130, 100)], options(windows=windows), results=how)
    assert geometries(tmp_path / "map" / "building.geojson") == geometries(whole / "houses.geojson")


def test_the_report_and_the_item_say_polygons_and_their_area(whole):
    folder = whole / "map"
    report = json.loads((folder / "report.json").read_text())
    count = len(geometries(folder / "building.geojson"))
    assert re.fullmatch(rf"{count} polygons, [\d,]+ m², \d+ squared", report["found"]["Polygons"])
    assert re.fullmatch(r"\d+\.\d\d% is building", report["found"]["Share of the area"])
    assert "Roads" not in report["found"]
    assert "areas and holes from 4 m² on" in report["how"]["Polygons"]
    assert report["files"]["building.gpkg"] == "building as polygons, GeoPackage"
    page = (folder / "report.html").read_text()
    assert "the building polygons that were found" in page
    assert page.count("M") > count
    item = json.loads((folder / "item.json").read_text())
    assert {"mask", "polygons-gpkg", "polygons-geojson", "report"} == set(item["assets"])
    assert "oad" not in json.dumps(item)


def test_other_polygons_are_made_of_the_same_blocks(whole, model, tmp_path):
    made(tmp_path / "map", model, [whole / "scene.tif"])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "map" / "blocks").iterdir()}
    done = call("-o", tmp_path / "map", "--square", "--min-area", 80)
    assert done.exit_code == 0
    assert re.search(r"^\d+ polygons, [\d,]+ m², \d+ squared$", done.stdout, re.MULTILINE)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "map" / "blocks").iterdir()} == before
    assert call("-o", tmp_path / "map", "--status").stdout == f"{tmp_path / 'map'}: finished, {len(before)} blocks\n"


def test_how_far_a_map_is_is_said_without_lines(whole, model, tmp_path):
    make_map(model, [str(whole / "scene.tif")], Where(folder=tmp_path / "map", part="1/2"), options())
    at = progress_of(Where(folder=tmp_path / "map"))
    assert (at.lines, at.finished) == (None, False)
    assert at.roads < at.all
    done = call("-o", tmp_path / "map", "--status")
    assert f"not running; roads {at.roads}/{at.all} blocks\n" in done.stdout


def test_what_polygons_do_not_have_is_refused_before_the_work(whole, model, tmp_path):
    (tmp_path / "a.osm.pbf").write_bytes(b"")
    for i, (args, words) in enumerate((
        (("--bridge", 5), "--bridge: is of lines, and the model finds building, which becomes polygons; leave it out"),
        (("--widest", 20), "--widest: is of lines, and the model finds building"),
        (("--format", "pmtiles"), "--format pmtiles: holds lines alone, and the model finds building; expected gpkg,"),
        (("--osm", tmp_path / "a.osm.pbf"), "--osm: "),
    )):  # fmt: skip
        folder = tmp_path / str(i)
        done = call(model, whole / "scene.tif", "-o", folder, *args)
        assert done.exit_code == 1
        assert words in done.stderr
        assert not list(folder.glob("blocks/*"))


def test_polygons_are_refused_of_a_model_that_finds_road(whole, tmp_path):
    model = roads(tmp_path / "roads.onnx")
    for args, words in ((("--square",), "--square: is of polygons"), (("--min-area", 3), "--min-area: is of polygons")):
        done = call(model, whole / "scene.tif", "-o", tmp_path / "map", *args)
        assert done.exit_code == 1
        assert f"{words}, and the model finds road" in done.stderr


def test_a_target_that_is_no_file_name_makes_one(tmp_path, scene):
    model = write_blur(tmp_path / "m.onnx", Spec(tile=64, views=(0,), target="../house/wall"), 2)
    write(tmp_path / "scene.tif", scene)
    made(tmp_path / "map", model, [tmp_path / "scene.tif"])
    assert (tmp_path / "map" / "___house_wall.gpkg").exists()


def test_a_png_mask_says_what_it_shows_too(model, scene, tmp_path):
    write_image(tmp_path / "scene.png", np.ascontiguousarray(np.moveaxis(scene, 0, -1)), {})
    for step, args in (
        (segment, (model, tmp_path / "scene.png", "-o", tmp_path / "mask.png")),
        (vectorize, (tmp_path / "mask.png", "-o", tmp_path / "houses.gpkg")),
    ):
        done = CliRunner().invoke(step, [str(arg) for arg in args])
        assert done.exit_code == 0, done.output
    assert "shows building, by its metadata, and becomes polygons" in done.stderr
    assert len(pyogrio.raw.read(tmp_path / "houses.gpkg", layer="building")[2]) > 10
