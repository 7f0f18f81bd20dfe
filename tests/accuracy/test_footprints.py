"""SpaceNet's score of buildings, on cases whose answer is known."""

import numpy as np
import pytest

from dlink.accuracy.footprints import Found, of_masks, of_polygons
from dlink.imagery.vectors import AREA, Shape


def drawn(*boxes, shape=(20, 40)):
    """A mask of boxes (left, top, right, bottom), right and bottom not included."""
    mask = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def polygon(left, top, right, bottom, *holes):
    rings = [[(x, y), (u, y), (u, v), (x, v), (x, y)] for x, y, u, v in ((left, top, right, bottom), *holes)]
    return Shape(AREA, tuple(np.array(ring, float) for ring in rings), {})


def both_ways(proposed, true, found):
    """The same case as masks and as polygons."""
    assert of_masks(drawn(*proposed), drawn(*true)) == found
    assert of_polygons([polygon(*b) for b in proposed], [polygon(*b) for b in true]) == found


HOUSE = (2, 2, 12, 12)


@pytest.mark.parametrize(
    ("proposed", "true", "found"),
    [
        ([], [], Found(0, 0, 0)),
        ([HOUSE], [], Found(0, 1, 0)),
        ([], [HOUSE], Found(0, 0, 1)),
        ([HOUSE], [HOUSE], Found(1, 1, 1)),
        ([(2, 2, 12, 7)], [HOUSE], Found(1, 1, 1)),  # half of it: IoU exactly 0.5
        ([(2, 2, 12, 6)], [HOUSE], Found(0, 1, 1)),  # IoU 0.4
        ([(2, 2, 22, 12)], [HOUSE], Found(1, 1, 1)),  # twice as wide: exactly 0.5 too
        ([(2, 2, 23, 12)], [HOUSE], Found(0, 1, 1)),
        # One proposal over two houses: it hits the larger one, where that is half of it.
        ([(2, 2, 24, 12)], [HOUSE, (14, 2, 24, 12)], Found(0, 1, 2)),  # 100 of 220 px each
        ([(2, 2, 19, 12)], [HOUSE, (14, 2, 19, 12)], Found(1, 1, 2)),
        # Two proposals of one house: the first of the halves takes it, though either could.
        ([(2, 2, 12, 6), (2, 7, 12, 12)], [HOUSE], Found(1, 2, 1)),
        # Each takes the house with the greatest IoU, not the first one that would do.
        ([HOUSE, (20, 2, 30, 12)], [(20, 2, 30, 12), HOUSE], Found(2, 2, 2)),
    ],
)
def test_what_is_found_of_what_is_there(proposed, true, found):
    both_ways(proposed, true, found)


def test_houses_that_share_a_wall_are_one_in_a_mask_and_two_as_polygons():
    row, houses = [(2, 2, 22, 12)], [HOUSE, (12, 2, 22, 12)]
    assert of_masks(drawn(*row), drawn(*houses)) == Found(1, 1, 1)
    assert of_polygons([polygon(*b) for b in row], [polygon(*b) for b in houses]) == Found(1, 1, 2)  # each exactly 0.5


def test_houses_that_touch_at_a_corner_are_two():
    houses = [HOUSE, (12, 12, 18, 18)]
    both_ways(houses, houses, Found(2, 2, 2))


def test_one_true_building_is_taken_once():
    """Overlapping proposals, which only polygons can be: the second finds it taken, though it fits better."""
    assert of_polygons([polygon(2, 2, 12, 11), polygon(*HOUSE)], [polygon(*HOUSE)]) == Found(1, 2, 1)


def test_a_taken_building_leaves_the_next_best():
    true = [polygon(0, 0, 10, 10), polygon(0, 0, 10, 9)]
    assert of_polygons([polygon(0, 0, 10, 10), polygon(0, 0, 10, 10)], true) == Found(2, 2, 2)


def test_a_courtyard_is_no_building():
    assert of_polygons([polygon(0, 0, 10, 10)], [polygon(0, 0, 10, 10, (1, 1, 9, 9))]) == Found(0, 1, 1)


def test_outlines_that_cross_themselves_count_and_those_without_an_area_do_not():
    bow = Shape(AREA, (np.array([(0, 0), (4, 4), (4, 0), (0, 4), (0, 0)], float),), {})
    flat = Shape(AREA, (np.array([(0, 0), (4, 4), (0, 0)], float),), {})
    point = Shape(AREA, (np.array([(0, 0), (4, 4)], float),), {})
    assert of_polygons([bow, flat, point], [bow, flat]) == Found(1, 1, 1)
