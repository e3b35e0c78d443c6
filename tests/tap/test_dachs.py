"""`xp fetch gaia` against a real archive: DaCHS, with ADQL, jobs, limits and queues, over rows whose truth is known."""

import contextlib
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from servers import serving

from tap import universe
from tap.conftest import MOST, ROWS, parts
from xptools.archive import uws
from xptools.archive.http import Client
from xptools.archive.tap import Overflow, Tap

# Li+ 2026, Sec. 2, word for word.
PAPER = (
    "SELECT * FROM gaiadr3.gaia_source WHERE has_xp_continuous = 'true' AND parallax > 1 AND parallax_over_error > 10 "
    "AND phot_g_mean_mag < 17.5 AND phot_g_mean_mag + 5*log10(parallax/100) > 4"
)


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("XP_OFFLINE", raising=False)


@pytest.fixture(scope="session")
def sample() -> dict[str, np.ndarray]:
    """The rows that the paper's query selects, from the numbers themselves."""
    stars = universe.stars(ROWS)
    G, plx = stars["phot_g_mean_mag"].astype(float), stars["parallax"]
    keep = stars["has_xp_continuous"].astype(bool) & (plx > 1) & (stars["parallax_over_error"] > 10) & (G < 17.5)
    keep &= G + 5 * np.log10(plx / 100) > 4
    return {name: values[keep] for name, values in stars.items()}


@pytest.fixture
def gaia(xp, dachs, tmp_path):
    """`gaia(...)` runs `xp fetch gaia` at the real service."""

    def run(*words, service=None):
        line = ("fetch", "gaia", "--service", service or dachs.url, "--tries", 5, *words)
        return xp(*line, env={"XP_CACHE": str(tmp_path / "cache")}, timeout=400)

    return run


def equal(table: pa.Table, sample: dict[str, np.ndarray]) -> None:
    """Every number bit for bit, every null a null (a missing float NaN)."""
    for name, values in sample.items():
        found = table[name].combine_chunks()
        if values.dtype.kind == "f":
            ours = found.fill_null(float("nan")).to_numpy(zero_copy_only=False)
            assert ours.dtype == values.dtype, name
            assert np.array_equal(ours, values, equal_nan=True), name
        else:
            assert found.to_pylist() == [v if v is None else v.item() if hasattr(v, "item") else v for v in values], (
                name
            )


def contents(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("part-*")}


def test_the_default_recipe(clean, sample, xp):
    table = parts(clean)
    equal(table, {name: sample[name] for name in table.schema.names})
    assert len(contents(clean)) >= 3
    assert xp("fetch", "verify", clean).returncode == 0


def test_the_paper_s_adql_word_for_word(gaia, tmp_path, sample):
    """All columns; log10 is the decadic one."""
    done = gaia("--adql", PAPER, "-o", f"{tmp_path / 'g'}/")
    assert done.returncode == 0, done.stderr
    equal(parts(tmp_path / "g"), sample)


def test_a_stream_with_the_fidelity_of_another_table(gaia, sample):
    done = gaia("--fidelity", "gedr3spur.main", "--columns", "fidelity_v2,has_rvs,ra")
    assert done.returncode == 0, done.stderr
    table = ipc.open_stream(done.stdout).read_all()
    assert table["source_id"].to_pylist() == sample["source_id"].tolist()
    half = np.isin(sample["source_id"], universe.stars(ROWS)["source_id"][::2])
    assert (np.isfinite(table["fidelity_v2"].fill_null(np.nan).to_numpy()) == half).all()
    equal(table, {name: sample[name] for name in ("has_rvs", "ra")})


def test_a_cone(gaia, tmp_path):
    stars = universe.stars(ROWS)
    done = gaia("--where", "all", "--region", "cone:120,10,12", "--columns", "ra", "-o", tmp_path / "c.parquet")
    assert done.returncode == 0, done.stderr
    ra, dec = np.radians(stars["ra"] - 120), np.radians(stars["dec"])
    cosine = np.sin(dec) * np.sin(np.radians(10)) + np.cos(dec) * np.cos(np.radians(10)) * np.cos(ra)
    inside = stars["source_id"][cosine > np.cos(np.radians(12))]
    assert pq.read_table(tmp_path / "c.parquet")["source_id"].to_pylist() == inside.tolist()


