"""Time, memory and disc of `deredden | select | eta` on any number of mock stars: `python full.py ROWS XP FOLDER`.

The catalogue streams from `xp mock` through the pipe, as in the shell, one process a command; only the candidates are
written. Measured per command: CPU seconds, their share, and peak memory (of the kernel's account of the process).
"""

import csv
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

OBSERVED = 0.4415  # of the stars drawn from the default universe: what the archive's query keeps
SEED = 31


def stages(xp: str, rows: int, folder: Path) -> list[list[str]]:
    """The commands, first to last."""
    dust = ["--map", "edenhofer2023", "--map-file", str(folder / "dust.fits")]
    cuts = ["--isochrone", "--cstar-nsigma", "3", "--fidelity", "0.5"]
    program = shlex.split(xp)
    return [
        [*program, "mock", str(round(rows / OBSERVED)), "--seed", str(SEED), *dust],
        [*program, "deredden", *dust],
        [*program, "select", *cuts, "--cutflow-out", str(folder / "full-cutflow.parquet")],
        [*program, "eta"],
        [*program, "select", "--eta-ratio", "10", "-o", str(folder / "full.parquet")],
    ]


def measured(commands: list[list[str]]) -> tuple[float, list[tuple[str, float, float]]]:
    """Wall time [s], and of each command its name, CPU time [s] and peak memory [MB]."""
    begin, running, source = time.monotonic(), [], None
    for k, words in enumerate(commands):
        last = k == len(commands) - 1
        one = subprocess.Popen(words, stdin=source, stdout=None if last else subprocess.PIPE)
        if source is not None:
            source.close()
        source = one.stdout
        running.append(one)
    out = []
    for words, one in zip(commands, running, strict=True):
        _, status, used = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
        if one.returncode:
            sys.exit(f"{shlex.join(words)} ended with {one.returncode}")
        name = next(w for w in words if w in ("mock", "deredden", "select", "eta"))
        out.append((name, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    return time.monotonic() - begin, out


def main(rows: str, xp: str, folder: str) -> None:
    import pyarrow.parquet as pq

    if not rows.isdecimal() or int(rows) < 1000:
        sys.exit(f"full.py: {rows!r} is no number of rows from 1000 on. TRY: make full ROWS=1000000")
    place = Path(folder)
    wall, found = measured(stages(xp, int(rows), place))
    stars = pq.read_table(place / "full-cutflow.parquet")["rows_in"][0].as_py()
    total = sum(cpu for _, cpu, _ in found)
    disc = (place / "full.parquet").stat().st_size / 1e6
    with (place / "full.csv").open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["command", "cpu_s", "share", "stars_per_cpu_s", "peak_mb"])
        out.writerows([n, round(c, 1), round(c / total, 3), round(stars / c), round(m)] for n, c, m in found)
    print(f"{stars:,} stars in {wall:.0f} s on {os.cpu_count()} cores, {disc:.0f} MB written")
    for name, cpu, memory in found:
        print(f"{name:10}{cpu:10.1f} s of CPU {cpu / total:7.1%}{stars / cpu:14,.0f} stars/s{memory:8.0f} MB at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
