"""`xp run` over many files against the shell's own means: python tests/bench/bench_run.py [--files 16] [--rows 250000]

The same pipe over the same files: the shell's loop over files with a pipe of three commands each, xargs with two
processes, `xp run` in one process, with --jobs 2, as two shards side by side, and on a Dask cluster of two workers.
Wall and processor time (children included, but not Dask's workers, which are others' children), rows per core-second;
the parts of all are compared byte for byte.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import child, record

PIPE = ("deredden --map none", "mass", "convert --drop pmra_error,pmdec_error")


def prepared(folder: Path, files: int, rows: int) -> int:
    """Mock catalogues in in/; gives the rows of all."""
    import pyarrow.parquet as pq

    (folder / "in").mkdir()
    for i in range(files):
        target = folder / f"in/{i:03d}.parquet"
        subprocess.run(["xp", "mock", str(rows), "--seed", str(i), "-o", str(target)], check=True)
    return sum(pq.read_metadata(p).num_rows for p in (folder / "in").iterdir())


def ways() -> dict[str, str]:
    """What is compared: name -> shell command that writes a folder of that name."""
    run = f"xp run '{' | '.join(PIPE)}'"
    pipe = " | ".join([f"xp {PIPE[0]} $f", *(f"xp {step}" for step in PIPE[1:])])
    return {
        "loop": f"mkdir loop; for f in in/*; do {pipe} -o loop/$(basename $f); done",
        "xargs": f"mkdir xargs; ls in | xargs -P2 -I@ {run} in/@ -o xargs/@",
        "one": f"{run} in one",
        "jobs": f"{run} in jobs --jobs 2",
        "shards": f"{run} in shards --shard 0/2 & {run} in shards --shard 1/2; wait",
        "dask": f"{run} in dask --scheduler-file s.json",
        "again": f"{run} in jobs --jobs 2",  # nothing is missing
    }


def report(what: str, cost: dict, loop: dict, one: dict, rows: int) -> None:
    """Record a way; the peer is the shell's loop, and goals are of two processes against one."""
    at = {"rows_per_s": rows / cost["wall_s"], "rows_per_core_s": rows / cost["cpu_s"]}
    if what == "dask":
        at.pop("rows_per_core_s")  # Dask's workers are not this command's children
    against = {"ratio_wall": loop["wall_s"] / cost["wall_s"], "ratio_core": loop["cpu_s"] / cost["cpu_s"]}
    if what in ("dask", "again", "loop"):
        against = {"ratio_wall": against["ratio_wall"]} if what == "dask" else {}
    more = {"over_one_wall": one["wall_s"] / cost["wall_s"], "over_one_cpu": cost["cpu_s"] / one["cpu_s"]}
    note = f"{more['over_one_wall']:.2f} x as quick as one process, {more['over_one_cpu']:.2f} x its CPU"
    peer = {"peer": "shell's loop"} if against else {}
    record("run", what, rows=rows, **at, **cost, **against, **peer, **more, note=note)


def cluster(folder: Path) -> list[subprocess.Popen]:
    """A scheduler and two workers, warm."""
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    file = ["--scheduler-file", "s.json"]
    begun = [subprocess.Popen([*dask, "scheduler", "--port", "0", "--no-dashboard", *file], **quiet)]
    while not (folder / "s.json").exists():
        time.sleep(0.1)
    worker = [*dask, "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60", *file]
    begun += [subprocess.Popen(worker, **quiet) for _ in range(2)]
    time.sleep(3)
    return begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--rows", type=int, default=250_000)
    asked = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folder = Path(tempfile.mkdtemp(prefix="xp-bench-run-"))
    begun = []
    try:
        rows = prepared(folder, asked.files, asked.rows)
        begun = cluster(folder)
        costs = {what: child(command, folder) for what, command in ways().items()}
        for what, cost in costs.items():
            report(what, cost, costs["loop"], costs["one"], rows)
        for part in sorted((folder / "one").glob("*.parquet")):
            for other in ("xargs", "jobs", "shards", "dask"):
                assert (folder / other / part.name).read_bytes() == part.read_bytes(), (other, part.name)
        print("parts: the same bytes in all")
    finally:
        for process in begun:
            process.kill()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
