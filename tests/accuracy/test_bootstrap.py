import numpy as np
import pytest

from dlink.accuracy.bootstrap import DRAWS, Estimate, draws, estimate, levels, loss, ratio, student


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def of_mean(values):
    return estimate(np.stack([values, np.ones(len(values))], axis=1), mean)


def test_a_figure_of_equal_tiles_has_no_width():
    assert estimate(np.array([[3, 4]] * 5), ratio) == Estimate(0.75, 0.75, 0.75, 5)


def test_a_pooled_ratio_is_of_the_sums():
    assert estimate(np.array([[1, 2], [8, 8]]), ratio).value == 9 / 10


def test_a_loss_is_the_difference_of_two_pooled_ratios():
    assert estimate(np.array([[1, 2, 1, 4], [3, 6, 1, 4]]), loss).value == 4 / 8 - 2 / 8


def test_a_difference_is_paired():
    # Tiles that differ a lot, and a loss of exactly one tenth on each: the tiles' spread is in neither end.
    a = np.array([10.0, 50, 90])
    columns = np.stack([a, [100.0] * 3, a - 10, [100.0] * 3], axis=1)
    found = estimate(columns, loss)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_one_tile_has_no_interval():
    assert estimate(np.array([[1, 2]]), ratio) == Estimate(0.5, None, None, 1)


def test_nothing_counted_is_no_figure():
    assert estimate(np.zeros((3, 2)), ratio) == Estimate(None, None, None, 3)


def test_no_tiles_are_no_figure():
    assert estimate(np.zeros((0, 2)), ratio) == Estimate(None, None, None, 0)


def test_draws_without_a_figure_are_left_out():
    # Of two tiles one has no road at all: a quarter of the draws hold it alone.
    assert estimate(np.array([[0, 0], [1, 2]]), ratio) == Estimate(0.5, 0.5, 0.5, 2)


def test_the_same_tiles_give_the_same_interval():
    values = np.random.default_rng(1).normal(size=30)
    assert of_mean(values) == of_mean(values)


@pytest.mark.parametrize("tiles", [2, 14, 1000])
def test_every_draw_has_as_many_tiles_as_there_are(tiles):
    sums = np.concatenate([counts.sum(axis=1) for counts in draws(tiles)])
    assert sums.tolist() == [tiles] * DRAWS


@pytest.mark.parametrize(("freedom", "t"), [(2, 4.3027), (5, 2.5706), (13, 2.1604), (30, 2.0423), (1000, 1.9623)])
def test_students_quantiles_are_those_of_the_tables(freedom, t):
    assert student(0.975, freedom) == pytest.approx(t, rel=0.03 if freedom == 2 else 0.001)


def test_levels_move_outward_for_few_tiles():
    assert levels(14)[0] == pytest.approx(0.0125, abs=0.0001)  # Phi(-sqrt(14 / 13) * 2.1604)
    assert levels(100_000)[0] == pytest.approx(0.025, abs=0.0001)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(2).normal(size=14)
    found = of_mean(values)
    half = 2.1604 * values.std(ddof=1) / np.sqrt(14)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_95_of_100_intervals_of_14_tiles_hold_the_truth():
    rng = np.random.default_rng(3)
    held = [f.low <= 0 <= f.high for f in (of_mean(rng.normal(size=14)) for _ in range(300))]
    assert 0.92 <= np.mean(held) <= 0.98