def test_the_stars_of_a_table_go_along_with_the_jobs(gaia, tmp_path):
    """Upload to jobs, in pieces as the service's limit wants them; a star that is not there is told."""
    stars = universe.stars(ROWS)
    wanted = np.concatenate([stars["source_id"][::3], stars["source_id"][:7] + 1])
    (tmp_path / "ids.csv").write_text("\n".join(["source_id", *map(str, wanted)]) + "\n")
    done = gaia("--ids", tmp_path / "ids.csv", "--job-rows", 1100, "-o", f"{tmp_path / 'g'}/")
    n = len(stars["source_id"][::3])
    assert done.returncode == 76 and f"asked for {n + 7:,} stars, of which {n:,} are there".encode() in done.stderr
    table = parts(tmp_path / "g")
    equal(table, {name: stars[name][::3] for name in table.schema.names})


def test_sync_and_async_say_the_same(dachs, tmp_path):
    tap = Tap(Client(), dachs.url)
    assert tap.most == MOST and tap.format == "votable/b2"
    adql = "SELECT source_id, has_rvs, astrometric_params_solved, radial_velocity FROM gaiadr3.gaia_source"
    some = f"{adql} WHERE random_index < 900"
    at_once = tap.sync(some, 5000).sort_by("source_id")
    job = uws.Job(tap, uws.create(tap, some, 5000, "xp-test"))
    assert job.phase() == "PENDING"
    job.run()
    job.run()  # which would kill it, were it not looked at first
    job.wait()
    later = tap.table(job.result(tmp_path / "r.vot")).sort_by("source_id")
    assert at_once.equals(later) and at_once.num_rows == 900
    assert at_once["has_rvs"].null_count and at_once["radial_velocity"].null_count
    assert job.delete() and job.delete()
    with pytest.raises(uws.Gone):
        job.phase()
    with pytest.raises(Overflow) as cut:
        tap.sync(adql, 10**9)
    assert cut.value.table.num_rows == MOST


def test_what_the_service_cuts_off_is_told(gaia, tmp_path):
    done = gaia("--adql", "SELECT source_id FROM gaiadr3.gaia_source", "--whole", "-o", f"{tmp_path / 'g'}/")
    assert done.returncode == 76 and f"{MOST:,} of {len(universe.stars(ROWS)['ra']):,}".encode() in done.stderr, (
        done.stderr
    )
    assert not contents(tmp_path / "g")


def test_whole_queries_are_counted(gaia, tmp_path, dachs, sample):
    """Also what is grouped; the service itself says how many rows there are."""
    G = universe.stars(ROWS)["phot_g_mean_mag"]
    table = "gaiadr3.gaia_source"
    queries = {
        f"SELECT TOP 321 source_id, ra FROM {table} ORDER BY ra": 321,
        f"SELECT ROUND(phot_g_mean_mag) AS m, COUNT(*) AS c FROM {table} GROUP BY m": len(np.unique(np.round(G))),
        PAPER.replace("*", "source_id", 1) + " ORDER BY parallax": len(sample["source_id"]),
    }
    done = gaia("--adql", adql := next(iter(queries)), "--whole", "--plan", "-o", tmp_path / "p.parquet")
    assert done.returncode == 0 and b"321 rows in 1 jobs" in done.stdout, (adql, done.stdout, done.stderr)
    for k, (adql, rows) in enumerate(queries.items()):
        done = gaia("--adql", adql, "--whole", "-o", tmp_path / f"{k}.parquet")
        assert done.returncode == 0 and b"cannot be counted" not in done.stderr, done.stderr
        assert pq.read_table(tmp_path / f"{k}.parquet").num_rows == rows


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--columns", "parallaxe"), b"parallaxe"),
        (("--where", "parallax >> 1"), b"parse"),
        (("--table", "gaiadr3.no_such"), b"no_such"),
    ],
)
def test_the_server_s_words_in_one_sentence(gaia, words, told):
    done = gaia(*words, "-q", "-o", "never.parquet")
    assert done.returncode == 65 and done.stderr.count(b"\n") == 1, done.stderr
    assert b"does not accept the query: " in done.stderr and told in done.stderr and b"TRY:" in done.stderr


