"""Pairs counted as stars: closed forms, and systems drawn one by one."""

import numpy as np
import pytest

from xptools.cores import bins, pairs
from xptools.cores.pairs import Pairs

EDGES = np.linspace(0.2, 0.8, 7)


def light(mass):
    """M_G = -10 lg M, one colour: the light of two adds to that of M^4 laws."""
    return np.where(np.asarray(mass) > 0.1, -10.0 * np.log10(np.maximum(mass, 1e-9)) + 5.0, np.nan), np.ones_like(mass)


def scale(M_G, colour):
    """The mass that `light` has."""
    return 10 ** (-(M_G - 5.0) / 10.0)


def table(volume):
    veff, fine = bins.average(volume, EDGES)
    return bins.BinTable(EDGES, np.array([-1.6, -1.4]), veff[None], 0.0 * veff[None], fine[None])


def test_a_pair_adds_its_light():
    q = np.array([1e-3, 0.1, 0.5, 1.0])
    mass, M_G = pairs.counted(np.full(4, 0.5), q, light, scale)
    known = 0.5 * np.array([1.0, 1.0, (1 + 0.5**4) ** 0.25, 2**0.25])  # the first two companions are dark
    np.testing.assert_allclose(mass, known, rtol=1e-9)
    assert M_G[3] == pytest.approx(light(0.5)[0] - 2.5 * np.log10(2))


@pytest.mark.parametrize(("exponent", "mean"), [(0.0, 0.5), (1.0, 2 / 3), (-0.5, 1 / 3), (-1.0, 1 / np.log(1000))])
def test_ratios_follow_their_law(exponent, mean):
    assert Pairs(0.4, exponent).ratios(4000).mean() == pytest.approx(mean, rel=0.04)
    assert (Pairs(0.4, None).ratios() == 1).all()


def test_no_pairs_no_change():
    np.testing.assert_array_equal(pairs.mixing(table(np.ones_like), 0, Pairs(0.0), light, scale), np.eye(6))


@pytest.mark.parametrize("slope", [0.0, -4.0])
def test_twins_move_by_a_known_factor(slope):
    """M -> 2^(1/4) M, V ~ M^5 -> 2^(5/4) V, Phi ~ M^slope; the lowest bin gets those from below too."""
    T = pairs.mixing(table(lambda m: m**5), 0, Pairs(1.0, None), light, scale, slopes=slope)
    k = 3  # 0.5 to 0.6 Msun: lands between 0.595 and 0.714
    m = np.linspace(0.5, 0.6, 200_001)
    m = 0.5 * (m[1:] + m[:-1])
    seen = np.histogram(2**0.25 * m, EDGES, weights=2**1.25 * m ** (5 + slope))[0] / (m ** (5 + slope)).sum()
    np.testing.assert_allclose(T[:, k], seen, atol=0.015)
    assert T[:, k].sum() == pytest.approx(2**1.25, rel=0.01)
    assert pairs.mixing(table(lambda m: m**5), 0, Pairs(1.0, None, cut=0.5), light, scale).sum() == 0


def test_systems_drawn_one_by_one_are_counted_so():
    """A slow, obvious Monte Carlo of one bin's systems, V constant in it."""
    rng = np.random.default_rng(1)
    t = table(lambda m: m**5)
    T = pairs.mixing(t, 0, Pairs(0.4, 0.7), light, scale)
    k, N = 2, 400_000
    m = EDGES[k] + 0.1 * rng.random(N)
    double = rng.random(N) < 0.4
    q = rng.random(N) ** (1 / 1.7)
    both = np.where(double, (m**4 + np.where(q * m > 0.1, q * m, 0.0) ** 4) ** 0.25, m)
    seen = np.histogram(both, EDGES, weights=both**5)[0] / (m**5).sum()
    single = T[:, k] - 0.6 * np.eye(6)[k]
    got = seen - np.histogram(m[~double], EDGES, weights=m[~double] ** 5)[0] / (m**5).sum()
    np.testing.assert_allclose(single, got, atol=0.006)


def test_companions_are_as_many_as_pairs():
    C = pairs.companions(table(np.ones_like), Pairs(0.4, None))
    np.testing.assert_allclose(C, 0.4 * np.eye(6))
    flat = pairs.companions(table(np.ones_like), Pairs(0.4))
    assert flat[:, 5].sum() == pytest.approx(0.4 * (1 - 0.2 / 0.75), rel=0.01)
