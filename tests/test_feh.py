"""`xp feh` through the program and from Python: columns, inputs of every kind, flags, sentences."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from tables import exploded

import xptools
from xptools import artefact
from xptools.errors import DataError, MissingColumns

LABELS = ["teff", "teff_err", "mg", "mg_err", "feh", "feh_err", "teff_mg", "teff_feh", "mg_feh", "chi2", "feh_flag"]


CORRELATIONS = ["bp_coefficient_correlations", "rp_coefficient_correlations"]


@pytest.fixture(scope="module")
def many():
    """Mock stars with spectra and correlations, cut by true values: a cut at an observed parallax biases M_G."""
    line = "mock 4000 --select true --spectra --correlations --binaries 0 --outliers 0 --spurious 0 --seed 5"
    table = pa.Table.from_batches(list(xptools.op(line).record_batches(10_000)))
    return table.drop_columns(["feh", "feh_err"]).combine_chunks()


@pytest.fixture(scope="module")
def mock(many):
    return many.slice(0, 200).combine_chunks()


def batch(table):
    return table.combine_chunks().to_batches()[0]


def ran(line, table):
    return xptools.op(line)(batch(table))


def column(out, name):
    return np.asarray(out[name].to_numpy(zero_copy_only=False))


def test_mock_stars_get_their_labels_back(mock):
    out = ran("feh", mock)
    assert out.schema.names[-len(LABELS) :] == LABELS
    good = column(out, "feh_flag") == 0
    assert good.mean() > 0.9
    for name, width in (("teff", 30), ("mg", 0.15), ("feh", 0.1)):
        miss = column(out, name) - column(mock, f"true_{name}")
        assert np.median(np.abs(miss[good])) < width
    assert out.schema.field("teff").metadata[b"unit"] == b"K"
    assert b"unit" not in out.schema.field("feh").metadata


def calibration(table):
    """Pulls (N, 3) of unflagged stars' labels, squared Mahalanobis distances from truth, share of unflagged."""
    out = ran("feh", table)
    good = column(out, "feh_flag") & ~64 == 0
    names = ("teff", "mg", "feh")
    pull = np.stack([(column(out, n) - column(table, f"true_{n}")) / column(out, f"{n}_err") for n in names], -1)[good]
    rho = np.tile(np.eye(3), (len(pull), 1, 1))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        rho[:, i, j] = rho[:, j, i] = column(out, f"{names[i]}_{names[j]}")[good]
    return pull, np.einsum("ni,nij,nj->n", pull, np.linalg.inv(rho), pull), good.mean()


def test_the_shipped_model_is_calibrated_on_mock_stars(many):
    """Inside the training domain: unit pulls within 10 %, no bias beyond 0.1 sigma, distances that follow chi2_3."""
    pull, distance, used = calibration(many)
    assert used > 0.95
    assert np.abs(pull.std(0) - 1).max() < 0.1 and np.abs(np.median(pull, 0)).max() < 0.1
    assert np.abs(pull.mean(0)).max() < 0.1
    assert stats.kstest(distance, "chi2", args=(3,)).pvalue > 1e-3 and abs(distance.mean() - 3) < 0.3


def test_without_correlations_it_is_not(many):
    """The same errors of the flux, their correlations ignored: what the test above asks for must fail."""
    flux = pa.Table.from_batches([ran("calibrate", many)])
    pull, distance, _ = calibration(flux.drop_columns([n for n in flux.schema.names if n.startswith(("bp_c", "rp_c"))]))
    assert np.abs(pull.std(0) - 1).max() > 0.2
    assert stats.kstest(distance, "chi2", args=(3,)).pvalue < 1e-10


