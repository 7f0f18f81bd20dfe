"""The lines of a mask by blocks are those of the whole mask, and thinning reaches no further than it says."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import thin as thin_of_skimage

from dlink.maps.blocks import LostBlock, Reach, cores, filled, join, lines_of
from dlink.maps.chains import chained
from dlink.maps.thinning import REACH, thin
from tests.maps.masks import blobs, cross, lines_by_blocks, parts_of, reader, ring

masks = st.builds(
    blobs,
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([0, 0.5, 1, 2, 4]),
    st.sampled_from([-0.5, 0, 0.5]),
)


def same(some, others):
    return len(some) == len(others) and all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(5, 60), st.floats(3, 30), st.sampled_from([(1.0, 1.0), (1.0, 0.6), (0.7, 1.0)]))
def test_lines_by_blocks_are_those_of_the_whole_mask(mask, side, widest, metres):
    reach = Reach(metres, widest)
    assert same(lines_by_blocks(mask, side, reach), lines_by_blocks(mask, 1000, reach))


@pytest.mark.parametrize("side", [17, 64])
def test_drawn_roads_by_blocks_are_those_of_the_whole_mask(side):
    for mask in (cross(150, 4), ring(150, 40, 5), np.ones((150, 150), bool), np.eye(150, dtype=bool)):
        reach = Reach((1.0, 1.0), 20)
        assert same(lines_by_blocks(mask, side, reach), lines_by_blocks(mask, 1000, reach))


def test_a_halo_that_is_too_small_is_noticed():
    """Otherwise the tests above would show nothing."""

    class Short(Reach):
        halo = 4

    mask = blobs(1, (90, 90), 4)
    whole = lines_by_blocks(mask, 1000, Reach((1.0, 1.0), 30))
    with suppress(LostBlock):
        assert not same(lines_by_blocks(mask, 20, Short((1.0, 1.0), 30)), whole)


def test_the_blocks_cover_every_pixel_once():
    count = np.zeros((50, 70), int)
    for core in cores(count.shape, 16):
        count[core] += 1
    assert (count == 1).all()


def test_a_lost_block_is_named():
    parts = parts_of(cross(150, 4), 50, Reach((1.0, 1.0), 20))
    del parts[4]
    with pytest.raises(LostBlock, match=r"the block at row \d+, column \d+ do not fit together: 1 of \d ends"):
        join(parts)


def test_a_blocks_line_counts_the_ends_of_other_blocks():
    [part] = parts_of(cross(150, 4), 1000, Reach((1.0, 1.0), 20))
    wrong = replace(part, meeting=part.meeting + 1)
    with pytest.raises(LostBlock):
        join([wrong])


@pytest.mark.parametrize("passes", [1, 2, 5, 99])
def test_thinning_is_that_of_guo_and_hall(passes):
    for seed in range(12):
        mask = blobs(seed, (60, 70), seed % 4)
        np.testing.assert_array_equal(thin(mask, passes), thin_of_skimage(mask, max_num_iter=passes))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_a_pixel_depends_on_those_that_a_pass_reaches_alone(seed, passes):
    far = REACH * passes
    rng = np.random.default_rng(seed)
    one, other = rng.random((2, 61, 61)) < 0.6
    near = np.s_[30 - far : 31 + far]
    other[near, near] = one[near, near]
    assert thin(one, passes)[30, 30] == thin(other, passes)[30, 30]


@pytest.mark.parametrize("half", [5, 20, 40])
@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 110])
def test_the_passes_are_enough_for_the_widest_road(half, degrees):
    y, x = np.mgrid[-90:91, -90:91]
    angle = np.radians(degrees)
    road = np.abs(x * np.sin(angle) - y * np.cos(angle)) <= half
    reach = Reach((1.0, 1.0), 2 * half)
    np.testing.assert_array_equal(thin(road, reach.passes), thin(road, 999))


@pytest.mark.parametrize("width", range(2, 9))
def test_a_slanted_road_of_any_width_keeps_its_length(width):
    y, x = np.mgrid[:80, :80]
    road = (y >= x) & (y < x + width) & (x > 10) & (x < 70)
    assert thin(road, 20).sum() >= 55


def test_small_holes_are_filled_and_large_ones_not():
    mask = np.ones((40, 40), bool)
    mask[5:8, 5:10] = mask[20:30, 20:30] = mask[0:2, 30:32] = False
    found = filled(mask, (5, 5))
    assert found[5:8, 5:10].all()
    assert not found[20:30, 20:30].any()
    assert not found[0:2, 30:32].any()


def test_an_area_wider_than_a_road_is_left_out_and_its_roads_stay():
    mask = np.zeros((200, 200), bool)
    mask[60:140, 60:140] = True
    mask[98:103] = True
    part = lines_of(reader(mask), (slice(0, 200), slice(0, 200)), mask.shape, Reach((1.0, 1.0), 30))
    lines = join([part])
    assert part.areas
    assert len(lines) == 2
    assert all((line[:, 1] == 100).all() for line in lines)
    assert all((line[:, 0] < 60).all() or (line[:, 0] > 139).all() for line in lines)


def test_the_points_carry_half_the_width():
    mask = np.zeros((60, 200), bool)
    mask[20:31] = True
    [line] = lines_by_blocks(mask, 64, Reach((0.5, 0.5), 20))
    assert (line[:, 0].min(), line[:, 0].max()) == (0, 199)
    assert (line[:, 1] == 25).all()
    assert (line[:, 2] == 3.0).all()  # six pixels to the nearest that is no road


def test_edges_are_chained_where_two_ends_meet():
    ends = np.array([(0, 1), (2, 1), (2, 3), (3, 4), (3, 5), (6, 7), (7, 6)])
    through = np.bincount(ends.ravel()) == 2
    paths = chained(ends, through)
    assert sorted(sorted(half >> 1 for half in path) for path in paths) == [[0, 1, 2], [3], [4], [5, 6]]
