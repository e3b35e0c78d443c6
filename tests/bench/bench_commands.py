"""Every command as a user runs it, a process with its input from a pipe: rates, CPU, memory and start-up by size.

    python tests/bench/bench_commands.py [--sizes 1e4,...,1e7] [--spectra 1e3,...,1e6] [--only mass,feh] [--repeat 2]

Inputs are mock stars; a long one is the same million stars again and again (spectra: 20,000), with identifiers that go
on, so that disks need hold only one round. Start-up is the best of five runs on 100 rows, with a warm cache; its goal
is judged by processor time. Where a run would take more than --longest seconds of CPU, by the size before, it is left
out, and the row says so.
With --device cuda the same commands run on the GPU, and the peer is the same command with --device cpu.
"""

import argparse
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from cases import CASES, LIGHTEST, OTHERS, SOURCES, TRAININGS
from common import XP, child, goal, least, record

BASE = {"rows": 1_000_000, "spectra": 20_000}
KEPT = {"rows": 0.4, "spectra": 0.4}  # of the stars drawn so many are seen, at least
GPU = ("deredden --map-file", "eta", "calibrate", "feh", "vae", "ask")
FLAT, QUICK, LIGHT = 1.2, 0.6, 0.15


class Source:
    """Mock stars in memory, given out again and again."""

    def __init__(self, batches: list[pa.RecordBatch]):
        self.batches, self.schema = batches, batches[0].schema
        self.width = sum(b.nbytes for b in batches) / sum(len(b) for b in batches)

    def feed(self, rows: int):
        """A function that writes so many rows as an Arrow stream."""

        def write(to):
            sent, at = 0, self.schema.get_field_index("source_id")
            with pa.ipc.new_stream(to, self.schema) as writer:
                while sent < rows:
                    for batch in self.batches:
                        batch = batch.slice(0, rows - sent)
                        ids = pa.array(np.arange(1 + sent, 1 + sent + len(batch)))
                        writer.write_batch(batch.set_column(at, self.schema.field(at), ids))
                        sent += len(batch)
                        if sent >= rows:
                            break

        return write


def made(folder: Path, name: str, most: dict[str, int]) -> Source:
    """A source of SOURCES in memory, no longer than needed."""
    kind, line = SOURCES[name]
    rows = min(BASE[kind], max(most[kind], 20_000))
    child(f"{line.format(n=int(rows / KEPT[kind]))} > {name}.arrows", folder)
    with pa.OSFile(str(folder / f"{name}.arrows")) as file:
        table = pa.ipc.open_stream(file).read_all().slice(0, rows).sort_by("source_id")
    (folder / f"{name}.arrows").unlink()
    return Source(table.combine_chunks().to_batches(16384))


class Bench:
    """The commands one after the other; `peers` are the options for their devices."""

    def __init__(self, args, folder: Path):
        self.args, self.folder = args, folder
        self.most = {k: max(v) for k, v in args.by.items()}
        self.sources: dict[str, Source] = {}

    def run(self, case, rows: int, device: str = "", out=subprocess.DEVNULL) -> dict:
        """The cost of one run."""
        words = case.line.format(n=rows, dust="dust.fits", other="few.parquet" if rows <= 100 else "other.parquet")
        words = [XP, "-q", *shlex.split(words), *(["--device", device] if device else [])]
        feed = self.source(case.source).feed(rows) if case.source else None
        return child(words, self.folder, feed=feed, stdout=out)

    def source(self, name: str) -> Source:
        """Made when first asked for; spectra are dropped before others are made."""
        if name not in self.sources:
            self.sources = {k: v for k, v in self.sources.items() if SOURCES[k][0] == SOURCES[name][0] == "rows"}
            self.sources[name] = made(self.folder, name, self.most)
        return self.sources[name]

    def measure(self, case) -> None:
        """A row for every size."""
        device = self.args.device
        startup = least([self.run(case, 100, device) for _ in range(5)])
        few = 5000
        with (self.folder / "out").open("wb") as out:
            self.run(case, few, device, out)
        width = (self.folder / "out").stat().st_size / few + (self.source(case.source).width if case.source else 0)
        bound, peaks, core = {"copy": width + case.more, **case.work}, [], startup["cpu_s"]
        sizes = self.args.by[case.sizes]
        for k, rows in enumerate(sizes):
            # Processor time beyond the start-up grows with the rows; the clock also counts what others do.
            expected = startup["cpu_s"] + (core - startup["cpu_s"]) * rows / sizes[k - 1] if k else 0.0
            if expected > self.args.longest:
                note = f"not run: {expected:.0f} s of CPU by the size before"
                record(case.name, case.options, rows=rows, note=note)
                continue
            repeat = self.args.repeat if expected < self.args.longest / 10 else 1
            cost, peer = self.against(case, rows, repeat)
            core = cost["cpu_s"]
            peaks.append(cost["peak_mb"])
            at = {"rows_per_s": rows / cost["wall_s"], "rows_per_core_s": rows / core}
            at |= {"startup_s": startup["wall_s"], "startup_cpu_s": startup["cpu_s"]}
            goals = self.goals(case, rows, startup, peaks, at["rows_per_core_s"])
            record(case.name, case.options, kind="process", rows=rows, **at, **cost, **peer, bound=bound, goals=goals,
                   note="" if peer or case.peer else case.alone, peer_of=case.peer)  # fmt: skip

    def against(self, case, rows: int, repeat: int) -> tuple[dict, dict]:
        """The cost of a size, and with a device the same command on the CPU as peer, in turns."""
        if not self.args.device:
            return least([self.run(case, rows) for _ in range(repeat)]), {}
        runs = [(self.run(case, rows, self.args.device), self.run(case, rows, "cpu")) for _ in range(repeat)]
        ours, theirs = (least([r[i] for r in runs]) for i in (0, 1))
        ratios = {"ratio_wall": theirs["wall_s"] / ours["wall_s"], "ratio_core": theirs["cpu_s"] / ours["cpu_s"]}
        return ours, {"peer": "--device cpu", "peer_rows_per_s": rows / theirs["wall_s"], **ratios}

    def goals(self, case, rows: int, startup: dict, peaks: list[float], rate: float) -> list[dict]:
        """Start-up with the smallest size; memory, and the rate of a stream of two columns, with the largest."""
        sizes, high = self.args.by[case.sizes], LIGHT if case.light else QUICK
        found = [quick(startup, high)] if rows == sizes[0] and not case.model else []
        if rows == sizes[-1] and len(peaks) == len(sizes) > 1:
            found.append(goal(f"memory as at {sizes[-2]:.0e} rows [x]", peaks[-1] / peaks[-2], high=FLAT))
        if rows == sizes[-1] >= 1e6 and case.source == "two":
            found.append(goal(">= 10 M/core-s of 2 columns [M]", rate / 1e6, low=10))
        return found

    def train(self, case, rows: int, passes: int) -> None:
        """One size of a training; its rows are counted as often as they are passed."""
        model = ["-o", "model.safetensors"]
        at = case._replace(line=shlex.join([*shlex.split(case.line), *model]))
        cost = least([self.run(at, rows) for _ in range(self.args.repeat)])
        n = rows * passes
        at_rate = {"rows_per_s": n / cost["wall_s"], "rows_per_core_s": n / cost["cpu_s"]}
        record(case.name, case.options, kind="process", rows=n, **at_rate, **cost,
               note="" if case.peer else case.alone, peer_of=case.peer)  # fmt: skip


