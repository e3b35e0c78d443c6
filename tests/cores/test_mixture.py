"""The conditional mixture against a slow obvious version, torch.distributions, and what wraps."""

import numpy as np
import pytest
from eta_toy import NORM, network

from xptools.cores import _jax, mixture


@pytest.fixture(scope="module")
def stars():
    rng = np.random.default_rng(1)
    return rng.normal(size=(200, 4)) * 2, rng.uniform(-3, 2, 200)


def slow(params, x, c):
    """One star, one component at a time, with inverses and determinants."""
    out = []
    for xi, ci in zip(x, c, strict=True):
        log_weight, mean, L = (a[0] for a in mixture.components(params, np.array([ci])))
        terms = []
        for k in range(len(log_weight)):
            cov = L[k] @ L[k].T
            d = xi - mean[k]
            terms.append(log_weight[k] - 0.5 * (d @ np.linalg.inv(cov) @ d + np.linalg.slogdet(2 * np.pi * cov)[1]))
        out.append(np.log(np.sum(np.exp(np.array(terms) - max(terms)))) + max(terms))
    return np.array(out)


def test_log_prob_is_the_slow_one(stars):
    params = network()
    np.testing.assert_allclose(mixture.log_prob(params, *stars), slow(params, *stars), atol=1e-8)


def test_jax_and_numpy_agree(stars):
    jax = _jax.configure()
    params = network(scale=0.5)
    got = jax.jit(lambda x, c: mixture.log_prob(params, x, c, jax.numpy))(*stars)
    np.testing.assert_allclose(got, mixture.log_prob(params, *stars), rtol=1e-12, atol=1e-9)


def test_it_is_the_mixture_of_torch(stars):
    torch = pytest.importorskip("torch")
    D = torch.distributions
    params = network(scale=0.5)
    log_weight, mean, L = (torch.from_numpy(a) for a in mixture.components(params, stars[1]))
    model = D.MixtureSameFamily(D.Categorical(logits=log_weight), D.MultivariateNormal(mean, scale_tril=L))
    np.testing.assert_allclose(mixture.log_prob(params, *stars), model.log_prob(torch.from_numpy(stars[0])), rtol=1e-9)


def test_weights_sum_to_one_and_factors_are_lower():
    params = network(scale=0.5)
    log_weight, mean, L = mixture.components(params, np.linspace(-2, 2, 9))
    assert mixture.size(params) == 5
    assert mean.shape == (9, 5, 4)
    np.testing.assert_allclose(np.exp(log_weight).sum(-1), 1)
    assert not np.triu(L, 1).any()
    assert (np.diagonal(L, axis1=-2, axis2=-1) >= mixture.EPSILON).all()


def test_entries_below_the_diagonal_stand_row_by_row():
    params = network(K=2, scale=0.5)
    out = mixture.network(params, np.zeros(1))[0]
    below = out[2 * (1 + 8) :].reshape(2, 6)
    L = mixture.components(params, np.zeros(1))[2][0]
    np.testing.assert_array_equal(L[1][np.tril_indices(4, -1)], below[1])


def test_far_away_stays_finite():
    far = np.full((3, 4), 1e6)
    assert np.isfinite(mixture.log_prob(network(scale=0.5), far, np.zeros(3))).all()


def test_right_ascension_is_continuous_through_zero():
    ra = np.array([359.9, 0.1, 94.9, 95.1])
    x = mixture.standardise(NORM, ra, *np.zeros((3, 4)))
    assert x[1, 0] - x[0, 0] == pytest.approx(0.2 / 90)
    assert x[2, 0] - x[3, 0] == pytest.approx(359.8 / 90)


def test_velocities_are_clipped():
    x = mixture.standardise(NORM, np.zeros(2), np.zeros(2), np.array([999.0, 5000.0]), np.array([-1e9, -1000.0]))
    np.testing.assert_allclose(x[:, 2], [999 / 50, 1000 / 50])
    np.testing.assert_allclose(x[:, 3], -995 / 60)
