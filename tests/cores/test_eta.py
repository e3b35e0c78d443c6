"""The compiled sum over all cells of [Fe/H] against the slow obvious one, JAX, closed forms and draws."""

import numpy as np
import pytest
from eta_toy import model, sliding, stars

from xptools.cores import _etakernels, _jax, astrometry, eta, mixture


@pytest.fixture(scope="module")
def scorer():
    return eta.Scorer(model())


@pytest.fixture(scope="module")
def x(scorer):
    return mixture.standardise(scorer.arrays, *stars(700))


def slow(scorer, x, split=-1.0):
    """ln(N / n) of both sides, one cell and one star at a time."""
    a = scorer.arrays
    out = []
    for side in (a["mdf.feh"] < split, a["mdf.feh"] >= split):
        weight = a["mdf.count"][side] / a["mdf.count"][side].sum()
        terms = [mixture.log_prob(a, x, np.full(len(x), c)) for c in mixture.context(a, a["mdf.feh"][side])]
        out.append(np.log(np.sum(weight[:, None] * np.exp(terms), 0)))
    return np.array(out)


def test_it_is_the_slow_one(scorer, x):
    np.testing.assert_allclose(scorer.log_densities(x)[0], slow(scorer, x), atol=2e-5)


def test_jax_is_the_same(scorer, x):
    value, slope = scorer.log_densities(x)
    (exact,) = _jax.chunked(eta.in_jax(scorer.sides, np.float64), 1024)(x)
    np.testing.assert_allclose(exact[:, :, 0].T * np.log(2), slow(scorer, x), atol=1e-9)
    np.testing.assert_allclose(slope, exact[:, :, 1:].transpose(1, 2, 0) * (-2 * np.log(2)), atol=2e-4)
    on_gpu = scorer.log_densities(x, on_gpu=True)
    np.testing.assert_allclose(on_gpu[0], value, atol=2e-5)
    np.testing.assert_allclose(on_gpu[1], slope, atol=2e-4)


@pytest.mark.parametrize("axis", [2, 3])
def test_slopes_are_finite_differences(scorer, x, axis):
    step = np.eye(4)[axis] * 1e-5
    numeric = (slow(scorer, x + step) - slow(scorer, x - step)) / 2e-5
    np.testing.assert_allclose(scorer.log_densities(x)[1][:, axis - 2], numeric, atol=2e-4)


def test_a_star_has_its_own_bits(scorer, x):
    whole = scorer.log_densities(x)[0]
    for part in (slice(0, 1), slice(5, 300), slice(699, 700)):
        np.testing.assert_array_equal(scorer.log_densities(x[part])[0], whole[:, part])
    np.testing.assert_array_equal(scorer.log_densities(x, threads=2)[0], whole)


def test_a_narrow_gaussian_that_tells_no_scale(scorer, x):
    # a spike that only a Gaussian between those asked for the scale has: the sum is done again
    far = np.tile([0.0, 60.0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1], (32, 1))
    far[7] = [900.0, 0, 0, 0, 0, 1e3, 0, 1e3, 0, 0, 1e3, 0, 0, 0, 1e3]
    point = np.zeros((3, 4), np.float32)
    point[1] = 1e-3
    out = np.empty((3, 3), np.float32)
    _etakernels.log_sums(far.astype(np.float32), point, 0, 3, out)
    np.testing.assert_allclose(out[0], [900, 896, 900], rtol=1e-6)


def closed_form(v, a=(0.3, -0.2), c=(-2.0, 0.0)):
    """log10 of N(v | a c0, 1) / N(v | a c1, 1)."""
    return sum(a[i] * (c[0] - c[1]) * v[i] - 0.5 * a[i] ** 2 * (c[0] ** 2 - c[1] ** 2) for i in (0, 1)) / np.log(10)


def test_a_known_universe_has_its_closed_form():
    ra, dec, v_ra, v_dec = stars(500)
    out = eta.score(eta.Scorer(sliding()), ra, dec, v_ra, v_dec)
    want = closed_form([v_ra / 50.0, (v_dec + 5.0) / 60.0])
    np.testing.assert_allclose(out["eta"], want, atol=5e-6)
    np.testing.assert_allclose(out["eta_joint"], want + np.log10(20 / 300), atol=5e-6)
    faster = eta.score(eta.Scorer(sliding()), ra, dec, v_ra - 10.0, v_dec)
    assert (faster["eta"] > out["eta"]).all()


