"""Pipes through a real shell: exit codes, signals, broken and full outputs, two writers, terminals."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tables import gallery, read, same, stars, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a table of 60,000 rows as a stream, and a small one."""
    path = tmp_path_factory.mktemp("pipe")
    write(stars(60000).select([*stars(1).schema.names[:30], "note"]), path / "big.arrows", rows=16384)
    write(gallery(40), path / "small.arrows")
    write(gallery(40), path / "small.parquet")
    return path


@pytest.fixture(scope="module")
def shell(folder, xp):
    """Run bash in the folder: `xp` is the installed program; gives (codes of the last pipe, stdout, stderr)."""

    def run(script: str, timeout: float = 60, env=None):
        done = subprocess.run(
            ["bash", "-c", f'{script}\necho "codes ${{PIPESTATUS[*]}}" >&2'],
            cwd=folder,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "PATH": f"{Path(xp.program).parent}:{os.environ['PATH']}", **(env or {})},
            stdin=subprocess.DEVNULL,
            check=False,
        )
        words, _, codes = done.stderr.decode().rpartition("codes ")
        return [int(c) for c in codes.split()], done.stdout, words

    return run


def leftovers(folder: Path) -> list[str]:
    """Temporary files that should not be there."""
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_three_commands_and_all_spellings_of_stdin(shell, folder):
    codes, out, words = shell(
        "xp convert --keep source_id,ra,dec big.arrows | xp convert --rename dec=delta - | xp convert --drop ra"
    )
    assert (codes, words) == ([0, 0, 0], "")
    (folder / "three").write_bytes(out)
    table = read(folder / "three")
    assert table.schema.names == ["source_id", "delta"]
    assert table.num_rows == 60000
    script = "; ".join(
        f"xp convert --keep ra {how} | sha256sum"
        for how in (
            "small.arrows",
            "< small.arrows",
            "- < small.arrows",
            "small.arrows -o -",
            "-o - -O arrows small.arrows",
        )
    )
    _, out, _ = shell(script)
    assert len(set(out.split())) == 2


def test_one_process_gives_the_same_bytes_as_the_pipe(shell):
    _, out, words = shell(
        "xp convert --keep ra,pm small.arrows | xp convert --rename ra=r | sha256sum;"
        "xp run 'convert --keep ra,pm | convert --rename ra=r' small.arrows | sha256sum"
    )
    assert len(set(out.split())) == 2, words


@pytest.mark.parametrize("fmt", ["arrows", "parquet", "csv", "votable"])
def test_head_ends_a_pipe_quietly(shell, fmt):
    codes, out, words = shell(f"xp convert big.arrows -O {fmt} | head -c1; ")
    assert (codes, words, len(out)) == ([141, 0], "", 1)


def test_head_ends_a_long_pipe_quietly(shell):
    codes, _, words = shell("xp convert big.arrows | xp convert --drop ra | xp convert | head -c1 >/dev/null")
    assert (codes, words) == ([141, 141, 141, 0], "")


def test_a_crash_upstream_fails_every_stage_and_leaves_nothing(shell, folder):
    codes, _, words = shell("XP_TEST_FAIL_AT=3 xp convert big.arrows | xp convert --drop ra | xp convert -o o.parquet")
    assert codes == [70, 65, 65]
    assert "XP_TEST_FAIL_AT" in words and "Traceback" not in words
    assert not (folder / "o.parquet").exists() and leftovers(folder) == []


MAIN = "xp mock 200000 | xp deredden --map none | xp select -q --magnitude :20 | xp mass | xp veff"


def test_head_ends_the_main_pipe_quietly(shell):
    codes, out, words = shell(f"{MAIN} | head -c1")
    assert (codes, words, len(out)) == ([141] * 5 + [0], "", 1)


def test_a_crash_fails_the_main_pipe_to_its_end(shell, folder):
    codes, out, words = shell(f"XP_TEST_FAIL_AT=3 {MAIN} | xp mf --method exact -o phi.parquet")
    assert codes == [70, 65, 65, 65, 65, 65]
    assert out == b"" and "Traceback" not in words and words.count("error:") == 6
    assert not (folder / "phi.parquet").exists() and leftovers(folder) == []


@pytest.mark.parametrize("fmt", ["parquet", "arrow", "fits", "votable"])
def test_a_crash_is_seen_through_every_format(shell, fmt):
    codes, _, _ = shell(f"XP_TEST_FAIL_AT=2 xp convert big.arrows -O {fmt} | xp convert > /dev/null")
    assert codes == [70, 65]


