"""Errors of [Fe/H] measured on known stars: closed forms where the law is known."""

import numpy as np
import pytest
from scipy.special import ndtr

from xptools.cores import bins, response
from xptools.cores.errortable import CLASS, GRID, ErrorTable


def known(n=40_000, seed=0):
    """Stars whose errors have a bias that runs with [Fe/H], a width that runs with mass, and tails."""
    rng = np.random.default_rng(seed)
    mass, feh = rng.uniform(0.2, 0.7, n), rng.uniform(-2.5, -0.5, n)
    off = -0.3 * (feh + 1.5) + (0.1 + 0.2 * (mass - 0.2)) * rng.standard_normal(n)
    tail = rng.random(n) < 0.05
    off[tail] += rng.normal(0.0, 0.6, tail.sum())
    return ErrorTable.of(mass, feh + off, feh)


@pytest.mark.parametrize(("mass", "feh"), [(0.3, -2.0), (0.6, -1.2)])
def test_the_distribution_at_a_place(mass, feh):
    found = known().distribution(np.array([mass]), np.array([feh]))[0]
    width, bias = 0.1 + 0.2 * (mass - 0.2), -0.3 * (feh + 1.5)
    truth = 0.95 * ndtr((GRID - bias) / width) + 0.05 * ndtr((GRID - bias) / np.hypot(width, 0.6))
    assert np.abs(found - truth).max() < 0.06
    assert (np.diff(found) >= -1e-12).all() and found[0] == 0 and found[-1] == 1


def test_few_stars_stand_for_all():
    few = known(60)
    one, other = few.distribution(np.array([0.21, 0.69]), np.array([-2.4, -0.6]))
    assert 0 < np.interp(0.0, GRID, one) < 1 and 0 < np.interp(0.0, GRID, other) < 1


def test_the_response_is_how_stars_scatter():
    fine = np.linspace(0.2, 0.7, 6)
    volume = np.ones((2, 5))
    table = bins.BinTable(fine, np.array([-2.0, -1.7, -1.4]), volume, 0 * volume, np.ones((2, 5, bins.POINTS)))
    stars, other = known(120_000), known(120_000, seed=1)
    counts = response.count(table, *(np.zeros(0) for _ in range(3)))
    truth = response.truth_of(table, counts, stars.spread(table.feh_edges))
    edges, _ = response.slices(table.feh_edges)
    P = response.measured_matrix(truth, edges, stars)
    k, c = 2, len(truth.bin) // 2
    lo, hi = truth.feh_edges[c : c + 2]
    mine = (other.feh >= lo) & (other.feh < hi) & (other.mass >= fine[k]) & (other.mass < fine[k + 1])
    seen = np.histogram((other.feh + other.off)[mine], edges)[0] / mine.sum()
    np.testing.assert_allclose(P[k, :, c], seen, atol=0.03)
    assert truth.feh_edges[0] < -2.3 and stars.seen(fine, edges).sum() < 120_000


def test_classes_of_stated_errors_tell_sharp_stars_from_others():
    """Half the stars have errors of 0.05 dex, half of 0.3; at low [Fe/H] the former are fewer."""
    rng = np.random.default_rng(4)
    mass, feh = rng.uniform(0.2, 0.7, 60_000), rng.uniform(-2.5, -0.5, 60_000)
    err = np.where(rng.random(60_000) < 0.5 + 0.2 * (feh + 1.5), 0.05, 0.3)
    stars = ErrorTable.of(mass, feh + err * rng.standard_normal(60_000), feh, err)
    classes = stars.classes(response.CLASSES)
    assert list(classes) == [0.0, 0.07, np.inf] and CLASS < 60_000
    mass, feh = np.full(2, 0.45), np.array([-2.0, -1.0])
    found = stars.shares(classes, mass, feh)
    np.testing.assert_allclose(found[:, 0], 0.5 + 0.2 * (feh + 1.5), atol=0.05)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    for low, high, sigma in ((0.0, 0.07, 0.05), (0.07, np.inf, 0.3)):
        ours = stars.part(low, high).distribution(mass, feh)
        assert np.abs(ours - ndtr(GRID / sigma)).max() < 0.08