def started(folder: Path, only: list[str]) -> None:
    """The start-up of commands that read no table, or a small one."""
    for line in (*LIGHTEST, *OTHERS):
        if not only or line.split()[0] in only:
            words = [XP, *shlex.split(line)]
            took = least([child(words, folder, stdout=subprocess.DEVNULL) for _ in range(5)])
            high = LIGHT if line in LIGHTEST else QUICK
            name = line.split()[0] if not line.startswith("-") else "xp"
            record(name, line.removeprefix(name).strip(), startup_s=took["wall_s"], cpu_s=took["cpu_s"],
                   peak_mb=took["peak_mb"], goals=[quick(took, high)])  # fmt: skip


def quick(took: dict, high: float) -> dict:
    """The goal of a start-up."""
    return goal(f"start-up <= {high} s of CPU [s]", took["cpu_s"], high=high)


def prepared(folder: Path, wanted: list) -> None:
    """The dust map, converted, and the table to join, if they are asked for."""
    lines = " ".join(c.line for c in wanted)
    child("xp -q mock 2000 -o stars.parquet", folder)
    if "{dust}" in lines:
        from bench_deredden import synthetic

        synthetic(str(folder / "dust.fits"), 64)
        child("xp -q deredden --map-file dust.fits stars.parquet > /dev/null", folder)
    if "{other}" in lines:
        import pyarrow.parquet as pq

        ids, rng = np.arange(1, BASE["rows"] + 1), np.random.default_rng(0)
        other = pa.table({"source_id": ids, "x": rng.normal(size=len(ids))})
        pq.write_table(other, folder / "other.parquet")
        pq.write_table(other.slice(0, 100), folder / "few.parquet")  # where start-up is measured


def main() -> None:
    args = arguments()
    wanted = [c for c in CASES if not args.only or c.name in args.only]
    if args.device:
        wanted = [c for c in wanted if c.line.startswith(GPU)]
    os.environ["PATH"] = f"{Path(XP).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="xp-bench-") as name:
        folder = Path(name)
        os.environ["XP_CACHE"] = os.environ.get("XP_CACHE") or str(folder / "cache")
        prepared(folder, wanted)
        bench = Bench(args, folder)
        if not args.device:
            started(folder, args.only)
        for case in wanted:
            bench.measure(case)
        for case, rows, passes in TRAININGS if not args.device else ():
            if not args.only or case.name in args.only:
                bench.train(case, min(rows, bench.most["spectra"]), passes)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1e4,1e5,1e6,1e7", help="rows of catalogues")
    parser.add_argument("--spectra", default="1e3,1e4,1e5,1e6", help="rows of tables with spectra")
    parser.add_argument("--only", default="", help="commands, with commas; all without it")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--longest", type=float, default=200.0, help="seconds of CPU that one run may take")
    parser.add_argument("--device", choices=["cuda"], help="run on the GPU, beside the CPU")
    args = parser.parse_args()
    args.by = {"rows": numbers(args.sizes), "spectra": numbers(args.spectra)}
    args.only = [w.strip() for w in args.only.split(",") if w.strip()]
    return args


def numbers(text: str) -> list[int]:
    """Sizes from text such as 1e5,1e6, ascending."""
    return sorted(int(float(w)) for w in text.split(","))


if __name__ == "__main__":
    main()
