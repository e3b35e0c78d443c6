"""The error model against the real rows it was fitted to, and its parts against closed forms."""

import itertools

import numpy as np
import pytest

from xptools.cores import mock_noise
from xptools.cores.photometry import POGSON, excess_corrected, excess_expected, excess_sigma


@pytest.fixture(scope="module")
def real(shared_data):
    import pyarrow.parquet as pq

    t = pq.read_table(shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet")
    t = t.filter(np.equal(t["astrometric_params_solved"].to_numpy(), 31))
    kinds = {f.name: t[f.name].to_numpy() for f in t.schema if str(f.type) in ("float", "double", "int16")}
    return kinds


def _residuals(m, logs, model, edges):
    for lo, hi in itertools.pairwise(edges):
        mine = (m >= lo) & (m < hi) & np.isfinite(logs)
        assert mine.sum() > 30
        yield np.percentile(logs[mine] - model[mine], [16, 50, 84])


def test_parallax_errors_are_those_of_real_rows(real):
    G = real["phot_g_mean_mag"]
    model = np.log(mock_noise.parallax_error(G))
    for low, middle, high in _residuals(G, np.log(real["parallax_error"]), model, [14, 15, 16, 17, 18, 19]):
        assert abs(middle) < 0.05
        assert 0.08 < (high - low) / 2 < 0.17  # the log-normal scatter of 12 %


@pytest.mark.parametrize("name", list(mock_noise.ASTROMETRY))
def test_other_astrometric_errors_are_in_proportion(real, name):
    factor, scatter = mock_noise.ASTROMETRY[name]
    ratio = np.log(real[f"{name}_error"] / real["parallax_error"])
    low, middle, high = np.nanpercentile(ratio, [16, 50, 84])
    assert abs(middle - np.log(factor)) < 0.05 and abs((high - low) / 2 - scatter) < 0.04


@pytest.mark.parametrize("band", ["G", "BP", "RP"])
def test_flux_errors_are_those_of_real_rows(real, band):
    tag = band.lower()
    mag, snr = real[f"phot_{tag}_mean_mag"], real[f"phot_{tag}_mean_flux_over_error"]
    model = np.log10(mock_noise.relative_flux_error(mag, 0.0, band))
    for low, middle, high in _residuals(mag, -np.log10(snr), model, [13, 14.5, 15.5, 16.5, 17.5, 18.5]):
        assert abs(middle) < 0.06
        assert abs((high - low) / 2 - mock_noise.FLUX[band][2]) < 0.06


def test_ruwe_has_the_core_and_the_tail_of_real_rows(real):
    bright = real["phot_g_mean_mag"] < 17.5
    rng = np.random.default_rng(1)
    model = mock_noise.ruwe(rng.random(100_000), rng.normal(size=100_000))
    seen = real["ruwe"][bright]
    assert abs(np.median(seen) - np.median(model)) < 0.02
    for limit, slack in ((1.4, 0.03), (2.0, 0.03), (4.0, 0.015)):
        assert abs((seen > limit).mean() - (model > limit).mean()) < slack
    core = np.log(real["parallax_error"] / mock_noise.parallax_error(real["phot_g_mean_mag"]))
    bad = bright & (real["ruwe"] > 2)
    assert abs(np.median(core[bad] - np.log(mock_noise.inflation(real["ruwe"][bad])))) < 0.3


def test_the_excess_factor_has_the_width_of_the_real_one(real):
    G = real["phot_g_mean_mag"]
    z = excess_corrected(real["phot_bp_rp_excess_factor"], real["bp_rp"]) / excess_sigma(G)
    z = z[(G > 12) & (G < 17) & np.isfinite(z)]
    assert abs(1.4826 * np.median(np.abs(z - np.median(z))) - mock_noise.EXCESS_SCATTER) < 0.06
    assert 0.03 < (np.abs(z) > 3).mean() < 0.08  # blends: one in twenty


def test_excess_scatter_completes_that_of_the_fluxes():
    n = 200_000
    rng = np.random.default_rng(2)
    G, colour = np.full(n, 16.5), np.full(n, 1.5)
    share, errors = np.full(n, 0.35), (np.full(n, 7e-4), np.full(n, 5e-3), np.full(n, 3e-3))
    factor, blend = mock_noise.excess_offset(G, colour, share, errors, rng.normal(size=n), rng.random(n), 0.0)
    assert not blend.any()
    C = excess_expected(colour)
    e_G, e_BP, e_RP = (e * rng.normal(size=n) for e in errors)
    BP, RP = C * share * factor * (1 + e_BP), C * (1 - share) * factor * (1 + e_RP)
    seen = colour - POGSON * (np.log1p(e_BP) - np.log1p(e_RP))
    width = np.std(excess_corrected((BP + RP) / (1 + e_G), seen)) / excess_sigma(16.5)
    assert width == pytest.approx(mock_noise.EXCESS_SCATTER, rel=0.01)


def test_blends_are_as_many_as_asked_and_only_add_light():
    n = 100_000
    u = (np.arange(n) + 0.5) / n
    ones = np.full(n, 1e-6)
    args = (np.full(n, 15.0), np.full(n, 1.0), np.full(n, 0.4), (ones, ones, ones), np.zeros(n), u)
    factor, blend = mock_noise.excess_offset(*args, 0.05)
    assert blend.mean() == pytest.approx(0.05, abs=1e-4)
    assert np.mean((factor[blend] - 1) * excess_expected(1.0)) == pytest.approx(mock_noise.BLEND_MEAN, rel=0.01)
    assert (factor >= 1).all() and (factor[~blend] == 1).all()


def test_wavenumber_is_that_of_real_rows(real):
    x, nu = real["bp_rp"], real["nu_eff_used_in_astrometry"]
    ok = np.isfinite(x) & np.isfinite(nu) & (real["phot_g_mean_mag"] < 18)
    assert np.median(np.abs(mock_noise.effective_wavenumber(x[ok]) - nu[ok])) < 0.01


def test_radial_velocity_errors_are_those_of_real_rows(real):
    G, e = real["phot_g_mean_mag"], real["radial_velocity_error"]
    model = np.log10(mock_noise.velocity_error(G, 0.0))
    for lo, hi in ((12, 13), (13, 14), (14, 15)):
        mine = (G > lo) & (G < hi) & np.isfinite(e)
        assert abs(np.median(np.log10(e[mine]) - model[mine])) < 0.12


def test_metallicity_errors_and_spurious_parallaxes():
    feh = np.array([-2.0, -1.0, -0.75, -0.5, 0.3])
    np.testing.assert_allclose(mock_noise.metallicity_error(feh, 12.0, 0.0), [0.25, 0.25, 0.175, 0.10, 0.10])
    assert mock_noise.metallicity_error(feh, 17.0, 0.0)[0] == pytest.approx(0.275)
    u = np.linspace(0.001, 0.999, 99)
    offsets = mock_noise.spurious_parallax(u)
    assert offsets.min() >= 1 and offsets.max() <= 30 and np.median(offsets) == pytest.approx(60 / 31, rel=0.01)
