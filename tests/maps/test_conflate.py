"""New roads beside existing ones: what is there is dropped, ends join, doubtful places are said. Drawings in metres."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from rasterio.crs import CRS

from dlink.imagery.notes import SAID
from dlink.maps.conflate import conflated
from dlink.maps.osm_options import OsmOptions
from dlink.maps.write import Roads, write_roads
from dlink.runtime.errors import BadInput
from tests.maps.extracts import ORIGIN, UTM, Drawing, degrees, drawn, read_osm

MAIN = ((-500, 0), (0, 0), (500, 0))  # an existing road with a node in its middle


def new_roads(*lines, width=6.0, crs=UTM, origin=ORIGIN):
    """Roads as they come from a mask; lines that end at one place have one node there."""
    ids = {}
    ends = np.array(
        [[ids.setdefault(tuple(map(float, p)), len(ids) + 1) for p in (line[0], line[-1])] for line in lines]
    )
    fields = {
        "id": np.arange(1, len(lines) + 1),
        "length_m": np.array([shapely.LineString(line).length for line in lines]),
        "width_m": np.broadcast_to(np.asarray(width, float), len(lines)),
        "from_node": ends[:, 0],
        "to_node": ends[:, 1],
    }
    return Roads([np.array(line, float) + origin for line in lines], crs, fields, "mask.tif")


@pytest.fixture
def compare(tmp_path):
    """A drawing of what exists and new roads -> what is new, and the .osm file of it."""
    SAID.clear()

    def run(drawing, *lines, distance=12.0, shortest=20.0, missing=(), **kind):
        path = drawing.write(tmp_path / "x.osm.pbf", missing=missing)
        roads = lines[0] if isinstance(lines[0], Roads) else new_roads(*lines, **kind)
        found = conflated(roads, OsmOptions(extract=path, distance=distance), shortest)
        write_roads(tmp_path / "roads.osm", found.roads)
        return found, read_osm(tmp_path / "roads.osm")

    return run


def places(found):
    return [np.round(line - ORIGIN, 2).tolist() for line in found.roads.lines]


def reviews(found):
    return found.roads.fields["review"].tolist()


def test_a_road_that_exists_is_dropped(compare):
    found, osm = compare(Drawing().way(*MAIN), [(-300, 4), (0, 6), (300, -5)])
    assert found.roads.lines == []
    assert found.covered_km == pytest.approx(0.6, abs=0.002)
    assert (found.nodes, found.joins, found.changed, found.flagged, found.rest_km) == (0, 0, 0, 0, 0)
    assert (osm.ways, osm.nodes) == ({}, {})
    assert list(found.roads.fields) == [
        "id",
        "length_m",
        "width_m",
        "from_node",
        "to_node",
        "review",
        "from_osm",
        "to_osm",
    ]


def test_a_parallel_road_30_m_off_stays_as_it_is(compare):
    line = [(-300, 30), (0, 31), (300, 30)]
    found, osm = compare(Drawing().way(*MAIN), line)
    assert places(found) == [[[float(v) for v in p] for p in line]]
    assert (found.roads.lines[0] == np.array(line, float) + ORIGIN).all()  # to the last bit
    assert reviews(found) == [""]
    assert osm.old == {}


def test_a_side_road_joins_at_the_existing_node_that_is_near(compare):
    """Its mask has the main road 4 m beside the map's, and the junction 3 m beside the map's node."""
    found, osm = compare(Drawing().way(*MAIN), [(-300, 4), (3, 4)], [(3, 4), (300, 4)], [(3, 4), (3, 60), (3, 200)])
    [(nodes, tags, _)] = osm.new.values()
    assert nodes[0] == 102
    assert osm.old == {}
    assert osm.nodes[102][2] == 3
    assert found.roads.fields["from_osm"].tolist() == ["node 102"]
    np.testing.assert_allclose(places(found)[0], [[0, 0], [3, 14], [3, 60], [3, 200]], atol=0.02)
    assert "fixme" not in tags
    assert (found.joins, found.changed, found.flagged) == (1, 0, 0)


def test_a_side_road_joins_in_the_middle_of_a_segment_by_a_new_node(compare):
    found, osm = compare(
        Drawing().way(*MAIN, name="Main", highway="primary"),
        [(-300, 4), (200, 4)],
        [(200, 4), (300, 4)],
        [(200, 4), (200, 150)],
    )
    [(nodes, _, _)] = osm.new.values()
    assert osm.old == {1: ([101, 102, nodes[0], 103], {"name": "Main", "highway": "primary"}, 3)}
    assert nodes[0] < 0
    assert {id: osm.nodes[id][2] for id in (101, 102, 103)} == {101: 3, 102: 3, 103: 3}
    np.testing.assert_allclose(drawn([osm.nodes[nodes[0]][:2]]), [[200, 0]], atol=0.02)
    assert (found.joins, found.changed) == (1, 1)
    assert found.roads.fields["from_osm"].tolist() == ["way 1"]


def test_a_free_end_reaches_out_to_the_road_that_the_mask_does_not_show(compare):
    """A mask without the main road: the side road ends at its edge."""
    found, osm = compare(Drawing().way(*MAIN), [(200, 7), (200, 150)])
    np.testing.assert_allclose(places(found), [[[200, 0], [200, 150]]], atol=0.02)
    assert len(osm.old) == 1


def test_an_end_that_goes_too_far_is_taken_back(compare):
    found, _ = compare(Drawing().way(*MAIN), [(200, -6), (200, 150)])
    np.testing.assert_allclose(places(found), [[[200, 0], [200, 150]]], atol=0.02)
    assert reviews(found) == [""]


def test_an_end_farther_than_the_distance_stays(compare):
    found, osm = compare(Drawing().way(*MAIN), [(200, 20), (200, 150)])
    assert places(found) == [[[200.0, 20.0], [200.0, 150.0]]]
    assert (osm.old, found.joins) == ({}, 0)
    assert compare(Drawing().way(*MAIN), [(200, 20), (200, 150)], distance=25)[0].joins == 1


def test_roads_on_both_sides_share_the_new_node(compare):
    """Four arms of a crossing, of which the map has two."""
    at = (200, 5)
    found, osm = compare(
        Drawing().way(*MAIN), [(0, 5), at], [at, (400, 5)], [at, (200, 200)], [at, (204, -30), (204, -200)]
    )
    first, second = (nodes for nodes, _, _ in osm.new.values())
    assert first[0] == second[0] < 0
    [(nodes, _, _)] = osm.old.values()
    assert nodes == [101, 102, first[0], 103]
    assert found.roads.fields["from_node"].tolist() == [1, 1]
    assert (found.roads.lines[0][0] == found.roads.lines[1][0]).all()
    assert reviews(found) == ["", ""]


def test_new_nodes_are_in_the_order_of_the_way(compare):
    lines = [[(x, 5), (x, 150)] for x in (300, 100, -200, 200)]
    found, osm = compare(Drawing().way(*MAIN), *lines)
    [(nodes, _, _)] = osm.old.values()
    x = drawn([osm.nodes[node][:2] for node in nodes])[:, 0]
    np.testing.assert_allclose(x, [-500, -200, 0, 100, 200, 300, 500], atol=0.02)
    assert found.changed == 1


def test_ends_that_are_near_each_other_share_a_new_node(compare):
    found, osm = compare(Drawing().way(*MAIN), [(200, 5), (200, 150)], [(203, -5), (203, -150)])
    [(nodes, _, _)] = osm.old.values()
    assert len(nodes) == 4
    assert found.joins == 1
    assert len(set(found.roads.fields["from_node"].tolist())) == 1


def test_a_partly_covered_line_keeps_its_new_part_which_joins(compare):
    """A road that leaves the main road after 200 m, in a wide bend."""
    angle = np.radians(np.arange(0, 91, 10))
    bend = [(200 + 100 * np.sin(a), 2 + 100 * (1 - np.cos(a))) for a in angle]
    found, osm = compare(Drawing().way(*MAIN), [(0, 2), *bend, (300, 300)])
    [line] = found.roads.lines
    assert 0.2 < found.covered_km < 0.27
    assert (line[-1] - ORIGIN).tolist() == [300, 300]
    begin = line[0] - ORIGIN
    assert abs(begin[1]) < 0.02
    assert 220 < begin[0] < 270
    assert len(osm.old) == 1


def test_a_short_rest_of_a_covered_line_goes(compare):
    line = [(300, 3), (490, 3), (513, 3)]  # the existing road ends at 500, and 12 m on is within the distance
    assert compare(Drawing().way(*MAIN), [(300, 3), (525, 3)])[0].roads.lines == []
    assert compare(Drawing().way(*MAIN), line)[0].rest_km == pytest.approx(0, abs=0.005)
    longer, _ = compare(Drawing().way(*MAIN), [(300, 3), (525, 3)], shortest=5)
    assert len(longer.roads.lines) == 1


def test_a_road_goes_on_from_the_end_of_the_existing_one(compare):
    found, osm = compare(Drawing().way(*MAIN), [(300, 3), (500, 3), (800, 3)])
    assert osm.old == {}
    [(nodes, _, _)] = osm.new.values()
    assert nodes[0] == 103
    assert places(found)[0][0] == pytest.approx([500, 0], abs=0.02)


def test_a_line_that_strays_a_little_is_covered_as_a_whole(compare):
    found, _ = compare(Drawing().way(*MAIN), [(-300, 3), (0, 3), (8, 14), (16, 3), (300, 3)], shortest=30)
    assert found.roads.lines == []
    assert 0 < found.rest_km < 0.03


def test_a_line_that_comes_near_and_leaves_again_is_not_cut(compare):
    line = [(-100, 60), (-6, 10), (6, 10), (100, 60)]
    found, _ = compare(Drawing().way(*MAIN), line)
    assert len(found.roads.lines) == 1
    assert (found.covered_km, found.joins) == (0, 0)
    assert reviews(found)[0].startswith("runs along highway=residential (way 1) for 1")


def test_a_fork_at_a_low_angle_keeps_its_line_up_to_the_junction(compare):
    at = (3, 2)
    found, osm = compare(Drawing().way(*MAIN), [(-300, 2), at], [at, (300, 2)], [at, (150, 65), (300, 140)])
    [(nodes, _, _)] = osm.new.values()
    assert (nodes[0], osm.old) == (102, {})
    whole = shapely.LineString([at, (150, 65), (300, 140)])
    away = [whole.distance(shapely.Point(*place)) for place in places(found)[0]]
    assert max(away[1:]) < 0.01
    assert found.covered_km == pytest.approx(0.6, abs=0.005)


def test_a_junction_near_an_existing_road_is_joined_as_a_whole(compare):
    """One of its roads begins along the existing road, for 10 m."""
    at = (200, 9)
    found, osm = compare(Drawing().way(*MAIN), [at, (210, 9), (230, 100)], [at, (200, 150)], [at, (100, 150)])
    assert len(found.roads.lines) == 3
    assert found.roads.fields["from_node"].tolist() == [1, 1, 1]
    assert found.joins == 1
    [(nodes, _, _)] = osm.old.values()
    np.testing.assert_allclose(drawn([osm.nodes[nodes[2]][:2]]), [[200, 0]], atol=0.02)


def test_a_short_link_from_an_existing_road_to_new_roads_stays(compare):
    at = (208, 18)
    found, osm = compare(Drawing().way(*MAIN), [(-300, 3), (200, 3), at], [at, (150, 150)], [at, (300, 150)])
    assert len(found.roads.lines) == 3
    assert found.joins == 1
    assert len(osm.old) == 1


def test_a_line_that_leaves_an_existing_road_and_comes_back_to_the_same_node_goes(compare):
    """And the way gets no node for it."""
    found, osm = compare(Drawing().way(*MAIN), [(-300, 3), (200, 3), (200.4, 15.5), (200.8, 3), (300, 3)])
    assert found.roads.lines == []
    assert 0.02 < found.rest_km < 0.036
    assert (osm.old, osm.nodes, found.changed) == ({}, {}, 0)


def test_a_road_that_is_joined_and_crosses_elsewhere_is_said(compare):
    found, osm = compare(Drawing().way(*MAIN), [(200, 7), (200, 40), (230, 40), (230, -100)])
    assert reviews(found) == ["crosses highway=residential (way 1)"]
    assert len(osm.old) == 1


def test_a_crossing_without_a_node_is_said_and_not_joined(compare):
    found, osm = compare(Drawing().way(*MAIN), [(200, -100), (200, 100)])
    assert reviews(found) == ["crosses highway=residential (way 1)"]
    assert places(found) == [[[200.0, -100.0], [200.0, 100.0]]]
    [(_, tags, _)] = osm.new.values()
    assert tags["fixme"] == "crosses highway=residential (way 1)"
    assert (osm.old, found.flagged) == ({}, 1)


def test_a_crossing_at_a_low_angle_is_no_existing_road(compare):
    """At 40 degrees the road is near the existing one for 37 m, in another direction."""
    found, _ = compare(Drawing().way(*MAIN), [(0, -168), (400, 168)])
    assert found.covered_km == 0
    assert reviews(found) == ["crosses highway=residential (way 1)"]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"highway": "primary", "bridge": "yes", "layer": "1"}, "crosses highway=primary (way 1), which is above"),
        ({"highway": "primary", "tunnel": "yes"}, "crosses highway=primary (way 1), which is below"),
        ({"highway": "footway"}, "crosses highway=footway (way 1)"),
        ({"railway": "rail"}, "crosses railway=rail (way 1)"),
        ({"waterway": "stream"}, "crosses waterway=stream (way 1)"),
        ({"waterway": "stream", "tunnel": "culvert"}, ""),
        ({"railway": "subway", "tunnel": "yes"}, ""),
        ({"highway": "proposed"}, ""),
    ],
)
def test_what_a_road_crosses_is_said_by_its_kind_and_level(tags, words, compare):
    found, osm = compare(Drawing().way(*MAIN, **tags), [(200, -100), (200, 100)])
    assert reviews(found) == [words]
    assert osm.old == {}


@pytest.mark.parametrize("tags", [{"bridge": "yes"}, {"layer": "1"}, {"tunnel": "yes"}])
def test_a_bridge_or_tunnel_is_not_joined(tags, compare):
    found, osm = compare(Drawing().way(*MAIN, highway="primary", **tags), [(200, 7), (200, 150)])
    assert places(found) == [[[200.0, 7.0], [200.0, 150.0]]]
    assert (osm.old, found.joins) == ({}, 0)
    assert reviews(found) == ["" if "tunnel" in tags else "meets highway=primary (way 1), which is a bridge"]


def test_a_bridge_covers_and_a_tunnel_does_not(compare):
    line = [(-300, 2), (300, 2)]
    assert compare(Drawing().way(*MAIN, highway="primary", bridge="yes"), line)[0].roads.lines == []
    found, _ = compare(Drawing().way(*MAIN, highway="primary", tunnel="yes"), line)
    assert reviews(found) == ["runs along highway=primary (way 1), which is below for 600 m"]


def test_the_ground_road_at_the_end_of_a_bridge_is_joined(compare):
    drawing = Drawing().way((-500, 0), (0, 0)).way((0, 0), (300, 0), highway="residential", bridge="yes")
    found, osm = compare(drawing, [(2, 5), (2, 150)])
    assert found.roads.fields["from_osm"].tolist() == ["node 102"]
    assert osm.old == {}


def test_a_road_along_a_railway_or_a_planned_road_stays_and_is_said(compare):
    line = [(-300, 4), (300, 4)]
    for tags in ({"railway": "rail"}, {"highway": "construction"}):
        [(key, value)] = tags.items()
        found, _ = compare(Drawing().way(*MAIN, **tags), line)
        assert len(found.roads.lines) == 1
        assert reviews(found) == [f"runs along {key}={value} (way 1) for 600 m"]


def test_a_path_covers_within_half_the_distance_and_is_not_joined(compare):
    path = Drawing().way(*MAIN, highway="footway")
    assert compare(path, [(-300, 4), (300, 4)])[0].roads.lines == []
    found, _ = compare(path, [(-300, 8), (300, 8)])
    assert reviews(found) == ["runs along highway=footway (way 1) for 600 m"]
    found, osm = compare(path, [(300, 2), (400, 2), (700, 2)])
    assert (osm.old, found.joins) == ({}, 0)
    assert reviews(found)[0].startswith("goes on as highway=footway (way 1)")


def test_an_area_is_no_road(compare):
    square = ((0, 0), (100, 0), (100, 100), (0, 100), (0, 0))
    found, _ = compare(
        Drawing().way(*square, highway="service", area="yes").way((0, 900), (9, 900)), [(0, 2), (100, 2)]
    )
    assert len(found.roads.lines) == 1


def test_both_lines_of_a_dual_carriageway_are_covered_by_one_existing_line_and_the_other_way_round(compare):
    one = Drawing().way(*MAIN)
    two = Drawing().way((-500, 9), (500, 9)).way((500, -9), (-500, -9), highway="residential", oneway="yes")
    both = [[(-300, 10), (300, 10)], [(-300, -10), (300, -10)]]
    assert compare(one, *both)[0].roads.lines == []
    assert compare(two, *both)[0].roads.lines == []
    assert compare(two, [(-300, 0), (300, 0)])[0].roads.lines == []


def test_a_wide_road_is_compared_by_its_width(compare):
    """One band of 40 m: its middle line is 18 m from each of the map's lines."""
    two = Drawing().way((-500, 18), (500, 18)).way((500, -18), (-500, -18))
    assert compare(two, [(-300, 0), (300, 0)], width=40)[0].roads.lines == []
    assert len(compare(two, [(-300, 0), (300, 0)], width=8)[0].roads.lines) == 1


