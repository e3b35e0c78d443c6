"""Positions against the density law: volumes, distances, heights and longitudes."""

import numpy as np
import pytest
from scipy import stats

from xptools.cores import galaxy, veff
from xptools.cores.draws import Draws
from xptools.cores.mock_space import Space

LAWS = ((2.6, 0.30), (2.0, 0.90), (1.5, 1.43))
N = 300_000


@pytest.fixture(scope="module", params=[0.0, 0.0208], ids=["in the plane", "above it"])
def drawn(request):
    space = Space(LAWS, 1.6, 8.122, request.param)
    draws = Draws(3, 0, N)
    k = (np.arange(N) % 3).astype(np.intp)
    reach = np.where(np.arange(N) % 2 == 0, 1.0, 0.4)
    words = [draws.uniform(s) for s in ("distance", "latitude", "longitude", "density")]
    return space, k, reach, space.draw(k, reach, *words)


@pytest.mark.parametrize("law", range(3))
@pytest.mark.parametrize("within", [1.0, 0.4])
def test_envelope_times_kept_is_the_effective_volume(drawn, law, within):
    space, k, reach, at = drawn
    mine = (k == law) & (reach == within)
    survey = veff.Survey(law=galaxy.Disc(*LAWS[law]), z_sun=space.z_sun)
    volume = veff.BALL * within**3 * veff.mean_density(survey, within)[0]
    kept = at.keep[mine].mean()
    assert kept > 0.9
    error = np.sqrt((1 - kept) / (kept * mine.sum()))
    assert abs(space.volume(law, within) * kept / volume - 1) < 4 * error


@pytest.mark.parametrize("law", range(3))
def test_distances_heights_and_radii_follow_the_law(drawn, law):
    space, k, reach, at = drawn
    mine = (k == law) & (reach == 1.0) & at.keep
    x, y, z, d = (v[mine] for v in at[:4])
    np.testing.assert_allclose(np.sqrt(x * x + y * y + z * z), d, rtol=1e-12)
    survey = veff.Survey(law=galaxy.Disc(*LAWS[law]), z_sun=space.z_sun)
    grid = np.linspace(0.01, 1, 300)
    inside = grid**3 * veff.mean_density(survey, grid)
    assert stats.kstest(d, lambda v: np.interp(v, np.r_[0, grid], np.r_[0, inside / inside[-1]])).pvalue > 1e-3
    for values, weights in _by_brute_force(survey, (np.abs(z + space.z_sun), np.hypot(8.122 - x, y), np.arctan2(y, x))):
        edges = np.quantile(values, np.linspace(0, 1, 21))
        got = np.histogram(values, edges)[0]
        assert abs(got.sum() - len(values)) <= 1
        expected = weights(edges) * got.sum()
        assert stats.chisquare(got, expected).pvalue > 1e-3


def _by_brute_force(survey, columns):
    """Each observable with its cumulative law, from a million uniform points weighted by n."""
    u = np.random.default_rng(0).random((3, 3_000_000))
    l, b, d = veff.ball(u, 1.0)
    R, Z = galaxy.cylindrical(l, b, d, survey.r_sun, survey.z_sun)
    n = survey.law.density(R, Z, survey.r_sun)
    observables = (np.abs(Z), R, (np.deg2rad(l) + np.pi) % (2 * np.pi) - np.pi)
    for values, reference in zip(columns, observables, strict=True):

        def share(edges, reference=reference):
            inside = np.histogram(reference, edges, weights=n)[0]
            return inside / inside.sum()

        yield values, share


def test_a_flat_density_fills_the_sphere_evenly():
    space = Space(((np.inf, np.inf),), 1.0, 8.122, 0.0)
    assert space.volume(0, 1.0) == pytest.approx(4 * np.pi / 3, rel=1e-9)
    draws = Draws(1, 0, 50_000)
    words = [draws.uniform(s) for s in "abcd"]
    at = space.draw(np.zeros(50_000, np.intp), np.full(50_000, 0.5), *words)
    assert at.keep.all()
    assert stats.kstest((at.distance / 0.5) ** 3, "uniform").pvalue > 1e-3
    assert stats.kstest(at.z / at.distance, "uniform", (-1, 2)).pvalue > 1e-3
