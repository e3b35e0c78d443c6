"""Slopes and mass ratios of binned counts with a known power law behind them."""

import numpy as np
import pytest

from xptools.cores import bins, massratio
from xptools.cores.imf import mass_ratio, power_law
from xptools.cores.slopes import PoissonSlopes, least_squares

EDGES = np.array(bins.MASS_EDGES)
SEGMENTS = (0.0, 0.55, 0.8)
LAW = power_law((-2.7, -1.3), (0.1, 0.55, 1.1))


def steep(m):
    """A volume that falls as the real one does: to the fifth power below 0.5 Msun, flat above."""
    return np.minimum(3.39, 0.03 * (m / 0.18) ** 5)


def table(volume=steep, error=0.0):
    veff, fine = bins.average(volume, EDGES, refine=10)
    return bins.BinTable(EDGES, np.array([-1.6, -1.4]), veff[None], error * veff[None], fine[None])


def expected(law, volume=steep, stars=1e5):
    m = np.linspace(0.15, 0.9, 140_001)
    middle = 0.5 * (m[1:] + m[:-1])
    return stars * (law.pdf(middle, 0.0) * volume(middle)).reshape(14, -1).sum(axis=1) * (m[1] - m[0])


def test_line_through_an_exact_power_law():
    phi = table().centre ** -1.7
    alpha, error = least_squares(table().centre, np.log10(phi), np.full(14, 0.1), (0.0, 0.55))
    assert alpha == pytest.approx(-1.7)
    x = np.log10(table().centre[:7])
    assert error == pytest.approx(0.1 / np.sqrt(np.sum((x - x.mean()) ** 2)))


def test_line_needs_three_bins_and_skips_unknown_ones():
    c = table().centre
    log_phi = np.where(np.arange(14) < 5, np.nan, -2 * np.log10(c))
    assert np.isnan(least_squares(c, log_phi, np.full(14, 0.1), (0.0, 0.55))[0])
    assert least_squares(c, log_phi, np.full(14, 0.1), (0.0, 0.8))[0] == pytest.approx(-2.0)


def test_likelihood_recovers_both_slopes_where_the_line_is_biased():
    fit = PoissonSlopes(table(), 0, SEGMENTS)
    assert len(fit.use) == 12  # centres below 0.8
    lam = expected(LAW)
    theta, _, _ = fit.mode(lam[fit.use])
    np.testing.assert_allclose(theta[2:], [-2.7, -1.3], atol=2e-3)
    phi = lam / (table().veff[0] * np.diff(EDGES))
    alpha, _ = least_squares(table().centre, np.log10(phi), 0.43 / np.sqrt(lam), (0.0, 0.55))
    assert abs(alpha + 2.7) > 0.03


def test_mode_is_the_maximum():
    from scipy.optimize import minimize

    n = np.random.default_rng(4).poisson(expected(LAW, stars=800))
    fit = PoissonSlopes(table(), 0, SEGMENTS)
    theta, covariance, _ = fit.mode(n[fit.use])
    slow = minimize(lambda t: -fit.log_posterior(n[fit.use], t), theta + 0.3, method="Nelder-Mead",
                    options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 5000})  # fmt: skip
    np.testing.assert_allclose(theta, slow.x, atol=1e-4)
    assert np.all(np.linalg.eigvalsh(covariance) > 0)


def test_draws_are_the_posterior_of_one_slope():
    """One segment: the amplitude integrates out, and alpha's density is a 1-D grid."""
    n = np.random.default_rng(8).poisson(expected(LAW, stars=60))
    fit = PoissonSlopes(table(), 0, (0.0, 0.55))
    counts = n[fit.use]
    grid = np.linspace(-12, 8, 4001)
    shape = fit.expected(np.zeros((4001, 1)), grid[:, None])[0].sum(-1)  # (G, K)
    log_p = np.sum(np.where(counts > 0, counts * np.log(shape), 0), -1) - counts.sum() * np.log(shape.sum(-1))
    p = np.exp(log_p - log_p.max() - 0.5 * (grid / 10) ** 2)
    p /= p.sum()
    drawn = fit.draws(n, np.random.default_rng(0), 20_000)[:, 1]
    mean = np.sum(p * grid)
    sd = np.sqrt(np.sum(p * (grid - mean) ** 2))
    assert drawn.mean() == pytest.approx(mean, abs=0.03 * sd)
    assert drawn.std() == pytest.approx(sd, rel=0.03)


