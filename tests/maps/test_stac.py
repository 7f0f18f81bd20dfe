"""A map describes itself as a STAC item, and STAC items are its sources; what is ambiguous is refused."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
import shapely
from rasterio import Affine
from rasterio.crs import CRS

from dlink.maps.job.sources import found_sources
from dlink.maps.stac import stac_sources
from dlink.maps.stac_item import Made, item
from dlink.runtime.errors import BadInput
from dlink.runtime.files import FileMark

NOON = datetime(2025, 6, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
COG = "image/tiff; application=geotiff; profile=cloud-optimized"


@pytest.fixture
def made(tmp_path):
    files = {}
    for name in ("roads.tif", "roads.gpkg", "roads.pmtiles", "report.html"):
        (tmp_path / name).write_bytes(b"1234567")
        files[tmp_path / name] = f"words of {name}"
    return Made(
        id="county",
        crs=CRS.from_epsg(32633),
        transform=Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000),
        shape=(2000, 4000),
        gsd_m=0.5,
        dlink="1.2.3",
        model=FileMark(name="roads.onnx", sha256="ab" * 32, bytes=9),
        files=files,
        created=NOON,
    )


def test_an_item_says_where_when_and_by_what(made):
    found = json.loads(json.dumps(item(made)))
    assert (found["type"], found["stac_version"], found["id"], found["links"]) == ("Feature", "1.1.0", "county", [])
    west, south, east, north = found["bbox"]
    assert found["bbox"] == pytest.approx([15, 48.7440, 15.0272, 48.7530], abs=1e-4)
    shape = shapely.geometry.shape(found["geometry"])
    assert shape.bounds == (west, south, east, north)
    assert shape.exterior.is_ccw
    said = found["properties"]
    assert said["datetime"] == said["created"] == "2025-06-01T12:00:00Z"
    assert "when the map was made" in said["description"]
    assert (said["proj:code"], said["gsd"]) == ("EPSG:32633", 0.5)
    assert (said["processing:software"], said["dlink:model_sha256"]) == ({"dlink": "1.2.3"}, "ab" * 32)
    for prefix in ("projection", "file", "processing"):
        assert sum(f"/{prefix}/v" in uri for uri in found["stac_extensions"]) == 1


def test_assets_have_relative_addresses_types_and_sizes(made):
    found = item(made)["assets"]
    assert found["mask"] == {
        "href": "./roads.tif",
        "type": COG,
        "title": "words of roads.tif",
        "roles": ["data"],
        "file:size": 7,
        "proj:shape": [2000, 4000],
        "proj:transform": [0.5, 0, 500_000, 0, -0.5, 5_400_000, 0, 0, 1],
    }
    assert {name: each["type"] for name, each in found.items() if name != "mask"} == {
        "lines-gpkg": "application/geopackage+sqlite3",
        "lines-pmtiles": "application/vnd.pmtiles",
        "report": "text/html",
    }


def test_known_times_are_a_range(made):
    said = item(replace(made, taken=(NOON, NOON + timedelta(days=1))))["properties"]
    assert said["datetime"] is None
    assert (said["start_datetime"], said["end_datetime"]) == ("2025-06-01T12:00:00Z", "2025-06-02T12:00:00Z")
    assert "made" not in said["description"]
    assert item(replace(made, taken=(NOON, NOON)))["properties"]["datetime"] == "2025-06-01T12:00:00Z"


def test_a_system_without_a_code_is_written_out(made):
    crs = CRS.from_proj4("+proj=laea +lat_0=48 +lon_0=15 +datum=WGS84")
    said = item(replace(made, crs=crs, transform=Affine(1, 0, 0, 0, -1, 0)))["properties"]
    assert said["proj:code"] is None
    assert said["proj:wkt2"].startswith("PROJCRS[")


def test_a_map_over_180_degrees_is_in_two_parts(made):
    found = item(replace(made, crs=CRS.from_epsg(32601), transform=Affine(50, 0, 200_000, 0, -50, 100_000)))
    west, _, east, _ = found["bbox"]
    assert (round(west, 1), round(east, 1)) == (-179.7, -177.9)  # this one does not pass it yet
    found = item(replace(made, crs=CRS.from_epsg(32601), transform=Affine(50, 0, 100_000, 0, -50, 100_000)))
    west, south, east, north = found["bbox"]
    assert west > 179 and east < -178
    assert found["geometry"]["type"] == "MultiPolygon"
    one, other = shapely.geometry.shape(found["geometry"]).geoms
    assert one.bounds == pytest.approx((west, south, 180, north), abs=0.01)
    assert other.bounds == pytest.approx((-180, south, east, north), abs=0.01)


def feature(number=1, **assets):
    return {"type": "Feature", "stac_version": "1.0.0", "id": f"scene-{number}", "assets": assets, "properties": {}}


def asset(href, *roles, type=COG):
    return {"href": href, "type": type} | ({"roles": list(roles)} if roles else {})


def write(path, *features, **more):
    found = features[0] if len(features) == 1 else {"type": "FeatureCollection", "features": features, **more}
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("./a.tif", "{folder}/a.tif"),
        ("../b/a%20b.tif", "{folder}/../b/a b.tif"),
        ("/data/a.tif", "/data/a.tif"),
        ("file:///data/a%20b.tif", "/data/a b.tif"),
        ("https://host/a.tif?sig=1", "/vsicurl/https://host/a.tif?sig=1"),
        ("s3://bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("/vsizip/a.zip/a.tif", "/vsizip/a.zip/a.tif"),
    ],
)
def test_addresses_become_paths_of_gdal(tmp_path, href, expected):
    path = write(tmp_path / "item.json", feature(visual=asset(href, "visual"), thumb=asset("t.png", "thumbnail")))
    assert stac_sources(path) == [expected.format(folder=tmp_path)]


def test_items_of_a_collection_keep_their_order_and_a_page_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("dlink.imagery.notes.SAID", set())
    some = [feature(i, image=asset(f"s3://b/{i}.tif")) for i in (2, 1)]
    path = write(tmp_path / "answer.json", *some, links=[{"rel": "next", "href": "x"}])
    assert stac_sources(path) == ["/vsis3/b/2.tif", "/vsis3/b/1.tif"]
    assert "is one page of several of an answer; only its 2 items are in the map" in caplog.text


def test_one_of_several_assets_is_chosen_by_its_name(tmp_path):
    bands = {name: asset(f"s3://b/{name}.tif", "data") for name in ("red", "green", "visual")}
    path = write(tmp_path / "item.json", feature(**bands))
    with pytest.raises(BadInput, match="item scene-1: has 3 rasters, red, green, visual; --asset NAME says which"):
        stac_sources(path)
    assert found_sources([str(path)], tmp_path / "map", "visual") == ["/vsis3/b/visual.tif"]
    with pytest.raises(BadInput, match="has no asset blue, but red, green, visual"):
        stac_sources(path, "blue")


def test_a_raster_without_a_media_type_is_known_by_its_name(tmp_path):
    assets = {"image": {"href": "https://h/a.TIF?x=1"}, "info": {"href": "a.xml"}}
    assert stac_sources(write(tmp_path / "item.json", feature(**assets))) == ["/vsicurl/https://h/a.TIF?x=1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"type": "Catalog"}', "is a STAC Catalog, which has no rasters itself"),
        ('{"type": "Polygon"}', "neither a STAC item nor a collection of items"),
        ('{"type": "FeatureCollection", "features": []}', "has no items"),
        ('{"type": "Feature", "geometry": null}', "feature 1 has no assets, so it is no STAC item; --aoi takes areas"),
        (json.dumps(feature(a=asset("a.xml", type="text/xml"))), "none of its assets is a raster of data, but a;"),
        (json.dumps(feature(a=asset("ftp://h/a.tif"))), "its asset a is at ftp://h/a.tif; http, https, s3"),
        (json.dumps(feature(a={"type": COG})), r"its asset a has no address \(href\)"),
    ],
)
def test_what_is_no_item_is_refused(tmp_path, text, message):
    (tmp_path / "item.json").write_text(text)
    with pytest.raises(BadInput, match=f"item.json: .*{message}"):
        stac_sources(tmp_path / "item.json")
