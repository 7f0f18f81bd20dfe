"""What is read of an extract: the lines in a box, with their nodes' versions; all that is wrong is said in one line."""

import numpy as np
import pytest

from dlink.maps.extract import kind_of, level_of, read_existing, read_nodes
from dlink.maps.near import Frame
from dlink.runtime.errors import BadInput
from tests.maps.extracts import Drawing, degrees


def box(*points, margin=50.0):
    places = degrees(points)
    return Frame.around(places).box(places, margin)


HERE = box((0, 0), (200, 100))


@pytest.mark.parametrize("name", ["x.osm", "x.osm.pbf", "x.pbf", "x.osm.gz", "x.osm.bz2"])
def test_every_kind_of_extract_gives_the_same_lines(name, tmp_path):
    drawing = Drawing().way((0, 0), (100, 0), highway="primary", name="A").way((9000, 0), (9100, 0)).way((0, 9), (9, 9))
    found = read_existing(drawing.write(tmp_path / name, node_tags={(0, 0): {"highway": "crossing"}}), HERE)
    assert [(way.osm.id, way.osm.version, way.osm.nodes) for way in found.ways] == [
        (1, 3, (101, 102)),
        (3, 3, (105, 106)),
    ]
    assert found.ways[0].osm.tags == {"highway": "primary", "name": "A"}
    np.testing.assert_array_equal(found.ways[0].line, degrees([(0, 0), (100, 0)]))
    nodes = read_nodes(found.path, {101, 105, -7, 999})
    assert sorted(nodes) == [101, 105]
    assert (nodes[101].version, nodes[101].tags) == (3, {"highway": "crossing"})
    assert [(nodes[101].lon, nodes[101].lat)] == [tuple(place) for place in degrees([(0, 0)]).tolist()]


def test_a_way_that_passes_the_box_without_a_node_in_it_is_read(tmp_path):
    path = Drawing().way((-5000, 50), (5000, 50)).write(tmp_path / "x.osm.pbf")
    assert len(read_existing(path, HERE).ways) == 1


def test_nodes_that_the_extract_lacks_have_no_place(tmp_path):
    drawing = Drawing().way((0, 0), (100, 0), (300, 0)).way((0, 0), (0, 50))
    [one, other] = read_existing(drawing.write(tmp_path / "x.osm.pbf", missing=[(300, 0)]), HERE).ways
    assert np.isnan(one.line).tolist() == [[False] * 2, [False] * 2, [True] * 2]
    assert (one.whole, other.whole) == (False, True)


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"highway": "residential"}, "road"),
        ({"highway": "track"}, "road"),
        ({"highway": "road"}, "road"),
        ({"highway": "motorway_link"}, "road"),
        ({"highway": "footway"}, "path"),
        ({"highway": "busway"}, "path"),
        ({"highway": "construction", "construction": "primary"}, "unbuilt"),
        ({"highway": "proposed"}, "unbuilt"),
        ({"highway": "razed"}, None),
        ({"highway": "platform"}, None),
        ({"highway": "pedestrian", "area": "yes"}, None),
        ({"railway": "rail"}, "rail"),
        ({"railway": "platform"}, None),
        ({"railway": "tram", "highway": "residential"}, "road"),
        ({"waterway": "stream"}, "water"),
        ({"waterway": "dam"}, None),
    ],
)
def test_kinds_are_known_by_their_tags(tags, kind):
    assert kind_of(tags) == kind


@pytest.mark.parametrize(
    ("tags", "level"),
    [
        ({}, "ground"),
        ({"bridge": "no", "tunnel": "no", "layer": "0"}, "ground"),
        ({"bridge": "viaduct", "layer": "1"}, "above"),
        ({"layer": "2"}, "above"),
        ({"layer": "-1"}, "below"),
        ({"tunnel": "culvert"}, "below"),
        ({"covered": "yes"}, "below"),
    ],
)
def test_levels_are_known_by_their_tags(tags, level):
    assert level_of(tags) == level


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.osm", b"<osm", "not an OpenStreetMap extract, or a damaged one; pyosmium says"),
        ("x.osm.pbf", b"text", "not an OpenStreetMap extract, or a damaged one"),
        ("x.osm.gz", b"text", "not an OpenStreetMap extract, or a damaged one"),
        ("x.osm", b'<?xml version="1.0"?><osm version="0.6"></osm>', "has no roads, which are ways with the tag"),
        ("x.geojson", b"{}", "no OpenStreetMap extract by its name; expected .osm, .osm.pbf"),
    ],
)
def test_what_is_no_extract_is_refused(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=message) as caught:
        read_existing(tmp_path / name, HERE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.osm.pbf", "x.osm.gz", "x.osm.bz2", "x.osm"])
def test_an_extract_that_is_cut_short_is_refused(name, tmp_path):
    drawing = Drawing()
    for i in range(300):
        drawing.way((i, 0), (i * 7 % 11, 9 + i))
    path = drawing.write(tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BadInput, match="not an OpenStreetMap extract, or a damaged one"):
        read_existing(path, HERE)


def test_an_extract_of_another_place_is_refused_with_both_places(tmp_path):
    path = Drawing().way((90_000, 0), (91_000, 500)).write(tmp_path / "x.osm.pbf")
    with pytest.raises(BadInput, match=r"does not cover the roads: it has 16\.22.*, the roads are in 14\.99.*48\.75"):
        read_existing(path, HERE)


def test_a_box_goes_across_the_antimeridian():
    places = np.array([[179.999, 10.0], [-179.999, 10.1]])
    around = Frame.around(places).box(places, 10)
    assert around.meets(np.array([[-179.9995, 10.05], [-179.99, 10.05]]))
    assert around.meets(np.array([[179.9995, 10.05], [179.9995, 10.3]]))
    assert not around.meets(np.array([[179.9, 10.05], [179.99, 10.05]]))
    assert not around.meets(np.array([[0.0, 10.05], [1.0, 10.05]]))
