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
    assert truth.feh_edges[0] < -2.3


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


@pytest.fixture(scope="module")
def crooked():
    """[Fe/H] that piles up at -1.65, masses 0.02 Msun too low above 0.5; (table, counts, truth, slices, draw)."""
    edges, volume = np.linspace(0.2, 0.7, 6), np.ones((2, 5))
    table = bins.BinTable(edges, np.array([-2.0, -1.7, -1.4]), volume, 0 * volume, np.ones((2, 5, bins.POINTS)))
    counts = response.count(table, *(np.zeros(0) for _ in range(3)))

    def draw(n, seed):
        rng = np.random.default_rng(seed)
        true_mass, feh = rng.uniform(0.1, 0.8, n), rng.uniform(-2.5, -0.9, n)
        found = np.where(rng.random(n) < 0.4, -1.65, feh + 0.15 * rng.standard_normal(n))
        mass = true_mass - 0.02 * (true_mass > 0.5) + 0.01 * rng.standard_normal(n)
        return ErrorTable.of(mass, found, feh, np.full(n, 0.15), true_mass)

    return table, counts, response.truth_of(table, counts, 0.2), response.slices(table.feh_edges)[0], draw


def test_where_many_are_known_it_is_they_that_count(crooked):
    """A pile-up at one measured [Fe/H], which is no shift of what happens at the next true [Fe/H]."""
    _, counts, truth, edges, draw = crooked
    *_, given, share = response.by_known(truth, counts, edges, draw(150_000, 1))
    other = draw(400_000, 2)
    cells = other.cells(truth.mass_edges[1:-1], truth.feh_edges, response.CLASSES[[0, -1]], edges)
    seen = cells[:, 0, :-1] / cells[:, 0].sum(axis=1, keepdims=True)
    noise = np.sqrt(seen * (1 - seen) * (1 / cells[:, 0].sum(axis=1, keepdims=True) * (1 + 400 / 150))) + 1e-3
    off = (given[:, 0] * share - seen) / noise
    assert np.sqrt(np.mean(off**2)) < 1.3 and np.abs(off).max() < 6
    nearby = response.measured_matrix(truth, edges, draw(150_000, 1))
    assert np.sqrt(np.mean(((nearby - seen) / noise) ** 2)) > 2  # what the stars near a cell say is not enough


def test_known_masses_tell_what_stated_errors_do_not(crooked):
    table, counts, truth, _, draw = crooked
    stars, other = draw(100_000, 3), draw(400_000, 4)
    measured, stated = response.mass_matrix(truth, counts, stars), response.mass_matrix(truth, counts)
    of = other.masses(truth.mass_edges, truth.feh_edges, table.mass_edges)
    seen = (of[:, :-1] / of.sum(axis=1, keepdims=True)).transpose(1, 0, 2)
    off = [np.sqrt(np.mean((P - seen) ** 2)) for P in (measured, stated)]
    assert off[0] < 0.015 and off[1] > 2 * off[0] and np.abs(stated - seen).max() > 0.1
    unknown = ErrorTable(*(getattr(stars, f) for f in ("mass", "feh", "off", "err")), np.full(len(stars.mass), np.nan))
    np.testing.assert_array_equal(response.mass_matrix(truth, counts, unknown), stated)
