"""Plain work on tables: xp against STILTS, polars and DuckDB, each from stream to stream or file to file, in turns.

python tests/bench/bench_tables.py [--rows 1e6] [--repeat 2]

`filter`: rows that pass a cut with arithmetic, through a pipe, STILTS by VOTable BINARY2 and xp by Arrow; the same with
VOTable on both sides of xp; a table joined by its identifier, STILTS by FITS; columns dropped, Parquet to Parquet.
Whole processes, imports and all. STILTS is a Debian package; polars and DuckDB are run where they can be imported.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import XP, absent, child, compared, goal

CUT = "parallax > 2 and phot_g_mean_mag + 5*log10(parallax/100) > 6"
STILTS_CUT = "parallax > 2 && phot_g_mean_mag + 5*log10(parallax/100) > 6"
VOTABLE = "ifmt=votable ofmt=votable-binary2"
# Programs that a user would write: file name -> text
PROGRAMS = {
    "fewer_polars.py": """
import polars as pl
pl.scan_parquet("all.parquet").drop("l", "b").sink_parquet("polars.parquet", compression="zstd")
""",
    "join_polars.py": """
import polars as pl
a, b = (pl.scan_parquet(name) for name in ("all.parquet", "other.parquet"))
a.join(b, on="source_id", how="left", maintain_order="left").sink_parquet("polars.parquet", compression="zstd")
""",
    "fewer_duckdb.py": """
import duckdb
what = "select * exclude (l, b) from 'all.parquet'"
duckdb.sql(f"copy ({what}) to 'duck.parquet' (format parquet, compression zstd)")
""",
}
STILTS = f"cat four.vot | stilts tpipe in=- {VOTABLE} cmd=\"select '{STILTS_CUT}'\" out=- > out.vot"
STILTS_JOIN = (
    "stilts tmatch2 in1=all.fits in2=other.fits matcher=exact values1=source_id values2=source_id join=all1 "
    "out=stilts.fits"
)
# case: what xp does, {peer: its command}, how many times STILTS xp is to be
WORK = {
    "filter, Arrow stream": (
        f"cat four.arrows | xp -q select --where '{CUT}' > out.arrows",
        {"STILTS, VOTable": STILTS},
        5,
    ),
    "filter, VOTable to VOTable": (
        f"cat four.vot | xp -q select --where '{CUT}' -O votable > out2.vot",
        {"STILTS, VOTable": STILTS},
        5,
    ),
    "a table joined": (
        "xp -q join --with other.parquet all.parquet -o joined.parquet",
        {"STILTS": STILTS_JOIN, "polars": f"{sys.executable} join_polars.py"},
        0,
    ),
    "drop columns, Parquet": (
        "xp -q convert --drop b,l all.parquet -o fewer.parquet",
        {"polars": f"{sys.executable} fewer_polars.py", "DuckDB": f"{sys.executable} fewer_duckdb.py"},
        0,
    ),
}
NAMES = {"filter": "select", "a": "join", "drop": "convert"}


def prepared(folder: Path, rows: int) -> int:
    """Tables of mock stars in the forms that are read, and the peers' programs; gives the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from cases import STARS

    child(f"xp -q run 'mock {int(rows * 2.3)} | convert --keep {STARS}' -o all.parquet", folder)
    table = pq.read_table(folder / "all.parquet").slice(0, rows).sort_by("source_id")
    rng = np.random.default_rng(0)
    pq.write_table(table, folder / "all.parquet", compression="zstd")
    other = pa.table({"source_id": table["source_id"], "x": rng.normal(size=len(table))})
    pq.write_table(other, folder / "other.parquet")
    child("xp -q convert --keep source_id,parallax,phot_g_mean_mag,bp_rp all.parquet > four.arrows", folder)
    for made in ("four.arrows -o four.vot", "all.parquet -o all.fits", "other.parquet -o other.fits"):
        child(f"xp -q convert {made}", folder)
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
    return len(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    os.environ["PATH"] = f"{Path(XP).parent}{os.pathsep}{os.environ['PATH']}"
    there = {n: bool(find_spec(n.lower())) for n in ("polars", "DuckDB")} | {"STILTS": bool(shutil.which("stilts"))}
    for name in (n for n, found in there.items() if not found):
        absent("tables", name, "Debian package stilts" if name == "STILTS" else f"pip install {name.lower()}")
    with tempfile.TemporaryDirectory(prefix="bench-tables-") as name:
        folder = Path(name)
        rows = prepared(folder, int(args.rows))
        for case, (ours, peers, low) in WORK.items():
            found = {peer: line for peer, line in peers.items() if there[peer.split(",")[0]]}
            measure(case, {"xp": ours, **found}, low, rows, folder, args)


def measure(case: str, commands: dict[str, str], low: float, rows: int, folder: Path, args) -> None:
    """All ways to do one thing, in turns."""
    costs = {name: [] for name in commands}
    for _ in range(args.repeat):
        for name, command in commands.items():
            costs[name].append(child(command, folder))
    if case.startswith("filter") and len(commands) > 1:
        same(folder)
    jobs = dict.fromkeys(commands, (rows, None))
    rates = {n: np.array([[rows / c["wall_s"], rows / c["cpu_s"]] for c in found]) for n, found in costs.items()}
    most = max(c["peak_mb"] for c in costs["xp"])
    for peer in [n for n in commands if n != "xp"] or [None]:
        goals = []
        if low and peer:
            goals = [goal(f">= {low} x STILTS per core", np.median(rates["xp"] / rates[peer], 0)[1], low=low)]
        compared(NAMES[case.split()[0].rstrip(",")], case, jobs, rates, "xp", peer, peak_mb=most, goals=goals)


def same(folder: Path) -> None:
    """STILTS and xp keep the same rows."""
    counted = [
        json.loads(subprocess.run([XP, "info", folder / name], capture_output=True, check=True).stdout)["rows"]
        for name in ("out.arrows", "out.vot")
    ]
    assert counted[0] == counted[1], counted


if __name__ == "__main__":
    main()
