"""The same rows by other programs' clients, pyvo and astroquery, from the same real service: values and nulls."""

import gc
import warnings

import numpy as np
import pytest
import requests

from tap import universe
from tap.conftest import ROWS, parts
from tap.test_dachs import PAPER
from xptools.arrays import to_numpy

SOME = ("source_id", "parallax", "has_rvs", "astrometric_params_solved", "bp_rp")


# pyvo and astroquery leave connections open: they are collected here, lest another test be blamed for them
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    gc.collect()


@pytest.fixture
def pyvo():
    return pytest.importorskip("pyvo", reason="pyvo is not installed")


@pytest.fixture(scope="module")
def ours(clean):
    """The first rows of a fetch, and the paper's query for just these."""
    table = parts(clean).slice(0, 1001)
    ids = table["source_id"].to_pylist()
    return table, PAPER.replace("*", ", ".join(SOME), 1) + f" AND source_id BETWEEN {ids[0]} AND {ids[-1]}"


def same(theirs, table, nulls: bool = True) -> None:
    """Every value, and every null of a column that is not floating point."""
    theirs.sort("source_id")
    assert theirs["source_id"].tolist() == table["source_id"].to_pylist()
    for name in SOME:
        mask, values = np.ma.getmaskarray(np.ma.asarray(theirs[name])), np.ma.getdata(np.ma.asarray(theirs[name]))
        if values.dtype.kind == "f":
            np.testing.assert_array_equal(np.where(mask, np.nan, values), to_numpy(table[name]), name)
            continue
        assert not nulls or (mask == table[name].is_null().to_numpy()).all(), name
        known = zip(table[name].to_pylist(), mask, strict=True)
        assert values[~mask].tolist() == [v for v, gap in known if not gap], name


def test_pyvo_says_the_same_sync_and_async(dachs, ours, pyvo):
    table, adql = ours
    with requests.Session() as session:
        service = pyvo.dal.TAPService(dachs.url, session=session)
        same(service.run_async(adql, maxrec=1500).to_table(), table)
        same(service.run_sync(adql, maxrec=1500).to_table(), table)


def test_pyvo_joins_the_same_uploaded_table(dachs, pyvo, xp, tmp_path):
    from astropy.table import Table
    from tables import read

    stars = universe.stars(ROWS)["source_id"][:400]
    ids, out = tmp_path / "ids.csv", tmp_path / "s.parquet"
    ids.write_text("\n".join(["source_id", *map(str, stars)]) + "\n")
    words = ("--from", "aip", "--service", dachs.url, "--upload", "on", "--allow-missing", "--no-correlations")
    done = xp("fetch", "xp", *words, ids, "-o", out, timeout=200)
    assert done.returncode == 0, done.stderr
    adql = "SELECT x.source_id, x.rp_coefficients, x.bp_n_parameters FROM gaiadr3.xp_continuous_mean_spectrum AS x "
    adql += "JOIN TAP_UPLOAD.mine AS u ON u.source_id = x.source_id"
    with requests.Session() as session:
        service = pyvo.dal.TAPService(dachs.url, session=session)
        theirs = service.run_sync(adql, uploads={"mine": Table({"source_id": stars})}).to_table()
    theirs.sort("source_id")
    table = read(out)
    assert theirs["source_id"].tolist() == table["source_id"].to_pylist() and 0 < len(theirs) < 400
    np.testing.assert_array_equal(np.stack(theirs["rp_coefficients"].tolist()), to_numpy(table["rp_coefficients"]))


def test_astroquery_says_the_same(dachs, ours, monkeypatch, tmp_path):
    """Its TAP client only: astroquery.gaia asks ESA's archive as soon as it is imported."""
    core = pytest.importorskip("astroquery.utils.tap.core", reason="astroquery is not installed")
    monkeypatch.chdir(tmp_path)
    table, adql = ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own: sockets left open, units it does not know
        service = core.TapPlus(url=dachs.url)
        same(service.launch_job(adql).get_results(), table, nulls=False)
        job = service.launch_job_async(adql, autorun=False)
        job.start()
        same(job.get_results(), table, nulls=False)
