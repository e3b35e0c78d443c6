"""What goes wrong in a run over many files, with real processes: nothing is lost, nothing comes twice."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROWS, FILES = 150_000, 4
PIPE = "convert --rename x0=y | convert --drop x1"
WRITING = re.compile(r"\.(.+\.parquet)\.(\d+)\.[0-9a-f]{8}\.tmp")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Files that take a few tenths of a second each, their identifiers ascending."""
    folder = tmp_path_factory.mktemp("failures") / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(FILES):
        values = {f"x{k}": rng.random(ROWS) for k in range(6)}
        table = pa.table({"source_id": np.arange(ROWS) + i * ROWS, **values})
        pq.write_table(table, folder / f"{i}.parquet")
    return folder


@pytest.fixture(scope="module")
def plain(xp, source, tmp_path_factory):
    """The parts of a run that nothing happens to."""
    out = tmp_path_factory.mktemp("plain") / "out"
    assert xp("run", PIPE, source, out).returncode == 0
    return bytes_of(out)


@pytest.fixture
def start(xp):
    """Start `xp run` and go on at once; what still runs at the end of the test is killed."""
    begun = []

    def started(*words, **options):
        program = [xp.program, "run", *map(str, words)]
        begun.append(subprocess.Popen(program, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **options))
        return begun[-1]

    yield started
    for process in begun:
        process.kill()
        process.communicate()


def bytes_of(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.glob("*.parquet")}


def writing(out: Path, name: str = "", seconds: float = 30) -> int:
    """Wait until a part (this one) is being written: the process that does it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in out.glob(".*.tmp") if out.is_dir() else ():
            found = WRITING.fullmatch(path.name)
            if found and name in ("", found[1]):
                return int(found[2])
        time.sleep(0.002)
    raise AssertionError("no part is ever written")


def ended(process, code: int, seconds: float = 60) -> str:
    """The stderr of a process that ends with this status."""
    _, err = process.communicate(timeout=seconds)
    assert process.returncode == code, err
    return err


def whole(out: Path, plain: dict[str, bytes]) -> None:
    """All parts, each as it should be, and no half ones."""
    assert bytes_of(out) == plain
    assert not [p for p in out.rglob("*") if p.name.endswith(".tmp")]
    ids = pa.concat_tables([pq.read_table(p, columns=["source_id"]) for p in sorted(out.glob("*.parquet"))])
    assert np.array_equal(ids["source_id"].to_numpy(), np.arange(FILES * ROWS))


def test_a_worker_that_is_killed_takes_nothing_with_it(start, source, plain, tmp_path):
    out = tmp_path / "out"
    process = start(PIPE, source, out, "--jobs", 2)
    worker = writing(out)
    assert len(os.sched_getaffinity(worker)) == max(1, len(os.sched_getaffinity(0)) // 2)
    os.kill(worker, signal.SIGKILL)
    ended(process, 0)
    whole(out, plain)


def test_a_unit_that_kills_every_worker_is_named_and_the_others_are_done(start, source, plain, tmp_path):
    out = tmp_path / "out"
    process = start(PIPE, source, out, "--jobs", 2)
    for _ in range(3):  # once among others, twice alone
        pid = writing(out, "1.parquet")
        os.kill(pid, signal.SIGKILL)
        for left in out.glob(f".1.parquet.{pid}.*.tmp"):
            left.unlink()  # or it would be found again
    err = ended(process, 70)
    assert "1.parquet: its worker was killed" in err and "1 of 4 could not be done: 1.parquet" in err
    assert bytes_of(out) == {k: v for k, v in plain.items() if k != "1.parquet"}
    assert ended(start(PIPE, source, out), 0) == ""
    whole(out, plain)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_goes_on_when_given_again(start, source, plain, tmp_path, number):
    out = tmp_path / "out"
    process = start(PIPE, source, out, "--jobs", 2, start_new_session=True)
    worker = writing(out)
    process.send_signal(number)
    ended(process, {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number], 10)
    for _ in range(200):  # its workers follow it
        if not Path(f"/proc/{worker}").exists() or "State:\tZ" in Path(f"/proc/{worker}/status").read_text():
            break
        time.sleep(0.02)
    else:
        pytest.fail("a worker outlives the run")
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet")}
    assert len(before) < FILES
    ended(start(PIPE, source, out), 0)
    whole(out, plain)
    kept = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet") if p.name in before}
    known = {p.name.removesuffix(".json") for p in (out / ".xp-run/parts").iterdir()}
    assert known == set(plain) and sum(kept[n] == before[n] for n in before) >= len(before) - 2


def test_a_bad_file_is_named_and_the_others_are_done(xp, source, plain, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "0.parquet").unlink()
    (folder / "0.parquet").write_bytes((source / "0.parquet").read_bytes()[:-5000])
    pq.write_table(pa.table({"source_id": [1], "x0": [1.0]}), folder / "short.parquet")
    for words in ((), ("--jobs", 2)):
        out = tmp_path / f"out{len(words)}"
        done = xp("run", PIPE, folder, out, *words)
        err = done.stderr.decode()
        assert done.returncode == 65, err
        assert "0.parquet is a damaged" in err and "short.parquet" in err and "2 of 5 could not be done" in err
        assert "Traceback" not in err
        assert bytes_of(out) == {k: v for k, v in plain.items() if k != "0.parquet"}


def test_a_full_disk_stops_the_run(xp, source, plain, tmp_path):
    out = tmp_path / "out"
    for words in ("", "--jobs 2"):
        command = f"ulimit -f 2000; '{xp.program}' run '{PIPE}' '{source}' '{out}' {words}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 74, done.stderr
        assert "cannot write" in done.stderr and "Traceback" not in done.stderr
        assert bytes_of(out) == {}
    assert xp("run", PIPE, source, out).returncode == 0
    whole(out, plain)


def test_an_input_that_changes_while_it_is_read_is_refused(start, xp, source, plain, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    process = start(PIPE, folder, out)
    writing(out, "2.parquet")
    os.utime(folder / "2.parquet", (1, 1))
    assert "2.parquet changes while it is read" in ended(process, 65)
    assert bytes_of(out) == {k: v for k, v in plain.items() if k != "2.parquet"}
    assert xp("run", PIPE, folder, out).returncode == 0
    whole(out, plain)


def test_two_runs_do_not_work_in_one_folder(start, xp, source, plain, tmp_path):
    out = tmp_path / "out"
    first = start(PIPE, source, out)
    os.kill(writing(out), signal.SIGSTOP)
    second = xp("run", PIPE, source, out)
    assert second.returncode == 75, second.stderr
    assert b"another xp run works in" in second.stderr
    shard = xp("run", PIPE, source, out, "--shard", "0/2")
    assert shard.returncode == 75, shard.stderr
    first.send_signal(signal.SIGCONT)
    ended(first, 0)
    whole(out, plain)


def test_shards_work_side_by_side_but_not_the_same_one_twice(start, xp, source, plain, tmp_path):
    out = tmp_path / "out"
    first = start(PIPE, source, out, "--shard", "0/2")
    os.kill(writing(out), signal.SIGSTOP)
    other, same = start(PIPE, source, out, "--shard", "1/2"), xp("run", PIPE, source, out, "--shard", "2/2")
    assert same.returncode == 75, same.stderr
    first.send_signal(signal.SIGCONT)
    for process in (first, other):
        ended(process, 0)
    whole(out, plain)
