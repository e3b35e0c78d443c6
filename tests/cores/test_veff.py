"""Effective volumes against SCIENCE 7.3, closed forms and a slow direct integral."""

import numpy as np
import pytest

from xptools.cores.galaxy import Disc, Halo, Mixture
from xptools.cores.veff import BALL, Survey, Volume, mean_density, monte_carlo

REFERENCE = {
    4: 3.393339, 7: 3.393339, 8: 0.910160, 9: 0.240034, 10: 0.062356, 11: 0.016017,
    12: 0.004082, 13: 0.001035, 14: 0.000262, 15: 0.000066,
}  # fmt: skip


def test_reference_values():
    """SCIENCE 7.3: to 1e-4, or to the last printed digit."""
    V = Volume(Survey())(np.array(list(REFERENCE), dtype=float))
    for got, printed in zip(V, REFERENCE.values(), strict=True):
        assert got == pytest.approx(printed, rel=1e-6, abs=5.1e-7)


@pytest.mark.parametrize(
    ("change", "printed"),
    [
        ({"r_sun": 8.178}, 3.393538),
        ({"r_sun": 8.275}, 3.393877),
        ({"z_sun": 0.0208}, 3.392704),
        ({"law": Disc(3.0, 1.43)}, 3.292427),
        ({"law": Disc(np.inf, np.inf)}, 4.188790),
    ],
)
def test_variants_at_full_reach(change, printed):
    assert Volume(Survey(**change))(np.array([7.0]))[0] == pytest.approx(printed, abs=5.1e-7)


@pytest.mark.parametrize("law", [Disc(), Disc(2.6, 0.3), Halo(), Mixture(((0.9, Disc(2.6, 0.3)), (0.1, Halo())))])
@pytest.mark.parametrize("z_sun", [0.0, 0.0208])
def test_against_four_times_the_nodes(law, z_sun):
    survey = Survey(law=law, z_sun=z_sun)
    M_G = np.linspace(4.0, 16.0, 49)
    d = survey.reach(M_G)
    fine = BALL * d**3 * mean_density(survey, d, radial=48, polar=40, around=64)
    np.testing.assert_allclose(Volume(survey)(M_G), fine, rtol=3e-7 if z_sun == 0 else 1e-5)


def test_disc_without_radial_gradient_has_a_closed_form():
    h, d = 1.43, 0.8
    # int_-d^d exp(-|z|/h) pi (d^2 - z^2) dz
    a = d / h
    closed = 2 * np.pi * h**3 * (a**2 * (1 - np.exp(-a)) - (2 - np.exp(-a) * (a * a + 2 * a + 2)))
    got = BALL * d**3 * mean_density(Survey(law=Disc(np.inf, h)), [d])[0]
    assert got == pytest.approx(closed, rel=1e-12)


def test_limits_of_reach():
    survey = Survey(mg_limit=4.0)
    d = survey.reach(np.array([3.9, 4.1, 7.0, 12.0, np.nan]))
    np.testing.assert_allclose(d, [0.0, 1.0, 1.0, 0.1, 0.0])
    np.testing.assert_array_equal(Volume(survey)(np.array([3.0, np.nan])), 0.0)


@pytest.mark.parametrize("M_G", [6.0, 8.0, 12.0])
def test_monte_carlo_agrees_within_its_error(M_G):
    survey = Survey()
    mean, error = monte_carlo(survey, np.full(400_000, M_G), np.random.default_rng(1))
    exact = Volume(survey)(np.array([M_G]))[0]
    assert abs(mean - exact) < 4 * error
    assert error / exact < 7e-4  # SCIENCE 7.2: 4e-4 for 1e6 points at M_G <= 7
