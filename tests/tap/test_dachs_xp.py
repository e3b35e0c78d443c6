"""`xp fetch xp` by TAP at a real service: arrays as DaCHS writes them, nulls, limits, bad tables."""

import numpy as np
import pytest
from servers import serving
from tables import read

from tap import universe
from tap.conftest import MOST, ROWS
from tap.test_dachs import through
from xptools.arrays import to_numpy


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("XP_OFFLINE", raising=False)


@pytest.fixture(scope="module")
def truth() -> dict[str, list]:
    stars = universe.stars(ROWS)
    some = np.flatnonzero(stars["has_xp_continuous"])[: universe.XP_ROWS]
    return universe.spectra(stars["source_id"][some])


@pytest.mark.parametrize("correlations", [True, False])
def test_every_star_of_the_service_bit_for_bit(xp, dachs, truth, tmp_path, correlations):
    ids = tmp_path / "ids.csv"
    ids.write_text("\n".join(["source_id", *map(str, truth["source_id"][::-1])]) + "\n")
    words = ("--from", "aip", "--service", dachs.url, "--chunk", 120, ids, "-o", tmp_path / "s.parquet")
    done = xp("fetch", "xp", *([] if correlations else ["--no-correlations"]), *words, timeout=200)
    assert done.returncode == 0, done.stderr
    table = read(tmp_path / "s.parquet")
    assert table["source_id"].to_pylist() == sorted(int(i) for i in truth["source_id"])
    order = np.argsort(truth["source_id"])
    for name in table.schema.names[1:]:
        values = to_numpy(table[name])
        for row, k in enumerate(order):
            wanted = truth[name][k]
            empty = np.nan if values.dtype.kind == "f" else 0
            np.testing.assert_array_equal(values[row], empty if wanted is None else wanted, name)
    assert ("bp_coefficient_correlations" in table.schema.names) == correlations


@pytest.mark.parametrize("upload", ["auto", "off"])
def test_an_uploaded_table_of_stars_and_what_is_missing(xp, dachs, truth, tmp_path, upload):
    """Stars with and without a spectrum in one request: those that stay away are named, the others come once."""
    stars = universe.stars(ROWS)["source_id"]
    there = sorted(map(int, truth["source_id"]))
    absent = sorted(set(map(int, stars[:400])) - set(there))
    ids, out = tmp_path / "ids.csv", tmp_path / "s.parquet"
    ids.write_text("\n".join(["source_id", *map(str, [*there, *absent])]) + "\n")
    words = ("fetch", "xp", "--from", "aip", "--no-correlations", "--chunk", 500, "--upload", upload, "--tries", 1, ids)
    with serving(through(dachs)) as proxy:
        line = (*words, "--service", f"{proxy.url}/tap", "-o", out)
        done = xp(*line, timeout=200)
        kinds = {h.get("Content-Type", "").split(";")[0] for m, path, h, _ in proxy.log if path.endswith("/sync")}
        assert done.returncode == 76 and f"missing {len(absent)}".encode() in done.stderr, done.stderr
        assert kinds == {"multipart/form-data" if upload == "auto" else "application/x-www-form-urlencoded"}
        listed = out.with_name("s.parquet.missing.csv").read_text().split()[1:]
        assert listed == list(map(str, absent)) and not out.exists()
        assert xp(*line, "--allow-missing", timeout=200).returncode == 0
    assert read(out)["source_id"].to_pylist() == there


def test_a_query_larger_than_the_service_s_limit_is_counted(xp, dachs, truth, tmp_path):
    """More identifiers than the service gives rows: what it cut off is asked for again, and nothing is lost."""
    stars = universe.stars(ROWS)["source_id"]
    assert len(stars) > MOST
    ids = tmp_path / "ids.csv"
    ids.write_text("\n".join(["source_id", *map(str, stars[: MOST + 200])]) + "\n")
    words = ("--from", "aip", "--service", dachs.url, "--chunk", MOST + 200, "--tries", 1, ids, "--no-correlations")
    done = xp("fetch", "xp", *words, "--allow-missing", "-o", tmp_path / "s.parquet", timeout=200)
    assert done.returncode == 0, done.stderr
    there = set(map(int, truth["source_id"])) & set(map(int, stars[: MOST + 200]))
    assert set(read(tmp_path / "s.parquet")["source_id"].to_pylist()) == there


def test_a_table_that_is_not_there_is_said_in_the_service_s_words(xp, dachs, truth, tmp_path, monkeypatch):
    ids = tmp_path / "ids.csv"
    ids.write_text(f"source_id\n{truth['source_id'][0]}\n")
    url = dachs.url.removesuffix("/tap") + "/nothing"
    done = xp("fetch", "xp", "--from", "aip", "--service", url, ids, "-o", tmp_path / "s.parquet", timeout=200)
    assert done.returncode == 69, done.stderr
    assert b"Traceback" not in done.stderr
