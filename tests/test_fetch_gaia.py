"""`xp fetch gaia` against a small TAP service in this process: counting, cutting, resuming, and every fault at once."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import threading
import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from tapstub import tap

from xptools import metadata
from xptools.archive import cuts, http, query, uws
from xptools.columns import GAIA
from xptools.errors import UsageError

ROWS = 6000
BASE = 1 << 59


def catalogue(rows: int = ROWS) -> pa.Table:
    """Sources crowded in two places, with every kind of column and nulls."""
    rng = np.random.default_rng(11)
    pixel = np.unique(np.concatenate([rng.integers(0, 12 * 4**12, rows // 2), rng.integers(10**6, 10**6 + rows, rows)]))
    ids = (pixel[:rows].astype(np.int64) << 35) + rng.integers(1, 2**33, min(rows, len(pixel)))
    n = len(ids)
    columns = {"source_id": ids}
    for name, column in GAIA.items():
        if name == "fidelity_v2":
            continue
        if column.type.startswith("float"):
            columns[name] = rng.normal(size=n).astype(column.type)
        elif column.type == "bool":
            columns[name] = rng.random(n) < 0.5
        elif column.type == "int16":
            columns[name] = rng.integers(0, 100, n).astype("i2")
    fields, arrays = [], []
    for name, values in columns.items():
        gaps = rng.random(n) < 0.1 if name in ("has_rvs", "astrometric_params_solved", "radial_velocity") else None
        fields.append(metadata.field_of(name, GAIA[name]).with_nullable(True))
        arrays.append(pa.array(values, fields[-1].type, mask=gaps))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


TABLE = catalogue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("XP_OFFLINE", raising=False)
    monkeypatch.setattr(http, "PAUSE", 0.02)
    monkeypatch.setattr(uws, "FIRST_LOOK", 0.02)
    with tap(TABLE) as running:
        running.stall = 1.5
        yield running


@pytest.fixture
def fetch(server, inside):
    """`fetch(output, ...)` gives (exit code, stderr)."""

    def run(output, *words, service=None):
        line = ("fetch", "gaia", "--service", service or server.tap, "--where", "all", "--timeout", 1, "--tries", 4)
        code, _, err = inside(*line, *words, "-o", f"{output}/" if output.suffix == "" else output)
        return code, err

    return run


def parts(folder) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in sorted(folder.glob("part-*.parquet")))


def equal(found: pa.Table, expected: pa.Table = TABLE) -> None:
    """Bit for bit, in order; a null float may have become NaN."""
    expected = expected.sort_by("source_id")
    assert found.schema.names == expected.schema.names
    for name in expected.schema.names:
        one, other = found[name].combine_chunks(), expected[name].combine_chunks()
        assert one.type == other.type, name
        if pa.types.is_floating(one.type):
            one, other = (a.fill_null(float("nan")).to_numpy(zero_copy_only=False) for a in (one, other))
            assert one.tobytes() == other.tobytes(), name
        else:
            assert one.equals(other), name


# --- the query -----------------------------------------------------------------------------------------------------


def test_the_paper_s_query_word_for_word_gets_a_range():
    text = f"SELECT * FROM gaiadr3.gaia_source WHERE {query.PAPER.replace('{true}', repr('true'))}"
    made = query.given(text, False).rows(5, 9, "'true'")
    assert made == (
        "SELECT * FROM gaiadr3.gaia_source WHERE source_id BETWEEN 5 AND 9 AND (has_xp_continuous = 'true' AND "
        "parallax > 1 AND parallax_over_error > 10 AND phot_g_mean_mag < 17.5 AND phot_g_mean_mag + "
        "5*log10(parallax/100) > 4)"
    )
    assert query.given(text, True).rows(5, 9, "x") == text


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("select a from t", "SELECT a FROM t WHERE source_id BETWEEN 1 AND 2"),
        ("SELECT a FROM t x WHERE b='WHERE'", "SELECT a FROM t x WHERE source_id BETWEEN 1 AND 2 AND (b='WHERE')"),
        ("SELECT g.a FROM t AS g JOIN u USING (source_id)",
         "SELECT g.a FROM t AS g JOIN u USING (source_id) WHERE g.source_id BETWEEN 1 AND 2"),
        ("SELECT a FROM s.t NATURAL JOIN u", "SELECT a FROM s.t NATURAL JOIN u WHERE s.t.source_id BETWEEN 1 AND 2"),
        ("SELECT a FROM t, u WHERE t.i=u.i OR 1=1;",
         "SELECT a FROM t, u WHERE t.source_id BETWEEN 1 AND 2 AND (t.i=u.i OR 1=1)"),
        ("SELECT a FROM t WHERE i BETWEEN {lo} AND {hi}", "SELECT a FROM t WHERE i BETWEEN 1 AND 2"),
        ("SELECT a FROM t WHERE b IN (SELECT TOP 3 b FROM u ORDER BY c)",
         "SELECT a FROM t WHERE source_id BETWEEN 1 AND 2 AND (b IN (SELECT TOP 3 b FROM u ORDER BY c))"),
    ],
)  # fmt: skip
def test_a_range_goes_into_any_plain_query(text, rows):
    assert query.given(text, False).rows(1, 2, "'true'") == rows


@pytest.mark.parametrize(
    "text",
    [
        "SELECT TOP 5 a FROM t",
        "SELECT a FROM t ORDER BY b",
        "SELECT a, COUNT(*) FROM t GROUP BY a",
        "SELECT a FROM t UNION SELECT a FROM u",
        "SELECT DISTINCT a FROM t",
        "query.adql",
    ],
)
def test_what_cannot_be_cut_is_told(text):
    with pytest.raises(UsageError, match=r"TRY: --whole|neither a query"):
        query.given(text, False)


@pytest.mark.parametrize(
    ("text", "counting", "rows"),
    [
        ("SELECT a FROM t WHERE log10(b) > 1 ORDER BY a", "SELECT COUNT(*) AS n FROM t WHERE log10(b) > 1", 40),
        ("SELECT TOP 7 a FROM t JOIN u USING (i)", "SELECT COUNT(*) AS n FROM t JOIN u USING (i)", 7),
        ("select top 30 a from t order by a offset 20", "SELECT COUNT(*) AS n FROM t", 20),
        ("SELECT a, COUNT(*) AS c FROM t GROUP BY a ORDER BY c",
         "SELECT COUNT(*) AS n FROM (SELECT a, COUNT(*) AS c FROM t GROUP BY a) AS whole", 40),
        ("SELECT MAX(a) FROM t", "SELECT COUNT(*) AS n FROM (SELECT MAX(a) FROM t) AS whole", 40),
        ("SELECT DISTINCT TOP 9 a FROM t", "SELECT COUNT(*) AS n FROM (SELECT DISTINCT TOP 9 a FROM t) AS whole", 40),
    ],
)  # fmt: skip
def test_a_whole_query_is_counted(text, counting, rows):
    made = query.given(text, True).counting
    assert made.adql == counting and made.rows(40) == rows


@pytest.mark.parametrize(
    "text", ["SELECT DISTINCT log10(a) FROM t", "WITH u AS (SELECT a FROM t) SELECT a FROM u", "EXPLAIN x"]
)
def test_what_cannot_be_counted_is_not(text):
    assert query.given(text, True).counting is None


def test_leaves_cover_the_range_without_overlap():
    rng = np.random.default_rng(3)
    for _ in range(50):
        width = cuts.width(0, 12 * BASE - 1)
        counts = {int(p): int(n) for p, n in zip(rng.integers(0, 3072, 40), rng.integers(1, 900, 40), strict=True)}
        made = cuts.leaves(0, 12 * BASE - 1, width, counts, 500)
        assert made[0][0] == 0 and made[-1][1] == 12 * BASE - 1
        assert all(a[1] + 1 == b[0] for a, b in pairwise(made))
        for lo, hi, state, n in made:
            inside = sum(c for p, c in counts.items() if lo <= p * width <= hi)
            assert state == "open" if n is None else n == inside <= 500
    assert len(cuts.quarters(0, 12 * BASE - 1)) == 12
    assert [q[:2] for q in cuts.quarters(0, 7)] == [(0, 1), (2, 3), (4, 5), (6, 7)]


# --- a fetch -------------------------------------------------------------------------------------------------------


def test_a_folder(fetch, server, tmp_path, inside):
    code, err = fetch(tmp_path / "g", "--job-rows", 700)
    assert code == 0, err
    equal(parts(tmp_path / "g"))
    assert err.startswith("xp fetch gaia: asks http://127.0.0.1") and len(list((tmp_path / "g").glob("part-*"))) >= 9
    assert server.stub.jobs == {}, "finished jobs are removed"
    assert inside("fetch", "status", tmp_path / "g")[0] == 0
    code, out, _ = inside("fetch", "verify", tmp_path / "g")
    assert code == 0 and out.startswith(f"{TABLE.num_rows:,} rows in ")
    code, out, _ = inside("fetch", "status", "--json", tmp_path / "g")
    assert json.loads(out)["rows"] == json.loads(out)["expected"] == TABLE.num_rows


def test_a_stream_in_order_with_nulls(xp, server, tmp_path):
    done = xp(
        "fetch", "gaia", "--service", server.tap, "--where", "all", "--job-rows", 900, env={"XP_CACHE": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    table = ipc.open_stream(done.stdout).read_all()
    equal(table)
    for name in ("has_rvs", "astrometric_params_solved"):
        assert table[name].null_count == TABLE[name].null_count > 0
    assert metadata.history(table.schema)[0]["cmd"] == "fetch-gaia"
    assert list((tmp_path / "fetch").iterdir()) == []


def test_a_file_and_columns_and_a_region(fetch, tmp_path):
    code, err = fetch(tmp_path / "a.parquet", "--columns", "ra,parallax", "--region", "healpix:0/4-5,9")
    assert code == 0, err
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.names == ["source_id", "ra", "parallax"]
    base = TABLE["source_id"].to_numpy() >> 59
    expected = np.sort(TABLE["source_id"].to_numpy()[np.isin(base, (4, 5, 9))])
    assert (table["source_id"].to_numpy() == expected).all()
    assert metadata.unit_of(pq.read_schema(tmp_path / "a.parquet").field("parallax")) == "mas"


def test_nothing_found_is_an_empty_table(fetch, tmp_path):
    code, err = fetch(tmp_path / "a.parquet", "--region", "healpix:12/77")
    assert code == 0, err
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


def test_plan(server, inside, tmp_path, monkeypatch):
    monkeypatch.setenv("XP_CACHE", str(tmp_path))
    code, out, _ = inside("fetch", "gaia", "--service", server.tap, "--where", "all", "--job-rows", 1000, "--plan")
    assert code == 0 and re.search(rf"^{TABLE.num_rows:,} rows in \d+ jobs, about [\d.]+ MB", out, re.M)
    assert server.stub.made <= 3, "one job counts, none fetches"


def test_two_runs_give_the_same_bytes(fetch, tmp_path):
    fetch(tmp_path / "a", "--job-rows", 800, "--parallel", 1)
    fetch(tmp_path / "b", "--job-rows", 800, "--parallel", 4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def contents(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("part-*")}


def test_truth_is_written_as_the_service_wants_it(server, inside, tmp_path):
    for truth in ("TRUE", "1", "'t'"):
        server.stub.truth = truth
        out = tmp_path / f"{truth.strip(chr(39))}.parquet"
        words = ("--where", "has_xp_continuous = {true}", "--columns", "ra")
        code, _, err = inside("fetch", "gaia", "--service", server.tap, *words, "-o", out)
        assert code == 0, err
        assert pq.read_table(out).num_rows == TABLE.num_rows


def test_only_the_stars_of_a_table_which_goes_along_in_pieces(server, inside, tmp_path, monkeypatch):
    monkeypatch.setattr("xptools.archive.fetching.UPLOADED", 300)
    ids = TABLE["source_id"].to_numpy()
    wanted = np.unique(np.concatenate([ids[::5], ids[:40] + 1]))
    pq.write_table(pa.table({"SOURCE_ID": np.random.default_rng(1).permutation(wanted)}), tmp_path / "ids.parquet")
    words = ("fetch", "gaia", "--service", server.tap, "--ids", tmp_path / "ids.parquet", "--timeout", 1, "--tries", 4)
    server.plan(("POST", "async$", {2, 5}, "dropafter"), ("GET", "result", {3}, "cut"), ("GET", "phase", {6}, 404))
    code, _, err = inside(*words, "-o", f"{tmp_path}/g/")
    lacking = sorted(set(wanted.tolist()) - set(ids.tolist()))
    assert code == 76 and f"asked for {len(wanted):,} stars, of which {len(ids[::5]):,} are there" in err, err
    assert f"{len(lacking)} of {len(wanted):,} stars are not in gaiadr3.gaia_source; they are listed in" in err
    assert listed(tmp_path / "g" / "missing.csv") == lacking
    code, told, _ = inside("fetch", "status", tmp_path / "g")
    assert code == 76 and f"missing  {len(lacking)} of the stars" in told
    made = server.stub.made
    assert inside("fetch", "resume", tmp_path / "g")[0] == 76
    assert inside(*words, "--allow-missing", "-o", f"{tmp_path}/g/")[0] == 0 and server.stub.made == made
    assert inside("fetch", "status", tmp_path / "g")[0] == 0
    equal(parts(tmp_path / "g"), TABLE.filter(pa.array(np.isin(ids, wanted))))
    assert max(map(len, server.stub.uploaded)) == 300 and len(list((tmp_path / "g").glob("part-*"))) == 5
    assert server.stub.jobs == {} and inside("fetch", "verify", tmp_path / "g")[0] == 0
    code, _, err = inside(*words, "--where", "ra > 0", "--columns", "ra", "--plan", "-o", tmp_path / "p.parquet")
    assert code == 0
    (tmp_path / "none.csv").write_text("source_id\n")
    assert inside("fetch", "gaia", "--ids", tmp_path / "none.csv", "-o", tmp_path / "n.parquet")[0] == 2


def listed(path) -> list[int]:
    """The identifiers in a file of the missing."""
    first, *rest = path.read_text().splitlines()
    assert first == "source_id"
    return list(map(int, rest))


def test_stars_that_the_archive_has_not_are_listed_and_no_table_is_written(server, inside, xp, tmp_path, monkeypatch):
    monkeypatch.setenv("XP_CACHE", str(tmp_path / "cache"))
    ids = TABLE["source_id"].to_numpy()
    wanted = [int(ids[3]), 7, int(ids[9]), 8]
    (tmp_path / "ids.csv").write_text("source_id\n" + "\n".join(map(str, wanted)) + "\n")
    words = ("fetch", "gaia", "--service", server.tap, "--ids", tmp_path / "ids.csv", "--columns", "ra")
    out = tmp_path / "stars.parquet"
    code, _, err = inside(*words, "-o", out)
    assert code == 76 and not out.exists() and listed(tmp_path / "stars.parquet.missing.csv") == [7, 8], err
    made = server.stub.made
    code, _, err = inside(*words, "--allow-missing", "--missing", tmp_path / "none.csv", "-o", out)
    assert code == 0 and server.stub.made == made, "what came is kept"
    assert pq.read_table(out)["source_id"].to_pylist() == sorted([wanted[0], wanted[2]])
    assert listed(tmp_path / "none.csv") == [7, 8]
    piped = xp(*words)
    assert piped.returncode == 76 and b"they are listed in" in piped.stderr
    assert not piped.stdout.endswith(b"\xff\xff\xff\xff\0\0\0\0"), "a stream that is not whole has no end mark"
    (tmp_path / "ids.csv").write_text(f"source_id\n{wanted[0]}\n")
    code, _, err = inside(*words, "-o", out)
    assert code == 0 and not (tmp_path / "stars.parquet.missing.csv").exists(), err
    # a condition leaves stars out on purpose
    (tmp_path / "ids.csv").write_text("source_id\n" + "\n".join(map(str, wanted)) + "\n")
    assert inside(*words, "--region", "healpix:0/0-11", "-o", out)[0] == 0


WHOLE = "SELECT source_id, ra FROM gaiadr3.gaia_source ORDER BY ra"


@pytest.mark.parametrize("top", ["", "TOP 500 "])
def test_a_whole_query_in_one_job(server, inside, tmp_path, top):
    words = ("fetch", "gaia", "--service", server.tap, "--adql", WHOLE.replace("T s", f"T {top}s"), "--whole")
    code, _, err = inside(*words, "-o", tmp_path / "w.parquet")
    rows = 500 if top else TABLE.num_rows
    assert code == 0 and pq.read_table(tmp_path / "w.parquet").num_rows == rows, err
    code, out, _ = inside(*words, "--plan", "-o", tmp_path / "p.parquet")
    assert code == 0 and f"{rows:,} rows in 1 jobs" in out


def test_a_whole_query_that_gives_fewer_rows_than_it_counts(server, inside, tmp_path):
    words = ("fetch", "gaia", "--service", server.tap, "--adql", WHOLE, "--whole")
    server.stub.lose = 1
    assert inside(*words, "-o", tmp_path / "w.parquet")[0] == 0
    server.stub.lose = 99
    code, _, err = inside(*words, "-o", tmp_path / "s.parquet")
    assert (
        code == 76 and f"{TABLE.num_rows - 1:,} of {TABLE.num_rows:,}" in err and not (tmp_path / "s.parquet").exists()
    )
    server.stub.lose, server.stub.uncounted = 1, True
    code, _, err = inside(*words, "-o", tmp_path / "u.parquet")
    assert code == 0 and "cannot be counted beforehand (127.0.0.1" in err and "COUNT is not for you" in err
    code, out, _ = inside(*words, "--plan", "-o", tmp_path / "p.parquet")
    assert code == 0 and "not known" in out


def test_gzipped_replies(fetch, server, tmp_path):
    server.stub.packed = True
    server.plan(("GET", "result", {2}, "cut"))
    code, err = fetch(tmp_path / "u", "--job-rows", 3000)
    assert code == 0, err
    equal(parts(tmp_path / "u"))


def test_upper_case_names(fetch, server, tmp_path):
    server.stub.upper = True
    assert fetch(tmp_path / "u")[0] == 0
    equal(parts(tmp_path / "u"))


# --- a server that does not do as it should ------------------------------------------------------------------------


def test_a_hard_limit_cuts_finer(fetch, server, tmp_path):
    server.stub.most = 400
    code, err = fetch(tmp_path / "g", "--job-rows", 2000)
    assert code == 0, err
    equal(parts(tmp_path / "g"))
    assert max(pq.read_metadata(p).num_rows for p in (tmp_path / "g").glob("part-*")) < 400


def test_what_takes_too_long_is_cut_finer(fetch, server, tmp_path):
    server.stub.slow = 900
    code, err = fetch(tmp_path / "g", "--job-rows", 5000)
    assert code == 0, err
    equal(parts(tmp_path / "g"))


@pytest.mark.parametrize("what", ["kill", "forget", "twice", "lose"])
def test_jobs_that_die_or_lie_are_made_again(fetch, server, tmp_path, what):
    server.stub.looks = 1
    setattr(server.stub, what, 3)
    code, err = fetch(tmp_path / "g", "--job-rows", 1500)
    assert code == 0, err
    equal(parts(tmp_path / "g"))


def test_rows_that_stay_missing_are_named(fetch, server, tmp_path, inside):
    server.stub.lose = 10**6
    code, err = fetch(tmp_path / "g", "--job-rows", 1500)
    assert code == 76 and re.search(r"source_id \d+ to \d+: [\d,]+ of [\d,]+", err) and "TRY:" in err
    assert inside("fetch", "status", tmp_path / "g")[0] == 76 and inside("fetch", "verify", tmp_path / "g")[0] == 76
    server.stub.lose = 0
    assert inside("fetch", "resume", tmp_path / "g")[0] == 0
    equal(parts(tmp_path / "g"))


def test_a_stream_with_missing_rows_never_looks_whole(xp, server, tmp_path):
    server.stub.lose = 10**6
    out = tmp_path / "o.parquet"
    done = xp(
        "fetch", "gaia", "--service", server.tap, "--where", "all", "-o", out, env={"XP_CACHE": str(tmp_path / "c")}
    )
    assert done.returncode == 76 and not out.exists()


@pytest.mark.parametrize("style", [200, 400, 500])
def test_words_against_the_query_reach_the_user(fetch, server, tmp_path, style):
    server.stub.style = style
    server.stub.broken = "Field query: No such field known: parallaxe"
    code, err = fetch(tmp_path / "g")
    last = err.strip().splitlines()[-1]
    assert code == 65 and "does not accept the query: No such field known: parallaxe. TRY:" in last
    assert len([1 for m, p, *_ in server.log if p.endswith("sync")]) == 1, "no second try"


FAULTS = {
    "busy": [("*", "tap/", {1, 4, 9, 13}, 503), ("*", "async", {3, 11, 20}, 429), ("*", "result", {2}, 500)],
    "drops": [("GET", "phase", {1, 3, 6}, "drop"), ("GET", "result", {2}, "drop"), ("POST", "sync", {1}, "drop")],
    "lost answer of a new job": [("POST", "async$", {2, 3}, "dropafter")],
    "lost answer of a start": [("POST", "phase", {1, 2, 4}, "dropafter")],
    "cut results": [("GET", "result", {2, 3, 6}, "cut")],
    "cut results of unknown length": [("GET", "result", {1, 3, 6}, "cuteof")],
    "a web page": [("GET", "result", {2}, "html202"), ("GET", "phase", {3}, "html"), ("POST", "sync", {1}, "html")],
    "expired": [("GET", "phase", {4}, 404), ("GET", "result", {3}, 404)],
    "stalls": [("GET", "result", {2}, "stall"), ("GET", "phase", {5}, "stall")],
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_on_the_way(fetch, server, tmp_path, name):
    server.plan(*FAULTS[name])
    code, err = fetch(tmp_path / "g", "--job-rows", 1500)
    assert code == 0, err
    equal(parts(tmp_path / "g"))
    assert any(fault for *_, fault in server.log)
    assert server.stub.jobs == {}, "jobs are left on the server"


def test_expired_token(server, fetch, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("token = abc")
    secret.chmod(0o600)
    server.plan(("*", "tap/async", "*", 401))
    code, err = fetch(tmp_path / "g", "--credentials", secret)
    assert code == 77 and "does not let you in (HTTP 401)" in err


def test_a_token_that_expires_on_the_way_and_is_renewed(server, fetch, tmp_path, inside):
    secret = tmp_path / "secret"
    secret.write_text("token = abc")
    secret.chmod(0o600)
    server.plan(*[("*", "result|phase|async$", set(range(9, 10**4)), 401)])
    code, err = fetch(tmp_path / "g", "--job-rows", 800, "--credentials", secret)
    assert code == 77 and "does not let you in (HTTP 401)" in err and "abc" not in err
    came = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "g").glob("part-*")}
    for thread in threading.enumerate():  # of the process that would have ended
        if thread.name == "xp-fetch":
            thread.join()
    secret.write_text("token = new")
    server.plan()
    assert inside("fetch", "resume", tmp_path / "g")[0] == 0
    assert {h.get("Authorization") for _, _, h, _ in server.log} == {"Token new"}
    equal(parts(tmp_path / "g"))
    assert all((tmp_path / "g" / name).stat().st_mtime_ns == when for name, when in came.items())


def test_two_services_one_down(fetch, server, tmp_path, inside):
    with tap(TABLE) as other:
        server.plan(("*", ".", "*", 503))
        code, err = fetch(tmp_path / "g", "--job-rows", 1500, service=f"{server.tap},{other.tap}")
        assert code == 0 and "Going on with the next service" in err
        equal(parts(tmp_path / "g"))
        assert other.stub.made > 3 and server.stub.made == 0


def test_a_service_that_goes_down_meanwhile(fetch, server, tmp_path):
    with tap(TABLE) as other:
        server.plan(("GET", "result", {1, 2, 3}, "never"), ("*", "result|phase", "*", 500))
        code, err = fetch(tmp_path / "g", "--job-rows", 1500, service=f"{server.tap},{other.tap}")
        assert code == 0, err
        equal(parts(tmp_path / "g"))


def test_nobody_there(fetch, server, tmp_path):
    code, err = fetch(tmp_path / "g", service="http://127.0.0.1:9")
    assert code == 75 and "127.0.0.1:9 cannot be reached" in err and "TRY:" in err


# --- ends and beginnings -------------------------------------------------------------------------------------------


MOMENTS = [0.35, 0.5, 0.65, 0.8, 0.95, 1.1, 1.3, 1.5, 1.8, 2.1]


def test_killed_at_ten_moments_and_resumed_to_the_same_bytes(xp, server, tmp_path):
    line = ("fetch", "gaia", "--service", server.tap, "--where", "all", "--job-rows", "700", "-q", "-o")
    assert xp(*line, f"{tmp_path / 'clean'}/").returncode == 0
    folder = tmp_path / "killed"
    for moment in MOMENTS:
        running = subprocess.Popen([xp.program, *line, f"{folder}/"], stderr=subprocess.DEVNULL)
        time.sleep(moment)
        running.send_signal(signal.SIGKILL)
        running.wait()
    before = server.stub.made
    assert xp(*line, f"{folder}/").returncode == 0
    assert contents(folder) == contents(tmp_path / "clean")
    jobs = len(contents(folder))
    assert before <= 4 * jobs and server.stub.jobs == {}
    assert not list(folder.glob(".*tmp")) and not list((folder / "incoming").iterdir())


def test_a_job_whose_address_was_lost_is_swept_though_nothing_is_left_to_do(fetch, server, tmp_path, inside):
    assert fetch(tmp_path / "g", "--job-rows", 2000)[0] == 0
    base = sqlite3.connect(tmp_path / "g" / "manifest.sqlite")
    ident = json.loads(base.execute("SELECT value FROM words WHERE key = 'ident'").fetchone()[0])
    server.stub.jobs["lost"] = {"form": {"runid": f"xp-{ident[:16]}", "query": "q"}, "phase": "PENDING", "looks": 0}
    server.stub.jobs["other"] = {"form": {"runid": "someone", "query": "q"}, "phase": "PENDING", "looks": 0}
    assert inside("fetch", "resume", tmp_path / "g")[0] == 0 and len(server.stub.jobs) == 2, "a whole fetch asks nobody"
    with base:
        base.execute("UPDATE words SET value = 'false' WHERE key = 'swept'")
    base.close()
    assert inside("fetch", "resume", tmp_path / "g")[0] == 0 and list(server.stub.jobs) == ["other"]


def test_a_running_job_is_found_again(fetch, server, tmp_path, inside):
    """The manifest has a job's address before the job runs: what is there is not asked for twice."""
    assert fetch(tmp_path / "g", "--job-rows", 2000)[0] == 0
    base = sqlite3.connect(tmp_path / "g" / "manifest.sqlite")
    lo, hi = base.execute("SELECT lo, hi FROM ranges WHERE rows > 0 LIMIT 1").fetchone()
    names = ", ".join(f"g.{n}" for n in TABLE.schema.names)
    form = {"query": f"SELECT {names} FROM t AS g WHERE g.source_id BETWEEN {lo} AND {hi}", "maxrec": "100000"}
    server.stub.jobs["old"] = {"form": form, "phase": "COMPLETED", "looks": 0}
    made = server.stub.made
    with base:
        base.execute(
            "UPDATE ranges SET state = 'todo', file = NULL, job = ? WHERE lo = ?", (f"{server.tap}/async/old", lo)
        )
    base.close()
    assert inside("fetch", "resume", tmp_path / "g")[0] == 0
    assert server.stub.made == made and "old" not in server.stub.jobs
    equal(parts(tmp_path / "g"))


