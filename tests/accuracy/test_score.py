import csv
import json

import cv2
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio import Affine
from rasterio.warp import transform

from dlink.accuracy.score import ScoreOptions, score_pair, score_pairs
from dlink.accuracy.truth import Pair, find_pairs, read_mask
from dlink.cli.score import score
from dlink.imagery.images import write_image
from dlink.runtime import BadInput
from tests.accuracy.test_graph import drawn

STREET = [(-5, 100), (205, 100)]


@pytest.fixture
def folders(tmp_path):
    """Six tiles: masks that are right but for a cut in every second one."""
    masks, truth = tmp_path / "masks", tmp_path / "truth"
    masks.mkdir()
    truth.mkdir()
    for i in range(6):
        label = drawn(STREET, [(100, -5), (100, 205)])
        mask = label.copy()
        mask[95:106, 140:160] &= i % 2 == 0
        for folder, road in ((masks, mask), (truth, label)):
            write_image(folder / f"{i}_mask.png", road.astype(np.uint8) * 255)
        write_image(truth / f"{i}_sat.png", np.zeros((200, 200, 3), np.uint8))
    return masks, truth


def run(*arguments, code=0):
    done = CliRunner().invoke(score, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done


def test_figures_are_of_all_tiles_with_their_intervals(folders):
    found = json.loads(run(*folders, "--json", "--workers", "1").stdout)
    figures = found["figures"]
    assert found["tiles"] == 6
    assert figures["precision"]["value"] == 1
    assert 0.9 < figures["iou"]["low"] < figures["iou"]["value"] < figures["iou"]["high"] <= 1
    assert figures["broken-per-km"]["value"] == pytest.approx(3 / (6 * 0.2), rel=0.02)
    assert figures["bridged-per-km"]["value"] == 0
    assert 0.5 < figures["apls"]["value"] < 1


def test_processes_give_the_same_rows_in_the_same_order(folders):
    pairs = find_pairs(*folders)
    one, two = (score_pairs(pairs, ScoreOptions(), workers, lambda *_: None) for workers in (1, 2))
    assert one == two
    assert [row.id for row in one] == [str(i) for i in range(6)]


def test_every_tile_has_a_row_in_the_csv_file(folders, tmp_path):
    run(*folders, "--csv", tmp_path / "rows.csv", "--workers", "1")
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == [str(i) for i in range(6)]
    assert [row["broken"] for row in rows] == ["0", "1"] * 3
    assert float(rows[0]["iou"]) == 1 > float(rows[1]["iou"])


def test_a_figure_below_its_limit_is_exit_1(folders):
    run(*folders, "--min", "iou=0.9,precision=1", "--workers", "1")
    done = run(*folders, "--min", "iou=0.9,apls=0.999", "--workers", "1", code=1)
    assert "apls is 0." in done.stderr
    assert "at least 0.999 is asked for" in done.stderr


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("iou", "--min iou: expected NAME=NUMBER"),
        ("boundary-m=1", "no such figure; there are iou, mean-iou, miou, precision"),
    ],
)
def test_limits_that_mean_nothing_are_refused(folders, limits, message):
    assert message in run(*folders, "--min", limits, code=1).stderr


def test_ids_without_a_partner_are_listed(folders):
    masks, truth = folders
    (masks / "2_mask.png").unlink()
    (masks / "4_mask.png").unlink()
    done = run(masks, truth, code=1)
    assert "masks: nothing for 2 of 6 ids: 2, 4; add them, or give --common to score the 4" in done.stderr
    assert run(masks, truth, "--common", "--workers", "1").stdout.startswith("4 tiles")


