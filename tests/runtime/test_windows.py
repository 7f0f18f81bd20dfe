import numpy as np
import pytest

from dlink.runtime.errors import BadInput
from dlink.runtime.windows import cover, spans, square


@pytest.mark.parametrize("length", range(1, 70))
@pytest.mark.parametrize("halo", [0, 1, 5, 7])
def test_cores_tile_the_axis_without_gap_or_overlap(length, halo):
    kept = [i for s in spans(length, 16, halo) for i in range(s.lo, s.hi)]
    assert kept == list(range(length))


@pytest.mark.parametrize("length", range(1, 70))
@pytest.mark.parametrize("halo", [0, 1, 5, 7])
def test_cores_have_their_halo_but_at_the_edges(length, halo):
    for s in spans(length, 16, halo):
        assert 0 <= s.start <= s.lo < s.hi <= s.stop <= length
        assert s.stop - s.start == min(16, length)
        assert s.lo - s.start >= halo or s.start == 0
        assert s.stop - s.hi >= halo or s.stop == length


def test_an_image_of_one_tile_is_one_window():
    [window] = cover(16, 16, 16, 5)
    assert window.outer == window.core == window.inner == (slice(0, 16), slice(0, 16))


def test_windows_come_row_by_row():
    starts = [(w.rows.lo, w.cols.lo) for w in cover(40, 40, 16, 2)]
    assert starts == sorted(starts)


@pytest.mark.parametrize("halo", [-1, 8, 100])
def test_a_halo_that_leaves_nothing_is_refused(halo):
    with pytest.raises(BadInput, match=f"halo of {halo} px leaves nothing of a 16 px tile; it must be from 0 to 7"):
        spans(10, 16, halo)


def test_small_images_are_mirrored_at_right_and_bottom():
    image = np.arange(6, dtype=np.uint8).reshape(2, 1, 3)
    filled = square(image, 4)
    assert filled.shape == (4, 4, 3)
    np.testing.assert_array_equal(filled[:, 0], image[[0, 1, 1, 0], 0])
    assert (filled == filled[:, :1]).all()


def test_a_whole_tile_is_not_copied():
    image = np.zeros((4, 4, 3), np.uint8)
    assert square(image, 4) is image
