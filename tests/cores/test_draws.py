"""Counter-based numbers and the transforms of one word."""

import numpy as np
import pytest
from scipy import stats

from xptools.cores.draws import Alias, Draws, power_law, truncated_normal, truncated_normal_share


def test_any_stretch_of_a_stream_can_be_made_alone():
    whole = Draws(7, 0, 1000).uniform("parallax")
    for first, n in ((0, 1), (1, 3), (4, 4), (13, 500), (998, 2), (999, 1), (500, 0)):
        assert np.array_equal(Draws(7, first, n).uniform("parallax"), whole[first : first + n])
    far = Draws(7, 2**34 + 1, 5).uniform("parallax")
    assert np.array_equal(far[2:], Draws(7, 2**34 + 3, 3).uniform("parallax"))


def test_streams_and_seeds_are_unrelated():
    n = 100_000
    a, b, c = Draws(1, 0, n).uniform("a"), Draws(1, 0, n).uniform("b"), Draws(2, 0, n).uniform("a")
    for x, y in ((a, b), (a, c), (a[1:], a[:-1])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(n)
    assert stats.kstest(a, "uniform").pvalue > 1e-3
    assert 0 < a.min() and a.max() < 1


def test_picked_stars_keep_their_numbers():
    draws = Draws(3, 40, 100)
    index = np.array([5, 0, 99])
    assert np.array_equal(draws.at(index).uniform("x"), draws.uniform("x")[index])
    assert np.array_equal(draws.at(index).normal("x"), draws.normal("x")[index])


def test_normal_and_truncated_normal_follow_their_laws():
    draws = Draws(5, 0, 50_000)
    assert stats.kstest(draws.normal("n"), "norm").pvalue > 1e-3
    x = truncated_normal(draws.uniform("t"), -1.45, 0.4, -2.5, -0.7)
    law = stats.truncnorm((-2.5 + 1.45) / 0.4, (-0.7 + 1.45) / 0.4, -1.45, 0.4)
    assert stats.kstest(x, law.cdf).pvalue > 1e-3
    edges = np.array([-2.5, -1.7, -1.1, -0.7])
    np.testing.assert_allclose(truncated_normal_share(edges, -1.45, 0.4, -2.5, -0.7), np.diff(law.cdf(edges)))


@pytest.mark.parametrize("alpha", [-2.7, -1.0, -1.0 + 1e-12, 0.0, 2.0])
def test_power_law_is_the_inverse_of_its_integral(alpha):
    u = np.linspace(0.01, 0.99, 50)
    x = power_law(u, 0.1, 0.5, alpha)
    p = alpha + 1
    share = np.log(x / 0.1) / np.log(5) if abs(p) < 1e-9 else (x**p - 0.1**p) / (0.5**p - 0.1**p)
    np.testing.assert_allclose(share, u, rtol=1e-9)


def test_alias_gives_each_outcome_its_share():
    weights = np.array([0.0, 5.0, 1e-6, 2.0, 0.0, 3.0])
    u = (np.arange(600_000) + 0.5) / 600_000
    counts = np.bincount(Alias.of(weights).draw(u), minlength=6)
    np.testing.assert_allclose(counts / 600_000, weights / weights.sum(), atol=1e-5)
    assert counts[0] == counts[4] == 0


def test_alias_of_one_outcome():
    assert (Alias.of(np.array([2.0])).draw(np.array([0.0, 0.5, 1.0])) == 0).all()