def test_an_extract_without_versions_is_joined_by_no_reference(compare):
    drawing = Drawing(version=0).way(*MAIN)
    found, osm = compare(drawing, [(200, 7), (200, 150)], [(2, 7), (2, 150)])
    assert all(id < 0 for id in [*osm.nodes, *osm.ways])
    assert found.joins == 0
    assert reviews(found) == ["lies on highway=residential (way 1) and is not joined: the extract has no versions"] * 2
    assert [line[0] for line in places(found)] == [pytest.approx([200, 0], abs=0.02), pytest.approx([2, 0], abs=0.02)]


def test_a_way_that_the_extract_cuts_is_not_changed(compare):
    """It is joined at a node that is there, if that is near."""
    drawing = Drawing().way(*MAIN, (900, 0))
    found, osm = compare(drawing, [(200, 7), (200, 150)], [(2, 7), (2, 150)], missing=[(900, 0)])
    assert osm.old == {}
    assert reviews(found) == ["lies on highway=residential (way 1) and is not joined: the extract cuts the way", ""]
    assert found.roads.fields["from_osm"].tolist() == ["", "node 102"]


def test_a_way_gets_no_more_nodes_than_the_limit(compare):
    drawing = Drawing().way(*[(-500 + i * 0.1, 0) for i in range(1998)], (500, 0))
    found, osm = compare(drawing, [(-200, 7), (-200, 150)], [(0, 7), (0, 150)], [(300, 7), (300, 150)])
    [(nodes, _, _)] = osm.old.values()
    assert len(nodes) == 2000
    assert "and is not joined: the way has 2000 nodes" in reviews(found)[2]