def test_a_job_killed_on_the_server(gaia, dachs, tmp_path, clean):
    """Another client aborts two jobs while they run."""
    killed, over = [], threading.Event()

    def kill():
        while len(killed) < 2 and not over.is_set():
            with contextlib.suppress(OSError):
                listed = urllib.request.urlopen(f"{dachs.url}/async?PHASE=EXECUTING", timeout=10).read().decode()
                for url in re.findall(r'href="(http[^"]*/async/\w+)"', listed):
                    if url not in killed:
                        urllib.request.urlopen(f"{url}/phase", data=b"PHASE=ABORT", timeout=10).close()
                        killed.append(url)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        done = gaia("--job-rows", 1300, "-o", f"{tmp_path / 'g'}/")
    finally:
        over.set()
        killer.join()
    assert done.returncode == 0, done.stderr
    assert killed and contents(tmp_path / "g") == contents(clean)


def test_a_client_killed_at_ten_moments_and_resumed(xp, dachs, tmp_path, clean):
    folder = tmp_path / "g"
    line = [xp.program, "fetch", "gaia", "-q", "--service", dachs.url, "--job-rows", "1300", "-o", f"{folder}/"]
    for moment in np.linspace(0.5, 1.4, 10):
        running = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert xp("fetch", "resume", folder, timeout=400).returncode == 0
    assert contents(folder) == contents(clean)


def through(dachs):
    """Routes of a proxy to the real service, which speaks of itself under the proxy's address."""

    def routes(request):
        query = "" if request.method == "POST" else "&".join(f"{k}={v}" for k, v in request.form.items())
        url = f"http://127.0.0.1:{dachs.port}{request.path}" + (f"?{query}" if query else "")
        body = request.body if request.method == "POST" else None
        asked = urllib.request.Request(url, data=body, method=request.method)
        for name in ("Content-Type", "Range"):
            if name in request.headers:
                asked.add_header(name, request.headers[name])
        try:
            reply = opener.open(asked, timeout=60)
        except urllib.error.HTTPError as fault:
            reply = fault
        with reply:
            here = request.headers["Host"]
            told = {k: v.replace(f"127.0.0.1:{dachs.port}", here) for k, v in reply.headers.items() if k in KEPT}
            return reply.status, told, reply.read()

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    opener = urllib.request.build_opener(Stay)
    return routes


KEPT = {"Content-Type", "Location", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified"}
FAULTS = {
    "busy or deaf": [
        ("*", "async", {2, 7, 15, 22}, 503),
        ("POST", "sync", {1}, 429),
        ("POST", "async$", {3}, "dropafter"),
        ("POST", "phase", {2, 4}, "dropafter"),
    ],
    "cut or wrong": [
        ("GET", "result", {1, 3}, "cut"),
        ("GET", "result", {4}, "cuteof"),
        ("GET", "result", {5}, "html202"),
        ("GET", "result", {6}, "stall"),
        ("GET", "phase", {3, 8}, "drop"),
        ("GET", "phase", {5}, "html"),
    ],
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_between(gaia, dachs, tmp_path, clean, name):
    with serving(through(dachs)) as proxy:
        proxy.stall = 2.5
        proxy.plan(*FAULTS[name])
        words = ("--job-rows", 1300, "--timeout", 2, "-o", f"{tmp_path / 'g'}/")
        done = gaia(*words, service=f"{proxy.url}/tap")
        assert done.returncode == 0, done.stderr
        assert {fault for *_, fault in proxy.log} > {None}
    assert content_of(contents(tmp_path / "g")) == content_of(contents(clean))


def content_of(files: dict[str, bytes]) -> dict[str, bytes]:
    """The rows of parts, byte by byte, without the history, which names another service."""
    return {name: plain(pq.read_table(pa.BufferReader(body))) for name, body in files.items()}


def plain(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.replace_schema_metadata(None).combine_chunks())
    return sink.getvalue().to_pybytes()


def test_two_services_one_down(gaia, dachs, tmp_path, clean):
    with serving(through(dachs)) as proxy:
        proxy.plan(("GET", "result", {1, 2}, "none"), ("*", ".", set(range(14, 10**5)), 503))
        services = f"{proxy.url}/tap,{dachs.url}"
        done = gaia("--job-rows", 1300, "--tries", 2, "-o", f"{tmp_path / 'g'}/", service=services)
    assert done.returncode == 0 and b"Going on with the next service" in done.stderr, done.stderr
    assert content_of(contents(tmp_path / "g")) == content_of(contents(clean))


def test_nothing_is_left_on_the_server(dachs, clean):
    """Of fetches that ended well no job is left; orphans that never started cost a server nothing."""
    listed = urllib.request.urlopen(f"{dachs.url}/async", timeout=10).read().decode()
    assert set(re.findall(r"<uws:phase>(\w+)</uws:phase>", listed)) <= {"PENDING", "ABORTED"}, listed