def test_a_damaged_part_is_found_and_fetched_again(fetch, tmp_path, inside):
    fetch(tmp_path / "g", "--job-rows", 2000)
    before = contents(tmp_path / "g")
    victim = sorted((tmp_path / "g").glob("part-*"))[1]
    victim.write_bytes(victim.read_bytes()[:-40] + b"x" * 40)
    code, _, err = inside("fetch", "verify", tmp_path / "g")
    assert code == 65 and "not those that were written" in err
    assert inside("fetch", "status", tmp_path / "g")[0] == 75
    assert inside("fetch", "resume", tmp_path / "g")[0] == 0 and contents(tmp_path / "g") == before


def test_cancel_removes_the_jobs(fetch, server, tmp_path, inside):
    server.plan(("GET", "rows|result", {3, 4, 5, 6, 7, 8, 9}, 403))
    assert fetch(tmp_path / "g", "--job-rows", 1500)[0] == 77
    assert server.stub.jobs
    server.plan()
    code, out, _ = inside("fetch", "cancel", tmp_path / "g")
    assert code == 0 and re.match(r"[1-9]\d* jobs removed", out) and server.stub.jobs == {}
    assert inside("fetch", "resume", tmp_path / "g")[0] == 0
    equal(parts(tmp_path / "g"))