def test_a_motorway_that_is_joined_is_said(compare):
    found, _ = compare(Drawing().way(*MAIN, highway="motorway"), [(200, 7), (200, 150)])
    assert reviews(found) == ["joins highway=motorway (way 1) on its level"]


def test_the_nearest_of_two_roads_is_joined(compare):
    drawing = Drawing().way(*MAIN).way((100, 8), (500, 8))
    _, osm = compare(drawing, [(200, 10), (200, 150)])
    assert list(osm.old) == [2]


def test_a_junction_of_new_roads_stays_one_node(compare):
    at = (200, 100)
    found, osm = compare(Drawing().way(*MAIN), [(200, 6), at], [at, (0, 200)], [at, (400, 200)])
    ends = [nodes for nodes, _, _ in osm.new.values()]
    assert ends[0][-1] == ends[1][0] == ends[2][0]
    assert found.nodes == 4


def test_a_short_link_between_two_existing_roads_goes(compare):
    """A median's gap of 18 m, which the mask shows at a junction."""
    drawing = Drawing().way(*MAIN).way((-500, 18), (500, 18))
    found, _ = compare(
        drawing,
        *([(-300, y), (100, y)] for y in (0, 18)),
        *([(100, y), (300, y)] for y in (0, 18)),
        [(100, 0), (100, 18)],
    )
    assert found.roads.lines == []
    assert found.rest_km == pytest.approx(0.018, abs=0.001)


