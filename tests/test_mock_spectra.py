"""`xp mock --spectra`: columns, photometry, independence of batches, the way through calibrate."""

import numpy as np
import pyarrow as pa
import pytest

import xptools
from xptools.cores import xpbasis
from xptools.cores.extinction import curve
from xptools.errors import UsageError


def table(line, rows=16384):
    return pa.Table.from_batches(list(xptools.op(line).record_batches(rows)))


def number(t, name):
    return t[name].to_numpy().astype(float)


def block(t, name):
    column = t[name].combine_chunks()
    return column.values.to_numpy().reshape(len(column), -1)


@pytest.fixture(scope="module")
def exact():
    return table("mock 600 --spectra --noise 0 --outliers 0 --spurious 0 --map toy --seed 4")


def test_the_spectra_have_the_stars_photometry(exact):
    """Without dust to 0.2 mmag; with it but for the extinction of black bodies, which the photometry has."""
    step = xptools.op("calibrate --synthetic")
    clear = table("mock 600 --spectra --noise 0 --outliers 0 --spurious 0 --seed 4")
    for stars, tolerance in ((clear, 2e-4), (exact, 4e-3)):
        out = pa.Table.from_batches([step(b) for b in stars.to_batches()])
        for band in ("g", "bp", "rp"):
            np.testing.assert_allclose(number(out, f"syn_{band}"), number(out, f"phot_{band}_mean_mag"), atol=tolerance)


def test_the_dust_of_spectra_is_the_curves():
    """xp feh takes dust off by the curve: mmag of another law would shift [Fe/H] of metal-poor stars by 0.1 dex."""
    settings = "--spectra --noise 0 --outliers 0 --spurious 0 --select true --fractions 0 0 1 --binaries 0 --seed 8"
    clear, dusty = (table(f"mock 300 {settings} --map {name}") for name in ("none", "toy"))
    shared = {s: n for n, s in enumerate(clear["source_id"].to_pylist())}
    pairs = [(shared[s], n) for n, s in enumerate(dusty["source_id"].to_pylist()) if s in shared]
    mine, other = np.array(pairs).T
    grid = xpbasis.DEFAULT_GRID
    flux = [
        xpbasis.flux(block(t, "bp_coefficients")[rows], block(t, "rp_coefficients")[rows], xpbasis.design(grid))
        for t, rows in ((clear, mine), (dusty, other))
    ]
    E = number(dusty, "true_ext_e")[other]
    off = flux[1] * 10 ** (0.4 * curve(np.array(grid)) * E[:, None]) / flux[0] - 1
    assert len(E) > 150
    # the basis adds waves of its own; the law shows in the mean over wide windows
    windows = np.array_split(np.median(off, axis=0)[1:], 3)
    assert max(abs(w.mean()) for w in windows) < 4e-4


def test_other_columns_are_what_they_were(exact):
    plain = table("mock 600 --noise 0 --outliers 0 --spurious 0 --map toy --seed 4")
    for name in plain.schema.names:
        assert plain[name].combine_chunks().equals(exact[name].combine_chunks()) or np.array_equal(
            number(plain, name), number(exact, name), equal_nan=True
        )


def test_batches_and_the_first_star_do_not_matter():
    whole = table("mock 300 --spectra --correlations")
    small = table("mock 300 --spectra --correlations", rows=7)
    later = table("mock 100 --first 200 --spectra --correlations")
    tail = whole.slice(whole.num_rows - later.num_rows)
    for name in ("bp_coefficients", "rp_coefficient_errors", "rp_coefficients", "bp_coefficient_correlations"):
        assert np.array_equal(block(whole, name), block(small, name))
        assert np.array_equal(block(tail, name), block(later, name))
    assert whole["bp_n_relevant_bases"].equals(small["bp_n_relevant_bases"])


def test_pulls_follow_the_full_covariance():
    """Noise against the noise-free spectrum, whitened by the covariance of calibrate: unit and independent."""
    noisy = table("mock 2500 --spectra --correlations --seed 1 --outliers 0 --select true")
    exact = table("mock 2500 --spectra --noise 0 --seed 1 --outliers 0 --select true")
    place = {s: n for n, s in enumerate(exact["source_id"].to_pylist())}
    both = [(n, place[s]) for n, s in enumerate(noisy["source_id"].to_pylist()) if s in place]
    mine, true = np.array(both).T
    sides = []
    for t, rows in ((noisy, mine), (exact, true)):
        sides.append([block(t, f"{b}_coefficients")[rows] for b in ("bp", "rp")])
    bands = [
        xpbasis.Coefficients(c, *(block(noisy, f"{b}_coefficient_{k}")[mine] for k in ("errors", "correlations")))
        for c, b in zip(sides[0], ("bp", "rp"), strict=True)
    ]
    grid = xpbasis.design(tuple(range(420, 990, 60)))
    off = xpbasis.spectra(*bands, grid) - xpbasis.flux(*sides[1], grid)
    cov = xpbasis.unpack(xpbasis.flux_covariance(*bands, grid), len(grid.wavelength))
    chi2 = np.einsum("ni,nij,nj->n", off, np.linalg.inv(cov / 1e-36), off) / 1e-36
    n = off.shape[1]
    assert len(chi2) > 700
    assert np.mean(chi2) == pytest.approx(n, rel=4 * np.sqrt(2 / n / len(chi2)))
    assert np.std(chi2) == pytest.approx(np.sqrt(2 * n), rel=0.15)


def test_giants_have_spectra_too():
    t = table("mock 200 --sample giants --spectra")
    assert np.isfinite(block(t, "bp_coefficients")).all() and 3500 < np.median(number(t, "true_teff")) < 5500


def test_correlations_need_spectra():
    with pytest.raises(UsageError, match="--spectra"):
        xptools.op("mock 10 --correlations")