def test_folders_without_a_common_id_are_refused(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no id is in both" in run(tmp_path / "empty", folders[1], code=1).stderr
    assert "give two folders or two files" in run(folders[0], folders[1] / "1_mask.png", code=1).stderr


def test_masks_of_another_size_are_refused(folders):
    write_image(folders[0] / "3_mask.png", np.zeros((100, 200), np.uint8))
    done = run(*folders, "--workers", "1", code=1)
    assert "3_mask.png: 200 x 100 px, its truth" in done.stderr
    assert "is 200 x 200" in done.stderr


def write(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.array([[0, 1], [2, 0]], np.uint8),
            "a label has two values, 0 and the road's; this one has 0, 1, 2; say which are road",
        ),
        (np.array([[[0, 200, 0], [3, 3, 3], [7, 9, 255]]], np.uint8), "this one has #00c800, #030303, #ff0907; say"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, pixels, message):
    with pytest.raises(BadInput, match=f"m.png: .*{message}"):
        read_mask(write(tmp_path / "m.png", pixels), 0.5)


def test_float_values_beyond_1_are_no_probabilities(tmp_path):
    with pytest.raises(BadInput, match=r"float32 values outside 0 \.\. 1"):
        read_mask(write(tmp_path / "m.tif", np.array([[0.5, 1.5]], np.float32)), 0.5)


def test_a_damaged_mask_is_refused(tmp_path):
    path = write(tmp_path / "m.png", np.zeros((50, 50), np.uint8))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadInput, match="m.png: a PNG that is cut short"):
        read_mask(path, 0.5)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("m.png", np.array([[0, 128]], np.uint8)),
        ("m.png", np.array([[0, 1]], np.uint8)),
        ("m.png", np.array([[[0] * 3, [0, 0, 128]]], np.uint8)),
        ("m.png", np.array([[9, 250]], np.uint8)),
        ("m.png", np.array([[0, 255]], np.uint16)),
        ("m.png", np.array([[26214, 52428]], np.uint16)),  # 0.4 and 0.8
        ("m.tif", np.array([[0.4, 0.8]], np.float32)),
    ],
)
def test_masks_and_probabilities_are_read(tmp_path, name, pixels):
    assert read_mask(write(tmp_path / name, pixels), 0.5).tolist() == [[False, True]]


def geotiff(path, road, transform, crs="EPSG:32611"):
    profile = {"driver": "GTiff", "height": 200, "width": 200, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as file:
        file.write(road.astype(np.uint8) * 255, 1)
    return path


@pytest.mark.parametrize(
    ("crs", "step", "metres"),
    [("EPSG:32611", 2.0, 2.0), ("EPSG:4326", 1e-5, 1.1132 * (1 + 0.5) / 2), ("EPSG:2263", 1.0, 0.3048)],
)
def test_geotiffs_say_how_large_their_pixels_are(tmp_path, crs, step, metres):
    transform = Affine(step, 0, -115.0, 0, -step, 60.0) if crs == "EPSG:4326" else Affine(step, 0, 6e5, 0, -step, 4e5)
    files = [geotiff(tmp_path / name, drawn(STREET), transform, crs) for name in ("a.tif", "b.tif")]
    row = score_pair(Pair("a", *files), ScoreOptions())
    assert row.truth_km == pytest.approx(0.2 * metres, rel=0.01)


def test_one_geotiff_of_a_pair_says_how_large_pixels_are(tmp_path):
    placed = geotiff(tmp_path / "a.tif", drawn(STREET), Affine(2, 0, 6e5, 0, -2, 4e6))
    plain = write(tmp_path / "a.png", drawn(STREET).astype(np.uint8) * 255)
    for pair in (Pair("a", placed, plain), Pair("a", plain, placed)):
        assert score_pair(pair, ScoreOptions()).truth_km == pytest.approx(0.4, rel=0.01)


def test_a_truth_has_the_resolution_of_the_tile_beside_it(tmp_path):
    geotiff(tmp_path / "a_sat.tif", drawn(STREET), Affine(2, 0, 6e5, 0, -2, 4e6))
    plain = write(tmp_path / "a_mask.png", drawn(STREET).astype(np.uint8) * 255)
    assert score_pair(Pair("a", plain, plain), ScoreOptions()).truth_km == pytest.approx(0.4, rel=0.01)
    assert score_pair(Pair("a", plain, plain), ScoreOptions(gsd_m=1.0)).truth_km == pytest.approx(0.2, rel=0.01)


def test_geotiffs_on_different_grids_are_refused(tmp_path):
    files = [geotiff(tmp_path / f"{x}.tif", drawn(STREET), Affine(0.5, 0, 6e5 + x, 0, -0.5, 4e6)) for x in (0, 10)]
    with pytest.raises(BadInput, match="on different grids; warp one"):
        score_pair(Pair("a", *files), ScoreOptions())


def geojson(path, *roads, crs=None, **more):
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "LineString", "coordinates": r}} for r in roads
    ]
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **named, **more}))
    return path


def test_graphs_in_degrees_have_metres(tmp_path):
    path = geojson(tmp_path / "a.geojson", [[-115.0, 60.0], [-115.0, 60.001]], [[-115.0, 60.0], [-114.998, 60.0]])
    row = score_pair(Pair("a", path, path), ScoreOptions())
    assert row.apls == pytest.approx(1)
    assert row.truth_km == pytest.approx(0.1113 + 2 * 0.05566, rel=0.002)