@pytest.mark.parametrize(
    ("crs", "origin"),
    [
        (CRS.from_epsg(3857), (1_670_000.0, 8_390_000.0)),  # 60 degrees north, where 2 m of Mercator are one
        (CRS.from_epsg(2225), (6_000_000.0, 2_000_000.0)),  # feet
    ],
)
def test_distances_are_metres_on_the_ground(crs, origin, compare):
    """10 units beside: 5 m or 3 m, which is the same road. 40 units: 20 m or 12.2 m, which is another."""
    drawing = Drawing(origin, crs).way((-600, 0), (0, 0), (600, 0))
    beside, off = ([[(-500, y), (500, y)] for y in ys] for ys in ((10,), (42,)))
    assert conflated_lines(compare, drawing, beside, crs, origin) == 0
    assert conflated_lines(compare, drawing, off, crs, origin) == 1


def conflated_lines(compare, drawing, lines, crs, origin):
    found, _ = compare(drawing, new_roads(*lines, crs=crs, origin=origin))
    return len(found.roads.lines)


def test_a_mask_in_degrees_is_compared_too(compare):
    lines = [degrees([(200, 5), (200, 150)]), degrees([(-300, 3), (0, 3)])]
    roads = replace(new_roads(*lines, origin=(0, 0)), crs=CRS.from_epsg(4326))
    found, osm = compare(Drawing().way(*MAIN), roads)
    assert len(found.roads.lines) == 1
    np.testing.assert_allclose(drawn(found.roads.lines[0]), [[200, 0], [200, 150]], atol=0.03)
    assert len(osm.old) == 1


