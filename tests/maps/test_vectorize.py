"""Masks become files of lines; what is wrong with a mask is said in one line."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from click.testing import CliRunner
from rasterio import Affine

from dlink.cli.vectorize import vectorize as command
from dlink.maps.vectorize import LineOptions, vectorize
from tests.maps.masks import blobs, cross, write_mask

FIELDS = ["id", "length_m", "width_m", "from_node", "to_node"]


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def read(path):
    meta, _, shapes, columns = pyogrio.raw.read(path, layer="roads")
    return meta, shapely.from_wkb(shapes), dict(zip(meta["fields"], columns, strict=True))


@pytest.fixture
def mask(tmp_path):
    return write_mask(tmp_path / "mask.tif", cross())


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".geojsonl"])
def test_every_format_is_read_back_with_its_fields(mask, tmp_path, suffix):
    out = tmp_path / f"roads{suffix}"
    done = call(mask, "-o", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 4 lines, 0.40 km, 5 nodes\n"
    layer = "roads" if suffix != ".geojsonl" else None
    meta, _, shapes, columns = pyogrio.raw.read(out, layer=layer)
    assert list(meta["fields"]) == FIELDS
    fields = dict(zip(meta["fields"], columns, strict=True))
    np.testing.assert_allclose(fields["length_m"], 99.9, atol=0.5)  # 0.04 % more than in the plane of UTM
    np.testing.assert_allclose(fields["width_m"], 8.5, atol=0.5)
    assert meta["crs"] == ("EPSG:32633" if suffix in (".gpkg", ".fgb") else "EPSG:4326")
    x, _ = shapely.get_coordinates(shapely.from_wkb(shapes)).T
    expected = (500_000, 500_200) if suffix in (".gpkg", ".fgb") else (15, 15.003)
    assert expected[0] <= x.min() < x.max() <= expected[1]
    assert {path.name for path in tmp_path.iterdir()} == {"mask.tif", out.name}


def test_lines_that_meet_have_the_same_node_and_vertex(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", blobs(3, (700, 700), 14, 0.6))
    vectorize(mask, tmp_path / "roads.gpkg")
    _, shapes, fields = read(tmp_path / "roads.gpkg")
    at = {}
    for shape, first, last in zip(shapes, fields["from_node"], fields["to_node"], strict=True):
        for node, point in ((first, shape.coords[0]), (last, shape.coords[-1])):
            assert at.setdefault(node, point) == point
    assert len(set(at.values())) == len(at)
    assert sorted(at) == list(range(1, len(at) + 1))
    assert len(shapes) > 5


def test_the_file_does_not_depend_on_the_blocks(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", blobs(5, (500, 640), 12, 0.5))
    found = []
    for block in (90, 256, 4096):
        vectorize(mask, tmp_path / "roads.geojson", LineOptions(block=block, widest=20))
        found.append((tmp_path / "roads.geojson").read_bytes())
    assert found[0] == found[1] == found[2]


def test_geojson_is_that_of_rfc_7946(mask, tmp_path):
    vectorize(mask, tmp_path / "roads.geojson")
    data = json.loads((tmp_path / "roads.geojson").read_text())
    assert "crs" not in data
    assert {feature["geometry"]["type"] for feature in data["features"]} == {"LineString"}


def test_degrees_have_their_lengths_and_widths_on_the_ground(tmp_path):
    """At 60 degrees north a degree of longitude is half as long."""
    grid = Affine(1e-5, 0, 15, 0, -0.5e-5, 60)  # 0.558 m x 0.557 m
    vectorize(write_mask(tmp_path / "mask.tif", cross(), crs="EPSG:4326", transform=grid), tmp_path / "roads.gpkg")
    _, _, fields = read(tmp_path / "roads.gpkg")
    np.testing.assert_allclose(fields["length_m"], 111.3, atol=1)
    np.testing.assert_allclose(fields["width_m"], 17 * 0.5575, atol=0.6)


def test_probabilities_are_cut_at_the_threshold_and_their_mean_is_a_field(tmp_path):
    prob = np.where(cross(), np.float32(0.7), np.float32(0.2))
    mask = write_mask(tmp_path / "prob.tif", prob)
    assert vectorize(mask, tmp_path / "roads.gpkg").lines == 4
    _, _, fields = read(tmp_path / "roads.gpkg")
    np.testing.assert_allclose(fields["probability"], 0.7, atol=1e-3)
    assert vectorize(mask, tmp_path / "roads.gpkg", LineOptions(threshold=0.8)).lines == 0


def test_bridges_have_a_field_and_no_probability(tmp_path):
    prob = np.where(cross(), np.float32(0.7), np.float32(0.2))
    prob[:, 90:100] = 0
    vectorize(write_mask(tmp_path / "prob.tif", prob), tmp_path / "roads.gpkg", LineOptions(bridge=10))
    _, _, fields = read(tmp_path / "roads.gpkg")
    assert list(fields) == [*FIELDS, "bridge", "probability"]
    assert fields["bridge"].tolist().count(1) == 1
    np.testing.assert_array_equal(np.isnan(fields["probability"]), fields["bridge"] == 1)


def test_whole_numbers_are_probabilities_if_a_threshold_says_so(tmp_path):
    mask = write_mask(tmp_path / "levels.tif", np.where(cross(), 60000, 300).astype(np.uint16))
    assert vectorize(mask, tmp_path / "roads.gpkg", LineOptions(threshold=0.5)).lines == 4
    assert vectorize(mask, tmp_path / "roads.gpkg", LineOptions(threshold=0.95)).lines == 0


def test_pixels_without_data_are_no_road(tmp_path):
    values = np.full((100, 300), 255, np.uint8)
    values[45:55] = 1
    mask = write_mask(tmp_path / "mask.tif", values, nodata=255)
    assert vectorize(mask, tmp_path / "roads.gpkg").lines == 1


def test_an_empty_mask_gives_an_empty_layer(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", np.zeros((80, 80), bool))
    for suffix in (".gpkg", ".fgb", ".geojson"):
        out = tmp_path / f"roads{suffix}"
        done = call(mask, "-o", out)
        assert (done.exit_code, done.stderr) == (0, f"note: {mask}: no road was found; {out} has no lines\n")
        assert done.stdout == f"{out}: 0 lines, 0.00 km, 0 nodes\n"
        assert len(read(out)[1]) == 0


def test_a_mask_without_a_system_has_lines_in_pixels_and_says_so(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", cross(), crs=None, transform=None)
    done = call(mask, "-o", tmp_path / "roads.gpkg")
    assert "note: " in done.stderr
    assert "0.5 m a pixel is assumed, --gsd says another" in done.stderr
    assert "has no coordinate system; the lines are in its pixels" in done.stderr
    assert read(tmp_path / "roads.gpkg")[1][0].bounds[2] <= 400
    assert "0.80 km" in call(mask, "-o", tmp_path / "roads.gpkg", "--gsd", 1).stdout
    done = call(mask, "-o", tmp_path / "roads.geojson")
    assert done.exit_code == 1
    assert "the mask has no coordinate system; give it one (gdal_edit.py -a_srs EPSG:N), or write .gpkg" in done.stderr


def test_options_change_the_lines(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", blobs(7, (400, 400), 10, 0.7))
    points = {}
    for args in ((), ("--no-smooth",), ("--simplify", 0), ("--min-length", 500), ("--widest", 4)):
        assert call(mask, "-o", tmp_path / "roads.gpkg", *args).exit_code == 0
        points[args] = int(shapely.get_num_coordinates(read(tmp_path / "roads.gpkg")[1]).sum())
    assert list(points.values()).count(points[()]) == 1
    assert points["--simplify", 0] > 3 * points[()]


def test_a_road_value_says_which_class_is_road(tmp_path):
    values = np.zeros((200, 300), np.uint8)
    values[45:55], values[120:130] = 1, 2
    mask = write_mask(tmp_path / "classes.tif", values)
    done = call(mask, "-o", tmp_path / "roads.gpkg")
    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: {mask}: has values 0, 1, 2; a mask has two. --road-value 2 says which is road, and --threshold 0.5 "
        "reads them as probabilities\n"
    )
    assert not (tmp_path / "roads.gpkg").exists()
    assert call(mask, "-o", tmp_path / "roads.gpkg", "--road-value", 2).stdout.count("1 line,") == 1


def test_what_is_no_mask_is_refused_in_one_line(mask, tmp_path):
    (tmp_path / "text.tif").write_text("no raster")
    out = tmp_path / "roads.gpkg"
    reals = write_mask(tmp_path / "reals.tif", np.full((9, 9), 7.0, np.float32))
    several = write_mask(tmp_path / "several.tif", np.zeros((3, 9, 9), np.float32))
    for args, words in (
        ((tmp_path, "-o", out), "is a folder; give one mask, or a VRT of several"),
        ((tmp_path / "text.tif", "-o", out), "can't be opened as a raster"),
        ((tmp_path / "missing.tif", "-o", out), "No such file or directory"),
        ((mask, "-o", tmp_path / "roads.dxf"), "no format of lines by its name; expected .gpkg, .fgb, .geojson"),
        ((mask, "-o", tmp_path), "is a folder; give a file's name"),
        ((reals, "-o", out), "has 7; real numbers are probabilities, from 0 to 1"),
        ((several, "-o", out), "has several bands; probabilities are in one"),
        ((mask, "-o", out, "--threshold", 1.5), "must be at least 0 and less than 1"),
        ((mask, "-o", out, "--widest", 900), "give a smaller --widest, or a coarser mask"),
    ):
        done = call(*args)
        *notes, line = done.stderr.splitlines()
        assert all(note.startswith("note: ") for note in notes)
        assert done.exit_code == 1, args
        assert words in line
        assert not out.exists()


def test_an_output_that_cannot_be_written_leaves_nothing(mask, tmp_path):
    (tmp_path / "file").write_text("")
    done = call(mask, "-o", tmp_path / "file" / "roads.gpkg")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1


def test_lines_that_were_there_stay_if_writing_fails(mask, tmp_path, monkeypatch):
    out = tmp_path / "roads.gpkg"
    out.write_bytes(b"before")

    def full(*args, **kwargs):
        raise RuntimeError("no space left")

    monkeypatch.setattr(pyogrio.raw, "write", full)
    done = call(mask, "-o", out)
    assert done.stderr == f"Error: {out}: can't be written, is the disk full? GDAL says: no space left\n"
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.tif", "roads.gpkg"]
