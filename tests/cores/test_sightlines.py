"""Effective volumes along sight lines: limits that must agree with the plain volume, and a slow direct sum."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr

from xptools.cores.galaxy import Disc
from xptools.cores.sightlines import Completeness, LineVolume, Sky, cells, equatorial, parallax_error
from xptools.cores.veff import Survey, Volume

M_G = np.array([5.0, 7.0, 7.5, 9.0, 12.0, 14.0])
COLOUR = np.linspace(0.8, 3.0, 6)


def linear_dust(l, b, d):
    return 0.2 * d / 1000.0 * (1 + np.cos(np.deg2rad(l)) * np.cos(np.deg2rad(b)))


def test_a_clear_sky_is_the_plain_volume():
    got = LineVolume(Survey(), Sky(dust=lambda l, b, d: 0.0 * d))(M_G, COLOUR, np.ones(6))
    np.testing.assert_allclose(got, Volume(Survey())(M_G), rtol=1e-12)


def test_a_grey_wall_at_the_sun_shifts_the_magnitude():
    got = LineVolume(Survey(), Sky(dust=lambda l, b, d: np.full_like(d, 0.5)))(M_G, COLOUR, np.full(6, 2.0))
    np.testing.assert_allclose(got, Volume(Survey())(M_G + 1.0), rtol=2e-3)


def test_uniform_dust_against_the_direct_integral():
    """With n = 1 and E = e d the edge solves M_G + 5 log10(d / 10 pc) + k e d = 17."""
    survey = Survey(law=Disc(np.inf, np.inf))
    k = np.full(6, 2.2)
    got = LineVolume(survey, Sky(dust=lambda l, b, d: 0.3 * d / 1000.0))(M_G, COLOUR, k)
    d = np.linspace(1e-4, 1.0, 2_000_001)
    G = 5 * np.log10(d * 100) + 2.2 * 0.3 * d
    edges = np.array([d[np.searchsorted(G, 17.0 - m) - 1] for m in M_G])
    np.testing.assert_allclose(got, 4 * np.pi / 3 * edges**3, rtol=1e-3)


def test_clumpy_dust_against_a_monte_carlo():
    sky = Sky(dust=linear_dust)
    got = LineVolume(Survey(), sky)(M_G, COLOUR, np.full(6, 2.2))
    rng = np.random.default_rng(5)
    from xptools.cores.veff import monte_carlo

    for mag, value in zip(M_G, got, strict=True):
        def seen(m, l, b, d):
            return m + 5 * np.log10(d * 100) + 2.2 * linear_dust(l, b, d * 1000) <= 17.0

        mean, error = monte_carlo(Survey(), np.full(200_000, mag), rng, seen)
        assert abs(mean - value) < 4 * error + 1e-3 * value


def test_completeness_curve_and_parallax_cut_against_quad():
    """n = 1: V = 4 pi int d^2 S(G(d)) P(1/d > sn sigma(G)) dd."""
    survey = Survey(law=Disc(np.inf, np.inf))
    curve = Completeness(np.array([10.0, 16.0, 17.0]), np.array([[[1.0, 0.9, 0.5]]]))
    got = LineVolume(survey, Sky(completeness=curve, plx_sn=10.0))(M_G, COLOUR, np.zeros(6))

    def integrand(d, mag):
        G = mag + 5 * np.log10(d * 100)
        return d * d * np.interp(G, [10, 16, 17], [1.0, 0.9, 0.5]) * ndtr(1 / (d * parallax_error(G)) - 10.0)

    reach = survey.reach(M_G)
    slow = [4 * np.pi * quad(integrand, 0, d, args=(m,), limit=200)[0] for d, m in zip(reach, M_G, strict=True)]
    np.testing.assert_allclose(got, slow, rtol=2e-3)


def test_a_map_with_half_the_sky_blind():
    order, half = 3, np.arange(768) < 384
    table = np.where(half, 1.0, 0.0)[:, None, None] * np.ones((1, 1, 2))
    sky = Sky(completeness=Completeness(np.array([0.0, 21.0]), table, order=order))
    survey = Survey(law=Disc(np.inf, np.inf))
    got = LineVolume(survey, sky)(M_G, COLOUR, np.zeros(6))
    np.testing.assert_allclose(got, 0.5 * Volume(survey)(M_G), rtol=5e-3)


def test_colour_picks_the_nearest_column():
    curve = Completeness(np.array([0.0, 21.0]), np.array([[[1.0, 1.0], [0.25, 0.25]]]), np.array([1.0, 2.0]))
    got = LineVolume(Survey(), Sky(completeness=curve))(M_G[:2], np.array([1.2, 2.7]), np.zeros(2))
    np.testing.assert_allclose(got / Volume(Survey())(M_G[:2]), [1.0, 0.25], rtol=1e-12)
    np.testing.assert_allclose(curve(np.full(2, 15.0), np.zeros(2), np.zeros(2), np.array([1.2, 2.7])), [1.0, 0.25])


def test_volumes_do_not_depend_on_company():
    lines = LineVolume(Survey(), Sky(dust=linear_dust, plx_sn=10.0), polar=8, around=8)
    together = lines(M_G, COLOUR, np.full(6, 2.0))
    alone = [lines(M_G[i : i + 1], COLOUR[i : i + 1], np.full(1, 2.0))[0] for i in range(6)]
    np.testing.assert_array_equal(together, alone)


def test_equatorial_undoes_galactic():
    from xptools.cores.astrometry import galactic

    l, b = cells(6, 10)
    back = galactic(*equatorial(l, b))
    np.testing.assert_allclose(back[0], l, atol=1e-9)
    np.testing.assert_allclose(back[1], b, atol=1e-9)


@pytest.mark.parametrize(("G", "published"), [(15.0, 0.03), (17.0, 0.07), (20.0, 0.5)])
def test_parallax_error_of_the_release(G, published):
    assert parallax_error(G) == pytest.approx(published)
