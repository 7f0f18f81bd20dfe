"""The area of a map lies where its file says, and is that of the plan; a map may cross 180 degrees."""

import json
import re

import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from rasterio import Affine
from rasterio.warp import transform

from dlink.cli.map import map as command
from dlink.imagery.affine import shifted
from dlink.maps.job.finish import ResultOptions
from dlink.maps.job.grid import Footprint, check_even, grid_of
from dlink.maps.stac_item import footprint
from dlink.runtime.errors import BadInput
from tests.maps.job.scenes import GRID, ZONE, made, options, plan_of, scene, write

X, Y = (values[0] for values in transform("EPSG:4326", "EPSG:32660", [180.0], [52.0]))
ACROSS = Affine(0.5, 0, X - 50, 0, -0.5, Y + 50)
DEGREES = Affine(7.3e-6, 0, 180 - 100 * 7.3e-6, 0, -4.5e-6, 52 + 100 * 4.5e-6)


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def box(west, south, east, north):
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def area(path, *rings, **more):
    path.write_text(json.dumps({"type": "MultiPolygon", "coordinates": [[ring] for ring in rings], **more}))
    return str(path)


def union(plan):
    return shapely.union_all([shapely.from_wkt(text) for text in plan.area])


def ground(plan):
    return shapely.box(*plan.grid.bounds)


def middle():
    """Longitude and latitude of a scene's middle."""
    return [values[0] for values in transform(ZONE, "EPSG:4326", [GRID.c + 50], [GRID.f - 50])]


def test_a_long_edge_of_an_area_is_where_it_is_in_the_files_own_system(model, tmp_path):
    """Between its corners a parallel one degree long is over a hundred metres beside the straight line."""
    path = write(tmp_path / "a.tif", scene((200, 200)))
    lon, lat = middle()
    file = area(tmp_path / "wide.geojson", box(lon - 0.5, lat - 1, lon + 0.5, lat))
    plan = plan_of(model, path, how=options(aoi=file))
    x, y = transform("EPSG:4326", ZONE, np.linspace(lon - 0.0007, lon + 0.0007, 9), np.full(9, lat))
    edge = union(plan).boundary
    assert shapely.distance(edge, shapely.points(x, y)).max() < 0.13  # a quarter of a pixel
    assert plan.grid.rows == pytest.approx(100, abs=8)  # the parallel is no row


def test_the_edges_of_an_area_of_another_system_are_straight_in_that(model, tmp_path):
    path = write(tmp_path / "a.tif", scene((200, 200)))
    x, y = (values[0] for values in transform("EPSG:4326", "EPSG:32631", *([value] for value in middle())))
    crs = {"type": "name", "properties": {"name": "EPSG:32631"}}
    file = area(tmp_path / "a.geojson", box(x - 90_000, y - 90_000, x + 90_000, y), crs=crs)
    plan = plan_of(model, path, how=options(aoi=file))
    at = transform("EPSG:32631", ZONE, np.linspace(x - 40, x + 40, 9), np.full(9, y))
    assert shapely.distance(union(plan).boundary, shapely.points(*at)).max() < 0.13


def test_an_area_larger_than_the_maps_system_is_taken(model, tmp_path):
    path = write(tmp_path / "a.tif", scene((100, 100)))
    plan = plan_of(model, path, how=options(aoi=area(tmp_path / "earth.geojson", box(-180, -90, 180, 90))))
    assert union(plan).covers(ground(plan))
    assert plan.grid.shape == (100, 100)


def test_an_area_that_was_edited_is_refused_and_one_that_was_moved_is_not(model, tmp_path):
    path = write(tmp_path / "a.tif", scene((100, 100)))
    lon, lat = middle()
    file = area(tmp_path / "a.geojson", box(lon - 1, lat - 1, lon + 1, lat + 1))
    args = (model, path, "-o", tmp_path / "map", "--workers", 1)
    assert call(*args, "--aoi", file).exit_code == 0
    moved = tmp_path / "b.geojson"
    moved.write_bytes((tmp_path / "a.geojson").read_bytes())
    assert call(*args, "--aoi", moved).exit_code == 0
    area(tmp_path / "a.geojson", box(lon - 1, lat - 1, lon, lat))
    done = call(*args, "--aoi", file)
    assert done.exit_code == 1
    assert f"is another map, of other polygons than {file} has now; choose another folder" in done.stderr
    alone = call("-o", tmp_path / "map")
    assert alone.exit_code == 0
    assert "a.geojson: has other polygons than the map was planned with, which stay" in alone.stderr
    assert "with another --aoi" in call(*args).stderr