def test_the_program_and_its_history(xp, mock, tmp_path):
    pq.write_table(mock, tmp_path / "in.parquet")
    done = xp("feh", tmp_path / "in.parquet", "-o", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    text = b" ".join(pq.read_schema(tmp_path / "out.parquet").metadata.values()).decode(errors="replace")
    assert "feh_demo.safetensors" in text and "sha256" in json.dumps(text)


def test_kernels_loaded_give_the_bytes_of_kernels_compiled_here(xp, mock, tmp_path):
    """This process has compiled them for the tests above, the program finds them in the cache."""
    pq.write_table(mock, tmp_path / "in.parquet")
    here = ran("feh --binary", mock)
    done = xp("feh", "--binary", tmp_path / "in.parquet", "-o", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    loaded = pq.read_table(tmp_path / "out.parquet")
    for name in (*LABELS, "chi2_binary", "q", "mass_1", "mass_2"):
        np.testing.assert_array_equal(column(loaded, name), column(here, name), name)


def test_flux_with_its_covariance_is_as_good_as_coefficients(mock):
    want = ran("feh", mock)
    flux = pa.Table.from_batches([ran("calibrate --covariance", mock)])
    flux = flux.drop_columns([n for n in flux.schema.names if n.startswith(("bp_c", "rp_c"))])
    absolute = pa.Table.from_batches([ran("calibrate --covariance --absolute", mock)])
    absolute = absolute.drop_columns([n for n in absolute.schema.names if n.startswith(("bp_c", "rp_c"))])
    for table in (flux, absolute):
        got = ran("feh", table)
        for name in ("teff", "mg", "feh"):
            off = np.abs(column(got, name) - column(want, name)) / column(want, f"{name}_err")
            # a fit ends within 0.005 of chi2 / 2, which is a tenth of a standard error
            assert np.nanquantile(off, 0.95) < 0.05 and np.nanmax(off) < 0.15
        assert not (column(got, "feh_flag") & 64).any()


def test_coefficients_in_a_column_each(mock):
    """As TOPCAT explodes arrays, correlations too; a number too few is a column that is missing."""
    few = mock.slice(0, 20)
    names = {n: n for n in few.schema.names if n.startswith(("bp_c", "rp_c"))}
    spread = exploded(few, names, 1)
    want, got = ran("feh", few), ran("feh", spread)
    for name in LABELS:
        assert np.array_equal(column(want, name), column(got, name), equal_nan=True)
    short = {n: n.replace("coefficients", "coeff") for n in names if n.endswith("coefficients")}
    few = exploded(few.drop_columns(CORRELATIONS), short)
    assert (column(ran("feh", few), "feh_flag") & 64 > 0).all()
    with pytest.raises(MissingColumns, match="rp_coefficients"):
        xptools.op("feh").schema(few.drop_columns(["rp_coeff_7"]).schema)


def test_errors_alone_are_flagged(mock):
    assert (column(ran("feh", mock.drop_columns(CORRELATIONS)), "feh_flag") & 64 > 0).all()
    flux = pa.Table.from_batches([ran("calibrate", mock)])
    flux = flux.drop_columns([n for n in flux.schema.names if n.startswith(("bp_c", "rp_c"))])
    assert (column(ran("feh", flux), "feh_flag") & 64 > 0).all()


def test_dust_is_taken_off(mock):
    """Reddened by E = 0.1 and told so: the labels come back; not told, the stars look cooler."""
    from xptools.cores.extinction import curve

    flux = pa.Table.from_batches([ran("calibrate --covariance", mock)])
    y = np.stack(flux["flux"].to_pylist())
    wavelength = np.arange(392.0, 993.0, 10.0)
    dim = 10 ** (-0.4 * 0.1 * curve(wavelength))
    assert y.shape[1] == len(dim)
    from xptools.commands import _feh_input

    columns = {n: np.stack(mock[n].to_pylist()) if "coefficient" in n else column(mock, n)
               for n in (*_feh_input.COEFFICIENTS, *_feh_input.WANTS[:4], "parallax", "parallax_error")}  # fmt: skip
    plain, _ = _feh_input.spectra(wavelength, columns)
    dusty, _ = _feh_input.spectra(wavelength, columns | {"ext_e": np.full(len(y), 0.1)})
    assert np.allclose(dusty.flux * dusty.gain() * dim, plain.flux * plain.gain(), rtol=1e-12)


@pytest.mark.parametrize("method", ["lm-network", "bfgs"])
def test_methods_agree(mock, method):
    few = mock.slice(0, 60)
    want, got = ran("feh", few), ran(f"feh --method {method}", few)
    assert np.nanmean(np.abs(column(got, "chi2") - column(want, "chi2")) / 2 > 0.1) <= 0.05
    off = np.abs(column(got, "feh") - column(want, "feh")) / column(want, "feh_err")
    assert np.nanmedian(off) < 0.05


def test_exact_errors_are_near_those_of_gauss_and_newton(mock):
    few = mock.slice(0, 60)
    one, other = (column(ran(line, few), "teff_err") for line in ("feh", "feh --exact"))
    assert 0.5 < np.nanmedian(other / one) < 1.5


def test_binaries_add_columns(mock):
    out = ran("feh --binary", mock.slice(0, 50))
    assert set(out.schema.names) >= {"chi2_binary", "q", "mass_1", "mass_2"}
    assert np.isfinite(column(out, "chi2_binary")).mean() > 0.9


def test_missing_things_have_their_sentence(mock):
    no_spectra = mock.select(["source_id", "parallax"])
    with pytest.raises(DataError, match="bp_coefficients"):
        xptools.op("feh").schema(no_spectra.schema)
    flux = pa.Table.from_batches([ran("calibrate --no-errors", mock.slice(0, 5))])
    flux = flux.drop_columns([n for n in flux.schema.names if n.startswith(("bp_c", "rp_c"))])
    with pytest.raises(DataError, match="flux_err"):
        xptools.op("feh").schema(flux.schema)
    other = pa.Table.from_batches([ran("calibrate --grid 400:900:10", mock.slice(0, 5))])
    other = other.drop_columns([n for n in other.schema.names if n.startswith(("bp_c", "rp_c"))])
    with pytest.raises(DataError, match="wavelengths"):
        xptools.op("feh").schema(other.schema)


def test_wrong_models_are_refused(xp, mock, tmp_path):
    pq.write_table(mock.slice(0, 5), tmp_path / "in.parquet")
    artefact.save(tmp_path / "eta.safetensors", artefact.About("eta", [], []), {"a": np.zeros(1)})
    done = xp("feh", "--model", tmp_path / "eta.safetensors", tmp_path / "in.parquet", "-o", tmp_path / "o.parquet")
    assert done.returncode == 65 and b"model for xp eta, not for xp feh" in done.stderr
    done = xp("feh", "--isochrones", "x.dat", tmp_path / "in.parquet", "-o", tmp_path / "o.parquet")
    assert done.returncode == 2 and b"--binary" in done.stderr
