"""What a person sees of a fetch: rows, bytes, jobs, the time that is left; the plan before anything large."""

import os
import pty
import subprocess

import numpy as np
import pyarrow as pa
import pytest
from tapstub import tap

from fetch.spectra import IDS, DataLink
from xptools.archive import gaia, meter, spectrafetch

ROWS = 3000


def test_counts_and_the_time_that_is_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    found = meter.Meter("xp fetch gaia", False)
    assert found.words() == "0 rows, 0 B, 0 jobs"
    found.add(rows=1000, old=True)  # of an earlier run: they say nothing of today's speed
    found.expect(5000)
    assert found.left() is None
    now[0] += 20
    found.add(rows=1000, bytes=2_500_000, jobs=2)
    assert found.left() == pytest.approx(60)
    assert found.words() == "2,000 of 5,000 rows, 2.5 MB, 2 jobs, 00:01:00 left"
    found.add(bytes=-500_000)  # a part that was thrown away
    found.add(rows=3000)
    assert found.words().startswith("5,000 of 5,000 rows, 2 MB, 2 jobs")
    files = meter.Meter("xp fetch hats", False, "partitions")
    files.expect(12)
    files.add(rows=3, bytes=4000)
    assert files.words().startswith("3 of 12 partitions, 4 kB")
    assert meter.size(999) == "999 B" and meter.size(3.2e9) == "3.2 GB"


def drawn(words: list[str]) -> tuple[int, str]:
    """Exit status of a program whose stderr is a terminal, and what came there."""
    leader, follower = pty.openpty()
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    seen = b""
    try:
        while block := os.read(leader, 1 << 16):
            seen += block
    except OSError:  # the terminal is gone with the program
        pass
    os.close(leader)
    return running.wait(), seen.decode()


def test_on_a_terminal_rows_bytes_jobs_and_time_are_drawn(xp, there, stars, tmp_path):
    table = pa.table({"source_id": pa.array(np.arange(1, ROWS + 1) << 45), "parallax": pa.array(np.ones(ROWS))})
    with tap(table) as archive:
        archive.delay = 0.05
        line = [xp.program, "fetch", "gaia", "--service", archive.tap, "--where", "all", "--columns", "parallax"]
        code, seen = drawn([*line, "--job-rows", "400", "-o", f"{tmp_path}/g/"])
    assert code == 0 and f"of {ROWS:,} rows" in seen and " left" in seen
    assert f"{ROWS:,} of {ROWS:,} rows, " in seen and "kB, 8 jobs, " in seen
    DataLink(there)
    line = [xp.program, "fetch", "xp", "--service", f"{there.url}/data-server/data", "--chunk", "5", str(stars(IDS))]
    code, seen = drawn([*line, "-o", str(tmp_path / "s.parquet")])
    assert code == 0 and f"{len(IDS)} of {len(IDS)} rows, " in seen and "kB, 5 jobs" in seen


def test_a_fetch_of_more_than_a_gigabyte_is_planned_first(there, stars, fetch, inside, monkeypatch, tmp_path):
    DataLink(there)
    assert "Hours at" not in fetch(stars(IDS))[2]
    monkeypatch.setattr(spectrafetch, "BIG", 1e5)
    said = fetch(stars(IDS), "--work", tmp_path / "again")[2]
    assert "Hours at 5 MB/s" in said and said.index("Hours at") < said.index("received")
    table = pa.table({"source_id": pa.array(np.arange(1, ROWS + 1) << 45), "parallax": pa.array(np.ones(ROWS))})
    with tap(table) as archive:
        line = ("fetch", "gaia", "--service", archive.tap, "--where", "all", "--columns", "parallax", "-o")
        assert "on the wire" not in inside(*line, tmp_path / "a.parquet")[2]
        monkeypatch.setattr(gaia, "BIG", 1e4)
        assert f"{ROWS:,} rows in 1 jobs, about " in inside(*line, tmp_path / "b.parquet")[2]