def test_another_query_in_the_same_folder_is_refused(fetch, tmp_path):
    fetch(tmp_path / "g")
    code, err = fetch(tmp_path / "g", "--columns", "ra")
    assert code == 78 and "another query's rows" in err


def test_a_folder_in_use_is_refused(fetch, tmp_path):
    import fcntl

    fetch(tmp_path / "g")
    with open(tmp_path / "g" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, err = fetch(tmp_path / "g")
    assert code == 73 and "another xp fetch works in" in err


def test_a_manifest_that_is_locked_or_damaged(fetch, tmp_path, inside):
    fetch(tmp_path / "g", "--region", "healpix:0/3")
    file = tmp_path / "g" / "manifest.sqlite"
    other = sqlite3.connect(file)
    other.execute("BEGIN EXCLUSIVE")
    code, _, err = inside("fetch", "status", tmp_path / "g")
    other.close()
    assert code == 73 and "another program holds the manifest" in err
    file.write_bytes(b"no database at all" * 300)
    code, _, err = inside("fetch", "status", tmp_path / "g")
    assert code == 65 and "is damaged" in err


def test_disc_full(server, xp, tmp_path):
    """A limit on the size of files stands for a full disc: 74, and what was whole stays."""
    small = (
        f"ulimit -f 24; trap '' XFSZ; exec '{xp.program}' fetch gaia --service {server.tap} --where all "
        f"-o {tmp_path}/g/"
    )
    done = subprocess.run(["bash", "-c", small], capture_output=True, text=True, check=False)
    assert done.returncode == 74 and "TRY:" in done.stderr and "Traceback" not in done.stderr


def test_offline(inside, tmp_path):
    code, _, err = inside("fetch", "gaia", "--offline", "-o", tmp_path / "g.parquet")
    assert code == 69 and "network may not be used" in err


def test_a_reader_that_goes_away(xp, server, tmp_path):
    line = (
        f"'{xp.program}' fetch gaia -q --service {server.tap} --where all | head -c 9 >/dev/null; "
        "echo ${PIPESTATUS[0]}"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "XP_CACHE": str(tmp_path)})  # fmt: skip
    assert done.stdout.strip() == "141" and done.stderr == ""


