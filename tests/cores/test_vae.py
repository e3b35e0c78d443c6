"""The auto-encoder's network: its kernels against the array form, and against themselves in other batches."""

import numpy as np
import pytest
from scipy.special import erf, expit

from xptools.cores import _vaekernels as kernels
from xptools.cores import vae, vae_fit


def tile(values):
    out = np.zeros((4, kernels.LANES), np.float32)
    out.ravel()[: len(values)] = values
    return out


def lively(seed=3, K=110, hidden=vae.PAPER, L=6):
    """Arrays with norms that do something."""
    arrays, rng = vae.init(seed, K, hidden, L), np.random.default_rng(seed)
    for name, a in arrays.items():
        if name.endswith((".gamma", ".var")):
            arrays[name] = rng.uniform(0.5, 2, a.shape).astype(np.float32)
        elif name.endswith((".beta", ".mean")):
            arrays[name] = rng.normal(0, 0.3, a.shape).astype(np.float32)
    arrays |= {"norm.mean": rng.normal(size=K), "norm.scale": rng.uniform(0.5, 2, K)}
    return arrays | vae_fit.calibration(np.zeros(0), np.zeros(0))


def test_the_published_network_has_67182_parameters():
    assert vae.count(vae.init(0, 110, vae.PAPER, 6)) == 67_182
    parts = {p: 0 for p in ("encoder", "mu", "log_var", "decoder", "scatter")}
    for name, a in vae.init(0, 110, vae.PAPER, 6).items():
        parts[name.split(".")[0]] += 0 if name.endswith((".mean", ".var")) else a.size
    assert parts == {"encoder": 22_250, "mu": 66, "log_var": 66, "decoder": 22_400, "scatter": 22_400}
    assert vae.shape_of(vae.init(0, 20, (9, 7), 3, batch_norm=False)) == (20, (9, 7), 3)
    assert vae.shape_of(vae.init(0, 20, (), 3)) == (20, (), 3)


def test_gelu_and_sigmoid_kernels():
    x = np.concatenate([np.linspace(-9, 9, 200), [-80, 80, 0, 1e-20, -1e-20]]).astype(np.float32)
    wide = x.astype(np.float64)
    a, b = tile(x), tile(x)
    kernels.gelu(a)
    kernels.sigmoid(b)
    exact = wide * 0.5 * (1 + erf(wide / np.sqrt(2)))
    assert (np.abs(a.ravel()[: len(x)] - exact) <= 4e-7 * np.maximum(np.abs(wide), 1)).all()
    assert np.allclose(b.ravel()[: len(x)], expit(wide), rtol=6e-7, atol=0)
    assert np.allclose(vae.gelu(wide), exact)


@pytest.mark.parametrize("hidden", [vae.PAPER, (16,), ()])
def test_compiled_equals_the_array_form(hidden):
    arrays = lively(hidden=hidden)
    model, x = vae.Model(arrays), np.random.default_rng(1).normal(size=(300, 110))
    wide = {k: v.astype(np.float64) for k, v in arrays.items()}
    active = vae.running(wide, vae.gelu)
    mu, log_var = vae.encoded(wide, x, active)
    found = model.encode(x)
    assert np.abs(found[0] - mu).max() < 3e-6 and np.abs(found[1] - log_var).max() < 3e-6
    assert np.abs(model.decode(mu) - vae.decoded(wide, "decoder", mu, active)).max() < 3e-6
    assert np.abs(model.scatter(mu) - vae.sigmoid(vae.decoded(wide, "scatter", mu, active))).max() < 1e-6


def test_a_star_s_bits_are_its_own():
    model, x = vae.Model(lively()), np.random.default_rng(2).normal(size=(9000, 110))
    whole, order = model.encode(x)[0], np.random.default_rng(3).permutation(9000)
    assert np.array_equal(model.encode(x[order])[0], whole[order])
    for some in (slice(70, 71), slice(3, 300), slice(64, 128)):
        assert np.array_equal(model.encode(x[some])[0], whole[some])


def test_the_gpu_s_form_equals_the_compiled_one(monkeypatch):
    model, x = vae.Model(lively()), np.random.default_rng(4).normal(size=(500, 110))
    z = model.encode(x)[0]
    there = (z, model.decode(z), model.scatter(z))
    monkeypatch.setattr(vae.settings, "device", lambda: "cuda")  # what runs there runs here in JAX
    import jax

    with jax.default_device(jax.devices("cpu")[0]):
        monkeypatch.setenv("XP_DEVICE", "cpu")
        here = (model.encode(x)[0], model.decode(z), model.scatter(z))
    for a, b in zip(there, here, strict=True):
        assert np.abs(a - b).max() < 5e-6


