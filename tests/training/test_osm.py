"""OpenStreetMap -> masks: what is a road, how wide it is, and where it lies on a tile."""

import csv
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from dlink.imagery.images import write_image
from dlink.imagery.labels import read_label
from dlink.runtime import BadInput
from dlink.training.places import WGS84, Place, place_of, read_bounds, read_world
from dlink.training.pseudo import draw
from dlink.training.streets import Street, read_streets, skipped
from tests.support.command import call

UTM = CRS.from_epsg(32633)
PLACE = Place(64, 96, Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000), UTM)


def degrees(points, place=PLACE):
    """Pixels of a tile as longitude and latitude."""
    x, y = zip(*(place.ground(*at) for at in points), strict=True)
    return np.column_stack(transform(place.crs, WGS84, list(x), list(y)))


def street(points, place=PLACE, **tags):
    return Street(degrees(points, place), {"highway": "residential", **tags})


def distance(points, shape=(64, 96)):
    """Of every pixel's centre from a line of two points, by hand."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    (ax, ay), (bx, by) = points
    along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
    t = along.clip(0, 1)
    return np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay))


@pytest.mark.parametrize(
    "points", [((5, 9), (50, 60)), ((90.5, 3), (3, 33.3)), ((-40, 20), (200, 40)), ((7, 7), (7, 60))]
)
@pytest.mark.parametrize(("lanes", "radius"), [("1", 4), ("2", 8)])
def test_a_road_covers_what_lies_within_half_its_width(points, lanes, radius):
    """4 m a lane at half a metre a pixel are 8 px. OpenCV's even lines are a pixel wider: 1 px is allowed."""
    mask = draw([street(points, lanes=lanes)], PLACE) > 0
    away = distance(points)
    assert mask[away <= radius - 1].all()
    assert not mask[away > radius + 1].any()
    assert set(np.unique(draw([street(points)], PLACE))) <= {0, 255}


@pytest.mark.parametrize(
    ("crs", "affine", "gsd"),
    [
        (UTM, Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000), 0.5),
        (UTM, Affine(0, 0.3, 500_000, 0.3, 0, 5_400_000), 0.3),  # turned
        (CRS.from_epsg(3857), Affine(1, 0, 1_670_000, 0, -1, 6_230_000), 0.657),  # Mercator at 48.7 degrees
        (WGS84, Affine(1e-5, 0, 15, 0, -1e-5, 48.75), 1.112 * 0.8120),
        (CRS.from_epsg(2225), Affine(1, 0, 6_000_000, 0, -1, 2_000_000), 0.3048),  # feet
    ],
)
def test_pixels_are_metres_on_the_ground(crs, affine, gsd):
    place = Place(64, 96, affine, crs)
    assert place.gsd_m == pytest.approx(gsd, rel=0.01)
    points = ((10.0, 20.0), (80.0, 30.5))
    np.testing.assert_allclose(place.pixels(degrees(points, place)), points, atol=1e-3)
    west, south, east, north = place.bounds
    assert west < place.centre[0] < east
    assert south < place.centre[1] < north


@pytest.mark.parametrize(
    ("tags", "lanes"),
    [
        ({"highway": "residential"}, 1),
        ({"highway": "motorway"}, 1.5),
        ({"highway": "primary_link"}, 1.5),
        ({"highway": "track"}, 0.5),
        ({"highway": "road"}, 1),
        ({"highway": "residential", "lanes": "3"}, 3),
        ({"highway": "track", "lanes": "2;3"}, 0.5),
        ({"highway": "track", "lanes": "1.5"}, 0.5),
        ({"highway": "residential", "lanes": "0"}, 1),
        ({"highway": "residential", "lanes": "9" * 5000}, 1),
        ({"highway": "residential", "lanes": "²"}, 1),
    ],
)
def test_lanes_are_the_tags_or_the_kinds(tags, lanes):
    assert Street(np.zeros((2, 2)), tags).lanes == lanes


