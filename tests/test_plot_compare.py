"""Other mass functions beside one in `xp plot mf`, lines of one mass in `xp plot cmd`."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xptools.cores import isochrone

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def mf(xp, tmp_path_factory):
    path = tmp_path_factory.mktemp("mf") / "mf.parquet"
    pipe = "mock 3000 --fractions 0 0 1 | deredden --map none | mass | veff | mf --method exact"
    assert xp("run", pipe, "-o", path).returncode == 0
    return path


def test_another_mass_function_is_matched_by_its_bins(mf, inside, tmp_path):
    """Bins in another order, one of them missing and one empty: a value where there is one, else none."""
    table = pq.read_table(mf)
    n, width = table.num_rows, 14
    order = np.random.default_rng(2).permutation(np.arange(1, n))
    other = table.select(["feh_lo", "mass_lo", "n"]).append_column("log_phi", pa.array(np.arange(n) + 0.5))
    pq.write_table(other.take(order), tmp_path / "other.parquet")
    fig = tmp_path / "mf.pdf"
    code, _, err = inside("plot", "mf", "--compare", f"A paper={tmp_path / 'other.parquet'}", mf, "-o", fig)
    assert code == 0, err
    drawn = pq.read_table(f"{fig}.parquet")
    values = drawn["log_phi_other1"].to_numpy()
    there = (table["n"].to_numpy() > 0) & (np.arange(n) > 0)
    assert len(values) == n == 4 * width and there.any()
    np.testing.assert_array_equal(values[there], np.arange(n)[there] + 0.5)
    assert np.isnan(values[~there]).all()
    assert "A paper" in drawn.schema.field("log_phi_other1").metadata[b"description"].decode()


def test_what_is_compared_must_be_a_mass_function(mf, inside, tmp_path):
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "x.parquet")
    code, _, err = inside("plot", "mf", "--compare", tmp_path / "x.parquet", mf, "-o", tmp_path / "mf.pdf")
    assert code == 65 and "log_phi" in err
    words = [w for _ in range(5) for w in ("--compare", mf)]
    code, _, err = inside("plot", "mf", *words, mf, "-o", tmp_path / "mf.pdf")
    assert code == 2 and "shows 4" in err


def test_tracks_are_the_isochrones_at_one_mass(inside, tmp_path):
    stars, fig = tmp_path / "stars.parquet", tmp_path / "cmd.pdf"
    assert inside("mock", "500", "-o", stars)[0] == 0
    code, _, err = inside("plot", "cmd", "--locus=-2,0", "--tracks", "0.3,0.8", "--age", "5", stars, "-o", fig)
    assert code == 0, err
    drawn = pq.read_table(f"{fig}.parquet").to_pylist()
    table = isochrone.load(None)
    for mass in (0.3, 0.8):
        track = [r for r in drawn if r["kind"] == "track" and r["feh"] == mass]
        magnitude, colour = table.absolute(np.full(2, mass), np.array([-2.0, 0.0]), 5.0)
        if mass < 0.5:
            assert (track[0]["x"], track[0]["y"]) == pytest.approx((colour[0], magnitude[0]))
        assert (track[-1]["x"], track[-1]["y"]) == pytest.approx((colour[1], magnitude[1]))
    assert {r["kind"] for r in drawn} >= {"locus", "track", "star"}
