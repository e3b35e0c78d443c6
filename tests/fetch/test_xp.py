"""`xp fetch xp` against stand-ins on loopback: every star comes once, or is told; faults cost tries, never rows."""

import hashlib
import os
import signal
import subprocess
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import read

from fetch.services import Login
from fetch.spectra import COLUMNS, IDS, LEVEL8, DataLink, TapTable, same, star
from xptools.archive import http
from xptools.arrays import to_numpy
from xptools.errors import DiskError

# --- DataLink ------------------------------------------------------------------------------------------------------


def test_every_star_once_in_order_whatever_the_chunk(there, stars, fetch):
    link = DataLink(there)
    bytes_of = set()
    for chunk in (5, 23):
        code, _, said, out = fetch(stars(IDS), "--chunk", chunk)
        assert code == 0, said
        same(read(out), IDS)
        bytes_of.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(bytes_of) == 1
    assert sorted(i for ids in link.asked for i in ids) == sorted([*IDS, *IDS])
    assert not list(out.parent.glob("*.parts"))
    kind = read(out).schema.field("rp_coefficients").type
    assert pa.types.is_fixed_size_list(kind) and kind.list_size == 55


def test_the_table_is_ready_for_calibrate(there, stars, fetch, inside):
    DataLink(there)
    out = fetch(stars(IDS[:3]))[-1]
    flux = out.with_name("flux.parquet")
    code, _, said = inside("calibrate", out, "-o", flux)
    assert code == 0, said
    assert np.isfinite(to_numpy(read(flux)["flux"])).all()


@pytest.mark.parametrize("fault", [503, 429, "broken", "html", "html202", "drop", "cut", "corrupt", "choke"])
def test_a_fault_costs_a_try_and_no_star(there, stars, fetch, fault):
    DataLink(there)
    there.queue = [fault, fault]
    code, _, said, out = fetch(stars(IDS), "--chunk", 10, "--parallel", 1, "--timeout", 0.5)
    assert code == 0, said
    same(read(out), IDS)


def test_a_service_that_stays_down_is_told_and_resumed(there, stars, fetch, inside):
    link = DataLink(there)
    there.queue = [""] + ["html"] * 99
    code, _, said, out = fetch(stars(IDS), "--chunk", 10, "--parallel", 1)
    assert code == 75 and "HTML page" in said and "Traceback" not in said
    assert not out.exists()
    for verb in ("status", "resume", "cancel"):
        code, _, said = inside("fetch", verb, f"{out}.parts")
        assert code == 66 and "TRY: the command that made them" in said
    there.queue, before = [], len(link.asked)
    code, _, said, out = fetch(stars(IDS), "--chunk", 10, "--parallel", 1)
    assert code == 0, said
    assert len(link.asked) == before + 2
    same(read(out), IDS)


def test_what_a_reply_leaves_out_is_asked_for_again(there, stars, fetch):
    link = DataLink(there)
    link.forgets = [5, 2]
    code, _, said, out = fetch(stars(IDS))
    assert code == 0, said
    assert [len(ids) for ids in link.asked] == [23, 5, 2]
    same(read(out), IDS)


def test_asking_goes_on_while_anything_comes(there, stars, fetch):
    link = DataLink(there)
    link.forgets = [12, 9, 7, 5, 2, 1]
    code, _, said, out = fetch(stars(IDS), "--tries", 2)
    assert code == 0, said
    assert [len(ids) for ids in link.asked] == [23, 12, 9, 7, 5, 2, 1]
    same(read(out), IDS)


def test_950_of_1000_are_told_with_their_names(there, stars, fetch):
    ids = [LEVEL8 * 9 + k for k in range(1000)]
    link = DataLink(there)
    link.without = set(ids[::20])
    code, _, said, out = fetch(stars(ids), "--no-correlations")
    assert code == 76, said
    assert "50 of 1,000" in said and "asked 1,000, received 950, missing 50" in said
    assert not out.exists()
    listed = out.with_name("out.parquet.missing.csv").read_text().split()
    assert listed == ["source_id", *map(str, ids[::20])]
    asked = len(link.asked)
    code, _, said, out = fetch(stars(ids), "--no-correlations", "--allow-missing")
    assert code == 0, said
    assert all(len(ids) == 50 for ids in link.asked[asked:])
    assert read(out)["source_id"].to_pylist() == [i for i in ids if i not in link.without]


def test_stars_without_a_spectrum_are_not_missing(there, stars, fetch):
    link = DataLink(there)
    has = np.arange(len(IDS)) % 5 > 0
    link.without = {i for i, h in zip(IDS, has, strict=True) if not h}
    code, _, said, out = fetch(stars(IDS, has))
    assert code == 0, said
    assert "5 without a spectrum not asked for" in said
    same(read(out), [i for i in IDS if i not in link.without])