def test_a_cut_stream_fails_downstream(shell):
    codes, _, words = shell("head -c -8 big.arrows | xp convert | xp convert >/dev/null")
    assert codes == [0, 65, 65]
    assert "60,000 rows" in words
    codes, _, words = shell("head -c 0 big.arrows | xp convert >/dev/null")
    assert codes == [0, 65]
    assert "empty" in words


def test_exit_codes(shell, folder):
    cases = {
        "xp convert nothing.parquet": 66,
        "xp conver small.arrows": 2,
        "xp convert --kep ra small.arrows": 2,
        "xp convert small.arrows -O xyz": 2,
        "xp convert small.arrows -o t.xyz": 2,
        "xp convert --keep r small.arrows": 65,
        "xp convert /etc/passwd": 65,
        "xp convert <&-": 64,
        "xp convert small.arrows >&-": 73,
        "xp convert small.arrows -o none/t.parquet": 73,
        "xp convert small.arrows --no-clobber -o small.parquet": 73,
        "xp convert small.arrows > /dev/full": 74,
        "xp convert small.arrows -o /dev/full": 74,
        "xp convert small.arrows -O fits -o /dev/full": 74,
        "xp convert small.arrows --require-version 99": 78,
        "xp convert small.arrows --config none.toml": 78,
    }
    _, out, words = shell(
        "\n".join(
            f"{command} >/dev/null; echo $?" if ">" not in command else f"{command}; echo $?" for command in cases
        )
    )
    assert [int(c) for c in out.split()] == list(cases.values()), words
    messages = [line for line in words.splitlines() if "error:" in line]
    assert len(messages) == len(cases) - 1
    assert all("TRY: " in line for line in messages)
    assert "Traceback" not in words
    assert leftovers(folder) == []


def test_closed_descriptors_do_not_become_files(shell, folder):
    codes, _, _ = shell("xp convert small.arrows -o closed.parquet 0<&- 1>&- 2>&-")
    assert codes == [0]
    same(read(folder / "small.arrows"), read(folder / "closed.parquet"))


def test_targets_in_place(shell, folder):
    os.mkfifo(folder / "fifo")
    _, out, words = shell(
        "cat fifo | sha256sum & xp convert small.arrows -O arrows -o fifo; wait;"
        "xp convert small.arrows -o /dev/stdout | sha256sum; xp convert small.arrows | sha256sum;"
        "xp convert small.arrows -o /dev/null;"
        "xp convert fifo < /dev/null | sha256sum & xp convert small.arrows > fifo; wait"
    )
    assert len(set(out.split())) == 2, words
    assert (folder / "fifo").is_fifo()
    assert Path("/dev/null").is_char_device()


def started(program, *args, cwd, **kwargs) -> subprocess.Popen:
    return subprocess.Popen([program, *map(str, args)], cwd=cwd, stderr=subprocess.PIPE, **kwargs)


def fed(process: subprocess.Popen, folder: Path, path: Path | None = None) -> None:
    """Give a process two batches and wait until it has begun its output."""
    process.stdin.write((folder / "big.arrows").read_bytes()[: 1 << 21])
    process.stdin.flush()
    until = time.monotonic() + 20
    while time.monotonic() < until and not (path and leftovers(folder)):
        time.sleep(0.02)
        if path is None:
            time.sleep(1.0)
            return


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGKILL, -9)]
)
def test_signals_leave_the_old_file(folder, xp, sent, code):
    if signal.getsignal(sent) is signal.SIG_IGN:  # as under nohup, which xp obeys
        pytest.skip(f"{sent.name} is ignored here, and by every program that is started from here")
    target = folder / "old.parquet"
    shutil.copy(folder / "small.parquet", target)
    before = target.read_bytes()
    process = started(xp.program, "convert", "-o", target, cwd=folder, stdin=subprocess.PIPE)
    fed(process, folder, target)
    at = time.monotonic()
    process.send_signal(sent)
    assert process.wait(20) == code
    assert time.monotonic() - at < (1.0 if os.getloadavg()[0] < 2 else 10)
    words = process.stderr.read().decode()
    process.stdin.close()
    process.stderr.close()
    assert target.read_bytes() == before
    assert words.count("\n") == (1 if sent == signal.SIGINT else 0), words
    if sent == signal.SIGKILL:
        for name in leftovers(folder):
            (folder / name).unlink()
    assert leftovers(folder) == []


