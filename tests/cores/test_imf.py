"""Piecewise power laws: closed forms, sampling, and the published mass ratios of the reference curves."""

import json

import numpy as np
import pytest
from scipy.integrate import quad

from xptools.cores import imf
from xptools.errors import DataError

LI = imf.PiecewiseIMF()


@pytest.mark.parametrize("p", [-2.5, -1.0, -1e-9, 0.0, 1e-14, 1.0, 3.0])
def test_power_integral_is_the_integral(p):
    assert imf.power_integral(0.2, 0.7, p) == pytest.approx(quad(lambda m: m ** (p - 1), 0.2, 0.7)[0], rel=1e-12)


@pytest.mark.parametrize("feh", [-3.0, -2.0, -1.7, -1.5, -1.2, 0.0])
def test_unit_integral_continuous_and_moments(feh):
    assert LI.integrate(0.1, 1.1, feh) == pytest.approx(1.0, rel=1e-13)
    for edge in (0.5, 0.55):
        assert LI.pdf(edge - 1e-12, feh) == pytest.approx(LI.pdf(edge, feh), rel=1e-9)
    slow = quad(lambda m: m * LI.pdf(m, feh), 0.15, 0.9, points=[0.5, 0.55])[0]
    assert LI.integrate(0.15, 0.9, feh, moment=1) == pytest.approx(slow, rel=1e-10)
    assert LI.pdf(1.2, feh) == 0.0


@pytest.mark.parametrize("interpolate", [False, True])
def test_sampling_inverts_the_cumulative(interpolate):
    law = imf.PiecewiseIMF(interpolate=interpolate)
    u = np.linspace(0.0, 1.0, 501)
    for feh in (-2.0, -1.5, -1.3, 0.1):
        m = law.sample(u, np.full(u.size, feh))
        assert np.all(np.diff(m) > 0)
        np.testing.assert_allclose(law.integrate(0.1, m, feh), u, atol=1e-12)


def test_sampling_of_slope_minus_one_and_of_mixed_bins():
    law = imf.power_law((-1.0,), (0.1, 1.0))
    np.testing.assert_allclose(law.sample(np.array([0.0, 0.5, 1.0]), 0.0), [0.1, np.sqrt(0.1), 1.0], rtol=1e-14)
    u, feh = np.full(4, 0.3), np.array([-2.0, -1.7, -1.5, 0.2])
    each = [LI.sample(u[:1], feh[i : i + 1])[0] for i in range(4)]
    np.testing.assert_array_equal(LI.sample(u, feh), each)


def test_drawn_stars_follow_the_law():
    u = np.random.default_rng(3).random(200_000)
    m = LI.sample(u, np.full(u.size, -1.5))
    edges = np.linspace(0.1, 1.1, 21)
    expected = LI.integrate(edges[:-1], edges[1:], -1.5) * u.size
    chi2 = np.sum((np.histogram(m, edges)[0] - expected) ** 2 / expected)
    assert chi2 < 45.3  # 99.9 % of chi-square with 20 degrees of freedom


@pytest.mark.parametrize(
    ("name", "xi07", "xi10"),
    [
        ("Kroupa 2001", 0.6788, 0.5194),
        ("Salpeter 1955", 0.7729, 0.6370),
        ("Chabrier 2003 single", 0.6883, 0.5114),
        ("Chabrier 2003 system", 0.6512, 0.4607),
        ("Chabrier 2005", 0.6626, 0.4784),
    ],
)
def test_mass_ratio_of_reference_curves(name, xi07, xi10):
    """SCIENCE 8.5, from Li+ 2026 eq. 10."""
    law = imf.REFERENCES[name]
    assert imf.mass_ratio(law) == pytest.approx(xi07, abs=5.1e-5)
    assert imf.mass_ratio(law, upper=1.0) == pytest.approx(xi10, abs=5.1e-5)
    whole = quad(lambda m: m * law.pdf(m, 0.0), 0.2, 0.7, points=[0.5])[0]
    slow = quad(lambda m: m * law.pdf(m, 0.0), 0.2, 0.5)[0] / whole
    assert imf.mass_ratio(law) == pytest.approx(slow, rel=1e-8)


def test_mass_ratio_of_single_power_laws():
    published = [0.349, 0.405, 0.467, 0.532, 0.600, 0.667, 0.731, 0.790, 0.840, 0.882]
    alphas = np.arange(1.0, -3.6, -0.5)
    got = [imf.mass_ratio(imf.power_law((a,), (0.1, 1.0))) for a in alphas]
    np.testing.assert_allclose(got, published, atol=5.1e-4)


def test_lognormal_integral_through_one_solar_mass():
    law = imf.CHABRIER_SYSTEM
    slow = quad(lambda m: m**2 * law.pdf(m), 0.3, 1.0)[0] + quad(lambda m: m**2 * law.pdf(m), 1.0, 3.0)[0]
    assert law.integrate(0.3, 3.0, moment=2) == pytest.approx(slow, rel=1e-9)
    assert law.pdf(1.0 - 1e-12) == pytest.approx(law.pdf(1.0), rel=1e-9)


def test_phi_is_density_times_pdf_and_adds_over_feh():
    law = LI.with_density([100.0, 200.0, 300.0, 400.0, 5e6])
    m = np.array([0.2, 0.6])
    np.testing.assert_allclose(law.phi(m, -1.6, -1.4), 300.0 * law.pdf(m, -1.5))
    both = 100.0 * law.pdf(m, -2.0) + 0.5 * 200.0 * law.pdf(m, -1.7)
    np.testing.assert_allclose(law.phi(m, -2.2, -1.7), both)
    with pytest.raises(DataError, match="no 'density'"):
        LI.phi(m, -2.2, -1.7)


def test_dictionary_round_trip():
    law = LI.with_density([1, 2, 3, 4, 5])
    assert imf.PiecewiseIMF.from_dict(json.loads(json.dumps(law.to_dict()))) == law
    assert imf.PiecewiseIMF.from_dict({"breaks": [0.1, 1], "slopes": [[-1]]}).row(-3.0) == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"breaks": [0.5, 0.1]}, "positive and rise"),
        ({"slopes": [[1.0]]}, "rows"),
        ({"slopes": 3}, "lists of numbers"),
        ({"feh_edges": [0.0]}, "at least two"),
        ({"density": [1.0]}, "density must hold"),
        ({"alpha": 1}, "unknown key 'alpha'"),
        ({"slopes": [[float("nan")] * 3] * 5}, "finite"),
    ],
)
def test_wrong_tables_are_refused_in_a_sentence(change, sentence):
    with pytest.raises(DataError, match=sentence):
        imf.PiecewiseIMF.from_dict(LI.to_dict() | change)
