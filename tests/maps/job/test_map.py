"""A map of many rasters is that of one, by blocks as a whole; it goes on where it ended, and refuses what does not fit."""

import json
import shutil

import numpy as np
import pyogrio
import pytest
from click.testing import CliRunner
from rasterio import Affine

from dlink.cli.map import map as command
from dlink.cli.segment import segment
from dlink.maps.job.finish import ResultOptions
from dlink.maps.job.run import Where, make_map, progress_of
from dlink.maps.vectorize import vectorize
from dlink.runtime.errors import BadInput, CheckFailed
from tests.maps.job.scenes import (
    BLOCK,
    GRID,
    blocks_of,
    cut,
    leftovers,
    made,
    options,
    read,
    roads,
    scene,
    warped,
    write,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return roads(tmp_path_factory.mktemp("model") / "roads.onnx")


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A folder with a scene, what dlink-segment makes of it, its lines, and its map."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "scene.tif", scene())
    assert (
        CliRunner().invoke(segment, [str(model), str(folder / "scene.tif"), "-o", str(folder / "mask.tif")]).exit_code
        == 0
    )
    vectorize(folder / "mask.tif", folder / "roads.geojson")
    made(folder / "map", model, [folder / "scene.tif"], results=ResultOptions(formats=("geojson", "gpkg")))
    return folder


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def geometries(path):
    return [feature["geometry"] for feature in json.loads(path.read_text())["features"]]


def test_a_map_of_one_raster_is_its_mask_and_its_lines(whole):
    mask, _ = read(whole / "mask.tif")
    assert 0.05 < (mask == 255).mean() < 0.5
    np.testing.assert_array_equal(read(whole / "map" / "roads.tif")[0], mask)
    assert geometries(whole / "map" / "roads.geojson") == geometries(whole / "roads.geojson")


def test_rasters_that_overlap_on_one_grid_make_the_map_of_the_whole(whole, model, tmp_path):
    made(tmp_path / "map", model, [cut(tmp_path / "parts", scene())], results=ResultOptions(formats=("geojson",)))
    mask, valid = read(tmp_path / "map" / "roads.tif")
    np.testing.assert_array_equal(mask, read(whole / "mask.tif")[0])
    assert valid.all()
    assert geometries(tmp_path / "map" / "roads.geojson") == geometries(whole / "roads.geojson")


@pytest.mark.parametrize("windows", [1, 3, 40])
def test_blocks_of_any_size_make_the_same_map(whole, model, tmp_path, windows):
    how = options(windows=windows)
    made(tmp_path / "map", model, [whole / "scene.tif"], how, results=ResultOptions(formats=("geojson",)))
    np.testing.assert_array_equal(read(tmp_path / "map" / "roads.tif")[0], read(whole / "mask.tif")[0])
    assert geometries(tmp_path / "map" / "roads.geojson") == geometries(whole / "roads.geojson")
