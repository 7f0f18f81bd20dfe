"""Roads become .osm files that OpenStreetMap's own reader reads, with one node where lines meet."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio import Affine

from dlink.cli.vectorize import vectorize as command
from dlink.maps.osm_file import MOST_NODES, Beside, OsmNode, OsmWay, write_osm
from dlink.maps.vectorize import LineOptions, vectorize
from tests.maps.extracts import read_osm
from tests.maps.masks import blobs, cross, ring, write_mask


def call(*args):
    return CliRunner().invoke(command, [str(arg) for arg in args])


def fields(*ends, width=6.0, **more):
    first, last = zip(*ends, strict=True)
    return {
        "width_m": np.full(len(ends), width),
        "from_node": np.array(first),
        "to_node": np.array(last),
        **{name: np.array(values) for name, values in more.items()},
    }


def test_roads_that_cross_have_one_node_there(tmp_path):
    out = tmp_path / "roads.osm"
    done = call(write_mask(tmp_path / "mask.tif", cross()), "-o", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 4 lines, 0.40 km, 5 nodes\n"
    found = read_osm(out)
    assert len(found.ways) == 4
    assert len(found.nodes) == 5
    assert all(id < 0 for id in [*found.nodes, *found.ways])
    middle = set.intersection(*(set(nodes) for nodes, _, _ in found.ways.values()))
    assert len(middle) == 1
    lon, lat, _ = found.nodes[middle.pop()]
    assert (lon, lat) == (pytest.approx(15.0013594, abs=1e-5), pytest.approx(48.7521137, abs=1e-5))
    for _, tags, _ in found.ways.values():
        assert tags == {"highway": "road", "source": "mask.tif", "dlink:width": tags["dlink:width"]}
        assert float(tags["dlink:width"]) == pytest.approx(8.5, abs=0.5)


def test_the_file_says_its_version_and_is_not_for_a_blind_upload(tmp_path):
    vectorize(write_mask(tmp_path / "mask.tif", cross()), tmp_path / "roads.osm")
    head = (tmp_path / "roads.osm").read_text().splitlines()[:2]
    assert head[0] == '<?xml version="1.0" encoding="UTF-8"?>'
    assert re.fullmatch(r'<osm version="0.6" generator="dlink [\d.]+" upload="false">', head[1])


def test_a_net_has_the_same_topology_as_a_geopackage(tmp_path):
    """Every node of the net is one node of the file, and no way has a node twice in a row."""
    mask = write_mask(tmp_path / "mask.tif", blobs(3, (700, 700), 14, 0.6))
    summary = vectorize(mask, tmp_path / "roads.osm")
    found = read_osm(tmp_path / "roads.osm")
    assert len(found.ways) == summary.lines > 5
    ends = {node for nodes, _, _ in found.ways.values() for node in (nodes[0], nodes[-1])}
    assert len(ends) == summary.nodes
    used = [node for nodes, _, _ in found.ways.values() for node in nodes]
    assert set(used) == set(found.nodes)
    places = [place[:2] for place in found.nodes.values()]
    assert len(set(places)) == len(places)
    for nodes, _, _ in found.ways.values():
        assert all(a != b for a, b in pairwise(nodes))


def test_a_ring_is_a_closed_way(tmp_path):
    vectorize(write_mask(tmp_path / "mask.tif", ring()), tmp_path / "roads.osm")
    [(nodes, _, _)] = read_osm(tmp_path / "roads.osm").ways.values()
    assert nodes[0] == nodes[-1]
    assert len(nodes) > 8
    assert len(set(nodes)) == len(nodes) - 1


@pytest.mark.parametrize(
    ("crs", "grid", "west", "north"),
    [
        ("EPSG:4326", Affine(1e-5, 0, 15, 0, -0.7e-5, 48.75), 15.0, 48.75),
        (
            "EPSG:3857",
            Affine(0.75, 0, 1_669_792.36, 0, -0.75, 6_230_000),
            15.0,
            math.degrees(math.atan(math.sinh(6_230_000 / 6_378_137))),
        ),
    ],
)
def test_degrees_and_mercator_end_in_longitude_and_latitude(crs, grid, west, north, tmp_path):
    vectorize(write_mask(tmp_path / "mask.tif", cross(), crs=crs, transform=grid), tmp_path / "roads.osm")
    places = np.array([place[:2] for place in read_osm(tmp_path / "roads.osm").nodes.values()])
    assert places[:, 0].min() == pytest.approx(west, abs=2e-5)
    assert places[:, 0].max() == pytest.approx(
        west + 400 * (1e-5 if crs == "EPSG:4326" else 0.75 / 111_319.5), abs=2e-5
    )
    assert places[:, 1].max() == pytest.approx(north, abs=1e-5)


def test_a_line_with_more_nodes_than_a_way_may_have_becomes_several(tmp_path):
    count = 2 * MOST_NODES + 10
    line = np.column_stack([15 + np.arange(count) * 1e-5, np.full(count, 48.0)])
    write_osm(tmp_path / "x.osm", [line], fields((1, 2)), "x", Beside())
    found = read_osm(tmp_path / "x.osm")
    assert [len(nodes) for nodes, _, _ in found.ways.values()] == [2000, 2000, 12]
    whole = [nodes for nodes, _, _ in found.ways.values()]
    assert whole[0][-1] == whole[1][0]
    assert whole[1][-1] == whole[2][0]
    assert len(found.nodes) == count


def test_a_line_of_just_as_many_nodes_stays_one(tmp_path):
    line = np.column_stack([15 + np.arange(MOST_NODES) * 1e-5, np.full(MOST_NODES, 48.0)])
    write_osm(tmp_path / "x.osm", [line], fields((1, 2)), "x", Beside())
    assert len(read_osm(tmp_path / "x.osm").ways) == 1


def test_vertices_of_one_centimetre_are_one_node_and_a_line_of_one_node_is_none(tmp_path):
    lines = [np.array([[15, 48], [15 + 1e-9, 48], [15.1, 48]]), np.array([[15.1, 48], [15.1 + 1e-9, 48]])]
    write_osm(tmp_path / "x.osm", lines, fields((1, 2), (2, 3)), "x", Beside())
    found = read_osm(tmp_path / "x.osm")
    assert [nodes for nodes, _, _ in found.ways.values()] == [[-1, -2]]


def test_what_a_person_must_look_at_is_a_fixme(tmp_path):
    lines = [np.array([[15, 48], [15.1, 48]])] * 3
    more = {"review": ['crosses <a> & "b"', "", "x" * 400], "bridge": [0, 1, 0], "probability": [0.75, np.nan, 0.5]}
    write_osm(tmp_path / "x.osm", lines, fields((1, 2), (3, 4), (5, 6), **more), "x", Beside())
    tags = [tags for _, tags, _ in read_osm(tmp_path / "x.osm").ways.values()]
    assert [t.get("fixme") for t in tags] == ['crosses <a> & "b"', "bridges a gap of the mask", "x" * 255]
    assert [t.get("dlink:probability") for t in tags] == ["0.75", None, "0.50"]


def test_a_name_that_xml_cannot_hold_does_not_break_the_file(tmp_path):
    name = "mask\udcff\x01é<'\".tif"
    write_osm(tmp_path / "x.osm", [np.array([[15, 48], [15.1, 48]])], fields((1, 2)), name, Beside())
    [(_, tags, _)] = read_osm(tmp_path / "x.osm").ways.values()
    assert tags["source"] == "mask??é<'\".tif"


def test_existing_ways_keep_their_ids_versions_tags_and_nodes(tmp_path):
    old = [OsmNode(11, 4, 15.0, 48.0, {"highway": "crossing"}), OsmNode(12, 1, 15.2, 48.0), OsmNode(-1, 0, 15.1, 48.0)]
    way = OsmWay(7, 9, (11, -1, 12), {"highway": "residential", "name": "A & B <x>\n2"})
    write_osm(
        tmp_path / "x.osm",
        [np.array([[15.1, 48.0], [15.1, 48.1]]), np.array([[15.0, 48.0], [15.0, 47.9]])],
        fields((1, 2), (3, 4)),
        "x",
        Beside(old, [way], {1: -1, 3: 11}),
    )
    found = read_osm(tmp_path / "x.osm")
    assert found.old == {7: ([11, -1, 12], dict(way.tags), 9)}
    assert found.nodes[11] == (15.0, 48.0, 4)
    assert [nodes for nodes, _, _ in found.new.values()] == [[-1, -2], [11, -3]]
    text = (tmp_path / "x.osm").read_text()
    assert text.count('action="modify"') == 1
    assert '<way id="7" version="9" action="modify" visible="true">' in text
    assert '<tag k="highway" v="crossing"/>' in text


def test_a_mask_without_a_system_has_no_osm(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", cross(), crs=None, transform=None)
    done = call(mask, "-o", tmp_path / "roads.osm")
    assert done.exit_code == 1
    assert ".osm is in longitude and latitude, and the mask has no coordinate system; give it one" in done.stderr
    assert not (tmp_path / "roads.osm").exists()


def test_an_empty_mask_gives_a_file_without_ways(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", np.zeros((80, 80), bool))
    done = call(mask, "-o", tmp_path / "roads.osm")
    assert done.exit_code == 0
    assert read_osm(tmp_path / "roads.osm").ways == {}


def test_a_file_that_was_there_stays_if_writing_fails(tmp_path, monkeypatch):
    out = tmp_path / "roads.osm"
    out.write_bytes(b"before")
    mask = write_mask(tmp_path / "mask.tif", cross())

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dlink.maps.osm_file.way_text", full)
    done = call(mask, "-o", out)
    assert done.exit_code == 1
    assert "No space left on device" in done.stderr
    assert out.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.tif", "roads.osm"]


def test_the_file_does_not_depend_on_the_blocks(tmp_path):
    mask = write_mask(tmp_path / "mask.tif", blobs(5, (500, 640), 12, 0.5))
    found = []
    for block in (90, 4096):
        vectorize(mask, tmp_path / "roads.osm", LineOptions(block=block, widest=20))
        found.append((tmp_path / "roads.osm").read_bytes())
    assert found[0] == found[1]
