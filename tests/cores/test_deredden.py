"""Dereddening: by hand, against its own array form and JAX, error budget against perturbations."""

import numpy as np
import pytest

from xptools.cores import deredden, extinction


def some(n=2000, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(8, 18, n), rng.uniform(-0.2, 3.5, n), rng.uniform(1, 50, n), rng.gamma(1.0, 0.2, n)


def test_round_trip():
    """Redden known stars with the coefficients at their true colour; dereddening gives them back."""
    _, c0, _, E = some()
    E = 0.3 * E
    k = extinction.coefficients(c0, E)
    *got, back = deredden.intrinsic_compiled(c0 + E * (k[1] - k[2]), E)
    assert np.abs(back - c0).max() < 2e-3  # what three rounds leave at E = 0.5
    assert np.abs(np.array(got) - np.array(k)).max() < 4e-3


@pytest.mark.parametrize("unit", ["mag", "tau"])
def test_compiled_is_the_array_form_and_jax(unit):
    from xptools.cores._jax import configure

    jax = configure()
    _, c, _, E = some()
    c[0], E[1], c[2], E[3], E[4] = np.nan, np.nan, 8.0, 9.0, -0.1
    want = deredden.intrinsic(c, E, unit)
    traced = jax.jit(lambda c, E: deredden.intrinsic(c, E, unit, xp=jax.numpy))(c, E)
    for a, b, j in zip(deredden.intrinsic_compiled(c, E, unit), want, traced, strict=True):
        known = np.isfinite(c + E)
        assert np.isnan(a[~known]).all()
        assert np.abs((a - b)[known]).max() < 1e-12
        assert np.abs((a - np.asarray(j))[known]).max() < 1e-12


def test_by_hand():
    G, c, plx, E = np.array([12.0]), np.array([1.0]), np.array([10.0]), np.array([0.1])
    out = deredden.deredden(G, c, plx, E)
    k = deredden.intrinsic(c, E)
    assert out.M_G0 == pytest.approx(12.0 - 0.1 * k[0] - 5.0)
    assert out.BP_RP0 == pytest.approx(1.0 - (out.A_BP - out.A_RP))
    assert out.known_law.all()
    none = deredden.deredden(G, c, plx, np.array([0.0]))
    assert none.A_G == 0
    assert none.M_G0 == 7.0
    assert none.BP_RP0 == 1.0


def test_error_of_absolute_magnitude_at_800_pc():
    """Li+ 2026 Figure 1 quotes 0.08 mag at 800 pc; with a parallax error of 0.045 mas it is 0.078."""
    e = deredden.Errors(parallax=np.array([0.045]))
    out = deredden.deredden(np.array([17.0]), np.array([1.5]), np.array([1.25]), np.array([0.0]), e)
    assert out.M_G0_err == pytest.approx(0.0782, abs=1e-3)
    assert np.isnan(out.BP_RP0_err)


def test_errors_are_those_of_perturbed_stars():
    n = 20000
    rng = np.random.default_rng(8)
    one = np.ones(n)
    sE, splx, snr = 0.02, 0.05, 50.0
    noise = 2.5 / np.log(10) / snr
    G = 14 + rng.normal(0, noise, n)
    c = 1.2 + rng.normal(0, noise, n) + rng.normal(0, noise, n)
    draws = deredden.deredden(G, c, 5 + rng.normal(0, splx, n), 0.2 + rng.normal(0, sE, n))
    e = deredden.Errors(sE * one[:1], splx * one[:1], snr * one[:1], snr * one[:1], snr * one[:1])
    out = deredden.deredden(*(np.array([v]) for v in (14.0, 1.2, 5.0, 0.2)), e)
    assert out.M_G0_err == pytest.approx(draws.M_G0.std(), rel=0.03)
    assert out.BP_RP0_err == pytest.approx(draws.BP_RP0.std(), rel=0.05)
    assert out.A_G_err == pytest.approx(draws.A_G.std(), rel=0.03)


def test_unknowns():
    nan = np.nan
    G = np.array([10, nan, 10, 10, 10.0])
    c = np.array([1, 1, nan, 1, 1.0])
    plx = np.array([5, 5, 5, -1, 5.0])
    E = np.array([0.1, 0.1, 0.1, 0.1, nan])
    out = deredden.deredden(G, c, plx, E, deredden.Errors(parallax=np.full(5, 0.1)))
    assert np.isfinite(out.M_G0).tolist() == [True, False, False, False, False]
    assert np.isfinite(out.M_G0_err).tolist() == [True, False, False, False, False]
    assert np.isfinite(out.A_G).tolist() == [True, True, False, True, False]
    assert np.isfinite(out.BP_RP0).tolist() == [True, True, False, True, False]
    assert np.isnan(out.A_G_err).all()


def test_same_bits_however_it_is_cut():
    a = some(20000)
    whole = deredden.deredden(*a)
    cut = [deredden.deredden(*(x[s] for x in a)) for s in (slice(0, 1), slice(1, 9000), slice(9000, None))]
    for k, column in enumerate(whole):
        assert np.array_equal(column, np.concatenate([c[k] for c in cut]), equal_nan=True)
