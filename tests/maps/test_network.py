"""The lines are those that a mapper would draw."""

import numpy as np
import pytest
import shapely

from dlink.maps.blocks import Reach
from dlink.maps.bridging import bridged
from dlink.maps.network import (
    gathered,
    net_of,
    pruned,
    simplified,
    smoothed,
    smoothed_ring,
    straightened,
    without_pieces,
)
from tests.maps.masks import cross, lines_by_blocks, ring

METRES = (0.5, 0.5)


def net(mask):
    return net_of(lines_by_blocks(mask, 1000, Reach(METRES, 40)), mask.shape, METRES)


def tidy(mask):
    return straightened(pruned(gathered(without_pieces(pruned(net(mask)), 20))))


def degrees(found):
    return sorted(found.degrees[found.degrees > 0].tolist())


def test_a_crossing_is_four_lines_that_meet_in_its_middle():
    found = tidy(cross())
    assert degrees(found) == [1, 1, 1, 1, 4]
    np.testing.assert_allclose(found.at[found.degrees == 4], [[100.25, 100.25]], atol=0.5)


def test_the_two_junctions_of_a_skewed_crossing_become_one():
    y, x = np.mgrid[:400, :400] - 200
    mask = (np.abs(y) <= 8) | (np.abs(x - 0.8 * y) <= 9)
    assert (net(mask).degrees == 3).sum() == 2
    assert degrees(tidy(mask)) == [1, 1, 1, 1, 4]


def test_the_main_road_goes_straight_through_a_junction():
    mask = np.zeros((400, 400), bool)
    mask[192:209] = True
    mask[200:, 195:206] = True
    found = tidy(mask)
    assert degrees(found) == [1, 1, 1, 3]
    [[x, y]] = found.at[found.degrees == 3]
    assert (x, y) == (pytest.approx(100.25, abs=0.5), pytest.approx(100.25, abs=0.5))


def test_a_roundabout_keeps_its_ring_and_its_junctions():
    mask = ring(400, 40, 7)
    mask[196:205, :160] = mask[196:205, 240:] = mask[:160, 196:205] = True
    found = tidy(mask)
    assert degrees(found) == [1, 1, 1, 3, 3, 3]
    around = [line for line, ends in zip(found.lines, found.ends, strict=True) if (found.degrees[ends] == 3).all()]
    assert len(around) == 3


def test_a_ring_that_meets_nothing_stays_round():
    found = tidy(ring())
    [line] = [smoothed_ring(line[:, :2], 0.5) for line in found.lines]
    [line] = simplified([line], 0.5)
    polygon = shapely.Polygon(line)
    assert polygon.area == pytest.approx(np.pi * 30**2, rel=0.06)
    assert len(line) > 6


def test_spurs_go_and_side_streets_stay():
    mask = np.zeros((400, 400), bool)
    mask[192:209] = True
    mask[178:200, 100:106] = True  # 7 m beyond the road's middle
    mask[100:200, 300:309] = True
    assert degrees(tidy(mask)) == [1, 1, 1, 3]


def test_a_parked_car_makes_no_loop():
    mask = np.zeros((200, 400), bool)
    mask[90:111] = True
    mask[96:100, 200:210] = False
    assert degrees(tidy(mask)) == [1, 1]


def test_short_pieces_on_their_own_go():
    mask = np.zeros((200, 400), bool)
    mask[90:101] = True
    mask[150:156, 50:70] = True
    found = pruned(net(mask))
    assert len(found.lines) == 2
    assert len(without_pieces(found, 20).lines) == 1
    assert len(without_pieces(found, 0).lines) == 2


def test_two_carriageways_stay_two_lines():
    mask = np.zeros((200, 400), bool)
    mask[80:95] = mask[105:120] = True
    found = tidy(mask)
    assert [round(float(line[:, 1].mean()), 1) for line in found.lines] == [43.8, 56.2]


def test_smoothing_leaves_the_ends_and_straight_lines():
    wavy = np.stack([np.arange(0, 50, 0.5), np.tile([0, 0.5], 50)], axis=1)
    found = smoothed(wavy, 0.5)
    np.testing.assert_array_equal(found[[0, -1]], wavy[[0, -1]])
    assert np.ptp(found[20:-20, 1]) < 0.05
    straight = np.stack([np.arange(0, 50, 0.5), np.arange(0, 50, 0.5)], axis=1)
    np.testing.assert_allclose(smoothed(straight, 0.5)[:, 0], smoothed(straight, 0.5)[:, 1], atol=1e-9)


def test_a_small_ring_is_not_simplified_away():
    line = np.array([(0, 0), (0.4, 0), (0.4, 0.4), (0, 0.4), (0, 0)], float)
    assert len(simplified([line], 5)[0]) == 5


def test_no_lines_are_no_lines():
    assert tidy(np.zeros((50, 50), bool)).lines == []


def gap(width):
    """A road that ends so many pixels before another, and one that goes on after a gap."""
    mask = np.zeros((300, 400), bool)
    mask[:, 290:311] = True
    mask[100:109, : 290 - width] = True
    mask[200:209, :100] = mask[200:209, 100 + width : 200] = True
    return mask


def test_gaps_are_bridged_by_lines_of_their_own_where_asked():
    net_of_gaps = pruned(net(gap(16)))  # 8 m
    found = straightened(bridged(net_of_gaps, 10))
    bridges = [line for line in found.lines if np.isnan(line[:, 3]).any()]
    assert len(bridges) == 2
    assert degrees(found) == [1, 1, 1, 1, 1, 2, 2, 2, 3]
    assert all(np.ptp(line[:, 1]) < 1 for line in bridges)
    kept = bridged(net_of_gaps, 4)
    assert not any(np.isnan(line).any() for line in kept.lines)
    assert degrees(kept) == degrees(net_of_gaps)


def test_an_end_is_not_joined_to_what_lies_beside_it():
    mask = np.zeros((200, 400), bool)
    mask[80:91, 20:300] = mask[100:111, 20:300] = True
    assert len(bridged(net(mask), 10).lines) == 2