@pytest.mark.parametrize("name", ["t.vot", "t.ecsv"])
def test_an_interrupted_csv(folder, xp, name):
    (folder / "t.csv").write_text("x,y\n" + "1.25,2\n" * 5_000_000)
    with started(xp.program, "convert", "t.csv", "-o", name, cwd=folder) as process:
        until = time.monotonic() + 20
        while time.monotonic() < until and not leftovers(folder):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read().decode().count("\n") == 1
    assert not (folder / name).exists() and leftovers(folder) == []


def test_an_interrupted_sampler(folder, xp):
    pipe = "mock 3000 --fractions 0 0 1 | deredden --map none | mass | veff | mf --draws 1000000"
    with started(xp.program, "run", pipe, "-o", "phi.parquet", cwd=folder) as process:
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read().decode().count("\n") == 1
    assert not (folder / "phi.parquet").exists() and leftovers(folder) == []


def test_a_ctrl_c_while_the_program_loads_prints_no_traceback():
    words = "import signal, xptools.__main__ as m; signal.raise_signal(signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_two_writers_of_one_file_leave_one_whole_file(shell, folder):
    codes, _, words = shell(
        "xp convert big.arrows -o two.parquet & xp convert small.arrows -o two.parquet & wait; true"
    )
    assert (codes, words) == ([0], "")
    assert read(folder / "two.parquet").num_rows in (40, 60000)
    assert leftovers(folder) == []


def test_a_full_disk_leaves_nothing(shell, folder):
    codes, _, words = shell("ulimit -f 200; xp convert big.arrows -o full.arrow; echo $? >&2; true")
    assert "74" in words and "TRY:" in words and "Traceback" not in words
    assert not (folder / "full.arrow").exists() and leftovers(folder) == [], codes


@pytest.mark.parametrize("form", ["arrows", "arrow", "parquet", "fits", "votable", "ecsv", "csv", "json"])
def test_a_full_device_is_noticed_in_every_format(shell, form):
    command = f"xp convert --explode -O {form} small.arrows"
    _, out, words = shell(f"{command} > /dev/full; echo $?; {command} -o /dev/full; echo $?")
    assert out.decode().split() == ["74", "74"], words
    assert words.count("No space left on device. TRY: df -h") == 2


def test_a_full_device_is_noticed_by_reports(shell):
    _, out, words = shell("xp info small.arrows > /dev/full; echo $? >&2; xp cite > /dev/full; echo $? >&2")
    assert words.count("No space left on device. TRY: df -h") == 2 and words.count("74") == 2, (out, words)


def test_outputs_are_the_same_bytes_anywhere(shell, folder):
    script = []
    for i, (how, env) in enumerate((("", ""), ("-q -@ 1", "cd other;"), ("--threads 2", "XP_PROGRESS=off"))):
        (folder / "other").mkdir(exist_ok=True)
        source = "../small.arrows" if "cd" in env else "small.arrows"
        for suffix in ("parquet", "fits"):
            script.append(f"({env} xp convert {how} --drop n {source} -o o{i}.{suffix})")
    _, out, words = shell("\n".join(script) + "\nmv other/* .; sha256sum o0.* o1.* o2.*")
    sums = [line.split() for line in out.decode().splitlines()]
    assert len(sums) == 6, words
    for suffix in ("parquet", "fits"):
        assert len({s for s, name in sums if name.endswith(f".{suffix}")}) == 1, suffix


def test_batches_threads_and_carriers_do_not_change_a_file(folder, xp):
    sums = set()
    for i, args in enumerate((("small.parquet",), ("--batch-rows", 1, "small.parquet"), ("--batch-rows", 7, "-"))):
        stdin = (folder / "small.parquet").read_bytes() if "-" in args else None
        done = xp("convert", *args, "-o", f"c{i}.parquet", cwd=folder, stdin=stdin)
        assert done.returncode == 0, done.stderr
        sums.add(hashlib.sha256((folder / f"c{i}.parquet").read_bytes()).hexdigest())
    assert len(sums) == 1