def test_what_is_skipped_is_a_tag_or_a_kind():
    streets = [street([(0, 0), (1, 1)], **t) for t in ({}, {"tunnel": "yes"}, {"tunnel": "no"}, {"bridge": "viaduct"})]
    streets.append(street([(0, 0), (1, 1)], highway="track"))
    assert len(skipped(streets, [])) == 5
    assert len(skipped(streets, ["tunnel"])) == 4
    assert len(skipped(streets, ["tunnel", "bridge", "track"])) == 2


def osm_file(path, ways):
    """An .osm file by hand: ways as (points in degrees, tags)."""
    nodes, lines = [], []
    for i, (points, tags) in enumerate(ways):
        ids = [1 + len(nodes) + j for j in range(len(points))]
        nodes += [
            f'<node id="{n}" lat="{lat:.9f}" lon="{lon:.9f}" version="1"/>'
            for n, (lon, lat) in zip(ids, points, strict=True)
        ]
        inner = "".join(f'<nd ref="{n}"/>' for n in ids) + "".join(f'<tag k="{k}" v="{v}"/>' for k, v in tags.items())
        lines.append(f'<way id="{i + 1}" version="1">{inner}</way>')
    path.write_text(f'<?xml version="1.0"?><osm version="0.6">{"".join(nodes + lines)}</osm>')
    return path


WAYS = [
    (degrees([(-10, 20), (110, 20)]), {"highway": "residential"}),
    (degrees([(30, -10), (30, 80)]), {"highway": "service", "tunnel": "yes"}),
    (degrees([(60, -10), (60, 80)]), {"highway": "footway"}),
    (degrees([(80, 5), (90, 5), (90, 60), (80, 5)]), {"highway": "residential", "area": "yes"}),
    (degrees([(0, 50), (96, 50)]), {"waterway": "river"}),
]


def geojson(path, ways):
    features = [
        {"type": "Feature", "properties": tags, "geometry": {"type": "LineString", "coordinates": points.tolist()}}
        for points, tags in ways
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def pbf(path, ways):
    import osmium

    osm_file(path.with_suffix(".osm"), ways)
    with osmium.SimpleWriter(str(path)) as writer:
        for thing in osmium.FileProcessor(str(path.with_suffix(".osm"))):
            writer.add(thing)
    return path


def gdal(path, ways):
    """As ogr2ogr keeps an extract: the layer `lines`, in UTM here, with the rarer tags in one attribute."""
    shapes = [shapely.LineString(np.column_stack(transform(WGS84, UTM, *points.T))) for points, _ in ways]
    made = np.array([shapely.to_wkb(s) for s in shapes], object)
    highway = np.array([tags.get("highway") for _, tags in ways], object)
    rare = [",".join(f'"{k}"=>"{v}"' for k, v in tags.items() if k != "highway") for _, tags in ways]
    fields = {"highway": highway, "other_tags": np.array(rare, object)}
    columns = list(fields.values()), list(fields)
    pyogrio.raw.write(path, made, *columns, layer="lines", geometry_type="LineString", crs="EPSG:32633")
    return path


KINDS = [(osm_file, "x.osm"), (pbf, "x.osm.pbf"), (geojson, "x.geojson"), (gdal, "x.gpkg"), (gdal, "x.fgb")]


@pytest.mark.parametrize(("write", "name"), KINDS)
def test_every_kind_of_extract_gives_the_same_roads(write, name, tmp_path):
    found = read_streets(write(tmp_path / name, WAYS))
    assert [s.tags["highway"] for s in found] == ["residential", "service"]
    np.testing.assert_allclose(found[0].line, WAYS[0][0], atol=1e-7)
    expected = draw([Street(*WAYS[0]), Street(*WAYS[1])], PLACE)
    assert (draw(found, PLACE) != expected).mean() < 0.01


def test_several_lines_of_one_feature_are_several_roads(tmp_path):
    lines = [WAYS[0][0].tolist(), WAYS[1][0].tolist()]
    feature = {
        "properties": {"highway": "road", "lanes": 2},
        "geometry": {"type": "MultiLineString", "coordinates": lines},
    }
    (tmp_path / "x.json").write_text(
        json.dumps({"features": [feature, {"properties": {"highway": "road"}, "geometry": None}]})
    )
    found = read_streets(tmp_path / "x.json")
    assert [s.lanes for s in found] == [2, 2]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.osm", "<osm", "not an OpenStreetMap extract, or a damaged one; pyosmium says"),
        ("x.osm.pbf", "text", "not an OpenStreetMap extract, or a damaged one"),
        ("x.osm", '<?xml version="1.0"?><osm version="0.6"></osm>', "has no roads"),
        ("x.geojson", "[]", "not GeoJSON of lines or polygons, or damaged"),
        ("x.geojson", '{"features": [1]}', "not GeoJSON of lines or polygons, or damaged"),
        ("x.geojson", "{", "not GeoJSON of lines or polygons, or damaged"),
        ("x.shp", "", "can't be read as .shp; GDAL says"),
        ("x.kml", "", "expected .osm, .osm.pbf, .geojson, .json, .gpkg"),
    ],
)
def test_what_is_no_extract_is_refused(name, data, message, tmp_path):
    (tmp_path / name).write_text(data)
    with pytest.raises(BadInput, match=message):
        read_streets(tmp_path / name)