def test_a_star_without_bp_is_a_row_of_nan(there, stars, fetch):
    link = DataLink(there)
    link.single = {IDS[0], IDS[3]}
    # also where nothing else is in its part
    code, _, said, out = fetch(stars(IDS[:6]), "--chunk", 1)
    assert code == 0, said
    same(read(out), IDS[:6], link.single)


@pytest.mark.parametrize("structures", [("DATAMODEL_GAIA", "DATAMODEL_STANDARD"), ("INDIVIDUAL",)])
def test_other_names_of_the_structure_are_learned_from_the_error(there, stars, fetch, structures):
    DataLink(there, structures)
    code, _, said, out = fetch(stars(IDS), "--chunk", 12, "--parallel", 1)
    assert code == 0, said
    same(read(out), IDS)


def test_capitals_doubles_and_other_widths(there, stars, fetch):
    link = DataLink(there)
    link.upper, link.doubles, link.widths = True, True, (51, 55)
    code, _, said, out = fetch(stars(IDS), "--chunk", 8)
    assert code == 0, said
    same(read(out), IDS, widths=(51, 55))


def test_more_than_5000_a_request_is_never_asked(there, stars, fetch):
    DataLink(there)
    code, _, said, _ = fetch(stars(IDS), "--chunk", 6000)
    assert code == 2 and "5000" in said


def test_the_limit_of_the_service_is_told(there, stars, monkeypatch, fetch):
    DataLink(there)
    monkeypatch.setattr("xptools.archive.datalink.MOST", 6000)
    ids = [LEVEL8 * 9 + k for k in range(5001)]
    code, _, said, _ = fetch(stars(ids))
    assert code == 69 and "max: 5000, found: 5001" in said


def test_killed_at_any_moment_and_run_again_to_the_same_bytes(there, stars, fetch, xp, tmp_path):
    link = DataLink(there)
    table = stars(IDS)
    whole = fetch(table)[-1].read_bytes()
    out = tmp_path / "again.parquet"
    words = [xp.program, "fetch", "xp", "--chunk", "2", "--parallel", "1", "--service", f"{there.url}/data-server/data"]
    words += [str(table), "-o", str(out)]
    slow, link.packed = link.packed, lambda ids: (time.sleep(0.06), slow(ids))[1]
    asked = len(link.asked)
    for wait in (1, 4, 7, 10):
        running = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while len(link.asked) < asked + wait and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        assert not out.exists()
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole
    # nothing that had come whole was asked for again, but what was under way when the program was killed
    assert len(link.asked) - asked <= 12 + 4


def test_another_request_does_not_take_the_parts(there, stars, fetch, tmp_path):
    DataLink(there)
    work = tmp_path / "work"
    assert fetch(stars(IDS), "--work", work, "--keep-work")[0] == 0
    assert fetch(stars(IDS), "--work", work, "--keep-work")[0] == 0
    code, _, said, _ = fetch(stars(IDS[:4]), "--work", work)
    assert code == 78 and "another request" in said


def test_two_at_once_in_one_folder_are_refused(there, stars, fetch, tmp_path):
    import fcntl

    DataLink(there)
    work = tmp_path / "work"
    work.mkdir()
    with open(work / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, said, _ = fetch(stars(IDS), "--work", work)
    assert code == 73 and "another xp fetch" in said


def test_a_spoilt_part_is_fetched_again(there, stars, fetch, tmp_path):
    DataLink(there)
    work = tmp_path / "work"
    fetch(stars(IDS), "--work", work, "--keep-work", "--chunk", 10)
    part = work / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-30])
    code, _, said, out = fetch(stars(IDS), "--work", work, "--chunk", 10)
    assert code == 0, said
    same(read(out), IDS)


# --- TAP -----------------------------------------------------------------------------------------------------------


def test_tap_gives_the_same_table_and_only_the_columns_wanted(there, stars, fetch):
    tap = TapTable(there)
    there.queue = [503, "cut", "html"]
    code, _, said, out = fetch(stars(IDS), "--from", "aip", "--chunk", 10, "--no-correlations", service="/tap")
    assert code == 0, said
    same(read(out), IDS, correlations=False)
    assert all("correlations" not in q for q in tap.queries)
    code, _, said, out = fetch(stars(IDS), "--from", "aip", service="/tap")
    same(read(out), IDS)