def test_a_raster_across_180_degrees_is_in_a_map_in_degrees(model, tmp_path):
    one = write(tmp_path / "a.tif", scene((200, 200)), "EPSG:32660", ACROSS)
    two = write(tmp_path / "b.tif", scene((200, 200)), "EPSG:32660", shifted(ACROSS, 0, -180))
    for names in ([one], [one, two]):
        plan = plan_of(model, *names, how=options(crs="EPSG:4326"))
        assert (len(plan.sources), plan.left_out) == (len(names), ())
        west, _, east, _ = plan.grid.bounds
        assert west < 180 < east < 180.001


def test_rasters_on_both_sides_of_180_degrees_are_refused_with_a_system_that_fits(model, tmp_path):
    one = write(tmp_path / "a.tif", scene((200, 200)), "EPSG:4326", DEGREES)
    two = write(tmp_path / "b.tif", scene((50, 50)), "EPSG:4326", shifted(DEGREES, 0, 201 - 360 / 7.3e-6))
    with pytest.raises(BadInput, match=r"on both sides of 180 degrees of longitude, .* such as --crs EPSG:32601"):
        plan_of(model, one, two)
    assert len(plan_of(model, one, two, how=options(crs="EPSG:32601")).sources) == 2


def test_the_zone_that_is_suggested_is_that_of_the_rasters_across_180_too():
    place = Affine(0.8, 0, 20_000_000, 0, -0.8, 9_000_000)
    tall = Footprint("a.tif", rasterio.crs.CRS.from_epsg(3857), place, (3_000_000, 120_000), (0.5, 0.5))
    with pytest.raises(BadInput, match="name a system that is even there, such as --crs EPSG:32601"):
        check_even(grid_of([tall], None))


@pytest.mark.parametrize("split", [True, False])
def test_an_area_across_180_degrees_is_whole_in_degrees_and_metres(model, tmp_path, split):
    rings = [box(179.99, 51.99, 180, 52.01), box(-180, 51.99, -179.99, 52.01)]
    file = area(tmp_path / "a.geojson", *(rings if split else [box(179.99, 51.99, -179.99, 52.01)]))
    in_degrees = write(tmp_path / "a.tif", scene((200, 200)), "EPSG:4326", DEGREES)
    in_metres = write(tmp_path / "b.tif", scene((200, 200)), "EPSG:32660", ACROSS)
    for path in (in_degrees, in_metres):
        plan = plan_of(model, path, how=options(aoi=file))
        assert plan.grid.shape == (200, 200)
        assert union(plan).buffer(1e-9).covers(ground(plan))


def test_half_of_a_map_across_180_degrees_may_be_the_area(model, tmp_path):
    path = write(tmp_path / "a.tif", scene((200, 200)), "EPSG:4326", DEGREES)
    file = area(tmp_path / "a.geojson", box(-180, 51.99, -179.99, 52.01))
    plan = plan_of(model, path, how=options(aoi=file))
    assert plan.grid.shape == (200, 100)
    assert plan.grid.bounds[0] == pytest.approx(180)


def test_results_of_a_map_across_180_degrees_have_longitudes_within_180(model, tmp_path):
    path = write(tmp_path / "a.tif", scene((200, 200)), "EPSG:4326", DEGREES)
    made(tmp_path / "map", model, [path], results=ResultOptions(formats=("osm", "geojson")))
    lon = np.array(re.findall(r'lon="([^"]*)"', (tmp_path / "map" / "roads.osm").read_text()), float)
    assert (lon > 179).any() and (lon < -179).any() and np.abs(lon).max() <= 180
    item = json.loads((tmp_path / "map" / "item.json").read_text())
    west, _, east, _ = item["bbox"]
    assert (west, east) == (pytest.approx(180 - 7.3e-4), pytest.approx(-180 + 7.3e-4))
    assert item["geometry"]["type"] == "MultiPolygon"


@pytest.mark.parametrize(("west", "bbox"), [(200.0, [-160, -159.99]), (10.0, [10, 10.01])])
def test_an_item_of_longitudes_beyond_180_is_within_them(west, bbox):
    class Made:
        crs, shape = rasterio.crs.CRS.from_epsg(4326), (100, 100)
        transform = Affine(1e-4, 0, west, 0, -1e-4, 5)

    geometry, found = footprint(Made())
    assert geometry["type"] == "Polygon"
    assert found[::2] == pytest.approx(bbox)
