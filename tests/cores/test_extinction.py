"""The curve and the band coefficients against published numbers and the integrals themselves."""

import numpy as np
import pytest

from xptools.cores import extinction

# A_X / E of black bodies, curve in mag: (E, Teff, G, BP, RP), to 3 decimals.
REFERENCE = [
    (0.01, 3500, 1.962, 2.664, 1.586),
    (0.01, 4000, 2.055, 2.732, 1.610),
    (0.01, 4500, 2.137, 2.790, 1.630),
    (0.01, 5000, 2.210, 2.842, 1.645),
    (0.01, 6000, 2.328, 2.926, 1.667),
    (0.30, 4000, 2.004, 2.696, 1.596),
    (0.30, 5000, 2.147, 2.799, 1.630),
    (0.30, 6000, 2.257, 2.878, 1.652),
]


@pytest.fixture(scope="module")
def passbands():
    from pathlib import Path

    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "passbands" / "gaia_dr3_passbands.csv"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    return table[:, 0], table[:, 1:]


def test_curve_published():
    assert extinction.curve(550.0) == pytest.approx(2.679, abs=5e-4)
    assert extinction.curve(550.0, "tau") == pytest.approx(2.909, abs=5e-4)
    assert extinction.visual() == pytest.approx(2.770, abs=5e-4)
    assert extinction.visual("tau") == pytest.approx(3.007, abs=5e-4)
    assert extinction.curve(392.0) == pytest.approx(4.00403)
    assert extinction.curve(4602.8) == pytest.approx(0.0980824)


def test_curve_between_and_beyond():
    between = extinction.curve(np.sqrt(692.0 * 702.0))
    assert between == pytest.approx(np.sqrt(1.95925 * 1.90993), rel=1e-12)
    assert extinction.curve(320.0) > extinction.curve(392.0)
    assert np.isnan(extinction.curve(5000.0))


@pytest.mark.parametrize(("E", "Teff", "G", "BP", "RP"), REFERENCE)
def test_integrals_published(passbands, E, Teff, G, BP, RP):
    wavelength, T = passbands
    A = extinction.band_extinction(wavelength, T, extinction.black_body(wavelength, Teff), E)
    assert A / E == pytest.approx([G, BP, RP], abs=5.1e-4)
    c = extinction.colour(wavelength, T, extinction.black_body(wavelength, Teff))
    assert np.array(extinction.coefficients(np.array([c]), np.array([E]))).ravel() == pytest.approx(A / E, abs=2e-4)


def test_shipped_table_is_recomputed(passbands):
    made, shipped = extinction.tabulate(*passbands), extinction.gaia_bands()
    assert made.colour == shipped.colour
    assert made.reddening == shipped.reddening
    assert np.abs(made.values - shipped.values).max() < 1e-5


def test_table_between_nodes(passbands):
    wavelength, T = passbands
    rng = np.random.default_rng(3)
    for Teff, E in zip(rng.uniform(2000, 12000, 40), rng.uniform(0, 4, 40), strict=True):
        flux = extinction.black_body(wavelength, Teff)
        want = extinction.band_extinction(wavelength, T, flux, E) / E
        got = extinction.coefficients(np.array([extinction.colour(wavelength, T, flux)]), np.array([E]))
        assert np.ravel(got) == pytest.approx(want, abs=3e-4)


def test_table_without_passbands():
    """The published coefficients at the colours of black bodies, from the shipped table alone."""
    colours = {3500: 1.836417, 4000: 1.540811, 5000: 1.108760}
    for E, Teff, *want in REFERENCE:
        if Teff in colours:
            got = extinction.coefficients(np.array([colours[Teff]]), np.array([E]))
            assert np.ravel(got) == pytest.approx(want, abs=1e-3)


def test_tau_is_more_extinction():
    c, E = np.array([1.0]), np.array([0.1])
    mag = extinction.coefficients(c, extinction.TAU_TO_MAG * E)
    tau = extinction.coefficients(c, E, "tau")
    assert np.ravel(tau) == pytest.approx(extinction.TAU_TO_MAG * np.ravel(mag), rel=1e-12)


def test_edges_and_unknowns():
    c = np.array([-2.0, -0.4, 4.0, 9.0, np.nan, 1.0])
    E = np.array([0.1, 0.1, 0.1, 0.1, 0.1, np.nan])
    k = extinction.coefficients(c, E)[0]
    assert k[0] == k[1]
    assert k[2] == k[3]
    assert np.isnan(k[4:]).all()
    assert extinction.inside(c, E).tolist() == [False, True, True, False, False, False]


def test_jax_is_numpy():
    from xptools.cores._jax import configure

    jax = configure()
    rng = np.random.default_rng(5)
    c, E = rng.uniform(-1, 5, 500), rng.uniform(0, 5, 500)
    fast = jax.jit(lambda c, E: extinction.coefficients(c, E, xp=jax.numpy))(c, E)
    for a, b in zip(fast, extinction.coefficients(c, E), strict=True):
        assert np.abs(np.asarray(a) - b).max() < 1e-12