def test_graphs_in_a_plane_need_the_length_of_their_unit(tmp_path):
    path = geojson(tmp_path / "a.geojson", [[0, 0], [1000, 0]])
    with pytest.raises(BadInput, match="1000, 0 are beyond 180 and 90 degrees, .* say with --gsd"):
        score_pair(Pair("a", path, path), ScoreOptions())
    assert score_pair(Pair("a", path, path), ScoreOptions(gsd_m=0.31)).truth_km == pytest.approx(0.31)


def test_lines_that_are_3d_or_many_or_not_lines_are_read(tmp_path):
    many = {"type": "MultiLineString", "coordinates": [[[0, 0, 5], [1, 0, 5]], [[1, 0], [2, 0]]]}
    shapes = {"type": "GeometryCollection", "geometries": [many, {"type": "Point", "coordinates": [9, 9]}]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(shapes))
    assert score_pair(Pair("a", path, path), ScoreOptions(gsd_m=100.0)).truth_km == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"type": "LineString", "coordinates": [[0, 0], [NaN, 1]]}', "a line has coordinates that are not finite"),
        ('{"type": "LineString", "coordinates": [[0, 0], ["a", 1]]}', "a line must be pairs of numbers"),
        ('{"type": "LineString", "coordi', "not GeoJSON of lines or polygons, or damaged"),
        ('{"type": "Topology"}', "not GeoJSON of lines or polygons, or damaged: .*Topology"),
        ("[1, 2]", "not GeoJSON of lines or polygons, or damaged"),
    ],
)
def test_geojson_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(BadInput, match=f"a.geojson: {message}"):
        score_pair(Pair("a", path, path), ScoreOptions())


def test_empty_graphs_are_scored(tmp_path):
    nothing, road = geojson(tmp_path / "a.geojson"), geojson(tmp_path / "b.geojson", [[0.0, 0.0], [0.001, 0.0]])
    assert score_pair(Pair("a", nothing, nothing), ScoreOptions()).apls == 1
    assert score_pair(Pair("a", nothing, road), ScoreOptions()).apls == 0


UTM_ROAD = [[664010.0, 4004985.0], [664060.0, 4004970.0], [664100.0, 4004890.0]]


def test_graphs_in_different_systems_are_compared_on_the_ground(tmp_path):
    utm = geojson(tmp_path / "a.geojson", UTM_ROAD, crs="urn:ogc:def:crs:EPSG::32611")
    lon, lat = transform("EPSG:32611", "EPSG:4326", *zip(*UTM_ROAD, strict=True))
    plain = geojson(tmp_path / "b.geojson", [*zip(lon, lat, strict=True)])
    for pair in (Pair("a", utm, plain), Pair("a", plain, utm), Pair("a", utm, utm)):
        row = score_pair(pair, ScoreOptions())
        assert row.apls == pytest.approx(1)
        assert row.truth_km == pytest.approx((50**2 + 15**2) ** 0.5 / 1000 + (40**2 + 80**2) ** 0.5 / 1000, rel=0.005)


def test_a_unit_is_for_graphs_in_one_plane(tmp_path):
    utm = geojson(tmp_path / "a.geojson", UTM_ROAD, crs="urn:ogc:def:crs:EPSG::32611")
    plain = geojson(tmp_path / "b.geojson", UTM_ROAD)
    assert score_pair(Pair("a", utm, utm), ScoreOptions(gsd_m=2.0)).truth_km == pytest.approx(2 * 0.14164, rel=1e-3)
    with pytest.raises(BadInput, match="--gsd is for two files of one plane; declare the system of both"):
        score_pair(Pair("a", utm, plain), ScoreOptions(gsd_m=1.0))


