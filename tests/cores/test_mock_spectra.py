"""Mock coefficients: photometry, projection, noise as in real spectra."""

import zlib

import numpy as np
import pytest

from xptools.cores import mock_spectra as mock
from xptools.cores import spectra_model, synthetic, xpbasis, xpdesign


class Streams:
    """Named streams of normal deviates."""

    def __init__(self, n):
        self.n = n

    def normal(self, name):
        return np.random.default_rng(zlib.crc32(name.encode())).normal(size=self.n)


@pytest.fixture(scope="module")
def stars():
    """Fluxes of a few stars and the photometry that they shall have."""
    teff = np.array([3300.0, 4200.0, 5000.0, 5800.0, 6500.0])
    M_G = np.array([10.5, 7.3, 6.0, 4.7, 3.6])
    flux = mock.spectrum(teff, spectra_model.gravity_of(M_G), np.full(5, -0.3), np.zeros(5), M_G)
    rates = flux @ mock.passbands_on_grid()[1].T * np.array([1.0, 1.1, 0.95]) * 1e-3
    return flux, rates


def test_synthetic_photometry_is_the_stars_own(stars):
    flux, rates = stars
    out = mock.observed(Streams(5), mock.matched(flux, rates), rates, 0.0, False)
    got = synthetic.electrons(*(xpbasis.Coefficients(out[f"{b}_coefficients"]) for b in mock.BANDS))
    np.testing.assert_allclose(got, rates, rtol=1e-8)


def test_coefficients_hold_the_spectrum(stars):
    flux, rates = stars
    bent = mock.matched(flux, rates)
    inside = (mock.GRID >= 400) & (mock.GRID <= 990)
    design = xpbasis.design(tuple(mock.GRID[inside]))
    back = xpbasis.spectra(*(xpbasis.Coefficients(mock.coefficients(bent, b)) for b in mock.BANDS), design)
    off = np.abs(back / bent[:, inside] - 1)
    assert np.median(off[2:]) < 0.025 and np.percentile(off[2:], 99) < 0.15


def test_a_pair_is_a_sum(stars):
    flux, _ = stars
    for band in mock.BANDS:
        one, other, both = (mock.coefficients(f, band) for f in (flux[:1], flux[1:2], flux[:1] + flux[1:2]))
        np.testing.assert_allclose(both, one + other, atol=1e-12 * np.abs(both).max())
    assert not mock.spectrum(np.array([np.nan]), *(np.zeros(1),) * 4).any()


def test_noise_has_the_stated_covariance():
    sigma = np.full((20000, 55), 2.0)
    z = np.random.default_rng(1).normal(size=sigma.shape)
    seen = mock.noisy(np.zeros_like(sigma), sigma, z, "bp")
    rho = np.corrcoef(seen.T)[np.tril_indices(55, -1)]
    assert np.abs(rho - mock.learned()["bp.correlations"]).max() < 0.035
    np.testing.assert_allclose(seen.std(axis=0), 2.0, rtol=0.03)


def test_correlations_are_positive_definite():
    for band in mock.BANDS:
        L = mock.correlated_noise(band).T
        rho = L @ L.T
        assert np.linalg.eigvalsh(rho).min() > 0.01
        np.testing.assert_allclose(np.diag(rho), 1.0, rtol=1e-12)


def test_relevant_bases_on_noise_and_on_signal():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(400, 55))
    values[:, 0] += 1000
    assert np.median(mock.relevant(values, np.ones((400, 55)))) == 1
    values[:, 20] += 60
    assert np.median(mock.relevant(values, np.ones((400, 55)))) >= 21


def test_errors_are_those_of_real_stars(shared_data):
    """|sigma| / |c| of each real star is within the stated scatter of the model's, its pattern alike."""
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(shared_data / "xp" / "xp_continuous_2000.parquet")
    for band in mock.BANDS:
        c, e = (np.array(table[f"{band}_coefficient{k}"].to_pylist(), float) for k in ("s", "_errors"))
        mag = table[f"syn_{band}"].to_numpy()
        mine = mock.errors(c, mag, np.zeros(len(c)), band)
        off = np.log10(np.linalg.norm(e, axis=1) / np.linalg.norm(mine, axis=1))
        assert abs(np.median(off)) < 0.01
        assert np.percentile(np.abs(off), 68) < 1.3 * mock.learned()[f"{band}.scatter"]
        shape = np.log10((e / mine).T / 10**off)
        assert np.median(np.abs(shape)) < 0.03


def test_mock_looks_like_real_stars_of_the_same_photometry(shared_data):
    """Median difference per wavelength from real spectra given only their G, BP, RP: a few per cent."""
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(shared_data / "xp" / "xp_continuous_2000.parquet")
    mags = np.stack([table[f"syn_{b}"].to_numpy() for b in ("g", "bp", "rp")], axis=1)
    bright = (mags[:, 0] > 13) & (mags[:, 0] < 16.5) & (mags[:, 1] - mags[:, 2] > 0.6)
    colour = (mags[:, 1] - mags[:, 2])[bright]
    teff, n = spectra_model.temperature_of(colour, -0.2), int(bright.sum())
    flux = mock.spectrum(teff, np.full(n, 4.6), np.full(n, -0.2), np.zeros(n), np.full(n, 5.0))
    bent = mock.matched(flux, 10 ** ((synthetic.ZERO - mags[bright]) / 2.5))
    made = [xpbasis.Coefficients(mock.coefficients(bent, b)) for b in mock.BANDS]
    real = [xpbasis.Coefficients(np.array(table[f"{b}_coefficients"].to_pylist())[bright]) for b in mock.BANDS]
    off = np.abs(xpbasis.spectra(*made, xpbasis.design()) / xpbasis.spectra(*real, xpbasis.design()) - 1)
    assert np.median(off) < 0.04
    assert xpdesign.DEFAULT_GRID[0] == 392.0
