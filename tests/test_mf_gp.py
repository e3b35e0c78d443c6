"""`xp mf --method gp` as a command: a curve with its truth, report, figure, and wrong input."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from calibration_gp import broken
from test_mf import check, files, run, universe

import xptools
from xptools import metadata
from xptools.errors import UsageError

QUICK = "mf --method gp --draws 400 --warmup 400 --segments 0.15,0.55,0.75"


@pytest.fixture(scope="module")
def stars(tmp_path_factory):
    """Stars with volumes, masses spread inside their bins."""
    import pyarrow as pa

    plain, _ = universe()
    rng = np.random.default_rng(2)
    mass = plain["mass"].to_numpy() + 0.05357 * (rng.random(plain.num_rows) - 0.5)
    plain = plain.set_column(0, "mass", pa.array(mass)).replace_schema_metadata(plain.schema.metadata)
    path = tmp_path_factory.mktemp("gp") / "stars.parquet"
    pq.write_table(pa.Table.from_batches([xptools.op("veff")(plain.combine_chunks().to_batches()[0])]), path)
    return path


@pytest.fixture(scope="module")
def result(stars):
    return run(f"{QUICK} --truth", pq.read_table(stars))


def test_a_curve_near_the_truth(result):
    assert result.num_rows == 4 * 14 * 8
    rows = {name: result[name].to_numpy() for name in result.column_names}
    np.testing.assert_array_equal(np.isfinite(rows["log_phi"]), rows["mf_flag"] == 0)
    np.testing.assert_array_equal(rows["mf_flag"] & 4 > 0, rows["mass"] > 0.75)
    assert np.sqrt(np.nanmean(rows["pull"] ** 2)) < 1.8
    about = metadata.value_of(result.schema, "xp.mf")
    assert about["method"] == "gp" and about["cells"] == 8 and len(about["process"]) == 4
    for entry in about["feh"]:
        alpha, true = entry["slopes"][0]["poisson"], entry["truth"]["alpha"][0]
        assert abs(alpha["mean"] - true) < 4 * alpha["sd"]


def test_few_stars_are_sampled_as_well(stars):
    few = run(QUICK, pq.read_table(stars).slice(0, 3))
    width = few["log_phi_sd"].to_numpy()
    assert np.nanmin(width) > 0.2 and np.isfinite(width).any()


def test_counts_are_those_of_the_bins(stars, result):
    whole = run("mf --method exact", pq.read_table(stars))["n"].to_numpy()
    np.testing.assert_array_equal(result["n"].to_numpy().reshape(-1, 8).sum(axis=1), whole)


def test_batches_do_not_matter(stars, result):
    fold, table = xptools.op(f"{QUICK} --truth"), pq.read_table(stars)
    state = fold.zero()
    for batch in table.to_batches(max_chunksize=777):
        state = fold.merge(fold.feed(fold.zero(), batch), state)
    np.testing.assert_array_equal(fold.table(state, table.schema)["log_phi"].to_numpy(), result["log_phi"].to_numpy())


def test_intervals_hold_the_truth():
    found = broken(2, seed=5, draws=400)
    assert found["log Phi"].coverage()["95 %"]["share"] > 0.8


def test_report_and_figure(stars, xp, tmp_path):
    done = xp(*QUICK.split(), stars, "--report", tmp_path / "r.json", "-o", tmp_path / "o.parquet")
    assert done.returncode == 0, done.stderr
    schema = json.loads((files("xptools") / "data" / "mf_report.schema.json").read_text())
    check(json.loads((tmp_path / "r.json").read_text()), schema, schema)
    assert xp("mf", "--method", "exact", stars, "-o", tmp_path / "b.parquet").returncode == 0
    done = xp("plot", "mf", tmp_path / "o.parquet", "--compare", tmp_path / "b.parquet", "-o", tmp_path / "f.pdf")
    assert done.returncode == 0, done.stderr
    drawn = pq.read_table(tmp_path / "f.pdf.parquet")
    assert np.isfinite(drawn["log_phi_other1"].to_numpy()).sum() > 300
    assert b"solin2020" in xp("cite", tmp_path / "o.parquet").stdout


def test_wrong_options():
    for more in ("--prior flat", "--binaries fraction=0.4"):
        with pytest.raises(UsageError, match="prior of its own"):
            xptools.op(f"mf --method gp {more}")