def test_miou_is_the_mean_over_both_classes_of_the_pooled_iou(tmp_path):
    """Two tiles of 100 px: 20 right, 10 made up and 10 missed in the first; nothing at all in the second."""
    mask, truth = tmp_path / "masks", tmp_path / "truth"
    for folder, columns in ((mask, slice(0, 3)), (truth, slice(1, 4))):
        folder.mkdir()
        pixels = np.zeros((10, 10), np.uint8)
        write_image(folder / "b_mask.png", pixels)
        pixels[:, columns] = 255
        write_image(folder / "a_mask.png", pixels)
    figures = json.loads(run(mask, truth, "--json").stdout)["figures"]
    assert figures["iou"]["value"] == pytest.approx(20 / 40)
    assert figures["mean-iou"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert figures["miou"]["value"] == pytest.approx((20 / 40 + 160 / 180) / 2)
    assert figures["miou"]["low"] <= figures["miou"]["value"] <= figures["miou"]["high"]
    assert "miou is 0.69" in run(mask, truth, "--min", "miou=0.8", code=1).stderr


def test_buildings_have_footprints_and_no_graphs(tmp_path):
    """Pooled: 3 of 4 buildings are hit by 5 footprints."""
    mask, truth = tmp_path / "masks", tmp_path / "truth"
    corners = {"a": ([0, 10, 20], [0, 10, 22]), "b": ([0, 15], [0])}  # 4 px wide: moved by 2 px the IoU is 1/3
    for folder, which in ((mask, 0), (truth, 1)):
        folder.mkdir()
        for id, columns in corners.items():
            pixels = np.zeros((10, 30), np.uint8)
            for left in columns[which]:
                pixels[2:8, left : left + 4] = 255
            write_image(folder / f"{id}_mask.png", pixels)
    done = run(mask, truth, "--target", "building", "--json")
    found = json.loads(done.stdout)
    assert (found["hits"], found["footprints"], found["truth_footprints"]) == (3, 5, 4)
    figures = {name: each["value"] for name, each in found["figures"].items()}
    assert figures["building-precision"] == pytest.approx(3 / 5)
    assert figures["building-recall"] == pytest.approx(3 / 4)
    assert figures["building-f1"] == pytest.approx(6 / 9)
    assert not figures.keys() & {"apls", "broken-per-km", "bridged-per-km"}
    assert figures["iou"] == pytest.approx((3 * 24 + 12) / (5 * 24 + 12))
    said = run(mask, truth, "--target", "building", "--min", "building-f1=0.7", code=1)
    assert said.stdout.startswith("2 tiles, 4 buildings in the truth, 3 of them among the 5 footprints found\n")
    assert "building-f1 is 0.6667, at least 0.7 is asked for" in said.stderr


def areas(path, *squares, crs=None):
    """Polygons of the corners left, top, right and bottom."""
    rings = [[[[x, y], [u, y], [u, v], [x, v], [x, y]]] for x, y, u, v in squares]
    shapes = [{"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": r}} for r in rings]
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": shapes, **named}))
    return path


def test_buildings_as_polygons_are_compared_on_the_ground(tmp_path):
    utm = areas(
        tmp_path / "a.geojson", (664000, 4e6, 664010, 4e6 + 10), (664020, 4e6, 664030, 4e6 + 10), crs="EPSG:32611"
    )
    (left, top), (right, bottom) = zip(
        *transform("EPSG:32611", "EPSG:4326", [664001, 664010], [4e6, 4e6 + 10]), strict=True
    )
    plain = areas(tmp_path / "b.geojson", (left, top, right, bottom))
    row = score_pair(Pair("a", utm, plain), ScoreOptions(target="building"))
    assert (row.hits, row.footprints, row.truth_footprints) == (1, 2, 1)
    figures = json.loads(run(utm, plain, "--target", "building", "--json").stdout)["figures"]
    assert set(figures) == {"building-precision", "building-recall", "building-f1"}


def test_no_buildings_at_all_have_no_score(tmp_path):
    nothing, one = areas(tmp_path / "a.geojson"), areas(tmp_path / "b.geojson", (0, 0, 1, 1))
    figures = json.loads(run(nothing, nothing, "--target", "building", "--json").stdout)["figures"]
    assert figures["building-f1"]["value"] is None
    for pair in ((nothing, one), (one, nothing)):
        figures = json.loads(run(*pair, "--target", "building", "--json").stdout)["figures"]
        assert figures["building-f1"]["value"] == 0


def test_a_mask_and_a_graph_are_no_pair(folders, tmp_path):
    path = geojson(tmp_path / "1.geojson", [[0, 0], [1, 0]])
    assert "a mask and a graph; give two of a kind" in run(folders[0] / "1_mask.png", path, code=1).stderr


def test_the_table_says_what_was_pruned(folders):
    out = run(*folders, "--workers", "1").stdout
    assert out.startswith("6 tiles, 1.19 km of road")
    assert "spurs and loops were dropped, 0 gaps bridged" in out