@pytest.mark.parametrize("upload", ["auto", "on", "off"])
def test_stars_go_along_as_a_table_where_the_service_takes_one(there, stars, fetch, upload):
    tap = TapTable(there, uploads=upload == "auto")
    tap.without = set(IDS[::4])
    there.plan(("POST", "sync", {1, 2}, "dropafter"), ("POST", "sync", {4}, "html202"), ("POST", "sync", {5}, "cuteof"))
    words = ("--from", "aip", "--chunk", 10, "--upload", upload, "--parallel", 1)
    code, _, said, out = fetch(stars(IDS), *words, service="/tap")
    assert code == 76 and "asked 23, received 17, missing 6" in said
    listed = out.with_name("out.parquet.missing.csv").read_text().split()
    assert listed == ["source_id", *map(str, IDS[::4])]
    assert all(
        ("TAP_UPLOAD.stars" in q) == (upload != "off") and (" IN (" in q) == (upload == "off") for q in tap.queries
    )
    assert fetch(stars(IDS), *words, "--allow-missing", service="/tap")[0] == 0
    same(read(out), [i for i in IDS if i not in tap.without])


def test_a_service_that_refuses_a_table_is_told_with_the_cure(there, stars, fetch):
    TapTable(there)
    there.paths["/tap/sync"] = lambda r: (400, {}, b"uploads are not for you") if r.uploads else (200, {}, b"source_id")
    code, _, said, _ = fetch(stars(IDS), "--from", "aip", "--upload", "on", service="/tap")
    assert code == 69 and "uploads are not for you" in said and "TRY: --upload off" in said


def test_a_token_is_sent_and_verified(there, stars, fetch, tmp_path):
    TapTable(there, token="secret")
    words = (stars(IDS), "--from", "aip")
    code, _, said, _ = fetch(*words, service="/tap")
    assert code == 77
    file = tmp_path / "token"
    file.write_text("token = wrong\n")
    file.chmod(0o644)
    code, _, said, _ = fetch(*words, "--credentials", file, service="/tap")
    assert code == 77 and "chmod 600" in said
    file.chmod(0o600)
    code, _, said, _ = fetch(*words, "--credentials", file, service="/tap")
    assert code == 77 and "wrong" not in said.replace("--credentials", "")
    file.write_text("token = secret\n")
    code, _, said, out = fetch(*words, "--credentials", file, service="/tap")
    assert code == 0, said
    same(read(out), IDS)


# --- a login, a pipe, a full disk ---------------------------------------------------------------------------------


def test_a_login_reaches_both_servers_of_the_archive(there, stars, fetch, tmp_path):
    archive = Login(there)
    DataLink(there)
    file = tmp_path / "secret"
    file.write_text("user = ann\npassword = word\n")
    file.chmod(0o600)
    code, _, said, out = fetch(stars(IDS), "--credentials", file)
    assert code == 0, said
    assert archive.logins == ["/tap-server/login", "/data-server/login"]
    same(read(out), IDS)
    file.write_text("user = ann\npassword = other\n")
    code, _, said, _ = fetch(stars(IDS), "--credentials", file)
    assert code == 77 and "other" not in said.replace("or another", "")


def test_from_a_pipe_to_a_pipe(there, stars, xp):
    DataLink(there)
    table = stars(IDS).read_bytes()
    done = xp("fetch", "xp", "--service", f"{there.url}/data-server/data", stdin=table)
    assert done.returncode == 0, done.stderr
    same(pa.ipc.open_stream(done.stdout).read_all(), IDS)
    assert b"23 stars from 127.0.0.1" in done.stderr


def test_a_full_disk_is_told_and_what_came_is_kept(there, stars, fetch, monkeypatch):
    link = DataLink(there)
    plain, calls = http.spool, []

    def spool():
        calls.append(1)
        if len(calls) == 2:
            raise DiskError("cannot keep a temporary copy: No space left on device. TRY: XP_TMPDIR=/another/disk")
        return plain()

    monkeypatch.setattr(http, "spool", spool)
    code, _, said, out = fetch(stars(IDS), "--chunk", 10, "--parallel", 1)
    assert code == 74 and "No space left" in said and not out.exists()
    code, _, said, out = fetch(stars(IDS), "--chunk", 10, "--parallel", 1)
    assert code == 0, said
    # nothing twice; the last chunk may have been asked for before the full disk was seen
    assert sorted(len(ids) for ids in link.asked) == [3, 10, 10]


def test_the_file_of_the_missing_is_written_if_named(there, stars, fetch, tmp_path):
    DataLink(there)
    assert fetch(stars(IDS), "--missing", tmp_path / "m.csv")[0] == 0
    assert (tmp_path / "m.csv").read_text() == "source_id\n"


# --- the rest ------------------------------------------------------------------------------------------------------


