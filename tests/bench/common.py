"""What all benchmarks share: taking turns, processes and their cost, the machine's limits, and one form of record.

A record is a dictionary with `command`, `case`, `rows`, rates and what else was measured; `record` prints it as a row
of the table and, where XP_BENCH_RECORDS names a file, appends it there as a line of JSON for tests/bench/all.py. Rates
come in pairs, per second and per second of processor time (all threads together): on a busy machine only the latter
says much. A share of the limit is the rate per core-second over what one core of this machine, as measured in the same
run, could do if nothing but the bytes were copied or nothing but the arithmetic were done, whichever takes longer.
"""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path

import numpy as np
from table import line

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package comes compiled
RECORDS, MACHINE = "XP_BENCH_RECORDS", "XP_BENCH_MACHINE"
XP = shutil.which("xp", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


# --- taking turns --------------------------------------------------------------------------------------------------


def spent(run: Callable) -> np.ndarray:
    """Seconds and processor seconds (2,) of one call, all threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return np.array([time.perf_counter() - wall, max(time.process_time() - cpu, 1e-9)])


def best(run: Callable, repeat: int) -> np.ndarray:
    """The least seconds and the least processor seconds (2,) of some calls."""
    return np.min([spent(run) for _ in range(repeat)], 0)


def turns(jobs: dict[str, tuple[int, Callable]], repeat: int, warm: int = 1) -> dict[str, np.ndarray]:
    """Rates (repeat, 2) of jobs {name: (rows, run)} that alternate; `warm` rounds before do not count."""
    rates = {name: [] for name in jobs}
    for k in range(warm + repeat):
        for name, (rows, run) in jobs.items():
            took = spent(run)
            if k >= warm:
                rates[name].append(rows / took)
    return {name: np.array(found) for name, found in rates.items()}


# --- processes -----------------------------------------------------------------------------------------------------


# Runs a command and says what it took. A process of its own, and a small one: the peak memory of a child is never below
# that of the process that started it.
LAUNCH = """import os, sys, time
start = time.perf_counter()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
wall = time.perf_counter() - start
cpu = usage.ru_utime + usage.ru_stime
os.write(int(sys.argv[1]), f"{os.waitstatus_to_exitcode(status)} {wall} {cpu} {usage.ru_maxrss / 1024}".encode())
"""


def child(command: str | list[str], folder: Path | str, feed: Callable | None = None, **more) -> dict:
    """Seconds, processor seconds of all processes, peak memory [MB] of the largest, of a command (a text: in bash).

    `feed(file)` writes its standard input, in a thread of this process. SystemExit with what it said if it fails.
    """
    words = ["bash", "-c", f"set -o pipefail; {command}"] if isinstance(command, str) else command
    told, tell = os.pipe()
    words = [sys.executable, "-I", "-S", "-c", LAUNCH, str(tell), *words]
    stdin = subprocess.PIPE if feed else subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=folder, stdin=stdin, stderr=subprocess.PIPE, pass_fds=[tell], **more)
    os.close(tell)
    thread = threading.Thread(target=_fed, args=(feed, process.stdin))
    if feed:
        thread.start()
    said = process.stderr.read().decode(errors="replace")
    process.wait()
    if feed:
        thread.join()
    process.stderr.close()
    with os.fdopen(told) as answer:
        code, *cost = answer.read().split() or ["not started"]
    if code != "0":
        raise SystemExit(f"failed ({code}): {command}\n{said}")
    return dict(zip(("wall_s", "cpu_s", "peak_mb"), map(float, cost), strict=True))


def _fed(feed: Callable, to) -> None:
    with contextlib.suppress(BrokenPipeError), to:  # a command that fails stops reading, and its status says so
        feed(to)


def least(runs: list[dict]) -> dict:
    """The least times and the largest memory of some runs of one command."""
    return {k: (max if k == "peak_mb" else min)(r[k] for r in runs) for k in runs[0]}


def worker(script: str, *words: object, python: str = sys.executable, **more) -> dict:
    """What a script, run as a process of its own, says in its last line, as JSON."""
    done = subprocess.run([python, script, *map(str, words)], capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> float:
    """Peak memory of this process [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pinned(threads: int) -> None:
    """Keep this process to so many cores; before JAX, Torch or numba are imported."""
    from xptools.session import limit_threads

    limit_threads(threads, 0)


# --- the machine's limits ------------------------------------------------------------------------------------------


@cache
def machine() -> dict:
    """Rates of one core (`_core`, per second of processor time) and of all (`_all`, per second): copying [bytes/s],
    read and written both counted, float32 matrix products [operations/s], and numpy's exp of float32 [1/s].

    Measured once for all scripts of a run (tests/bench/all.py), else here.
    """
    if os.environ.get(MACHINE):
        return json.loads(os.environ[MACHINE])
    return worker(__file__, "machine")


def measured_machine() -> dict:
    """The measurement itself, best of nine each; seconds, in a process of its own."""
    import torch

    cores = len(os.sched_getaffinity(0))
    a, b = np.ones((2, 1 << 26), np.float32)
    x, y, block = torch.randn(2048, 2048), torch.randn(2048, 2048), np.full(1 << 16, -1.0, np.float32)
    out = np.empty_like(block)
    with_all = torch.get_num_threads()
    torch.set_num_threads(1)
    done = {
        "copy": 2 * a.nbytes / best(lambda: np.copyto(b, a), 9)[1],
        "gemm": 2 * 2048**3 / best(lambda: x @ y, 9)[1],
        "exp": 64 * block.size / best(lambda: [np.exp(block, out=out) for _ in range(64)], 9)[1],
    }
    torch.set_num_threads(with_all)
    everything = {"gemm": 2 * 2048**3 / best(lambda: x @ y, 9)[0], "copy": _copied_by_all(a, b, cores)}
    rates = {f"{k}_core": v for k, v in done.items()} | {f"{k}_all": v for k, v in everything.items()}
    return {"cores": cores, "processor": _processor(), "load": os.getloadavg()[0], **rates}


def _copied_by_all(a, b, cores: int) -> float:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(cores) as pool:
        pieces = list(zip(np.array_split(a, cores), np.array_split(b, cores), strict=True))
        return 2 * a.nbytes / best(lambda: list(pool.map(lambda p: np.copyto(p[1], p[0]), pieces)), 9)[0]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def limit(**each: float) -> tuple[float, str]:
    """Rows per core-second that this machine allows, and by what: copy [bytes a row], gemm, exp [operations a row]."""
    took = {k: v / machine()[f"{k}_core"] for k, v in each.items() if v}
    slowest = max(took, key=took.get)
    return 1 / took[slowest], slowest


# --- records -------------------------------------------------------------------------------------------------------


def goal(words: str, value: float, low: float = -np.inf, high: float = np.inf) -> dict:
    """A goal in words, what was measured, and whether that is between the bounds."""
    return {"goal": words, "measured": float(value), "met": bool(low <= value <= high)}


def compared(command: str, case: str, jobs: dict, rates: dict, mine: Hashable, peer: Hashable = None, **more) -> dict:
    """Record a job among others that took turns; the ratios are medians over the rounds.

    `peer_name`: what the peer is called, if not by its key. `more`: as in `record`.
    """
    peer_name = more.pop("peer_name", peer)
    told = {"command": command, "case": case, "rows": jobs[mine][0]}
    wall, core = rates[mine].max(0)
    told |= {"rows_per_s": wall, "rows_per_core_s": core}
    if peer:
        against = np.median(rates[mine] / rates[peer], 0)
        other = rates[peer].max(0)
        told |= {"peer": peer_name, "ratio_wall": against[0], "ratio_core": against[1]}
        told |= {"peer_rows_per_s": other[0], "peer_rows_per_core_s": other[1], "peer_rows": jobs[peer][0]}
    return record(**told, **more)


def record(command: str, case: str, bound: dict | None = None, goals: list[dict] = (), **more) -> dict:
    """Print a row and keep it for the JSON file; `bound`: what a row costs at least, as `limit` takes it."""
    told = {"script": Path(sys.argv[0]).name, "command": command, "case": case, **more, "goals": list(goals)}
    if bound and "rows_per_core_s" in told:
        rate, by = limit(**bound)
        told |= {"limit_rows_per_core_s": rate, "limit_by": by, "share": told["rows_per_core_s"] / rate}
    told = {k: v.item() if isinstance(v, np.generic) else v for k, v in told.items()}
    if os.environ.get(RECORDS):
        with open(os.environ[RECORDS], "a") as file:
            file.write(json.dumps(told) + "\n")
    print(line(told), flush=True)
    return told


def absent(command: str, peer: str, cure: str) -> None:
    """Say that a peer is not installed, in words and in the JSON file."""
    record(command, f"against {peer}", absent=peer, note=f"{peer} is not installed ({cure})")


if __name__ == "__main__":
    print(json.dumps(measured_machine()))
