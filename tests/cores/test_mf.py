"""Posteriors of Phi per bin: closed forms, quadrature, and NUTS against both."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln

from xptools.cores import mf, nuts

N = np.array([0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 100.0, 2000.0])
OFFSET = np.log(np.full(8, 0.3 * 0.0536))


def test_counts_per_bin_and_nothing_outside():
    k, b = np.array([0, 1, 1, -1, 2, 0], np.int16), np.array([0, 1, 1, 0, -1, 0], np.int16)
    np.testing.assert_array_equal(mf.count(k, b, (2, 3)), [[2, 0, 0], [0, 2, 0]])


def test_widths_and_shifts_of_the_flat_log_prior():
    """SCIENCE 8.1: Gamma(n) posterior; with a shape of 1/2 the same formulas hold at n + 1/2."""
    n = np.array([1, 2, 3, 5, 10, 20, 50, 100, 500, 2000], float)
    sd = [0.557, 0.349, 0.273, 0.204, 0.141, 0.098, 0.0617, 0.0435, 0.0194, 0.0097]
    shift = [-0.251, -0.117, -0.076, -0.045, -0.022, -0.011, -0.004, -0.002, 0, 0]
    mean, width, _ = mf.exact(n - 0.5, np.zeros(10), np.zeros(10))
    np.testing.assert_allclose(width, sd, atol=5.1e-4)
    np.testing.assert_allclose(mean - np.log10(n), shift, atol=6e-4)


@pytest.mark.parametrize("prior", ["jeffreys", "flat", "data"])
@pytest.mark.parametrize("s", [0.0, 0.3])
def test_exact_against_direct_quadrature(prior, s):
    mean, sd, q = mf.exact(N, OFFSET, np.full(8, s), prior)
    for i in (0, 2, 5):
        n = N[i]

        def log_p(y, n=n):
            shape = mf.PRIORS[prior]
            tilt = shape * y if shape else -0.5 * ((y - np.log(n + 0.5)) / 3) ** 2
            return n * y - np.exp(y) + tilt - gammaln(n + 1)

        y = np.linspace(np.log(n + 0.5) - 60, np.log(n + 0.5) + 12, 400_001)
        p = np.exp(log_p(y))
        p /= p.sum()
        m = np.sum(p * y)
        width = np.sqrt(np.sum(p * (y - m) ** 2) + s**2)
        assert mean[i] == pytest.approx((m - OFFSET[i]) / np.log(10), abs=2e-4)
        assert sd[i] == pytest.approx(width / np.log(10), rel=1e-3)
        rng = np.random.default_rng(i)
        drawn = np.interp(rng.random(400_000), np.cumsum(p), y) - s * rng.standard_normal(400_000) - OFFSET[i]
        np.testing.assert_allclose(q[:, i], np.quantile(drawn, mf.LEVELS) / np.log(10), atol=0.03 * sd[i])


def test_quantiles_without_volume_error_are_the_gammas():
    from scipy.stats import gamma

    _, _, q = mf.exact(N, OFFSET, np.zeros(8))
    expected = np.log10(gamma.ppf(mf.LEVELS[:, None], N + 0.5) / np.exp(OFFSET))
    np.testing.assert_allclose(q, expected, rtol=1e-12)


def test_a_small_volume_error_changes_little():
    still, moved = mf.exact(N, OFFSET, np.zeros(8))[2], mf.exact(N, OFFSET, np.full(8, 1e-4))[2]
    np.testing.assert_allclose(moved, still, atol=1e-5)


@pytest.mark.parametrize("prior", ["jeffreys", "data"])
def test_draws_follow_the_exact_posterior(prior):
    s = np.full(8, 0.1)
    mean, sd, q = mf.exact(N, OFFSET, s, prior)
    ln_phi = mf.draw(N, OFFSET, s, np.random.default_rng(2), 100_000, prior)
    drawn = mf.summary(ln_phi)
    np.testing.assert_allclose(drawn[0], mean, atol=4 * sd.max() / 300)
    np.testing.assert_allclose(drawn[1], sd, rtol=0.02)
    np.testing.assert_allclose(drawn[2], q, atol=0.1)
    first, width = mf.moments(N, OFFSET, s, prior)
    np.testing.assert_allclose(np.exp(ln_phi).mean(0)[1:], first[1:], rtol=0.02)
    np.testing.assert_allclose(np.exp(ln_phi).std(0)[1:], width[1:], rtol=0.05)


@pytest.mark.parametrize(("prior", "s"), [("jeffreys", 0.2), ("data", 0.0)])
def test_nuts_agrees_with_the_exact_posterior(prior, s):
    """PEERS detail 7: means within a few hundredths of a sd, sd within 5 %."""
    got = nuts.sample(N, OFFSET, np.full(8, s), 3, prior=prior)
    assert got.trouble() == []
    assert got.ln_phi.dtype == np.float64 and got.ln_phi.shape == (4, 1000, 8)
    mean, sd, _ = mf.exact(N, OFFSET, np.full(8, s), prior)
    m, width, _ = mf.summary(got.ln_phi.reshape(-1, 8))
    assert np.max(np.abs(m - mean) / sd) < 0.1
    np.testing.assert_allclose(width, sd, rtol=0.12)


def test_nuts_depends_on_the_seed_only():
    one, same, other = (nuts.sample(N, OFFSET, 0 * N, seed, warmup=100, draws=50) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.ln_phi, same.ln_phi)
    assert not np.array_equal(one.ln_phi, other.ln_phi)


def test_trouble_is_named():
    bad = nuts.Sampled(np.zeros((1, 1, 1)), np.array([1.2]), np.array([50.0]), 3, 0.1)
    words = " ".join(bad.trouble())
    assert all(w in words for w in ("R-hat 1.200", "size 50", "3 divergent", "E-BFMI 0.10"))
    unknown = nuts.Sampled(np.zeros((1, 1, 1)), np.array([np.nan]), np.array([np.nan]), 0, np.nan)
    assert len(unknown.trouble()) == 3


def test_a_few_divergences_of_thousands_are_told_and_many_end_the_run():
    """Of Hamiltonian Monte Carlo whose chains agree; NUTS's own end it whatever their number (0 rejected)."""
    one, plenty = np.array([1.001]), np.array([3000.0])

    def got(divergences, rejected=4000, rhat=one):
        return nuts.Sampled(np.zeros((1, 1, 1)), rhat, plenty, divergences, 0.8, rejected)

    assert [got(n).trouble() for n in (4, 5, 20)] == [[]] * 3
    assert [bool(got(n).doubt()) for n in (0, 4, 5, 20, 21)] == [False, False, True, True, False]
    assert "5 of 4,000" in got(5).doubt()
    assert got(21).trouble() == ["21 divergent transitions"] and got(1, 0).trouble()
    assert "R-hat" in got(5, rhat=one + 0.02).trouble()[0] and not got(5, rhat=one + 0.02).doubt()


def test_potential_is_minus_the_log_posterior():
    import jax.numpy as jnp

    n = np.array([4.0])
    energy = nuts.potential(False, "jeffreys")
    u = np.linspace(-12, 8, 5)
    y = nuts.log_rate(n, u[:, None])[:, 0]
    got = np.array([float(energy({"u": jnp.array([v])}, (n, None))) for v in u])
    slow = -(4.5 * y - np.exp(y))
    np.testing.assert_allclose(got - got[0], slow - slow[0], rtol=1e-10)
    assert quad(lambda y: np.exp(4.5 * y - np.exp(y)), -30, 5)[0] == pytest.approx(np.exp(gammaln(4.5)))
