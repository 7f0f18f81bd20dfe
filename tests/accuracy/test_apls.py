import json
import time

import numpy as np
import pytest

from dlink.accuracy.road_graphs import apls as module
from dlink.accuracy.road_graphs.apls import apls, put_along
from dlink.accuracy.road_graphs.graph import RoadGraph
from dlink.runtime import BadInput
from tests.support.models import shared

ROAD = [(0.0, 0.0), (100.0, 0.0)]


def cases():
    return json.loads(shared("apls/cases.json").read_text())


def lines(*roads):
    return RoadGraph.from_lines(roads)


def grid(side, step=60.0, jitter=0.0):
    """Streets of a town: side x side junctions."""
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) * step + rng.normal(size=(side, side, 2)) * jitter
    across = [at[i, j : j + 2] for i in range(side) for j in range(side - 1)]
    down = [at[i : i + 2, j] for i in range(side - 1) for j in range(side)]
    return RoadGraph.from_lines([*across, *down])


def test_scores_are_those_of_the_challenges_own_scorer():
    off = []
    for case in cases()["cases"]:
        found = apls(
            RoadGraph.from_lines(case["truth"]), RoadGraph.from_lines(case["proposal"]), cases()["metres_per_pixel"]
        )
        wanted = (case["apls"], case["truth_to_proposal"], case["proposal_to_truth"])
        off.append(np.abs(np.subtract((found.score, found.forward, found.back), wanted)))
    assert len(off) == 24
    assert np.max(off) < 1e-3
    assert np.mean(off) < 1e-4


def test_swapping_swaps_the_ways_and_flips_change_nothing():
    for case in cases()["cases"][:8]:
        a, b = (RoadGraph.from_lines(case[name]) for name in ("truth", "proposal"))
        one, other = apls(a, b, 0.31), apls(b, a, 0.31)
        assert (one.forward, one.back) == pytest.approx((other.back, other.forward), abs=1e-9)
        flip = (-1.0, 0.0, 1300.0, 0.0, 1.0, 0.0)
        assert apls(a.placed(flip), b.placed(flip), 0.31).score == pytest.approx(one.score, abs=2e-3)


def test_a_graph_is_its_own_equal():
    assert apls(grid(5), grid(5), 1.0).score == 1


def test_two_empty_graphs_are_equal_and_one_has_nothing_of_the_other():
    nothing = lines()
    assert apls(nothing, nothing, 1.0).score == 1
    assert apls(nothing, lines(ROAD), 1.0).score == 0
    assert apls(lines(ROAD), nothing, 1.0).score == 0


def test_a_road_beyond_reach_is_no_partner():
    near, far = ([(0.0, y), (100.0, y)] for y in (3.9, 4.1))
    assert apls(lines(ROAD), lines(near), 1.0).score == 1
    assert apls(lines(ROAD), lines(far), 1.0).score == 0


def test_a_cut_road_costs_the_paths_over_the_cut():
    # Nodes at 0, 100 / 3, 200 / 3 and 100 (two put along 100 m): of six pairs each half keeps one.
    halves = lines([(0.0, 0.0), (49.0, 0.0)], [(51.0, 0.0), (100.0, 0.0)])
    found = apls(lines(ROAD), halves, 1.0)
    assert found.forward == pytest.approx(2 / 6, abs=0.01)
    assert found.back == pytest.approx(1)


def test_a_detour_costs_its_share():
    straight, bent = lines([(0.0, 0.0), (37.0, 0.0)]), lines([(0.0, 0.0), (18.5, 10.0), (37.0, 0.0)])
    found = apls(
        straight, bent, 1.0
    )  # 37 m, without a node between; 42.06 m, with one in the middle that has no partner
    assert found.forward == pytest.approx(1 - 5.06 / 37, abs=1e-3)
    assert found.back == pytest.approx(1 - (4 * 1 + 2 * 5.06 / 42.06) / 6, abs=1e-3)


@pytest.mark.parametrize(("metres", "nodes"), [(37.4, 0), (37.6, 1), (49.9, 1), (50.1, 1), (100.1, 2), (160.0, 3)])
def test_nodes_put_along_an_edge(metres, nodes):
    assert put_along(lines([(0.0, 0.0), (metres, 0.0)]), 50.0).tolist() == [nodes]


def test_the_unit_is_the_callers():
    a, b = grid(4, jitter=2.0), grid(4)
    in_pixels = apls(a.scaled(2.0), b.scaled(2.0), 0.5)
    assert in_pixels.score == pytest.approx(apls(a, b, 1.0).score, abs=1e-9)
    with pytest.raises(BadInput, match="metres_per_unit must be positive, got 0"):
        apls(a, b, 0.0)


def test_memory_is_bounded_by_strips_that_change_no_score(monkeypatch):
    a, b = grid(12, jitter=3.0), grid(12)
    whole = apls(a, b, 1.0)
    monkeypatch.setattr(module, "SEARCHED", 2000)
    monkeypatch.setattr(module, "BLOCK", 300)
    assert apls(a, b, 1.0).score == pytest.approx(whole.score, abs=1e-12)
    assert 0.1 < whole.score < 1


def test_a_tile_of_200_nodes_takes_little():
    """50 ms on a quiet machine; five times that is allowed here, since others may be at work."""
    a, b = grid(14, step=70.0, jitter=1.0), grid(14, step=70.0)
    took = []
    for _ in range(5):
        begun = time.perf_counter()
        apls(a, b, 0.5)
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.25
