"""`xp plot eta`: its numbers against counts made the slow way, and what `xp veff` makes of them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("matplotlib")

from xptools.cores import eta_counts

MASSES, METALS = "0.15,0.4,0.9", "-2.2,-1.6,-1.1"


def sample(n=4000, seed=1):
    """Stars whose eta knows their [Fe/H], with a few unknown."""
    rng = np.random.default_rng(seed)
    feh = np.where(rng.random(n) < 0.4, rng.normal(-1.6, 0.3, n), rng.normal(-0.3, 0.3, n))
    eta = np.where(feh < -1, 1.2, -0.8) + rng.normal(0, 0.7, n)
    eta[::50] = np.nan
    return {
        "true_feh": feh, "true_mass": rng.uniform(0.15, 0.9, n), "eta": eta.astype(np.float32), "bp_rp0": 1.5 - feh / 4,
        "true_component": np.where(feh < -1.1, 2, 0).astype(np.int16), "mg0": rng.uniform(4, 9, n),
    }  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("eta") / "stars.parquet"
    pq.write_table(pa.table(sample()), path, row_group_size=900)
    return path


@pytest.fixture
def drawn(inside, table, tmp_path):
    """`drawn(kind, ...)` draws the figure and gives the table beside it."""

    def draw(kind, *words, source=table):
        out = tmp_path / f"{kind}.pdf"
        code, _, err = inside("plot", "eta", "--kind", kind, *words, source, "-o", out)
        assert code == 0, err
        assert out.read_bytes().startswith(b"%PDF")
        return pq.read_table(f"{out}.parquet").to_pandas()

    return draw


@pytest.mark.parametrize("kind", ["validation", "threshold", "completeness", "cmd"])
def test_the_same_bytes_twice(drawn, kind, tmp_path):
    drawn(kind, "--mass-edges", MASSES, "--feh-edges", METALS)
    first = (tmp_path / f"{kind}.pdf").read_bytes()
    drawn(kind, "--mass-edges", MASSES, "--feh-edges", METALS)
    assert (tmp_path / f"{kind}.pdf").read_bytes() == first


def test_validation_counts_each_star_in_its_column(drawn):
    t = sample()
    got = drawn("validation")
    cells, medians = got[got.kind == "cell"], got[got.kind == "median"]
    assert cells.n.sum() == np.isfinite(t["eta"]).sum()
    assert (cells.groupby("x").density.max() == 1).all()
    for row in medians.itertuples():
        own = t["eta"][(np.abs(t["true_feh"] - row.x) < 0.05) & np.isfinite(t["eta"])]
        assert row.n == pytest.approx(len(own), abs=1)
        assert row.y == pytest.approx(np.median(own), abs=0.15)


def test_purity_and_completeness_are_shares(drawn):
    t = sample()
    got = drawn("threshold", "--mass-edges", MASSES)
    poor, halo = t["true_feh"] < -1, t["true_component"] == 2
    for lo, hi in ((0.0, np.inf), (0.15, 0.4), (0.4, 0.9)):
        inside = (t["true_mass"] >= lo) & (t["true_mass"] < hi)
        for limit in (-1.0, 0.0, 1.0):
            row = got[(got.mass_lo == lo) & (np.abs(got.threshold - limit) < 1e-6)].iloc[0]
            above = inside & (t["eta"] >= limit)
            assert row.n == pytest.approx(above.sum(), abs=1)
            assert row.purity == pytest.approx(poor[above].mean(), abs=0.003)
            assert row.completeness == pytest.approx(above[inside & poor].mean(), abs=0.003)
            assert row.halo_kept == pytest.approx(above[inside & halo].mean(), abs=0.003)
            assert row.purity_err == pytest.approx(np.sqrt(row.purity * (1 - row.purity) / row.n), rel=0.1)


def test_errors_cover():
    rng = np.random.default_rng(3)
    p, n = rng.uniform(0, 1, 20000), 40
    value, error = eta_counts.share(rng.binomial(n, p), n)
    assert np.mean(np.abs(value - p) < error) == pytest.approx(0.68, abs=0.02)
    assert np.isnan(eta_counts.share(0, 0)[0])


def test_completeness_goes_to_veff(drawn, xp, tmp_path):
    t = sample()
    got = drawn("completeness", "--mass-edges", MASSES, "--feh-edges", METALS)
    own = (t["true_feh"] > -2.2) & (t["true_feh"] < -1.6) & (t["true_mass"] < 0.4)
    row = got.iloc[0]
    assert (row.n, row.kept) == (own.sum(), (t["eta"][own] > 1).sum())
    bins = ("--mass-edges", MASSES, "--feh-edges", METALS)
    made = []
    for more in ((), ("--eta-completeness", tmp_path / "completeness.pdf.parquet")):
        done = xp("veff", "--table", *bins, *more, "-O", "json")
        assert done.returncode == 0, done.stderr
        made.append([[row[k] for k in ("veff", "veff_err")] for row in map(json.loads, done.stdout.splitlines())])
    plain, cut = (np.array(m, float) for m in made)
    np.testing.assert_allclose(cut[:, 0], plain[:, 0] * got.completeness)
    np.testing.assert_allclose(cut[:, 1] / cut[:, 0], got.completeness_err / got.completeness, rtol=1e-6)


def test_a_bin_without_stars_borrows_and_says_so(drawn):
    got = drawn("completeness", "--mass-edges", "0.01,0.15,0.9", "--feh-edges", METALS)
    assert got.n.tolist()[::2] == [0, 0]
    np.testing.assert_allclose(got.completeness[::2], got.completeness[1::2])
    np.testing.assert_allclose(got.completeness_err[::2], 12**-0.5)


def test_the_diagram_is_bluest_where_eta_is_high(drawn):
    got = drawn("cmd")
    assert got.n.sum() == np.isfinite(sample()["eta"]).sum()
    assert got.eta[got.x > 1.8].mean() > 1 > -0.5 > got.eta[got.x < 1.6].mean()


def test_truth_by_another_name_and_what_is_missing(inside, table, tmp_path):
    out = tmp_path / "a.png"
    for words, sentence in (
        (("--feh", "nothing"), "nothing missing"),
        (("--kind", "completeness", "--feh-edges", "3,4"), "inside the bins"),
    ):
        code, _, err = inside("plot", "eta", *words, table, "-o", out)
        assert code == 65
        assert sentence in err
        assert "TRY" in err
    assert not out.exists()