def test_a_mask_across_the_antimeridian_is_compared_too(compare):
    crs, origin = CRS.from_epsg(3832), (3_339_584.7, 1_000_000.0)  # a Mercator around 150 degrees east, at 180 degrees
    drawing = Drawing(origin, crs).way((-500, 0), (0, 0), (500, 0))
    roads = new_roads([(-300, 4), (100, 4)], [(200, 7), (200, 150)], crs=crs, origin=origin)
    found, osm = compare(drawing, roads)
    lon = [place[0] for place in osm.nodes.values()]
    assert min(lon) < -179.99
    assert max(lon) > 179.99
    assert len(found.roads.lines) == 1
    assert len(osm.old) == 1


def test_no_road_is_no_new_road(compare, tmp_path):
    roads = new_roads([(0, 0), (1, 1)])
    empty = replace(roads, lines=[], fields={name: values[:0] for name, values in roads.fields.items()})
    found, osm = compare(Drawing().way(*MAIN), empty)
    assert (found.roads.lines, osm.ways) == ([], {})
    write_roads(tmp_path / "x.gpkg", found.roads)


def test_the_result_does_not_depend_on_the_run(compare, tmp_path):
    lines = [[(x, 5), (x + 3, 150)] for x in range(-400, 400, 37)]
    found = []
    for _ in range(2):
        compare(Drawing().way(*MAIN), *lines)
        found.append((tmp_path / "roads.osm").read_bytes())
    assert found[0] == found[1]


def test_roads_beyond_the_extract_are_said(compare, caplog):
    compare(Drawing().way((-500, 0), (0, 0)), [(-300, 60), (300, 60)])
    assert "ends before the roads do; roads beyond it are taken as new" in caplog.text
    SAID.clear()
    compare(Drawing().way((-5000, -5000), (-4000, 5000)).way((5000, -5000), (5000, 9)), [(-300, 200), (300, 200)])
    assert "has no line near the roads; all of them are taken as new" in caplog.text


def test_roads_without_a_system_are_refused(tmp_path):
    path = Drawing().way(*MAIN).write(tmp_path / "x.osm.pbf")
    roads = replace(new_roads([(0, 0), (9, 9)]), crs=None)
    with pytest.raises(BadInput, match="x.osm.pbf: the mask has no coordinate system; give it one"):
        conflated(roads, OsmOptions(extract=path), 20)


@pytest.mark.parametrize("distance", [0, -1, float("nan"), float("inf")])
def test_a_distance_is_more_than_0(distance):
    with pytest.raises(BadInput, match="--osm-distance"):
        OsmOptions(distance=distance)
