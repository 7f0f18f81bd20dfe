import cv2
import numpy as np
import pytest

from dlink.accuracy.road_graphs.graph import RoadGraph, from_mask
from dlink.runtime import BadInput


def drawn(*roads, side=200, width=7):
    """A mask with roads as thick lines."""
    mask = np.zeros((side, side), np.uint8)
    for road in roads:
        cv2.polylines(mask, [np.array(road, np.int32)], isClosed=False, color=1, thickness=width)
    return mask > 0


def test_lines_that_share_a_point_meet_and_others_do_not():
    crossing = RoadGraph.from_lines([[(0, 0), (10, 10)], [(0, 10), (10, 0)]])
    assert sorted(crossing.degrees.tolist()) == [1, 1, 1, 1]
    meeting = RoadGraph.from_lines([[(0, 0), (5, 5), (10, 10)], [(0, 10), (5, 5), (10, 0)]])
    assert sorted(meeting.degrees.tolist()) == [1, 1, 1, 1, 4]


def test_what_passes_through_is_one_edge_with_its_geometry():
    graph = RoadGraph.from_lines([[(0, 0), (3, 4)], [(3, 4), (3, 10)]])
    assert len(graph.lines) == 1
    assert graph.lengths.tolist() == [11.0]


def test_what_is_drawn_twice_counts_once():
    once = RoadGraph.from_lines([[(0, 0), (10, 0)]])
    twice = RoadGraph.from_lines([[(0, 0), (10, 0)], [(10, 0), (0, 0)], [(5, 5)]])
    assert twice.lengths.tolist() == once.lengths.tolist() == [10.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([(0, 0), (np.nan, 1)], "coordinates that are not finite numbers"),
        ([(0, 0), (np.inf, 1)], "coordinates that are not finite numbers"),
        ([(0, 0, 0), (1, 1, 1)], r"a line must be \(K, 2\) coordinates"),
        (["a", "b"], "a line must be pairs of numbers"),
    ],
)
def test_what_is_no_line_is_refused(line, message):
    with pytest.raises(BadInput, match=message):
        RoadGraph.from_lines([line])


def test_no_lines_are_an_empty_graph():
    graph = RoadGraph.from_lines([])
    assert (len(graph.nodes), len(graph.lines)) == (0, 0)


def test_a_straight_road_is_traced_from_end_to_end():
    graph = from_mask(drawn([(20, 100), (180, 100)])).graph
    assert len(graph.lines) == 1
    np.testing.assert_allclose(sorted(graph.nodes[:, 0]), [20, 180], atol=5)
    np.testing.assert_allclose(graph.nodes[:, 1], 100.5, atol=1.5)


def test_a_road_to_the_tiles_edge_is_traced_to_the_edge():
    graph = from_mask(drawn([(-5, 100), (205, 100)])).graph
    assert graph.lengths.sum() == pytest.approx(200, abs=2)


def test_a_crossroads_is_one_node_of_four():
    graph = from_mask(drawn([(20, 100), (180, 100)], [(100, 20), (100, 180)])).graph
    assert sorted(graph.degrees.tolist()) == [1, 1, 1, 1, 4]


def test_spurs_are_dropped_and_counted():
    road = drawn([(20, 100), (180, 100)])
    road[92:97, 100] = True  # a twig of some five pixels
    traced = from_mask(road)
    assert len(traced.graph.lines) == 1
    assert from_mask(road, spur=0.0).graph.degrees.max() >= traced.graph.degrees.max()


def test_a_small_hole_is_no_loop_and_a_block_is():
    road = drawn([(20, 100), (180, 100)], width=9)
    road[100, 100] = False
    holed = from_mask(road)
    assert (len(holed.graph.lines), holed.loops) == (1, 1)
    block = from_mask(drawn([(40, 40), (160, 40), (160, 160), (40, 160), (40, 40)]))
    assert (block.loops, block.graph.lengths.sum()) == (0, pytest.approx(480, rel=0.03))


def test_gaps_are_bridged_only_where_asked_for_and_counted():
    road = drawn([(20, 100), (90, 100)], [(105, 100), (180, 100)])
    assert (len(from_mask(road).graph.lines), from_mask(road).bridged) == (2, 0)
    joined = from_mask(road, gap=20)
    assert (len(joined.graph.lines), joined.bridged) == (1, 1)


def test_a_wide_gap_is_bridged_in_line_alone():
    in_line = drawn([(20, 100), (80, 100)], [(120, 100), (180, 100)])
    aside = drawn([(20, 60), (80, 60)], [(110, 90), (110, 150)])
    assert from_mask(in_line, gap=12).bridged == 1
    assert from_mask(aside, gap=12).bridged == 0


def test_a_graph_on_the_ground_has_metres():
    graph = from_mask(drawn([(20, 100), (180, 100)])).graph.placed((0.5, 0, 600_000, 0, -0.5, 5_000_000))
    assert graph.lengths.sum() == pytest.approx(80, abs=4)
    assert graph.nodes[:, 1].max() < 5_000_000


def test_an_empty_mask_has_no_roads_and_a_full_one_does_not_fail():
    assert len(from_mask(np.zeros((64, 64), bool)).graph.lines) == 0
    from_mask(np.ones((64, 64), bool))


def test_what_is_no_mask_is_refused():
    with pytest.raises(BadInput, match=r"a mask must be bool \(H, W\), got uint8 \(8, 8\): compare it"):
        from_mask(np.zeros((8, 8), np.uint8))
