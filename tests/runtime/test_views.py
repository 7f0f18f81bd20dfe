import numpy as np
import pytest

from dlink.runtime.errors import BadInput
from dlink.runtime.views import ALL, BY_COUNT, apply_view, check_views, undo_view


@pytest.mark.parametrize("view", ALL)
def test_unlook_undoes_look(view):
    a = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    np.testing.assert_array_equal(undo_view(apply_view(a, view), view), a)


def test_order_is_that_of_the_authors():
    # test.py: [I, R] -> + top-bottom -> + left-right, R a quarter turn by np.rot90
    a = np.arange(16).reshape(4, 4)
    pair = [a, np.rot90(a)]
    four = pair + [v[::-1] for v in pair]
    eight = four + [v[:, ::-1] for v in four]
    for view, expected in enumerate(eight):
        np.testing.assert_array_equal(apply_view(a, view), expected)


def test_the_eight_views_differ():
    a = np.arange(16).reshape(4, 4)
    assert len({apply_view(a, view).tobytes() for view in ALL}) == 8


def test_looking_copies_nothing():
    a = np.zeros((1, 3, 8, 8), np.float32)
    assert all(np.shares_memory(apply_view(a, view), a) for view in ALL)


def test_four_views_are_the_flips():
    a = np.arange(16).reshape(4, 4)
    flips = [a, a[::-1], a[:, ::-1], a[::-1, ::-1]]
    for view, expected in zip(BY_COUNT[4], flips, strict=True):
        np.testing.assert_array_equal(apply_view(a, view), expected)


@pytest.mark.parametrize("views", [(), (8,), (-1,), (0, 0), (0.5,)])
def test_other_numbers_are_no_views(views):
    with pytest.raises(BadInput, match="different numbers from 0 to 7"):
        check_views(views)
