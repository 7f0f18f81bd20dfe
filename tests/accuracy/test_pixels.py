import numpy as np
import pytest

from dlink.accuracy.pixels import PixelCounts, boundary
from dlink.accuracy.road_graphs.links import components, links
from dlink.runtime import BadInput
from tests.accuracy.test_graph import drawn


def mask_of(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def counted(mask, label, buffer=None):
    counts = PixelCounts(buffer)
    counts.add(mask, label)
    return counts


def test_ratios_of_known_masks():
    c = counted(mask_of("###."), mask_of(".###"))
    assert (c.tp, c.fp, c.fn) == (2, 1, 1)
    assert (c.precision, c.recall, c.f1, c.iou) == (2 / 3, 2 / 3, 2 / 3, 1 / 2)


def test_what_is_nought_by_nought_is_none():
    c = counted(mask_of("...."), mask_of("...."), buffer=1)
    assert (c.precision, c.recall, c.f1, c.iou, c.relaxed_iou) == (None,) * 5
    assert c.mean_iou == 1


def test_within_the_buffer_a_shifted_road_is_right():
    mask, label = (drawn([(0, y), (200, y)], width=1) for y in (100, 103))
    assert counted(mask, label, buffer=2.9).relaxed_precision == 0
    near = counted(mask, label, buffer=3.0)
    assert (near.relaxed_precision, near.relaxed_recall, near.relaxed_iou) == (1, 1, 1)
    assert near.iou == 0


def test_without_a_buffer_the_relaxed_iou_is_the_plain_one():
    rng = np.random.default_rng(0)
    c = counted(rng.random((50, 50)) > 0.5, rng.random((50, 50)) > 0.6, buffer=0.0)
    assert c.relaxed_iou == pytest.approx(c.iou)


def test_pooled_counts_are_sums():
    a, b = counted(mask_of("##.."), mask_of("#...")), counted(mask_of("####"), mask_of("####"))
    assert (a + b).iou == 5 / 6
    assert (a + b).mean_iou == (0.5 + 1) / 2


def test_the_boundary_error_is_the_mean_distance_in_metres():
    mask, label = (drawn([(0, y), (200, y)], width=11) for y in (100, 104))
    assert boundary(mask, label, gsd_m=0.5).error_m == pytest.approx(4 * 0.5)
    assert boundary(mask, mask, gsd_m=0.5).error_m == 0


def test_a_road_that_is_missing_is_no_boundary_error():
    label = drawn([(0, 50), (200, 50)], [(0, 150), (200, 150)])
    assert boundary(drawn([(0, 50), (200, 50)]), label, gsd_m=0.5).error_m == 0
    assert boundary(np.zeros_like(label), label, gsd_m=0.5).error_m is None


@pytest.mark.parametrize(
    ("mask", "label", "message"),
    [
        (np.zeros((4, 4), bool), np.zeros((4, 5), bool), "the mask is 4 x 4 px, its label 5 x 4"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool), r"a mask must be bool \(H, W\), got uint8"),
    ],
)
def test_what_are_no_pair_is_refused(mask, label, message):
    with pytest.raises(BadInput, match=message):
        counted(mask, label)


def test_a_cut_breaks_one_link_and_a_bridge_is_one_too_many():
    whole, cut = drawn([(0, 100), (200, 100)]), drawn([(0, 100), (80, 100)], [(120, 100), (200, 100)])
    found = links(cut, whole, gsd_m=0.5)
    assert (found.broken, found.bridged, found.components) == (1, 0, 2)
    assert found.km == pytest.approx(0.1, abs=0.002)
    assert found.broken_per_km == pytest.approx(10, rel=0.03)
    other = links(whole, cut, gsd_m=0.5)
    assert (other.broken, other.bridged) == (0, 1)


def test_a_road_that_ends_early_breaks_nothing():
    found = links(drawn([(0, 100), (120, 100)]), drawn([(0, 100), (200, 100)]), gsd_m=0.5)
    assert found.broken == 0


def test_an_arm_cut_off_at_a_crossroads_is_one_broken_link():
    whole = drawn([(0, 100), (200, 100)], [(100, 0), (100, 200)])
    cut = whole.copy()
    cut[85:92] = False  # the arm to the north
    assert links(cut, whole, gsd_m=0.5).broken == 1
    assert links(whole, whole, gsd_m=0.5).broken == 0


def test_pieces_touch_by_corners():
    assert components(mask_of("#..#", ".#..")) == 2
    assert components(mask_of("....")) == 0


def test_without_road_there_are_no_links_a_km():
    nothing = np.zeros((50, 50), bool)
    assert links(nothing, nothing, gsd_m=0.5).broken_per_km is None