def test_unknown_coefficients_are_masked():
    model, rng = vae.Model(lively()), np.random.default_rng(5)
    values, errors = rng.normal(size=(6, 110)), rng.uniform(0.1, 1, (6, 110))
    values[1, 7], errors[2, 8], errors[3, 9], values[4, 10] = np.nan, np.nan, 0, np.inf
    x, sigma = model.standardised(values, errors, np.array([1, 1, 1, 1, 1, np.nan]))
    assert np.isnan(x[1, 7]) and sigma[1, 7] == np.inf
    assert np.isnan(x[2, 8]) and np.isnan(x[3, 9]) and np.isnan(x[4, 10]) and np.isnan(x[5]).all()
    verdict = vae_fit.judged(model, x, sigma)
    assert verdict.known.tolist() == [110, 109, 109, 109, 109, 0]
    assert np.isfinite(verdict.chi2[:5]).all() and np.isnan(verdict.chi2[5])
    back = model.plain(x[:1], np.array([1.0]))
    assert np.allclose(back, values[:1], atol=1e-5)


def test_chi2_and_rmse_are_the_plain_sums():
    model, rng = vae.Model(lively()), np.random.default_rng(6)
    x, sigma = rng.normal(size=(40, 110)).astype(np.float32), rng.uniform(0.1, 1, (40, 110)).astype(np.float32)
    v = vae_fit.judged(model, x, sigma)
    r2 = (x.astype(float) - v.fit) ** 2
    assert np.allclose(v.chi2, (r2 / (sigma.astype(float) ** 2 + v.scatter.astype(float) ** 2)).mean(1))
    low = np.r_[0:32, 55:87]
    assert np.allclose(v.rmse, np.sqrt((r2 / sigma.astype(float) ** 2)[:, low].sum(1) / 64))


def test_denoised_is_the_mean_of_two_normals():
    x, sigma = np.array([[1.0, np.nan]]), np.array([[0.5, np.inf]])
    mean, error = vae_fit.denoised(x, sigma, np.array([[2.0, 3.0]]), np.array([[1.0, 0.25]]))
    assert np.allclose(mean, [[(1 / 0.25 + 2) / (1 / 0.25 + 1), 3]])
    assert np.allclose(error, [[1 / np.sqrt(5), 0.25]])


def test_the_outlier_probability_is_uniform_for_its_own_law():
    rng = np.random.default_rng(7)

    def drawn(n):
        share = rng.uniform(0, 1, n)
        dof = 20 + 80 * share
        return rng.chisquare(dof) / dof * (1 + 0.3 * share), share

    arrays = {"norm.mean": np.zeros(110), **vae_fit.calibration(*drawn(4000))}
    chi2, share = drawn(20_000)
    p = vae_fit.probability(arrays, chi2, np.full(20_000, 110), share)
    counts = np.histogram(p, np.linspace(0, 1, 11))[0]
    assert np.abs(counts / 2000 - 1).max() < 0.12
    assert 0.5e-3 < np.mean(p < 1e-3) < 3e-3
    assert vae_fit.probability(arrays, np.array([8.0]), np.array([110]), np.array([0.5]))[0] < 1e-20


def test_flux_residuals_are_in_errors_with_all_correlations():
    """RMS over wavelengths of D^T (c - c^) over the root of the diagonal of D^T C D."""
    from xptools.cores import xpbasis

    rng, k = np.random.default_rng(8), 55
    values, fit = rng.normal(0, 3, (3, 2 * k)) + 100, rng.normal(0, 3, (3, 2 * k)) + 100
    errors, rho = rng.uniform(0.5, 1, (3, 2 * k)), np.corrcoef(rng.normal(size=(k, 4 * k)))
    packed = np.broadcast_to(rho[np.tril_indices(k, -1)], (3, k * (k - 1) // 2)).astype(np.float32)
    halves = slice(0, k), slice(k, None)
    bands = tuple(xpbasis.Coefficients(values[:, h], errors[:, h], packed) for h in halves)
    design = xpbasis.design((450.0, 655.0, 700.0, 900.0))
    found = vae_fit.flux_rmse(values, fit, bands, design)
    D = np.concatenate([design.bp, design.rp])
    C = np.zeros((3, 2 * k, 2 * k))
    for h in halves:
        C[:, h, h] = errors[:, h, None] * rho * errors[:, None, h]
    sigma = np.sqrt(np.einsum("ip,nij,jp->np", D, C, D))
    assert np.allclose(found, np.sqrt((((values - fit) @ D / sigma) ** 2).mean(-1)), rtol=1e-4)
