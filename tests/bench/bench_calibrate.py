"""Flux from XP coefficients: xp against GaiaXPy's calibrate, alternating in one run.

python tests/bench/bench_calibrate.py [SPECTRA.csv] [--peer PYTHON] [--stars 2000] [--mine 40000] [--repeat 3]

SPECTRA.csv is a file of the archive with correlations (such as GaiaXPy's test file XP_CONTINUOUS_RAW.csv); without it
mock stars are taken. They are repeated, no two alike. PYTHON (GAIAXPY_PYTHON) is an interpreter with gaiaxpy 2.1.5;
without it only xp is timed. Both must give the same numbers before anything is timed. `arrays`: from tables in memory
(GaiaXPy: its fastest input, a DataFrame of arrays) to tables in memory. `files`: whole processes after their imports,
from file to file: GaiaXPy CSV to CSV, its own only way; xp Parquet and Arrow to the same, without the coefficients in
the output, as GaiaXPy leaves them out, or with all columns kept. GaiaXPy always computes errors. A limit is what the
same columns take to be read by bare pyarrow and the bare float32 matrix product, (stars, 110) x (110, 61) for flux and
(stars, 1540) x (1540, 26 + 36) for errors, one after the other (`read`).
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import absent, best, compared, goal, peak, worker

PEER = "GaiaXPy"
GRID = np.arange(392.0, 993.0, 10)
FORMS = ("arrows", "parquet")
NOISE = ("coefficients", "coefficient_errors", "coefficient_correlations")
CASES = (
    ("flux", "--no-errors --drop-coefficients", NOISE[:1]),
    ("flux and errors", "--drop-coefficients", NOISE),
    ("all columns", "", NOISE),
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
    else:
        absent("calibrate", PEER, "GAIAXPY_PYTHON names an interpreter that has gaiaxpy")
    limit = {k: np.max([mine["limit"][k] for _, mine in rounds], axis=0) for k in rounds[0][1]["limit"]}
    peaks = [max(r[k].get("peak", 0.0) for r in rounds) for k in (0, 1)]
    for name in rounds[0][1]["rate"]:
        rates = {"xp": np.array([mine["rate"][name] for _, mine in rounds])}
        jobs = {"xp": (args.mine, None), PEER: (args.stars, None)}
        if args.peer:
            rates[PEER] = np.array([other["rate"][name.split(":")[0]] for other, _ in rounds])
        more = {"share": rates["xp"].max(0)[1] / limit[name][1], "limit_by": "read", "peak_mb": peaks[1]}
        compared("calibrate", name, jobs, rates, "xp", PEER if args.peer else None, **more,
                 peer_peak_mb=peaks[0], goals=wanted(name, rates))  # fmt: skip


def wanted(name: str, rates: dict) -> list[dict]:
    """The goals, end to end from files, without the coefficients in the output."""
    goals = {"files: flux, parquet": 300, "files: flux and errors, parquet": 40, "files: flux and errors, arrows": 40}
    if name not in goals or PEER not in rates:
        return []
    low = goals[name]
    return [goal(f">= {low} x GaiaXPy per core", np.median(rates["xp"] / rates[PEER], 0)[1], low=low)]


def run(python: str, name: str, args) -> dict:
    words = ["--worker", name, "--folder", args.folder, "--stars", args.stars, "--mine", args.mine]
    one = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # its threads spin when others work, to GaiaXPy's harm
    return worker(__file__, *words, python=python, cwd=args.folder, env=one)


def make(args) -> None:
    """The same stars as CSV for GaiaXPy and as Arrow and Parquet for xp."""
    import pyarrow as pa

    from xptools.io import open_writer

    batch = some(args.spectra)
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


def some(path: str | None):
    """A few spectra as the archive has them: of a file, or of mock stars with the bookkeeping that GaiaXPy asks for."""
    import pyarrow as pa

    import xptools
    from xptools.io import open_reader

    if path:
        with open_reader(path) as reader:
            (batch,) = list(reader)
        return batch
    batch = next(iter(xptools.op("mock 100 --spectra --correlations").record_batches(100))).slice(0, 40)
    kept = ("source_id", "bp_c", "rp_c", "bp_n", "rp_n")
    table = {n: batch[n] for n in batch.schema.names if n.startswith(kept)}
    counts = {"degrees_of_freedom": 1000, "n_parameters": 55, "n_measurements": 1055, "n_rejected_measurements": 0}
    real = {"standard_deviation": 1.0, "chi_squared": 1000.0, "relative_shrinking": 1.0}
    for band, basis in (("bp", 56), ("rp", 57)):
        for name, value in {"basis_function_id": basis, **counts, **real}.items():
            table[f"{band}_{name}"] = pa.array([value] * len(batch))
    return pa.RecordBatch.from_pydict({"solution_id": pa.array([1] * len(batch)), **table})


def _as_csv(batch, path: Path) -> None:
    import csv

    with path.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(batch.schema.names)
        for row in batch.to_pylist():
            out.writerow([f"({', '.join(map(repr, v))})" if isinstance(v, list) else v for v in row.values()])


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
    return {"rate": rate, "peak": peak()}


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
        "arrays: flux": args.mine / best(lambda: [flux(b) for b in batches], 3),
        "arrays: flux and errors": args.mine / best(lambda: [errors(b) for b in batches], 3),
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
    return {"rate": rate, "limit": limit, "peak": peak()}


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
    """Seconds and processor seconds (2, 2) that the matrix products of flux and of errors take."""
    rng = np.random.default_rng(0)
    c, D = (rng.normal(size=shape).astype(np.float32) for shape in ((16384, 110), (110, 61)))
    rho = rng.normal(size=(2048, 1540)).astype(np.float32)
    P = [rng.normal(size=(1540, n)).astype(np.float32) for n in (26, 36)]
    return stars * np.stack([best(lambda: c @ D, 3) / len(c), best(lambda: [rho @ p for p in P], 3) / len(rho)])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("spectra", nargs="?", help="without it: mock stars")
    parser.add_argument("--peer", default=os.environ.get("GAIAXPY_PYTHON"))
    parser.add_argument("--stars", type=int, default=2000)
    parser.add_argument("--mine", type=int, default=40000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--worker")
    parser.add_argument("--folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
