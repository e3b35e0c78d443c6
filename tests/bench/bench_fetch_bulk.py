"""Bulk files of XP spectra (ECSV, as ESA's CDN has them) into memory: xp against astropy's reader, in one run.

python tests/bench/bench_fetch_bulk.py [--rows 1500] [--more 6000] [--repeat 3]

Each round is a process of its own; imports and a first small file are not timed. Both read all 26 columns with all six
arrays of every star from the same file, open (`plain`) and gzipped, and must give the same numbers. `some` is what
`xp fetch xp --bulk` mostly does: one star in a hundred of a gzipped file; `unzip` reads the gzipped file only. `--more`
rows show that memory above that of the table itself does not grow with the file.
"""

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import compared, peak, spent, worker

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--more", type=int, default=6000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--worker", nargs=3, metavar=("WHO", "FILE", "SMALL"))
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(work(*args.worker)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-xp-") as folder:
        files = {n: made(Path(folder) / f"{n}.csv.gz", n) for n in (20, args.rows, args.more)}
        small, file, larger = files[20], files[args.rows], files[args.more]
        plain = f"{folder}/plain.csv"
        with gzip.open(file) as packed, open(plain, "wb") as out:
            shutil.copyfileobj(packed, out)
        runs = [("astropy", plain), ("xp", plain), ("astropy", file), ("xp", file), ("some", file), ("unzip", file)]
        found = {run: [] for run in runs}
        for _ in range(args.repeat):
            for run in runs:
                found[run].append(worker(__file__, "--worker", *run, small))
        more = worker(__file__, "--worker", "some", larger, small)
        report(args, {(who, f == plain): rounds for (who, f), rounds in found.items()}, more)


def made(path: Path, rows: int) -> str:
    """A file of that many stars; the numbers are random, their digits like the archive's."""
    from fetch.spectra import ecsv, star

    some = [star(k) for k in range(min(rows, 200))]
    with gzip.open(path, "wt", compresslevel=1) as f:
        for start in range(0, rows, len(some)):
            block = {(start + k) << 30: row for k, row in enumerate(some)}
            text = ecsv(block)
            f.write(text if start == 0 else text[text.index("\nsolution_id,") + 1 :].split("\n", 1)[1])
    return str(path)


def work(who: str, file: str, small: str) -> dict:
    read = {"astropy": theirs, "unzip": unzipped}.get(who, mine)
    read(small, who)
    before, kept = peak(), {}
    wall, core = spent(lambda: kept.update(table=read(file, who)))
    table = kept["table"]
    rows, total, size = (len(table), summed(table), getattr(table, "nbytes", 0)) if table is not None else (0, 0.0, 0)
    return {"rows": rows, "sum": total, "wall": wall, "core": core, "grown": peak() - before, "table": size / 2**20}


def theirs(file: str, _who: str):
    from astropy.table import Table

    return Table.read(file, format="ascii.ecsv", fill_values=[("null", "0")])


def unzipped(file: str, _who: str):
    from xptools.archive import wire

    for _ in wire.plain(wire.near(Path(file)), file):
        pass


def mine(file: str, who: str):
    from xptools.archive import bulk, spectra

    ids = np.arange(0, 1 << 20, 100 if who == "some" else 1, dtype=np.int64) << 30
    return spectra.normal(bulk.rows(Path(file), ids), True, file)


def summed(table) -> float:
    """The sum of all coefficients, errors and correlations of either's table."""
    from xptools.arrays import to_numpy

    names = [n for n in table.schema.names if "coefficient" in n] if hasattr(table, "schema") else []
    lists = [to_numpy(table[n]) for n in names] or [
        np.concatenate([np.asarray(x) for x in table[n]]) for n in table.colnames if "coefficient" in n
    ]
    return float(sum(values.astype(np.float64).sum() for values in lists))


def report(args, found, larger) -> None:
    for plain in (True, False):
        one, other = found["astropy", plain][0], found["xp", plain][0]
        if not (one["rows"] == other["rows"] >= args.rows and abs(one["sum"] / other["sum"] - 1) < 1e-12):
            sys.exit(f"xp and astropy disagree ({one['sum']!r}, {other['sum']!r}): no timing is worth anything")
    rows = found["astropy", True][0]["rows"]
    jobs = {run: (rows, None) for run in found}
    rates = {run: np.array([[rows / r["wall"], rows / r["core"]] for r in rounds]) for run, rounds in found.items()}
    for who, plain in (("xp", True), ("xp", False), ("some", False), ("unzip", False)):
        name = {"xp": "all stars", "some": "1 star in 100", "unzip": "gzip alone"}[who]
        case = f"bulk file, {'plain' if plain else 'gzip'}, {name}"
        peer = ("astropy", plain) if who == "xp" else None
        compared("fetch xp", case, jobs, rates, (who, plain), peer, peer_name="astropy")
    for run in (found["xp", False][0], found["some", False][0], larger):
        kept = f"a table of {run['table']:.1f} MB ({run['rows']:,} stars kept)"
        print(f"memory grown by {run['grown']:6.0f} MB for {kept}")


if __name__ == "__main__":
    main()
