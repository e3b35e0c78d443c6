"""GaiaXPy itself beside xp: the same spectra, on its default grid and on others, with errors and correlations.

Runs where both are importable: pip install gaiaxpy==2.1.5 in an environment that has xptools.
"""

import warnings

import numpy as np
import pytest

pytest.importorskip("gaiaxpy", reason="gaiaxpy is not installed")

from xptools.cores import xpbasis, xpdesign

GRIDS = (None, tuple(np.arange(392.0, 993.0, 10)), tuple(np.linspace(330.0, 1049.7, 137)), (630.1, 637.3, 641.9, 660.0))


@pytest.fixture(scope="module")
def theirs(shared_data):
    """`theirs(name, grid)` gives flux, error and correlation of GaiaXPy's calibrator."""
    from gaiaxpy import calibrate

    def run(name, grid):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table, _ = calibrate(
                str(shared_data / "xp" / name), sampling=None if grid is None else np.array(grid), save_file=False,
                with_correlation=True,
            )  # fmt: skip
        return [np.stack(table[k].to_list()) for k in ("flux", "flux_error", "correlation")]

    return run


@pytest.fixture(scope="module")
def ours(shared_data):
    """`ours(name)` gives the coefficients of both bands."""
    from xptools import io
    from xptools.commands._spectra_input import coefficients
    from xptools.protocol import to_numpy

    def run(name):
        with io.open_reader(str(shared_data / "xp" / name)) as reader:
            (batch,) = list(reader)
        columns = {n: to_numpy(batch[n], n) for n in batch.schema.names if "_coefficient" in n}
        return [coefficients(band, columns) for band in ("bp", "rp")]

    return run


@pytest.mark.parametrize("grid", GRIDS, ids=["published", "61", "137 odd", "overlap"])
@pytest.mark.parametrize("name", ["XP_CONTINUOUS_RAW.csv", "XP_CONTINUOUS_RAW_with_missing_BP.csv"])
def test_flux_and_errors(ours, theirs, name, grid):
    bp, rp = ours(name)
    design = xpbasis.design(grid or xpdesign.PUBLISHED_GRID)
    flux, error, _ = theirs(name, grid)
    got, got_error = xpbasis.spectra(bp, rp, design), xpbasis.flux_errors(bp, rp, design)
    assert np.array_equal(np.isnan(got), np.isnan(flux))
    # relative to the spectrum where it crosses zero at the edges
    scale = np.maximum(np.abs(flux), 1e-3 * np.nanmax(np.abs(flux), axis=1, keepdims=True))
    assert np.nanmax(np.abs(got - flux) / scale) < 1e-9
    np.testing.assert_allclose(got_error, error, rtol=1e-6)


def test_correlations_agree_outside_the_overlap_and_ours_are_symmetric_inside(ours, theirs):
    bp, rp = ours("XP_CONTINUOUS_RAW.csv")
    grid = GRIDS[1]
    cov = xpbasis.unpack(xpbasis.flux_covariance(bp, rp, xpbasis.design(grid)), 61)
    scale = np.sqrt(cov.diagonal(axis1=1, axis2=2))
    i, j = np.tril_indices(61, -1)
    got = (cov / scale[:, :, None] / scale[:, None, :])[:, i, j]
    off = np.abs(got - theirs("XP_CONTINUOUS_RAW.csv", grid)[2])
    inside = np.array([grid[a] == 642 or grid[b] == 642 for a, b in zip(i, j, strict=True)])
    assert off[:, ~inside].max() < 1e-6
    # GaiaXPy 2.1.5 multiplies by one weight instead of both there
    assert off[:, inside].max() > 0.1
    assert np.array_equal(cov, cov.transpose(0, 2, 1))