def test_a_query_that_is_not_accepted_leaves_nothing_in_the_way_of_a_better_one(server, fetch, tmp_path, monkeypatch):
    monkeypatch.setenv("XP_CACHE", str(tmp_path / "cache"))
    server.stub.broken = "column 'paralax' is not there"
    for output in (tmp_path / "g", tmp_path / "g.parquet"):
        code, err = fetch(output, "--columns", "paralax")
        assert code == 65 and "paralax" in err
        assert not (tmp_path / "g").exists() and not list((tmp_path / "cache").glob("fetch/*"))
    server.stub.broken = ""
    # the probe was let pass, and the job that counts is refused
    server.stub.refused = "COUNT"
    code, err = fetch(tmp_path / "g", "--columns", "ra")
    assert code == 65 and "may not be asked" in err and not (tmp_path / "g").exists()
    server.stub.refused = ""
    assert fetch(tmp_path / "g", "--columns", "parallax")[0] == 0


@pytest.mark.parametrize("where", ["ra > 0) --", "(ra > 0", "ra > 0) OR (1 = 1", "ra > 0 -- near"])
def test_a_condition_that_would_end_the_query_is_refused(fetch, server, tmp_path, where):
    server.plan()
    code, err = fetch(tmp_path / "g", "--where", where)
    assert code == 2 and "brackets" in err and not server.log and not (tmp_path / "g").exists()
    plain = "x = 'a)--' AND (y > 0)"
    assert query.structured(("ra",), "t", plain, "", "").tail.endswith(f"AND ({plain})")