@pytest.fixture
def tiles(tmp_path):
    """One place three times: a GeoTIFF, a PNG with a world file, a JPEG that a table places."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    grey = np.full((64, 96, 3), 90, np.uint8)
    kind = {"driver": "GTiff", "height": 64, "width": 96, "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "a_sat.tif", "w", **kind, crs=UTM, transform=PLACE.affine) as f:
        f.write(np.moveaxis(grey, -1, 0))
    write_image(folder / "b_sat.png", grey)
    (folder / "b_sat.pgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n5399999.75\n")
    return folder


def test_dlink_osm_draws_the_same_for_every_way_of_placing(tiles, tmp_path):
    extract = osm_file(tmp_path / "x.osm", WAYS)
    said = call("osm", tiles, extract, "-o", tmp_path / "masks", "--crs", "EPSG:32633").stdout
    assert f"{tmp_path / 'masks'}: 2 masks" in said
    a, b = (read_label(tmp_path / "masks" / f"{n}_mask.png") for n in "ab")
    assert (a == b).all()
    assert a[20].all()
    assert a[5, 30]
    west, south, east, north = Place(64, 96, PLACE.affine, UTM).bounds
    with (tmp_path / "bounds.csv").open("w", newline="") as f:
        csv.writer(f).writerows(
            [["id", "west", "south", "east", "north"], *([n, west, south, east, north] for n in "ab")]
        )
    call("osm", tiles, extract, "-o", tmp_path / "other", "--bounds", tmp_path / "bounds.csv", "--skip", "tunnel")
    c = read_label(tmp_path / "other" / "a_mask.png")
    assert not c[5, 30]
    assert (a[:, 50:] == c[:, 50:]).mean() > 0.97


def test_tiles_without_roads_are_said(tiles, tmp_path):
    extract = osm_file(tmp_path / "x.osm", [(np.array([[10.0, 10.0], [10.1, 10.1]]), {"highway": "road"})])
    result = call("osm", tiles, extract, "-o", tmp_path / "masks", "--crs", "EPSG:32633")
    assert "2 masks, 2 of them without a road" in result.stdout
    assert "the first road is at 10.0000, 10.0000, the first tile at 15.0003, 48.7529" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "EXTRACT or --fetch: give exactly one of them"),
        (["x.osm", "--fetch"], "EXTRACT or --fetch: give exactly one of them"),
        (["x.osm"], "a world file does not say its coordinate system; give --crs"),
        (["x.osm", "--crs", "UTM"], "--crs UTM: not a coordinate system"),
        (["x.osm", "--bounds", "few.csv"], "b_sat.png: no row with the id b"),
        (["x.osm", "--bounds", "x.osm"], "no column id; expected id, west, south, east, north"),
    ],
)
def test_what_places_no_tile_is_refused_in_one_line(args, message, tiles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    osm_file(tmp_path / "x.osm", WAYS)
    (tmp_path / "few.csv").write_text("id,west,south,east,north\na,15,48,16,49\n")
    said = call("osm", tiles, *args, "-o", "masks", code=1).stderr
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "masks").exists()


def test_hand_made_labels_are_not_replaced(tiles, tmp_path):
    extract = osm_file(tmp_path / "x.osm", WAYS)
    write_image(tiles / "b_mask.png", np.full((64, 96), 255, np.uint8))
    before = sorted(p.name for p in tiles.iterdir())
    said = call("osm", tiles, extract, "-o", tiles, "--crs", "EPSG:32633", code=1).stderr
    assert "b_mask.png: is the label of a tile, and would be replaced; choose another output" in said
    assert sorted(p.name for p in tiles.iterdir()) == before
    assert read_label(tiles / "b_mask.png").all()


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d e f", "0\n0\n0\n0\n1\n1", "nan 0 0 1 0 0"])
def test_damaged_world_files_are_refused(text, tmp_path):
    (tmp_path / "x.pgw").write_text(text)
    with pytest.raises(BadInput, match=r"x.pgw: (a world file has six numbers|its pixels cover no ground)"):
        read_world(tmp_path / "x.pgw")


@pytest.mark.parametrize("row", ["a,2,1,1,2", "a,1,2,2,1", "a,x,1,2,3", "a,1"])
def test_damaged_bounds_are_refused(row, tmp_path):
    (tmp_path / "b.csv").write_text(f"id,west,south,east,north\n{row}\n")
    with pytest.raises(BadInput, match=r"b.csv: line 2: "):
        read_bounds(tmp_path / "b.csv")


def test_a_tile_does_not_lead_to_the_internet(tmp_path):
    server = "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>"
    (tmp_path / "x.vrt").write_text(server)
    with pytest.raises(BadInput, match="x.vrt: can't be opened as a raster"):
        place_of(tmp_path / "x.vrt", None, None)


def test_a_picture_that_nothing_places_is_refused(tmp_path):
    write_image(tmp_path / "x.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(BadInput, match=r"x.png: has no georeference; a GeoTIFF has one, else a world file or --bounds"):
        place_of(tmp_path / "x.png", None, None)


def overpass():
    """An answer of the Overpass API in the form of its JSON, written by hand: nodes, then ways that name them."""
    elements, n = [], 0
    ways = []
    for i, (points, tags) in enumerate(WAYS):
        first = n
        for lon, lat in points:
            n += 1
            elements.append({"type": "node", "id": n, "lat": lat, "lon": lon})
        ways.append({"type": "way", "id": i + 1, "nodes": list(range(first + 1, n + 1)), "tags": tags})
    return {"version": 0.6, "elements": [*elements, *ways]}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs osmnx: Python 3.11 or newer")
def test_roads_are_fetched_by_osmnx(tiles, tmp_path, monkeypatch):
    osmnx = pytest.importorskip("osmnx", reason="needs osmnx: pip install 'dlink[test]'")
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            data = json.dumps(overpass()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(osmnx.settings, "overpass_url", f"http://127.0.0.1:{server.server_port}/api")
    monkeypatch.setattr(osmnx.settings, "overpass_rate_limit", False)
    monkeypatch.setattr(osmnx.settings, "use_cache", False)
    try:
        call("osm", tiles, "--fetch", "-o", tmp_path / "masks", "--crs", "EPSG:32633", "--skip", "tunnel")
    finally:
        server.shutdown()
        server.server_close()
    assert len(asked) == 2
    assert "highway" in asked[0]
    mask = read_label(tmp_path / "masks" / "a_mask.png")
    assert mask[20].all()
    assert not mask[5].any()
