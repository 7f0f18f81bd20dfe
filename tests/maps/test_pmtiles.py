"""Roads become PMTiles in the right place, whole or not at all."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from click.testing import CliRunner
from rasterio.crs import CRS

from dlink.cli.vectorize import vectorize as command
from dlink.maps import pmtiles
from dlink.maps.pmtiles import STEPS, WORLD_M, zooms
from dlink.maps.write import Roads, write_roads
from dlink.runtime.errors import BadInput
from tests.maps.masks import blobs, write_mask

DEGREES = CRS.from_epsg(4326)


def roads(*lines, crs=DEGREES, metres=0.5):
    return Roads([np.array(line, float) for line in lines], crs, {"id": np.arange(1, len(lines) + 1)}, metres=metres)


def mercator(points):
    lon, lat = np.radians(points).T
    return np.column_stack([lon, np.arcsinh(np.tan(lat))]) * 6_378_137


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same mask as tiles and as GeoJSON."""
    folder = tmp_path_factory.mktemp("both")
    mask = write_mask(folder / "mask.tif", blobs(3, (1500, 1500), 14, 0.6))
    for suffix in (".pmtiles", ".geojson"):
        done = CliRunner().invoke(command, [str(mask), "-o", str(folder / f"roads{suffix}")])
        assert (done.exit_code, done.stderr) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"mask.tif", "roads.pmtiles", "roads.geojson"}
    return folder


def test_lines_of_the_last_zoom_are_those_of_geojson_within_a_step(both):
    meta, _, shapes, columns = pyogrio.raw.read(both / "roads.pmtiles")
    fields = dict(zip(meta["fields"], columns, strict=True))
    zoom = int(pyogrio.read_info(both / "roads.pmtiles")["dataset_metadata"]["maxzoom"])
    step = WORLD_M / 2**zoom / STEPS
    assert step < 0.5
    pieces = {}
    for i, shape in zip(fields["id"], shapely.from_wkb(shapes), strict=True):
        pieces.setdefault(int(i), []).append(shape)
    assert max(map(len, pieces.values())) > 1  # cut at the edge of a tile
    features = json.loads((both / "roads.geojson").read_text())["features"]
    assert {feature["properties"]["id"] for feature in features} == pieces.keys()
    for feature in features:
        whole = shapely.transform(shapely.geometry.shape(feature["geometry"]), mercator)
        found = shapely.union_all(pieces[feature["properties"]["id"]])
        assert shapely.hausdorff_distance(found, whole, 0.05) < step
    lengths = {feature["properties"]["id"]: feature["properties"]["length_m"] for feature in features}
    assert all(lengths[int(i)] == length for i, length in zip(fields["id"], fields["length_m"], strict=True))


def test_tiles_say_what_they_hold_and_fields_are_kept(both):
    info = pyogrio.read_info(both / "roads.pmtiles")
    said = info["dataset_metadata"]
    assert (said["name"], said["type"], said["format"], info["crs"]) == ("roads", "overlay", "pbf", "EPSG:3857")
    assert int(said["minzoom"]) == 12
    assert list(info["fields"])[1:] == ["id", "length_m", "width_m", "from_node", "to_node"]
    assert pyogrio.list_layers(both / "roads.pmtiles")[:, 0].tolist() == ["roads"]


@pytest.mark.parametrize(
    ("side", "latitude", "metres", "expected"),
    [
        (0.001, 0, 0.5, (12, 16)),
        (0.001, 60, 0.5, (12, 15)),  # a step is half as long on the ground
        (0.001, 0, 0.1, (12, 16)),
        (1, 0, 0.5, (8, 16)),  # a tile of zoom 8 has 1.4 degrees
        (100, 0, 10, (1, 11)),
        (0.5, 0, 300, (7, 7)),
    ],
)
def test_the_first_zoom_fits_the_roads_and_the_last_fits_the_masks_pixels(side, latitude, metres, expected):
    points = np.array([[10, latitude], [10 + side, latitude]], float)
    assert zooms(points, metres) == expected


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "there is no road, and PMTiles without any tile open nowhere"),
        ([[[0, 85], [0, 86]]], "has roads beyond 85.05 degrees of latitude"),
        ([[[179.99, 0], [-179.99, 0]]], "a road crosses 180 degrees of longitude"),
    ],
)
def test_roads_that_tiles_cannot_hold_are_refused(tmp_path, lines, message):
    with pytest.raises(BadInput, match=f"roads.pmtiles: {message}"):
        write_roads(tmp_path / "roads.pmtiles", roads(*lines))
    assert list(tmp_path.iterdir()) == []


def test_a_gdal_without_the_driver_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pyogrio, "list_drivers", lambda: {"PMTiles": "r"})
    with pytest.raises(BadInput, match=r"roads.pmtiles: GDAL \d.* does not write PMTiles; pip install 'pyogrio"):
        write_roads(tmp_path / "roads.pmtiles", roads([[0, 0], [0.001, 0]]))


def test_a_mask_without_a_system_is_refused_for_tiles(tmp_path):
    with pytest.raises(BadInput, match="pmtiles is in longitude and latitude, and the mask has no coordinate system"):
        write_roads(tmp_path / "roads.pmtiles", roads([[0, 0], [9, 0]], crs=None))


def test_a_line_that_is_missing_is_an_error_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(
        pmtiles, "options", lambda path, first, last: {"MINZOOM": "0", "MAXZOOM": "5", "MAX_FEATURES": "1"}
    )
    (tmp_path / "roads.pmtiles").write_text("before")
    with pytest.raises(OSError, match="roads.pmtiles"):
        write_roads(tmp_path / "roads.pmtiles", roads([[0.1, 1], [0.9, 1]], [[0.1, 2], [0.9, 2]]))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_full_tiles_are_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("dlink.imagery.notes.SAID", set())
    random = np.random.default_rng(0)
    lines = random.uniform(0, 1.3, (6000, 1, 2)) + random.uniform(0, 0.02, (6000, 60, 2))
    write_roads(tmp_path / "roads.pmtiles", roads(*lines, metres=40))
    assert "has full tiles, in which lines are coarser or left out; every line is in zoom 9" in caplog.text
