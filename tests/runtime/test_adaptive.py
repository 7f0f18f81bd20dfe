"""One view first, the other seven where it leaves doubt."""

import numpy as np
import pytest

from dlink.runtime import BadInput, HostBackend, Segmenter, Spec
from dlink.runtime.adaptive import DOUBT, Adaptive, doubt_of

SIDE = 32


class Counting(HostBackend):
    """A network that is as sure as its pixels are far from 127, and says how many views it saw."""

    def __init__(self, most=3):
        super().__init__(self.run, Spec(tile=SIDE), max_tiles=most)
        self.seen = []

    def run(self, x):
        self.seen.append(len(x))
        return 1 / (1 + np.exp(-8 * x[:, 0] - np.linspace(0, 0.5, SIDE, dtype=np.float32)))


def tiles(*values):
    return np.stack([np.full((SIDE, SIDE, 3), value, np.uint8) for value in values])


def test_sure_tiles_get_one_view_and_doubtful_ones_all_eight():
    backend = Counting()
    adaptive = Adaptive(backend)
    given = tiles(0, 127, 255)
    found = adaptive.probabilities(given)
    assert backend.seen == [3, *[1] * 7]
    np.testing.assert_allclose(found[1], Counting().probabilities(given[1:2])[0], atol=1e-6)
    np.testing.assert_array_equal(found[[0, 2]], Counting().probabilities(given[[0, 2]], (0,)))
    assert (adaptive.tiles, adaptive.doubtful) == (3, 1)
    assert adaptive.views_a_tile == pytest.approx(1 + 7 / 3)


@pytest.mark.parametrize(("doubt", "views"), [(0.0, 8), (0.5, 1)])
def test_the_limit_goes_from_all_views_to_one(doubt, views):
    adaptive = Adaptive(Counting(), doubt)
    adaptive.probabilities(tiles(120, 127, 200))
    assert adaptive.views_a_tile == views


def test_doubt_is_the_mean_of_each_pixels_deviation():
    prob = np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32)
    assert doubt_of(prob) == pytest.approx(float(np.sqrt(prob * (1 - prob)).mean()), rel=1e-5)
    assert doubt_of(np.ones((4, 4), np.float32)) == 0
    assert doubt_of(np.full((4, 4), 0.5, np.float32)) == 0.5


@pytest.mark.parametrize("doubt", [-0.1, 0.6, float("nan")])
def test_other_limits_are_refused(doubt):
    with pytest.raises(BadInput, match="doubt must be from 0 to 0.5"):
        Segmenter(Counting(), doubt=doubt)


def test_it_is_a_number_of_views_like_the_others_for_images_of_any_size():
    image = np.random.default_rng(1).integers(90, 160, (50, 90, 3), np.uint8)
    with Segmenter(Counting(), doubt=0.0) as model:
        np.testing.assert_allclose(model.probabilities(image, "adaptive"), model.probabilities(image, 8), atol=1e-6)
        np.testing.assert_array_equal(model.mask(image, "adaptive"), model.submit(image, "adaptive").result())
        levels = model.levels(image, "adaptive")
        assert levels.dtype == np.uint8
        assert abs(levels - model.probabilities(image, 8) * 255).max() <= 0.5 + 1e-3
    assert 0 < DOUBT < 0.5
