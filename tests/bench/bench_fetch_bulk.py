"""Bulk files of XP spectra (ECSV, gzipped, as ESA's CDN has them): xp against astropy's reader, alternating in one run.

python tests/bench/bench_fetch_bulk.py [--rows 3000] [--more 6000] [--repeat 3]

Each round is a process of its own; imports and a first small file are not timed. Both read all 26 columns with all six
arrays of every star from the same .csv.gz into memory, and must give the same numbers bit for bit. `some` is what
`xp fetch xp --bulk` mostly does: one star in a hundred. `--more` rows show that memory above that of the table itself
does not grow with the file. Shown is the best of all rounds, per second of processor time and of the clock.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--more", type=int, default=6000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--worker", nargs=3, metavar=("WHO", "FILE", "SMALL"))
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(*args.worker)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-xp-") as folder:
        files = {n: made(Path(folder) / f"{n}.csv.gz", n) for n in (20, args.rows, args.more)}
        run = {who: [] for who in ("astropy", "xp", "some")}
        for _ in range(args.repeat):
            for who in run:
                run[who].append(measured(who, files[args.rows], files[20]))
        larger = {who: measured(who, files[args.more], files[20]) for who in ("xp", "some")}
        report(args, run, larger)


def made(path: Path, rows: int) -> str:
    """A file of that many stars; the numbers are random, their digits like the archive's."""
    from archive_servers import ecsv, star

    some = [star(k) for k in range(min(rows, 200))]
    with gzip.open(path, "wt", compresslevel=1) as f:
        for start in range(0, rows, len(some)):
            block = {(start + k) << 30: row for k, row in enumerate(some)}
            text = ecsv(block)
            f.write(text if start == 0 else text[text.index("\nsolution_id,") + 1 :].split("\n", 1)[1])
    return str(path)


def measured(who: str, file: str, small: str) -> dict:
    words = [sys.executable, __file__, "--worker", who, file, small]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def work(who: str, file: str, small: str) -> dict:
    read = theirs if who == "astropy" else mine
    read(small, who)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, core = time.perf_counter(), time.process_time()
    rows, total, size = read(file, who)
    wall, core = time.perf_counter() - wall, time.process_time() - core
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rows": rows, "sum": total, "wall": wall, "core": core, "grown": peak - before, "table": size / 2**20}


def theirs(file: str, _who: str):
    from astropy.table import Table

    table = Table.read(file, format="ascii.ecsv", fill_values=[("null", "0")])
    lists = [table[n] for n in table.colnames if "coefficient" in n]
    total = float(sum(np.concatenate([np.asarray(x) for x in c]).astype(np.float64).sum() for c in lists))
    return len(table), total, 0


def mine(file: str, who: str):
    from xptools.archive import bulk, spectra
    from xptools.arrays import to_numpy

    ids = np.arange(0, 1 << 20, 100 if who == "some" else 1, dtype=np.int64) << 30
    table = spectra.normal(bulk.rows(Path(file), ids), True, file)
    total = float(sum(to_numpy(table[n]).astype(np.float64).sum() for n in table.schema.names if "coefficient" in n))
    return table.num_rows, total, table.nbytes


def report(args, run, larger) -> None:
    one, other = run["astropy"][0], run["xp"][0]
    if not (one["rows"] == other["rows"] == args.rows and abs(one["sum"] / other["sum"] - 1) < 1e-12):
        sys.exit(f"xp and astropy disagree ({one['sum']!r}, {other['sum']!r}): no timing is worth anything")
    print(f"{args.rows:,} stars of 37 kB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    best = {w: {k: min(r[k] for r in rounds) for k in ("core", "wall")} for w, rounds in run.items()}
    for who, words in (("astropy", "astropy, all"), ("xp", "xp, all"), ("some", "xp, 1 in 100 kept")):
        core, wall = args.rows / best[who]["core"], args.rows / best[who]["wall"]
        line = f"{words:20} {core:9,.0f} stars per core-second, {wall:9,.0f} per second"
        if who != "astropy":
            peer = best["astropy"]
            line += f"   ratio {peer['core'] / best[who]['core']:5.1f} {peer['wall'] / best[who]['wall']:5.1f}"
        print(line)
    for who in ("xp", "some"):
        small, large = run[who][0], larger[who]
        print(
            f"memory {who:5} grown by {small['grown']:6.0f} MB at {args.rows:,} stars (table {small['table']:.0f} MB), "
            f"{large['grown']:6.0f} MB at {args.more:,} (table {large['table']:.0f} MB)"
        )


if __name__ == "__main__":
    main()