def test_the_real_files_in_all_spellings(stars, fetch, tmp_path, shared_data):
    from xptools.archive import spectra, spectrafiles

    tables = []
    for name in ("XP_CONTINUOUS_RAW.csv", "XP_CONTINUOUS_RAW.ecsv"):
        with open(shared_data / "xp" / name, "rb", buffering=0) as raw:
            tables.append(spectra.normal(spectrafiles.read(raw, name), True, name))
    assert tables[0].equals(tables[1])
    name = "XP_CONTINUOUS_RAW_with_missing_BP.csv"
    with open(shared_data / "xp" / name, "rb", buffering=0) as raw:
        whole = spectra.normal(spectrafiles.read(raw, name), True, name)
    assert whole["source_id"][0].as_py() == 5405570973190252288
    assert np.isnan(to_numpy(whole["bp_coefficients"])[0]).all() and whole["bp_n_parameters"][0].as_py() == 0
    assert np.isfinite(to_numpy(whole["rp_coefficients"])).all()


def test_formats_of_one_table(tmp_path):
    from astropy.table import Table

    from xptools.archive import spectra, spectrafiles

    rows = {i: star(i) for i in IDS[:4]}
    plain = {"source_id": list(rows), **{n: [r[n] for r in rows.values()] for n in COLUMNS}}
    for path in (tmp_path / "s.fits", tmp_path / "s.vot"):
        Table(plain).write(path, format="votable" if path.suffix == ".vot" else "fits")
        with open(path, "rb", buffering=0) as raw:
            same(spectra.normal(spectrafiles.read(raw, path.name), True, path.name), rows)


def test_no_star_is_an_empty_table(there, stars, fetch):
    DataLink(there)
    code, _, said, out = fetch(stars([]))
    assert code == 0, said
    assert read(out).num_rows == 0 and "rp_coefficients" in read(out).schema.names and not there.seen


def test_an_output_that_cannot_be_is_told_before_the_first_request(there, stars, fetch, inside, tmp_path):
    DataLink(there)
    (tmp_path / "out.parquet").write_bytes(b"old")
    code, _, said, _ = fetch(stars(IDS), "--no-clobber")
    assert code == 73 and "--no-clobber" in said
    code, _, said = inside("fetch", "xp", "--service", f"{there.url}/data-server/data", stars(IDS), "-o", "x.what")
    assert code == 2 and not there.seen


def test_plan_needs_no_network(inside, stars, monkeypatch):
    monkeypatch.setenv("XP_OFFLINE", "1")
    code, out, _ = inside("fetch", "xp", "--plan", stars(IDS, [True] * 20 + [False] * 3))
    assert code == 0
    assert "20 stars" in out and "3 more have none" in out
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["1", "1", "1", "1"]


def test_offline_is_offline(inside, stars, tmp_path):
    code, _, said = inside("fetch", "xp", "--offline", stars(IDS), "-o", tmp_path / "o.parquet")
    assert code == 69 and "network" in said and [p.name for p in tmp_path.iterdir()] == ["stars.parquet"]


def test_a_failure_before_anything_came_leaves_nothing(there, stars, fetch, inside, tmp_path):
    far = f"{there.url}/nowhere"
    for words in (("--bulk", tmp_path / "nowhere"), ("--bulk", far), ("--from", "aip", "--service", "x")):
        code, _, said, _ = fetch(stars(IDS), *words, service="")
        assert code in (2, 66, 69) and "TRY" in said and "_MD5SUM" not in said, said
        assert [p.name for p in tmp_path.iterdir()] == ["stars.parquet"]
    code, _, said = inside("fetch", "xp", stars(IDS), "-o", tmp_path / "no" / "x.parquet")
    assert code == 73 and "mkdir -p" in said and not (tmp_path / "no").exists()


def test_the_table_says_where_it_is_from(there, stars, fetch):
    import json

    DataLink(there)
    out = fetch(stars(IDS[:2]))[-1]
    record = json.loads(pq.read_schema(out).metadata[b"xp.provenance"])[-1]
    assert record["cmd"] == "fetch-xp" and record["params"]["stars"] == 2
    assert str(out.parent) not in json.dumps(record)


def test_astropy_reads_the_table_without_a_warning(there, stars, fetch):
    from astropy.table import Table

    link = DataLink(there)
    link.single = {IDS[0]}
    out = fetch(stars(IDS[:3]))[-1]
    for form in ("parquet", "parquet.votable"):
        table = Table.read(out, format=form)
        assert table["source_id"].dtype == np.int64 and table["bp_n_parameters"].dtype == np.int16
        assert table["rp_coefficients"].shape == (3, 55)
