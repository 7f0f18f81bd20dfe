"""Bounds of a mean: known values, and how often they hold in simulations."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from dlink.accuracy.bounds import fewest, lower_bound, p_value, upper_bound


@pytest.mark.parametrize(("n", "k"), [(10, 0), (10, 3), (300, 1), (59, 0), (20, 19)])
def test_losses_of_0_or_1_have_the_bound_of_clopper_and_pearson(n, k):
    losses = [1.0] * k + [0.0] * (n - k)
    assert upper_bound(losses, 0.95, binary=True) == pytest.approx(beta.ppf(0.95, k + 1, n - k), abs=1e-9)
    assert lower_bound(losses, 0.95, binary=True) == pytest.approx(beta.ppf(0.05, k, n - k + 1) if k else 0, abs=1e-9)


def test_the_largest_loss_of_all_tiles_bounds_nothing():
    assert upper_bound([1.0] * 5, 0.95, binary=True) == upper_bound([1.0] * 5, 0.95, binary=False) == 1
    assert upper_bound([], 0.95, binary=True) == upper_bound([], 0.95, binary=False) == 1


@pytest.mark.parametrize("binary", [True, False])
def test_without_a_loss_the_bound_is_three_by_n(binary):
    assert upper_bound([0.0] * 1000, 0.95, binary) == pytest.approx(1 - 0.05 ** (1 / 1000), abs=1e-12)


def test_other_losses_have_hoeffdings_and_bentkus_bound():
    assert p_value(100, 9.9, 0.2, binary=False) == pytest.approx(np.e * binom.cdf(10, 100, 0.2))
    kl = 0.001 * np.log(0.001 / 0.05) + 0.999 * np.log(0.999 / 0.95)
    assert np.exp(-100 * kl) < np.e * binom.cdf(1, 100, 0.05)
    assert p_value(100, 0.1, 0.05, binary=False) == pytest.approx(np.exp(-100 * kl))


def test_so_many_tiles_are_the_fewest_that_can_show_a_bound():
    assert [fewest(a, 0.95) for a in (0.05, 0.01, 0.001)] == [59, 299, 2995]
    for bound in (0.05, 0.01):
        n = fewest(bound, 0.95)
        assert upper_bound([0.0] * n, 0.95, binary=True) <= bound < upper_bound([0.0] * (n - 1), 0.95, binary=True)


def rare(rng, n):
    """Mostly nothing is lost, and in one tile of fifty all of it."""
    return (rng.random(n) < 0.02).astype(float), 0.02, True


def parts(rng, n):
    """One tile of ten loses a part, from none to all."""
    return np.where(rng.random(n) < 0.1, rng.random(n), 0.0), 0.05, False


def skewed(rng, n):
    """All tiles lose a little."""
    return rng.beta(0.05, 1.0, n), 0.05 / 1.05, False


@pytest.mark.parametrize("n", [20, 150, 600])
@pytest.mark.parametrize("draw", [rare, parts, skewed])
def test_the_bounds_hold_as_often_as_they_say(draw, n):
    rng = np.random.default_rng(n)
    above = below = 0
    for _ in range(400):
        losses, mean, binary = draw(rng, n)
        given = losses.tolist()
        above += mean <= upper_bound(given, 0.9, binary)
        below += mean >= lower_bound(given, 0.9, binary)
    slack = 3 * np.sqrt(400 * 0.1 * 0.9)
    assert above >= 360 - slack and below >= 360 - slack
