"""Flux from XP coefficients: xp against GaiaXPy's calibrate, alternating in one run.

python tests/bench/bench_calibrate.py SPECTRA.csv [--peer PYTHON] [--stars 2000] [--mine 40000] [--repeat 5]

SPECTRA.csv is a file of the archive with correlations (GaiaXPy's test file XP_CONTINUOUS_RAW.csv); its stars are
repeated, no two alike. PYTHON is an interpreter with gaiaxpy 2.1.5; without it only xp is timed. Both must give the
same numbers before anything is timed. `arrays`: from tables in memory (GaiaXPy: its fastest input, a DataFrame of
arrays) to tables in memory. `files`: whole processes after their imports, from file to file: GaiaXPy CSV to CSV, its
own only way; xp Parquet and Arrow to the same, without the coefficients in the output, as GaiaXPy leaves them out, or
with all columns kept. GaiaXPy always computes errors. A limit is what the same columns take to be read by bare pyarrow
and the bare float32 matrix product, (stars, 110) x (110, 61) for flux and (stars, 1540) x (1540, 26 + 36) for errors,
one after the other. Shown is the best of all rounds, per second of processor time (all threads together) and per second
of the clock: on a busy machine only the former says much. The share of the limit is per second of processor time.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

GRID = np.arange(392.0, 993.0, 10)
FORMS = ("arrows", "parquet")
NOISE = ("coefficients", "coefficient_errors", "coefficient_correlations")
CASES = (
    ("flux", "--no-errors --drop-coefficients", NOISE[:1]),
    ("flux and errors", "--drop-coefficients", NOISE),
    ("flux and errors, all columns kept", "", NOISE),
)


def main() -> None:
    args = arguments()
    if args.worker:
        print(json.dumps(theirs(args) if args.worker == "gaiaxpy" else mine(args)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-xp-") as folder:
        args.folder = folder
        make(args)
        rounds = []
        for _ in range(args.repeat):
            rounds.append((run(args.peer, "gaiaxpy", args) if args.peer else {}, run(sys.executable, "xp", args)))
        report(args, rounds)


def report(args, rounds) -> None:
    if args.peer:
        one, other = np.load(f"{args.folder}/gaiaxpy.npz"), np.load(f"{args.folder}/xp.npz")
        apart = {k: np.abs(other[k][: len(one[k])] / one[k] - 1).max() for k in ("flux", "error")}
        print(f"agreement: flux {apart['flux']:.1e}, errors {apart['error']:.1e} relative at most")
        if not (apart["flux"] < 1e-9 and apart["error"] < 1e-6):
            sys.exit("xp and GaiaXPy disagree: no timing is worth anything")
    load = os.getloadavg()[0]
    print(f"{args.stars:,} stars for GaiaXPy, {args.mine:,} for xp; {os.cpu_count()} cores, load {load:.1f}")
    limit = {k: np.max([mine["limit"][k] for _, mine in rounds], axis=0) for k in rounds[0][1]["limit"]}
    for name in rounds[0][1]["rate"]:
        core, wall = np.max([mine["rate"][name] for _, mine in rounds], axis=0)
        line = f"{name:46} xp {core:11,.0f} per core-second, {wall:11,.0f} per second"
        if args.peer:
            theirs = np.max([other["rate"][name.split(":")[0]] for other, _ in rounds], axis=0)
            line += f"   GaiaXPy {theirs[0]:6,.0f} {theirs[1]:6,.0f}"
            line += f"   ratio {core / theirs[0]:6.1f} {wall / theirs[1]:6.1f}"
        print(line + f"   {core / limit[name][0]:4.0%} of the limit")
    for k, who in ((0, "GaiaXPy"), (1, "xp")):
        if rounds[0][k]:
            print(f"peak memory of {who}: {max(r[k]['peak'] for r in rounds):.2f} GB")


def run(python: str, worker: str, args) -> dict:
    words = [python, __file__, args.spectra, "--worker", worker, "--folder", args.folder]
    words += ["--stars", str(args.stars), "--mine", str(args.mine)]
    one = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # its threads spin when others work, to GaiaXPy's harm
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=args.folder, env=one)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def make(args) -> None:
    """The same stars as CSV for GaiaXPy and as Arrow and Parquet for xp."""
    import pyarrow as pa

    from xptools.io import open_reader, open_writer

    with open_reader(args.spectra) as reader:
        (batch,) = list(reader)
    rng = np.random.default_rng(1)
    arrays, fields = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            block = np.array(column.to_pylist())
            out = np.tile(block, (args.mine // len(block), 1))
            if field.name.endswith(("_coefficients", "_correlations")):
                out *= rng.uniform(0.9, 1.0, (len(out), 1))  # no two stars alike, or files compress as no real one does
            kind = pa.float64() if field.name.endswith("_coefficients") else pa.float32()
            flat = pa.array(out.ravel().astype(kind.to_pandas_dtype()))
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, out.shape[1]))
        else:
            arrays.append(pa.array(np.tile(column.to_numpy(zero_copy_only=False), args.mine // len(column))))
        fields.append(field.name)
    arrays[fields.index("source_id")] = pa.array(np.arange(1, len(arrays[0]) + 1))
    table = pa.RecordBatch.from_arrays(arrays, fields)
    for form in FORMS:
        with open_writer(f"{args.folder}/full.{form}", table.schema) as writer:
            for start in range(0, args.mine, 16384):
                writer.write(table.slice(start, 16384))
    if args.peer:
        _as_csv(table.slice(0, args.stars), Path(args.folder) / "full.csv")


def _as_csv(batch, path: Path) -> None:
    import csv

    with path.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(batch.schema.names)
        for row in batch.to_pylist():
            out.writerow([f"({', '.join(map(repr, v))})" if isinstance(v, list) else v for v in row.values()])


def best(function, repeat: int = 3) -> np.ndarray:
    """Processor seconds (all threads) and wall seconds of the quickest of some calls."""
    times = []
    for _ in range(repeat):
        start = np.array([time.process_time(), time.perf_counter()])
        function()
        times.append(np.array([time.process_time(), time.perf_counter()]) - start)
    return np.min(times, axis=0)


def theirs(args) -> dict:
    import pandas as pd
    from gaiaxpy import calibrate

    folder = Path(args.folder)
    frame = pd.read_csv(folder / "full.csv")
    for name in frame.columns:
        if "_coefficient" in name:
            frame[name] = [np.array([float(w) for w in text[1:-1].split(",")]) for text in frame[name]]
    table, _ = calibrate(frame, sampling=GRID, save_file=False)
    np.savez(folder / "gaiaxpy.npz", flux=np.stack(list(table["flux"])), error=np.stack(list(table["flux_error"])))
    arrays = best(lambda: calibrate(frame, sampling=GRID, save_file=False), 2)
    words = {"sampling": GRID, "output_path": folder, "output_file": "out", "output_format": "csv"}
    files = best(lambda: calibrate(str(folder / "full.csv"), **words), 1)
    rate = {"arrays": (args.stars / arrays).tolist(), "files": (args.stars / files).tolist()}
    return {"rate": rate, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def mine(args) -> dict:
    import xptools
    from xptools import stream
    from xptools.io import open_reader

    folder = Path(args.folder)
    with open_reader(str(folder / "full.arrows")) as reader:
        batches = list(reader)
    flux, errors = xptools.op("calibrate --no-errors"), xptools.op("calibrate")
    first = errors(batches[0])
    numbers = {k: np.array(first[n].to_pylist()) for k, n in (("flux", "flux"), ("error", "flux_err"))}
    np.savez(folder / "xp.npz", **numbers)
    rate = {
        "arrays: flux": args.mine / best(lambda: [flux(b) for b in batches]),
        "arrays: flux and errors": args.mine / best(lambda: [errors(b) for b in batches]),
    }
    products = bare_products(args.mine)
    limit = {"arrays: flux": args.mine / products[0], "arrays: flux and errors": args.mine / products.sum(axis=0)}
    for form in FORMS:
        for what, words, used in CASES:
            name = f"files: {what}, {form}"
            options = stream.Options(input=f"{folder}/full.{form}", output=f"{folder}/out.{form}", quiet=True)
            plan = [stream.Plan(xptools.op(f"calibrate {words}"))]
            rate[name] = args.mine / best(lambda p=plan, o=options: stream.run(p, o), 2)
            reading = best(lambda f=form, u=used: bare_read(f"{folder}/full.{f}", u), 2)
            limit[name] = args.mine / (reading + products[: len(used)].sum(axis=0))
    rate, limit = ({k: v.tolist() for k, v in one.items()} for one in (rate, limit))
    return {"rate": rate, "limit": limit, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def bare_read(path: str, kinds: tuple[str, ...]) -> None:
    """The columns of these kinds of both bands, by pyarrow alone, batch by batch; of Arrow's stream all, as it must."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.endswith("parquet"):
        names = [f"{band}_{kind}" for band in ("bp", "rp") for kind in kinds]
        for _ in pq.ParquetFile(path).iter_batches(2048, columns=["source_id", *names]):
            pass
        return
    with pa.OSFile(path) as file:
        for _ in pa.ipc.open_stream(file):
            pass


def bare_products(stars: int) -> np.ndarray:
    """Seconds (2, 2) that the matrix products of flux and of errors take."""
    rng = np.random.default_rng(0)
    c, D = (rng.normal(size=shape).astype(np.float32) for shape in ((16384, 110), (110, 61)))
    rho = rng.normal(size=(2048, 1540)).astype(np.float32)
    P = [rng.normal(size=(1540, n)).astype(np.float32) for n in (26, 36)]
    return stars * np.stack([best(lambda: c @ D) / len(c), best(lambda: [rho @ p for p in P]) / len(rho)])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = Path(__file__).resolve().parents[3] / "shared" / "data" / "xp" / "XP_CONTINUOUS_RAW.csv"
    parser.add_argument("spectra", nargs="?", default=str(here))
    parser.add_argument("--peer", default=os.environ.get("XP_GAIAXPY"))
    parser.add_argument("--stars", type=int, default=2000)
    parser.add_argument("--mine", type=int, default=40000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--worker")
    parser.add_argument("--folder")
    args = parser.parse_args()
    if not args.worker and not Path(args.spectra).is_file():
        sys.exit(f"{args.spectra} is not here: name a file of XP spectra with correlations")
    return args


if __name__ == "__main__":
    main()
