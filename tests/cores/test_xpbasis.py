"""Design matrices and error propagation: published numbers, plain matrix algebra, closed forms."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from xptools.cores import synthetic, xpbasis, xpdesign
from xptools.cores.photometry import ZERO_POINT, excess_corrected, excess_sigma

# flux at 392, 492 ... 992 nm [1e-18 W m^-2 nm^-1], error over flux at 392, 692, 992, the same with floors: from the
# test files of GaiaXPy 2.1.5 by an independent implementation
PROXIMA, HOT = 5853498713190525696, 5762406957886626816
FLUX = {
    PROXIMA: (234.213, 785.874, 1177.433, 4044.452, 10117.587, 19671.490, 22524.491),
    HOT: (453.031, 247.087, 146.880, 83.721, 51.546, 32.638, 23.697),
}
ERROR = {PROXIMA: (0.15249, 0.02295, 0.00776), HOT: (0.03490, 0.00920, 0.04313)}
FLOORED = {PROXIMA: (0.15265, 0.02404, 0.01054), HOT: (0.03563, 0.01165, 0.04372)}


def stars(N=40, seed=3, K=55, correlated=True):
    """Coefficients with positive definite correlations of both bands."""
    rng = np.random.default_rng(seed)
    bands = []
    for _ in range(2):
        A = rng.normal(size=(N, K, 2 * K))
        C = A @ A.transpose(0, 2, 1)
        s = np.sqrt(C.diagonal(axis1=1, axis2=2))
        i, j = np.tril_indices(K, -1)
        rho = (C / s[:, :, None] / s[:, None, :])[:, i, j].astype(np.float32)
        values = rng.normal(size=(N, K)) * 50 + np.r_[5000, np.zeros(K - 1)]
        bands.append(xpbasis.Coefficients(values, rng.uniform(1, 3, (N, K)), rho if correlated else None))
    return bands


def covariance(bp, rp, design):
    return xpbasis.unpack(xpbasis.flux_covariance(bp, rp, design), len(design.wavelength))


def plain(bp, rp, design):
    """Flux and covariance by unpacked matrices."""
    flux = bp.values @ design.bp + rp.values @ design.rp
    cov = 0.0
    for band, D in ((bp, design.bp), (rp, design.rp)):
        C = xpbasis.coefficient_covariance(band.errors, band.correlations)
        cov = cov + D.T @ C @ D
    return flux, cov


def table(path):
    """Rows of a CSV file with very long cells."""
    csv.field_size_limit(1 << 24)
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def real(shared_data):
    def vectors(text, width):
        return np.array([float(w) for w in text.strip("()[]").split(",")]) if "," in text else np.full(width, np.nan)

    def read(name):
        rows = table(shared_data / "xp" / name)
        out = []
        for band in ("bp", "rp"):
            kinds = {"coefficients": 55, "coefficient_errors": 55, "coefficient_correlations": 1485}
            blocks = (np.array([vectors(r[f"{band}_{k}"], w) for r in rows]) for k, w in kinds.items())
            out.append(xpbasis.Coefficients(*blocks))
        return [int(r["source_id"]) for r in rows], out

    return read


def test_published_solutions_to_the_last_digits(real, shared_data):
    for name, solution in (
        ("XP_CONTINUOUS_RAW.csv", "calibrator_solution_default.csv"),
        ("XP_CONTINUOUS_RAW_with_missing_BP.csv", "with_missing_calibrator_solution.csv"),
    ):
        _, (bp, rp) = real(name)
        rows = table(shared_data / "xp" / solution)
        flux, error = (
            np.array([[float(w) for w in r[k].strip("()").split(",")] for r in rows]) for k in ("flux", "flux_error")
        )
        design = xpbasis.design(xpdesign.PUBLISHED_GRID)
        np.testing.assert_allclose(xpbasis.spectra(bp, rp, design), flux, rtol=1e-12)
        np.testing.assert_allclose(xpbasis.flux_errors(bp, rp, design), error, rtol=3e-7)


def test_reference_values_on_61_wavelengths(real):
    ids, (bp, rp) = real("XP_CONTINUOUS_RAW.csv")
    parts = np.zeros((2, len(ids), 61))
    flux = xpbasis.spectra(bp, rp, xpbasis.design(), parts)
    cov = covariance(bp, rp, xpbasis.design())
    floored = xpbasis.with_floors(cov, *parts)
    np.testing.assert_allclose(parts.sum(axis=0), flux, rtol=1e-14)
    for n, star in enumerate(ids):
        np.testing.assert_allclose(flux[n, ::10] * 1e18, FLUX[star], atol=6e-4)
        for matrix, truth in ((cov, ERROR), (floored, FLOORED)):
            np.testing.assert_allclose((np.sqrt(np.diag(matrix[n])) / flux[n])[[0, 30, 60]], truth[star], atol=6e-6)


def test_kernels_are_the_plain_matrix_products():
    bp, rp = stars()
    for grid in (xpbasis.DEFAULT_GRID, (400.0,), (630.0, 635.0, 636.5, 640.0, 643.0, 650.0), (330.0, 1050.0)):
        design = xpbasis.design(grid)
        flux, cov = plain(bp, rp, design)
        np.testing.assert_allclose(xpbasis.spectra(bp, rp, design), flux, rtol=1e-10)
        got = covariance(bp, rp, design)
        scale = np.sqrt(cov.diagonal(axis1=1, axis2=2))
        assert np.abs((got - cov) / scale[:, :, None] / scale[:, None, :]).max() < 1e-12
        np.testing.assert_allclose(xpbasis.flux_errors(bp, rp, design), scale, rtol=3e-7)
        assert np.array_equal(got, got.transpose(0, 2, 1))


def test_covariance_is_positive_in_the_overlap():
    bp, rp = stars(6)
    cov = covariance(bp, rp, xpbasis.design(tuple(np.arange(632.0, 647.0, 1.5))))
    scale = np.sqrt(cov.diagonal(axis1=1, axis2=2))
    assert np.linalg.eigvalsh(cov / scale[:, :, None] / scale[:, None, :]).min() > 0


def test_errors_agree_with_draws_of_coefficients():
    bp, rp = stars(1)
    rng = np.random.default_rng(5)
    design = xpbasis.design((450.0, 500.0, 640.0, 700.0, 900.0))
    draws = []
    for band in (bp, rp):
        L = np.linalg.cholesky(xpbasis.coefficient_covariance(band.errors, band.correlations)[0])
        draws.append(xpbasis.Coefficients(band.values + rng.normal(size=(20000, 55)) @ L.T))
    seen = np.cov(xpbasis.spectra(*draws, design).T)
    cov = covariance(bp, rp, design)[0]
    scale = np.sqrt(np.diag(cov))
    assert np.abs((seen - cov) / np.outer(scale, scale)).max() < 0.04


def test_truncation_is_the_first_coefficients():
    bp, rp = stars(5)
    used = np.array([10, 55, 3, 0, 99])
    cut = [replace(band, used=used) for band in (bp, rp)]
    flux, error = xpbasis.spectra(*cut, xpbasis.design()), xpbasis.flux_errors(*cut, xpbasis.design())
    whole, all_errors = xpbasis.spectra(bp, rp, xpbasis.design()), xpbasis.flux_errors(bp, rp, xpbasis.design())
    zeroed = [replace(band, values=np.where(np.arange(55) < 10, band.values, 0.0)) for band in (bp, rp)]
    np.testing.assert_allclose(flux[0], xpbasis.spectra(*zeroed, xpbasis.design())[0], rtol=1e-12)
    assert (error[[0, 2]] < all_errors[[0, 2]]).mean() > 0.95
    assert np.array_equal(flux[[1, 3, 4]], whole[[1, 3, 4]])


def test_a_missing_band_leaves_the_other_alone_without_weights():
    bp, rp = stars(3)
    nothing = np.full((3, 55), np.nan)
    design = xpbasis.design((600.0, 635.0, 639.0, 643.0, 700.0))
    no_bp = xpbasis.spectra(replace(bp, values=nothing), rp, design)
    assert np.isnan(no_bp).tolist() == [[True, True, False, False, False]] * 3
    np.testing.assert_allclose(no_bp[:, 2], (rp.values @ design.rp)[:, 2] / design.w_rp[2], rtol=1e-10)
    no_rp = xpbasis.spectra(bp, replace(rp, values=nothing), design)
    assert np.isnan(no_rp).tolist() == [[False, False, False, True, True]] * 3
    assert np.isnan(xpbasis.spectra(replace(bp, values=nothing), replace(rp, values=nothing), design)).all()
    cov = covariance(replace(bp, values=nothing), rp, design)
    assert np.isnan(cov[:, :2]).all() and np.isnan(cov[:, :, :2]).all() and np.isfinite(cov[:, 2:, 2:]).all()


def test_a_star_does_not_depend_on_its_neighbours():
    bp, rp = stars(200)
    rng = np.random.default_rng(1)
    order = rng.permutation(200)
    for function in (xpbasis.spectra, xpbasis.flux_errors, xpbasis.flux_covariance):
        whole = function(bp, rp, xpbasis.design())
        mixed = function(bp.rows(order), rp.rows(order), xpbasis.design())
        assert np.array_equal(whole[order], mixed)
        alone = function(bp.rows(slice(7, 8)), rp.rows(slice(7, 8)), xpbasis.design())
        assert np.array_equal(whole[7:8], alone)


def test_covariance_and_variance_are_of_one_mind_about_unknown_correlations():
    """Also where truncation leaves the unknown one out."""
    bp, rp = stars(3)
    bp.correlations[1, 1400] = np.nan
    bp = replace(bp, used=np.full(3, 20))
    known = np.ones((2, 3), bool)
    variance = xpbasis.flux_variance(bp, rp, xpbasis.design(), known[0])
    cov = xpbasis.flux_covariance(bp, rp, xpbasis.design(), known[1])
    diagonal = xpbasis.unpack(cov, 61).diagonal(axis1=1, axis2=2)
    assert known.tolist() == [[True, False, True]] * 2
    np.testing.assert_allclose(diagonal, variance, rtol=1e-6)


def test_jax_gives_what_the_compiled_kernels_give(monkeypatch):
    """As on a GPU, here on the CPU: gaps, truncation and a missing band too."""
    pytest.importorskip("jax")
    bp, rp = stars(300)
    for band in (bp, rp):
        band.values[7 + (band is rp)] = np.nan
        band.correlations[11, 99] = np.nan
    cut = [replace(band, used=np.arange(300) % 60) for band in (bp, rp)]
    none = [replace(band, correlations=None) for band in (bp, rp)]
    design = xpbasis.design()
    from xptools.cores import _jax

    _jax.configure()  # before the device is named, which is not there
    for pair in ((bp, rp), cut, none):
        both = []
        for device in ("cpu", "cuda"):
            monkeypatch.setenv("XP_DEVICE", device)
            known, parts = np.ones(300, bool), np.zeros((2, 300, 61))
            flux, variance = xpbasis.spectra(*pair, design, parts), xpbasis.flux_variance(*pair, design, known)
            both.append((flux, parts, variance, known))
        for one, other in zip(*both, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-12 * np.nanmax(np.abs(one)))
        assert not both[1][3][11]


def test_packing_comes_back():
    cov = np.arange(2 * 4 * 4.0).reshape(2, 4, 4)
    cov = cov + cov.transpose(0, 2, 1)
    packed = xpbasis.pack(cov)
    assert packed.shape == (2, 10)
    assert packed[0, :3].tolist() == [cov[0, 0, 0], cov[0, 1, 0], cov[0, 1, 1]]
    assert np.array_equal(xpbasis.unpack(packed, 4), cov)


def test_eigenvalues_are_lifted_only_where_they_must():
    good, bad = np.diag([2.0, 1.0, 0.5]), np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    out = xpbasis.lifted(np.stack([good, bad]), 1e-3)
    assert np.array_equal(out[0], good)
    values = np.linalg.eigvalsh(out[1])
    assert values[0] == pytest.approx(1e-3) and values[1:] == pytest.approx([1.0, 2.0])


def test_hermite_functions_are_orthonormal():
    x = np.linspace(-20, 20, 8001)
    phi = xpdesign.hermite(x, 55)
    np.testing.assert_allclose(phi @ phi.T * (x[1] - x[0]), np.eye(55), atol=1e-10)


def test_merge_weights():
    w_bp, w_rp = xpdesign.merge_weights(np.array([600, 635, 639, 642, 643, 700.0]))
    assert w_bp.tolist() == [1, 1, 0.5, 0.125, 0, 0] and (w_bp + w_rp == 1).all()


def test_the_stored_default_grid_is_the_model():
    arrays = {k: v for k, v in xpdesign.gaia_dr3().items() if not k.endswith("default")}
    model = xpdesign.evaluate(np.array(xpdesign.DEFAULT_GRID), arrays)
    stored = xpdesign.design()
    for name in ("bp", "rp", "bp_alone", "rp_alone"):
        np.testing.assert_allclose(getattr(stored, name), getattr(model, name), rtol=1e-10, atol=0)


def test_the_published_matrices_are_the_model_rounded():
    whole = xpdesign.design(xpdesign.PUBLISHED_GRID)
    arrays = {k: v for k, v in xpdesign.gaia_dr3().items() if not k.endswith("published")}
    model = xpdesign.evaluate(np.array(xpdesign.PUBLISHED_GRID), arrays)
    off = np.abs(whole.rp - model.rp).max(axis=0) / np.abs(model.rp).max(axis=0).clip(1e-30)
    assert 0 < off.max() < 5e-6
    red = whole.wavelength > 450
    off = np.abs(whole.bp - model.bp).max(axis=0) / np.abs(model.bp).max(axis=0).clip(1e-30)
    assert off[red].max() < 1e-5 and off.max() < 0.01


def test_passband_integrals_are_those_of_the_passbands(shared_data):
    table = np.loadtxt(shared_data / "passbands" / "gaia_dr3_passbands.csv", delimiter=",", skiprows=1)
    table = table[(table[:, 0] >= 330) & (table[:, 0] <= 1050)]
    grid = table[:, 0]
    design = xpdesign.evaluate(grid, xpdesign.gaia_dr3())
    bp, rp = stars(5)
    photons = xpbasis.spectra(bp, rp, design) * grid * xpdesign.PUPIL / xpdesign.HC_NM
    rate = np.stack([np.trapezoid(photons * T, grid, axis=1) for T in table.T[1:]], axis=1)
    np.testing.assert_allclose(synthetic.electrons(bp, rp), rate, rtol=2e-3)


@pytest.fixture(scope="module")
def photometry(shared_data):
    """Synthetic minus catalogue magnitudes (103, 3) of the stars in both tables, their catalogue, all spectra."""
    pq = pytest.importorskip("pyarrow.parquet")
    spectra = pq.read_table(shared_data / "xp" / "xp_continuous_2000.parquet")
    gaia = pq.read_table(shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet")
    bp, rp = (xpbasis.Coefficients(np.array(spectra[f"{b}_coefficients"].to_pylist())) for b in ("bp", "rp"))
    mag, _ = synthetic.magnitudes(bp, rp, errors=False)
    place = {star: n for n, star in enumerate(gaia["source_id"].to_pylist())}
    mine, theirs = np.array([(n, place[s]) for n, s in enumerate(spectra["source_id"].to_pylist()) if s in place]).T
    catalogue = gaia.take(theirs)
    names = [f"phot_{b}_mean_mag" for b in ("g", "bp", "rp")]
    seen = np.stack([catalogue[n].to_numpy().astype(float) for n in names], axis=1)
    return mag[mine] - seen, catalogue, mag, spectra


def excess(catalogue):
    """C* over its scatter (Riello+ 2021), and C* itself."""
    C, colour, G = (
        catalogue[n].to_numpy().astype(float) for n in ("phot_bp_rp_excess_factor", "bp_rp", "phot_g_mean_mag")
    )
    C = excess_corrected(C, colour)
    return C / excess_sigma(G), C


def test_synthetic_magnitudes_are_those_published_with_the_spectra(photometry):
    _, _, mag, spectra = photometry
    published = np.stack([spectra[f"syn_{b}"].to_numpy() for b in ("g", "bp", "rp")], axis=1)
    assert np.abs(mag - published).max() < 0.002


def test_synthetic_magnitudes_of_real_stars_are_the_catalogues(photometry):
    """Within 6 mmag in the mean over the stars whose catalogue row is consistent: |C*| < 3 sigma, 96 of 103."""
    off, catalogue, _, _ = photometry
    assert len(off) == 103
    good = np.abs(excess(catalogue)[0]) < 3
    assert 94 <= good.sum() <= 98
    assert (np.abs(np.nanmean(off[good], axis=0)) < 0.006).all() and (np.abs(np.nanmedian(off, axis=0)) < 0.006).all()


def test_what_is_off_in_G_is_light_that_the_catalogues_G_lacks(photometry):
    """Companions are inside the windows of BP and RP, not in the image that gives G: no fault of the synthesis."""
    off, catalogue, _, _ = photometry
    sigma, C = excess(catalogue)
    bad = off[:, 0] < -0.05
    assert bad.sum() == 5 and (sigma[bad] > 3).all()
    assert np.corrcoef(off[:, 0], C)[0, 1] < -0.95
    assert (np.abs(off[bad, 2]) < 0.015).all()


def test_magnitude_errors_follow_from_the_coefficients():
    bp, rp = stars(2)
    rng = np.random.default_rng(1)
    draws = []
    for band in (bp, rp):
        L = np.linalg.cholesky(xpbasis.coefficient_covariance(band.errors, band.correlations)[0])
        draws.append(xpbasis.Coefficients(band.values[:1] + rng.normal(size=(20000, 55)) @ L.T))
    _, err = synthetic.magnitudes(bp, rp)
    seen = synthetic.magnitudes(*draws, errors=False)[0]
    np.testing.assert_allclose(seen.std(axis=0), err[0], rtol=0.05)
    assert list(ZERO_POINT) == ["G", "BP", "RP"]
