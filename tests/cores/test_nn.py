"""Small networks: shapes, GELU's published form, slopes against finite differences, AdamW against its definition."""

import numpy as np
import pytest

from xptools.cores import nn


def test_gelu_against_the_exact_form():
    from scipy.stats import norm

    x = np.linspace(-6, 6, 500)
    assert np.abs(nn.gelu(x) - x * norm.cdf(x)).max() < 5e-4  # the tanh form's stated error
    assert nn.gelu(np.array([0.0, 10.0])) == pytest.approx([0.0, 10.0])


def test_apply_against_a_loop():
    params = nn.init(1, (3, 5, 2))
    x = np.random.default_rng(0).normal(size=(4, 3))
    for row, out in zip(x, nn.apply(params, x), strict=True):
        hidden = nn.gelu(np.array([row @ params[0]["w"][:, j] + params[0]["b"][j] for j in range(5)]))
        np.testing.assert_allclose(out, hidden @ params[1]["w"] + params[1]["b"], rtol=1e-6)


def test_slopes_against_finite_differences():
    params = [{k: v.astype(float) for k, v in layer.items()} for layer in nn.init(2, (2, 16, 16, 3))]
    x, h = np.random.default_rng(1).normal(size=(20, 2)), 1e-5
    value, slope = nn.apply_with_slopes(params, x)
    np.testing.assert_allclose(value, nn.apply(params, x))
    for k in range(2):
        step = np.eye(2)[k] * h
        up, down = nn.apply(params, x + step), nn.apply(params, x - step)
        np.testing.assert_allclose(slope[k], (up - down) / (2 * h), atol=1e-7)


def test_init_depends_on_the_seed_alone_and_keeps_the_variance():
    a, b, c = nn.init(1, (64, 512, 1)), nn.init(1, (64, 512, 1)), nn.init(2, (64, 512, 1))
    assert (a[0]["w"] == b[0]["w"]).all() and (a[0]["w"] != c[0]["w"]).any()
    assert a[0]["w"].var() == pytest.approx(2 / 64, rel=0.05) and a[1]["w"].var() == pytest.approx(1 / 512, rel=0.2)


def test_flatten_and_back():
    params = nn.init(3, (2, 4, 4, 1))
    back = nn.unflatten({**nn.flatten(params), "norm.mean": np.zeros(2)})
    assert all((p[k] == q[k]).all() for p, q in zip(params, back, strict=True) for k in ("w", "b"))


def test_adamw_finds_a_minimum_and_first_step_has_the_size_of_the_rate():
    def tree_map(f, *trees):
        return f(*trees)

    p, state = np.array([3.0, -2.0]), (0, np.zeros(2), np.zeros(2))
    first, _ = nn.adamw(tree_map, 0.1, p, 2 * p, state, decay=0.0)
    np.testing.assert_allclose(first, p - 0.1 * np.sign(p), rtol=1e-6)
    for k in range(600):
        p, state = nn.adamw(tree_map, 0.1 * 0.99**k, p, 2 * (p - 1), state, decay=0.0)
    np.testing.assert_allclose(p, 1.0, atol=1e-3)


def test_same_in_jax():
    import jax
    import jax.numpy as jnp

    params = nn.init(4, (2, 32, 32, 2))
    x = np.random.default_rng(2).normal(size=(50, 2)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(lambda x: nn.apply(params, x, jnp))(x), nn.apply(params, x), atol=2e-5)