@pytest.mark.skipif(shutil.which("script") is None, reason="script(1) is not installed")
def test_a_terminal_gets_a_preview_and_never_binary(shell):
    command = "xp convert --keep source_id,ra,note big.arrows"
    _, out, _ = shell(f"script -qec 'stty cols 100; {command}; echo code=$?' /dev/null")
    text = out.decode()
    assert "code=0" in text
    assert "source_id" in text and "deg" in text and "the first 20 rows" in text
    assert b"\xff" not in out and b"PAR1" not in out
    assert text.count("star ") == 20
    _, out, _ = shell("script -qec 'xp convert; echo code=$?' /dev/null")
    assert b"code=64" in out and b"Usage" in out


@pytest.mark.skipif(shutil.which("script") is None, reason="script(1) is not installed")
def test_progress_only_on_a_terminal_and_without_effect(shell):
    _, out, _ = shell("script -qec 'xp convert --drop ra big.arrows -o tty.parquet' /dev/null")
    assert b"60,000 rows" in out
    codes, out, words = shell("xp convert --drop ra --progress on big.arrows -o no.parquet; cmp tty.parquet no.parquet")
    assert (codes, out, words) == ([0], b"", "")


def test_the_number_of_rows_is_known_downstream(shell):
    for command, rows in (
        ("xp convert small.parquet", b"40"),
        ("xp convert small.parquet | xp convert --drop ra", b"40"),
    ):
        _, out, _ = shell(command)
        assert pa.ipc.open_stream(out).schema.metadata[b"xp.rows_hint"] == rows
    _, out, _ = shell("xp select -q --where 'ra < 100' small.parquet")
    assert b"xp.rows_hint" not in (pa.ipc.open_stream(out).schema.metadata or {})


def test_parquet_and_fits_on_stdin(shell, folder):
    for suffix in ("parquet", "fits", "vot"):
        codes, out, words = shell(
            f"xp convert small.arrows -O {'votable' if suffix == 'vot' else suffix} | cat | xp convert"
        )
        assert (codes, words) == ([0, 0, 0], "")
        (folder / "back").write_bytes(out)
        same(read(folder / "small.arrows"), read(folder / "back"))


def peak_memory(xp, words: list[str], batch: pa.RecordBatch, times: int, folder: Path) -> int:
    """Peak memory [kB] of xp that is given a batch again and again by a pipe."""
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], stdout=-3, check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [shutil.which("python3") or "python3", "-c", code, xp.program, *words]
    with subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        with pa.ipc.new_stream(running.stdin, batch.schema) as writer:
            for _ in range(times):
                writer.write_batch(batch)
        running.stdin.close()
        told = running.stdout.read()
    assert running.returncode == 0
    return int(told)


def test_memory_stays_flat(folder, xp):
    """Peak memory at 1e5 and at 3e6 rows: the same to 20 %."""
    batch = pa.record_batch({"source_id": pa.array(range(10000)), "x": pa.array([0.5] * 10000)})
    peaks = [peak_memory(xp, ["convert", "--keep", "x"], batch, times, folder) for times in (10, 300)]
    assert peaks[1] < 1.2 * peaks[0], peaks


def test_memory_stays_flat_where_few_rows_are_kept(folder, xp):
    """What a sink holds until a row group is full must not keep the memory of all it was cut from."""
    rng = np.random.default_rng(2)
    columns = {f"x{k}": rng.uniform(size=16384).astype(np.float64 if k % 3 else np.float32) for k in range(75)}
    batch = pa.record_batch({"source_id": np.arange(16384), **columns})
    words = ["select", "--where", "x0 > 0.96", "-q", "-o", "kept.parquet"]
    peaks = [peak_memory(xp, words, batch, times, folder) for times in (10, 100)]
    assert peaks[1] < 1.8 * peaks[0], peaks


def test_threads_are_obeyed(xp):
    for args, env in ((["--threads", "1"], {}), ([], {"XP_THREADS": "1"}), (["-@1"], {"OMP_NUM_THREADS": "7"})):
        code = (
            "import os, sys; from xptools.session import limit_threads; import xptools.cli as c;"
            "import xptools.commands.convert as v, xptools.stream as s;"
            "s.run = lambda *a: sys.stderr.write(f\"{len(os.sched_getaffinity(0))} {os.environ['OMP_NUM_THREADS']}\");"
            "sys.argv = ['xp', 'convert', *sys.argv[1:], 'x']; c.main()"
        )
        done = subprocess.run(
            [str(Path(xp.program).parent / "python"), "-c", code, *args],
            capture_output=True,
            env={**os.environ, **env},
            check=False,
        )
        assert done.stderr == b"1 1", done.stderr