def test_an_output_that_cannot_be_is_told_before_any_request(server, fetch, tmp_path):
    (tmp_path / "old.parquet").write_bytes(b"old")
    server.plan()
    for output, words in ((tmp_path / "nodir" / "x.parquet", ()), (tmp_path / "old.parquet", ("--no-clobber",))):
        code, err = fetch(output, *words)
        assert code == 73 and "TRY" in err
    assert not server.log and [p.name for p in tmp_path.iterdir()] == ["old.parquet"]


def test_a_fetch_on_a_disc_that_cannot_be_written_can_be_looked_at(fetch, tmp_path, inside, monkeypatch):
    assert fetch(tmp_path / "g")[0] == 0
    file = f"file:{tmp_path / 'g' / 'manifest.sqlite'}?mode=ro"
    plain = sqlite3.connect
    monkeypatch.setattr("sqlite3.connect", lambda _path, **rest: plain(file, uri=True, **rest))
    code, told, err = inside("fetch", "status", tmp_path / "g")
    assert code == 0 and f"{ROWS:,} of {ROWS:,}" in told, err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--service", "esso"], "no service is called 'esso'"),
        (["--whole"], "--whole is for --adql"),
        (["--adql", "SELECT a FROM t", "--where", "x"], "--adql is the whole query"),
        (["--region", "box:1,2,3"], "--region 'box:1,2,3' is none"),
        (["--region", "cone:1"], "--region 'cone:1' is none"),
        (["--service", "esa,aip", "--credentials", "x"], "must not reach another"),
        (["--service", "aip", "--columns", "fidelity_v2"], "no table of fidelity_v2 is known at aip"),
        (["-o", "x/", "-O", "fits"], "a folder holds Parquet, not fits"),
        (["-o", "x"], "no format goes with 'x'"),
    ],
)
def test_usage(inside, words, told):
    code, _, err = inside("fetch", "gaia", "-o", "x.parquet", *words)
    assert code == 2 and told in err