def test_a_segment_without_stars_is_unknown_and_the_other_is_not_touched():
    assert np.isnan(PoissonSlopes(table(), 0, SEGMENTS).draws(np.zeros(14), np.random.default_rng(0))).all()
    lam = expected(LAW)
    lam[7:] = 0.0
    drawn = PoissonSlopes(table(), 0, SEGMENTS).draws(lam, np.random.default_rng(0))
    assert drawn[:, 2].mean() == pytest.approx(-2.7, abs=0.2)


@pytest.mark.parametrize("stars", [1, 2, 3])
def test_a_handful_of_stars_gives_wide_answers(stars):
    n = np.zeros(14)
    n[:stars] = 1
    drawn = PoissonSlopes(table(), 0, SEGMENTS).draws(n, np.random.default_rng(0))
    assert np.all(np.isfinite(drawn[:, 2])) and drawn[:, 2].std() > 1.0
    assert np.isnan(drawn[:, 3]).all()


def test_stars_of_the_bin_that_a_break_cuts_give_no_segment_a_slope():
    n = np.zeros(14)
    n[7] = 3  # 0.525 to 0.579
    assert np.isnan(PoissonSlopes(table(), 0, SEGMENTS).draws(n, np.random.default_rng(1))).all()
    n[9] = 2
    drawn = PoissonSlopes(table(), 0, SEGMENTS).draws(n, np.random.default_rng(1))
    assert np.isnan(drawn[:, [0, 2]]).all() and drawn[:, 3].std() > 3


def test_volume_error_widens_the_slopes():
    lam = expected(LAW)
    sharp = PoissonSlopes(table(), 0, SEGMENTS).draws(lam, np.random.default_rng(0))
    blurred = PoissonSlopes(table(error=0.1), 0, SEGMENTS).draws(lam, np.random.default_rng(0))
    assert blurred[:, 2].std() > 2 * sharp[:, 2].std()
    assert blurred[:, 2].mean() == pytest.approx(sharp[:, 2].mean(), abs=0.02)


@pytest.mark.parametrize("alpha", [1.0, 0.0, -1.0, -2.0, -3.5])
def test_flat_bins_give_the_closed_form_for_fine_bins(alpha):
    edges = np.linspace(0.15, 0.9, 3001)
    phi = (0.5 * (edges[1:] + edges[:-1])) ** alpha
    moments = np.stack([massratio.flat_moments(edges, 0.2, hi) for hi in (0.5, 0.7)])
    exact = mass_ratio(power_law((alpha,), (0.1, 1.0)))
    assert massratio.mass_ratio(phi, moments) == pytest.approx(exact, abs=1e-5)


def test_shaped_bins_are_exact_where_flat_ones_are_not():
    t = table()
    phi = expected(LAW) / (t.veff[0] * np.diff(EDGES))
    truth = mass_ratio(LAW)
    flat = np.stack([massratio.flat_moments(EDGES, 0.2, hi) for hi in (0.5, 0.7)])
    shaped = np.stack([massratio.shaped_moments(t, 0, (-2.7, -1.3), (0.55,), 0.2, hi) for hi in (0.5, 0.7)])
    assert massratio.mass_ratio(phi, shaped) == pytest.approx(truth, abs=2e-5)
    assert abs(massratio.mass_ratio(phi, flat) - truth) > 4e-3


def test_shaped_with_slope_zero_and_constant_volume_is_flat():
    t = table(lambda m: 1.0 + 0.0 * m)
    shaped = massratio.shaped_moments(t, 0, (0.0, 0.0), (0.55,), 0.2, 0.7)
    np.testing.assert_allclose(shaped, massratio.flat_moments(EDGES, 0.2, 0.7), rtol=1e-12)