def test_without_dependence_on_metallicity_eta_says_nothing():
    arrays = model()
    out = eta.score(eta.Scorer(arrays | {"net.0.weight": 0 * arrays["net.0.weight"]}), *stars(100))
    np.testing.assert_allclose(out["eta"], 0.0, atol=5e-6)


def restandardised(arrays, mean, std):
    """The same density with other constants of standardisation: means, factors and their network layer follow."""
    out, K = dict(arrays), mixture.size(arrays)
    ratio, shift = arrays["norm.std"] / std, (arrays["norm.mean"] - mean) / std
    row = np.array([i for i, _ in mixture.BELOW])
    scale = np.concatenate([np.ones(K), np.tile(ratio, K), np.ones(4 * K), np.tile(ratio[row], K)])
    move = np.concatenate([np.zeros(K), np.tile(shift, K), np.tile(np.log(ratio), K), np.zeros(6 * K)])
    out["net.2.weight"] = arrays["net.2.weight"] * scale[:, None]
    out["net.2.bias"] = arrays["net.2.bias"] * scale + move
    return out | {"norm.mean": mean, "norm.std": std}


def test_eta_does_not_know_its_standardisation():
    arrays = model()
    other = restandardised(arrays, np.array([180.0, 0.0, 3.0, 8.0]), np.array([100.0, 30.0, 80.0, 20.0]))
    one, two = (eta.score(eta.Scorer(a), *stars(300))["eta"] for a in (arrays, other))
    np.testing.assert_allclose(one, two, atol=2e-5)


def test_right_ascension_wraps(scorer):
    v = np.full((3, 4), 40.0)
    out = eta.score(scorer, np.array([359.999, 0.001, 360.001, -0.001]), *v)["eta"]
    np.testing.assert_allclose(out, out[0], atol=1e-4)
    assert out[1] == pytest.approx(out[2], abs=1e-6)


def test_far_away_and_unknown(scorer):
    v = np.array([1e9, 999.0, np.nan, 0.0])
    out = eta.score(scorer, np.full(4, 10.0), np.zeros(4), v, np.zeros(4), [np.ones(4)] * 3)
    np.testing.assert_array_equal(out["flag"], [eta.CLIPPED | eta.EXTRAPOLATED, eta.EXTRAPOLATED, 0, 0])
    np.testing.assert_array_equal(np.isnan(out["eta"]), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(out["eta_err"]), [False, False, True, False])
    same = eta.score(scorer, np.full(1, 10.0), np.zeros(1), np.array([1000.0]), np.zeros(1))
    assert same["eta"][0] == out["eta"][0]


def test_one_in_a_thousand_of_the_models_stars_is_rare(scorer):
    a, n, rng = scorer.arrays, 60000, np.random.default_rng(9)
    cell = rng.choice(len(a["mdf.feh"]), n, p=a["mdf.count"] / a["mdf.count"].sum())
    log_weight, mean, lower = mixture.components(a, mixture.context(a, a["mdf.feh"])[cell])
    k = (log_weight + rng.gumbel(size=log_weight.shape)).argmax(-1)
    at = np.arange(n)
    x = mean[at, k] + np.einsum("nij,nj->ni", lower[at, k], rng.normal(size=(n, 4)))
    share = np.mean(scorer.density(scorer.log_densities(x)[0]) < scorer.lowest)
    assert 0.0005 < share < 0.002


def test_a_split_beyond_the_training_stars_is_refused():
    with pytest.raises(ValueError, match="above 3"):
        eta.Scorer(model(), split=3.0)


def test_the_velocity_covariance_is_that_of_draws():
    rng = np.random.default_rng(4)
    value = np.array([5.0, -40.0, 25.0])  # parallax, pmra, pmdec
    errors, corr = np.array([0.05, 0.3, 0.2]), np.array([0.4, -0.3, 0.25])
    full = np.array([[1, corr[0], corr[1]], [corr[0], 1, corr[2]], [corr[1], corr[2], 1]]) * np.outer(errors, errors)
    draws = rng.multivariate_normal(value, full, 200_000)
    want = np.cov([astrometry.tangential(draws[:, i], draws[:, 0]) for i in (1, 2)])
    got = astrometry.tangential_covariance(*(np.array([v]) for v in (value[1], value[2], value[0])), errors, corr)
    np.testing.assert_allclose(np.ravel(got), [want[0, 0], want[0, 1], want[1, 1]], rtol=0.02)
