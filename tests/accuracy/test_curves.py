import numpy as np
import pytest

from dlink.accuracy.curves import STEPS, THRESHOLDS, Calibration, Curve, Histograms, best, histogram
from dlink.runtime.segmenter import as_mask


def counted(prob, label):
    return histogram(np.array([prob], np.float32), np.array([label], bool)).astype(float)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    prob = rng.random((50, 60), np.float32)
    prob[:10] = rng.integers(0, STEPS + 1, (10, 60)) / STEPS  # on the thresholds themselves
    return prob, rng.random((50, 60)) < prob


@pytest.mark.parametrize("i", [0, 1, 300, 500, 700, 999])
def test_every_threshold_counts_what_its_mask_has(pair, i):
    prob, label = pair
    curve = Curve.of(histogram(prob, label).astype(float))
    mask = as_mask(prob, float(THRESHOLDS[i])) > 0
    assert curve.precision[i] == (mask & label).sum() / mask.sum()
    assert curve.recall[i] == (mask & label).sum() / label.sum()
    assert curve.iou[i] == (mask & label).sum() / (mask | label).sum()


def test_tiles_are_pooled(pair):
    prob, label = pair
    histograms = Histograms()
    histograms.add(prob[:20], label[:20])
    histograms.add(prob[20:], label[20:])
    np.testing.assert_array_equal(histograms.pooled(), histogram(prob, label))


def test_no_tiles_have_nothing_to_count():
    assert np.isnan(Curve.of(Histograms().pooled()).iou).all()
    assert Calibration.of(Histograms().pooled()).error is None


def test_the_best_threshold_is_in_the_middle_of_those_that_are_as_good():
    # Road is at 0.6, the rest at 0.2: thresholds 0.200 to 0.599 part them.
    curve = Curve.of(counted([0.2, 0.2, 0.6], [0, 0, 1]))
    assert (curve.iou[199], curve.iou[200], curve.iou[599], curve.iou[600]) == (1 / 3, 1, 1, 0)
    assert curve.best == (200 + 599) // 2


def test_an_equal_threshold_elsewhere_does_not_move_the_best():
    iou = np.zeros((2, STEPS))
    iou[0, [100, 101, 102, 900]] = 0.5
    iou[1, 999] = 0.5
    assert best(iou).tolist() == [101, 999]


def test_honest_probabilities_have_no_error():
    # Of ten pixels at 0.3 three are road, of ten at 0.9 nine.
    found = Calibration.of(counted([0.3] * 10 + [0.9] * 10, [1] * 3 + [0] * 7 + [1] * 9 + [0]))
    assert found.error == pytest.approx(0, abs=0.001)
    assert found.pixels.tolist() == [0, 0, 10, 0, 0, 0, 0, 0, 10, 0]


def test_boastful_probabilities_have_one():
    # 0.95 for all, and half is road.
    found = Calibration.of(counted([0.95] * 4, [1, 1, 0, 0]))
    assert found.error == pytest.approx(0.45, abs=0.001)
    assert (found.probability[9], found.share[9]) == (pytest.approx(0.95, abs=0.001), 0.5)
    assert np.isnan(found.share[0])


def test_zero_and_one_are_in_the_first_and_last_bin():
    found = Calibration.of(counted([0, 1, 1], [0, 1, 1]))
    assert (found.pixels[0], found.pixels[9], found.error) == (1, 2, pytest.approx(0, abs=0.001))
