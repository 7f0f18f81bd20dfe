"""One reader of lines and polygons for every command: formats, coordinate systems, layers, damage."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.warp import transform

from dlink.imagery.vectors import AREA, DRIVERS, LINE, read_vectors
from dlink.runtime import BadInput

ROAD = [[-115.17628561919607, 36.17576806286313], [-115.17573303073414, 36.17562442720758], [-115.1753, 36.17489676]]
SQUARE = [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]], [[1, 1], [2, 1], [2, 2], [1, 1]]]
SYSTEMS = (32611, 3857, 4326, 4269, 2229, 31467, 3035)  # in metres, degrees and feet; northing or latitude first


def feature(coordinates, type=LINE, **tags):
    return {"type": "Feature", "properties": tags, "geometry": {"type": type, "coordinates": coordinates}}


def geojson(path, *features, **more):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def named(crs):
    return {"crs": {"type": "name", "properties": {"name": crs}}}


def write(path, *shapes, crs="EPSG:4326", layer=None, append=False, **columns):
    """A file by GDAL: a geometry or None for each row."""
    made = np.array([None if s is None else shapely.to_wkb(s) for s in shapes], object)
    kinds = {s.geom_type + " Z" * bool(s.has_z) for s in shapes if s is not None}
    pyogrio.raw.write(
        path, made, [np.array(c) for c in columns.values()], list(columns), layer=layer, append=append,
        geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown", crs=crs, driver=DRIVERS[path.suffix],
    )  # fmt: skip
    return path


def moved(epsg, points=ROAD):
    return np.column_stack(transform("EPSG:4326", f"EPSG:{epsg}", *zip(*points, strict=True)))


def only_line(path):
    [line] = read_vectors(path).degrees().lines
    return line


@pytest.mark.parametrize("epsg", SYSTEMS)
@pytest.mark.parametrize("name", ["x.geojson", "x.gpkg", "x.fgb", "x.shp"])
def test_a_line_is_the_same_in_every_format_and_system(tmp_path, name, epsg):
    path = tmp_path / name
    if name == "x.geojson":
        geojson(path, feature(moved(epsg).tolist(), highway="road"), **named(f"urn:ogc:def:crs:EPSG::{epsg}"))
    else:
        write(path, shapely.LineString(moved(epsg)), crs=f"EPSG:{epsg}", highway=["road"])
    line = only_line(path)
    np.testing.assert_allclose(line.parts[0], ROAD, atol=1e-7 if epsg != 31467 else 1e-5)
    assert line.tags == {"highway": "road"}


@pytest.mark.parametrize("more", [{}, named("urn:ogc:def:crs:OGC:1.3:CRS84"), named("EPSG:4326"), {"crs": None}])
def test_geojson_is_in_degrees_unless_it_says_otherwise(tmp_path, more):
    assert only_line(geojson(tmp_path / "x.json", feature(ROAD), **more)).parts[0].tolist() == ROAD


def test_the_oldest_way_of_naming_a_system_is_read(tmp_path):
    old = {"crs": {"type": "EPSG", "properties": {"code": 3857}}}
    line = only_line(geojson(tmp_path / "x.json", feature(moved(3857).tolist()), **old))
    np.testing.assert_allclose(line.parts[0], ROAD, atol=1e-9)


def test_empty_geometries_are_left_out(tmp_path):
    empty = [feature([]), feature([], "MultiLineString"), feature([], AREA), feature([[]], "MultiPolygon")]
    nothing = [{"type": "Feature", "properties": {}, "geometry": None}, feature([ROAD[0]])]
    assert only_line(geojson(tmp_path / "x.geojson", *empty, *nothing, feature(ROAD))).parts[0].tolist() == ROAD
    assert read_vectors(geojson(tmp_path / "none.geojson")).degrees().shapes == ()
    some = [None, shapely.LineString(), shapely.LineString(ROAD)]
    assert only_line(write(tmp_path / "x.gpkg", *some)).parts[0].tolist() == ROAD


def test_a_byte_order_mark_is_no_damage(tmp_path):
    path = geojson(tmp_path / "x.geojson", feature(ROAD, name="Ulice Křížová"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert only_line(path).tags == {"name": "Ulice Křížová"}


def test_heights_are_dropped_and_collections_taken_apart(tmp_path):
    high = [[x, y, 7.0] for x, y in ROAD]
    inner = [{"type": "MultiLineString", "coordinates": [high, high]}, {"type": "Point", "coordinates": [1, 2, 3]}]
    geometry = {"type": "GeometryCollection", "geometries": [*inner, {"type": AREA, "coordinates": SQUARE}]}
    nested = {"type": "GeometryCollection", "geometries": [geometry]}
    (tmp_path / "x.json").write_text(json.dumps({"type": "Feature", "properties": {"a": 1}, "geometry": nested}))
    write(tmp_path / "x.gpkg", shapely.from_geojson(json.dumps(nested)), a=[1])
    for name in ("x.json", "x.gpkg"):
        found = read_vectors(tmp_path / name)
        assert [line.parts[0].tolist() for line in found.lines] == [ROAD, ROAD]
        assert [[part.tolist() for part in area.parts] for area in found.areas] == [SQUARE]
        assert {tuple(s.tags.items()) for s in found.shapes} == {(("a", "1"),)}


def test_attributes_are_text_and_missing_ones_are_left_out(tmp_path):
    tags = {"lanes": 2, "oneway": True, "name": None, "width": 3.5}
    path = geojson(tmp_path / "x.geojson", feature(ROAD, **tags))
    assert only_line(path).tags == {"lanes": "2", "oneway": "True", "width": "3.5"}
    line = shapely.LineString(ROAD)
    path = write(
        tmp_path / "x.gpkg", line, line, lanes=np.array([2, np.nan], np.float32), name=np.array(["a", None], object)
    )
    assert [s.tags for s in read_vectors(path).lines] == [{"lanes": "2", "name": "a"}, {}]


@pytest.mark.parametrize("name", ["x.geojson", "x.gpkg"])
def test_coordinates_that_no_system_explains_are_refused(tmp_path, name):
    points = [[664010.0, 4004985.0], [664060.0, 4004970.0]]
    path = tmp_path / name
    if name == "x.geojson":
        geojson(path, feature(ROAD), feature(points))
    else:
        with pytest.warns(UserWarning, match="crs"):
            write(path, shapely.LineString(points), crs=None)
    with pytest.raises(BadInput, match=f"{name}: .* 664010, 4004985 are beyond 180 and 90 degrees, and it"):
        read_vectors(path).degrees()


def test_degrees_beyond_what_a_file_declares_are_refused(tmp_path):
    path = geojson(tmp_path / "x.geojson", feature([[1, 2], [3, 95]]), **named("EPSG:4326"))
    with pytest.raises(BadInput, match="3, 95 are beyond 180 and 90 degrees, though it declares EPSG:4326"):
        read_vectors(path).degrees()


def test_unknown_systems_and_points_outside_them_are_refused(tmp_path):
    path = geojson(tmp_path / "x.geojson", feature(ROAD), **named("EPSG:99999999"))
    with pytest.raises(BadInput, match="its coordinate system EPSG:99999999 is not known; GDAL says"):
        read_vectors(path).degrees()
    path = geojson(tmp_path / "x.geojson", feature([[1, 2], [1e300, 5]]), **named("EPSG:32611"))
    with pytest.raises(BadInput, match=r"1e\+300, 5 is no place in EPSG:32611"):
        read_vectors(path).degrees()


def test_of_several_layers_the_one_with_lines_is_read(tmp_path):
    path = write(tmp_path / "x.gpkg", shapely.Point(1, 2), layer="places")
    write(path, shapely.Polygon(SQUARE[0]), layer="houses", append=True)
    write(path, shapely.LineString(ROAD), layer="roads", append=True, highway=["road"])
    assert only_line(path).tags == {"highway": "road"}
    assert [a.parts[0].tolist() for a in read_vectors(path, AREA).areas] == [SQUARE[0]]
    write(path, shapely.LineString(ROAD), layer="rivers", append=True, waterway=["river"])
    with pytest.raises(BadInput, match="x.gpkg: has 2 layers with lines: roads, rivers; write one"):
        read_vectors(path)
    [line] = read_vectors(path, having="highway").lines
    assert line.tags == {"highway": "road"}


def test_a_file_without_lines_has_none(tmp_path):
    path = write(tmp_path / "x.gpkg", shapely.Point(1, 2), layer="places")
    assert read_vectors(path).degrees().shapes == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"type": "LineString", "coordinates": [[0, 0], [NaN, 1]]}', "coordinates that are not finite"),
        ('{"type": "LineString", "coordinates": [[0, 0], [null, 1]]}', "coordinates that are not finite"),
        ('{"type": "LineString", "coordinates": [[0, 0], ["a", 1]]}', "a line must be pairs of numbers"),
        ('{"type": "LineString", "coordinates": [[0, 0], 5]}', "a line must be pairs of numbers"),
        ('{"type": "LineString", "coordinates": [[0, 0], [5]]}', "a line must be pairs of numbers"),
        ('{"type": "LineString", "coordinates": [[0], [5]]}', "a line must be pairs of numbers"),
        ('{"type": "LineString", "coordinates": ["12", "34"]}', "a line must be pairs of numbers"),
        ('{"type": "LineString", "coordinates": [[[0, 0], [1, 1]]]}', "a line must be pairs of numbers"),
        ('{"type": "Polygon", "coordinates": [[0, 0], [1, 1], [0, 0]]}', "a line must be pairs of numbers"),
        ('{"type": "LineString", "coordi', "not GeoJSON of lines or polygons, or damaged: JSONDecodeError"),
        ('{"type": "Topology", "objects": {}}', "not GeoJSON of lines or polygons, or damaged: .*Topology"),
        ("[1, 2]", "not GeoJSON of lines or polygons, or damaged"),
        ("{}", "not GeoJSON of lines or polygons, or damaged: KeyError 'type'"),
        ('{"features": [' * 100_000, "not GeoJSON of lines or polygons, or damaged: RecursionError"),
        ("\xff", "not GeoJSON of lines or polygons, or damaged: UnicodeDecodeError"),
        ("", "not GeoJSON of lines or polygons, or damaged"),
    ],
)
def test_damaged_geojson_is_refused(tmp_path, content, message):
    path = tmp_path / "x.geojson"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInput, match=f"x.geojson: .*{message}"):
        read_vectors(path)


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp"])
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_damaged_files_are_refused_in_one_line(tmp_path, suffix, keep):
    lines = [shapely.LineString(np.array(ROAD) + i) for i in range(200)]
    path = write(tmp_path / f"x{suffix}", *lines)
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep >= 1 else int(len(data) * keep)])
    with pytest.raises(BadInput, match=rf"x{suffix}: can't be read as {suffix}; (GDAL says|it is cut short)") as e:
        read_vectors(path)
    assert "\n" not in str(e.value)


def test_a_damaged_geometry_of_a_geopackage_is_not_left_out_without_a_word(tmp_path):
    path = write(tmp_path / "x y.gpkg", None, *[shapely.LineString(ROAD)] * 3, layer='a "b')
    assert len(read_vectors(path).lines) == 3
    with closing(sqlite3.connect(path)) as file:
        for (trigger,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            file.execute('DROP TRIGGER "{}"'.format(trigger.replace('"', '""')))
        file.execute('UPDATE "a ""b" SET geom = substr(geom, 1, 30) WHERE fid = 3')
        file.commit()
    with pytest.raises(BadInput, match="x y.gpkg: damaged, 1 geometry is not what was written in its layer a"):
        read_vectors(path)


def test_a_shapefile_whose_table_is_cut_short_is_refused(tmp_path):
    path = write(tmp_path / "x.shp", *[shapely.LineString(ROAD)] * 50, highway=["road"] * 50)
    table = path.with_suffix(".dbf")
    table.write_bytes(table.read_bytes()[:-60])
    with pytest.raises(BadInput, match=r"x.dbf: can't be read as .shp; it is cut short, \d+ of \d+ bytes"):
        read_vectors(path)


def test_a_file_of_another_kind_than_its_name_is_refused(tmp_path):
    path = geojson(tmp_path / "x.gpkg", feature(ROAD))
    with pytest.raises(BadInput, match="x.gpkg: is GeoJSON by its content; give it the name of its kind"):
        read_vectors(path)
    with pytest.raises(BadInput, match=r"x.kml: expected a file of lines or polygons, .geojson, .json, .gpkg"):
        read_vectors(tmp_path / "x.kml")
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "none.gpkg")


def test_gdal_prints_nothing(tmp_path):
    path = write(tmp_path / "x.gpkg", *[shapely.LineString(ROAD)] * 50)
    path.write_bytes(path.read_bytes()[:60_000])
    (tmp_path / "x.shp").write_bytes(b"\0\0\x27\x0a" + bytes(200))
    code = "import sys\nfrom pathlib import Path\nfrom dlink.imagery.vectors import read_vectors\n"
    code += "for name in ('x.gpkg', 'x.shp'):\n    try:\n        read_vectors(Path(name))\n    except Exception as e:\n"
    code += "        print(type(e).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert (done.stdout.split(), done.stderr) == (["BadInput", "BadInput"], "")
