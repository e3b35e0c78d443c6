"""Throughput and peak memory of every command, the pipe against `xp run`, and STILTS for the same table work.

    python tests/bench/bench_commands.py [--sizes 1e5,1e6,1e7] [--repeat 3]

Inputs are made by `xp mock` in a temporary folder. Every figure is the best of the repeats, all in one run; ratios are
what counts, seconds depend on the machine. Memory is the child's peak resident size.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

COLUMNS = (
    "source_id,ra,dec,l,b,parallax,parallax_error,phot_g_mean_mag,phot_bp_mean_mag,phot_rp_mean_mag,bp_rp,"
    "phot_bp_rp_excess_factor,fidelity_v2,feh,feh_err"
)
ROWWISE = {
    "convert": "convert",
    "deredden": "deredden --map none",
    "select": "select --cstar-nsigma 3 --fidelity 0.5 --magnitude :17",
    "select --flag": "select --flag --cstar-nsigma 3 --fidelity 0.5 --magnitude :17",
    "mass": "mass",
    "veff": "veff",
}
PIPE = "deredden --map none | select --cstar-nsigma 3 --magnitude :17 | mass | veff"


def child(command: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak memory [MB] of the largest process of a shell command."""
    start = time.perf_counter()
    process = subprocess.Popen(["bash", "-c", f"set -o pipefail; {command}"], cwd=folder, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed ({process.returncode}): {command}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def best(command: str, folder: Path, repeat: int) -> tuple[float, float]:
    """The least time and the largest memory of some repeats."""
    runs = [child(command, folder) for _ in range(repeat)]
    return min(r[0] for r in runs), max(r[1] for r in runs)


def inputs(folder: Path, rows: int) -> None:
    """stars.arrows, and ready.arrows with the columns that mass and veff read."""
    n = int(rows)
    child(f"xp -q mock {n * 2} | xp -q convert --keep {COLUMNS} | cat > all.arrows", folder)
    child("xp -q run 'deredden --map none | mass' all.arrows -o ready.arrows", folder)
    for name in ("all", "ready"):
        shutil.move(folder / f"{name}.arrows", folder / f"{name}-{n}.arrows")


def count(folder: Path, name: str) -> int:
    """Rows of a stream file."""
    import json

    out = subprocess.run(["xp", "info", name], cwd=folder, capture_output=True, check=True).stdout
    return json.loads(out)["rows"]


def commands(folder: Path, sizes: list[int], repeat: int) -> None:
    """One line per command and size, and whether memory is flat."""
    print(f"{'command':16}" + "".join(f"{f'{n:.0e} rows':>30}" for n in sizes) + f"{'memory':>10}")
    for label, line in {"mock": "", **ROWWISE, "mf (exact)": "mf --method exact"}.items():
        cells, peaks = [], []
        for n in sizes:
            source = f"ready-{n}.arrows" if label in ("veff",) or label.startswith("mf") else f"all-{n}.arrows"
            command = f"xp -q {line} {source} > /dev/null" if line else f"xp -q mock {2 * n} > /dev/null"
            if label == "mass":
                command = f"xp -q run 'deredden --map none | mass' {source} > /dev/null"
            if label.startswith("mf"):
                command = f"xp -q run 'veff | {line}' {source} > /dev/null"
            seconds, peak = best(command, folder, repeat)
            rows = count(folder, source)
            cells.append(f"{seconds:8.2f} s {rows / seconds / 1e6:6.2f} M/s {peak:6.0f} MB")
            peaks.append(peak)
        print(f"{label:16}" + "".join(f"{c:>30}" for c in cells) + f"{peaks[-1] / peaks[0]:9.2f}x")


def pipe(folder: Path, rows: int, repeat: int) -> None:
    """The shell's pipe against one process, after checking that both give the same bytes."""
    source = f"all-{rows}.arrows"
    shell = " | ".join(f"xp -q {s.strip()}" for s in PIPE.split("|")).replace("map none", f"map none {source}", 1)
    child(f"cmp <({shell}) <(xp -q run '{PIPE}' {source})", folder)
    piped, _ = best(f"{shell} > /dev/null", folder, repeat)
    ran, _ = best(f"xp -q run '{PIPE}' {source} > /dev/null", folder, repeat)
    ratio = f"ratio {piped / ran:.2f}; same bytes"
    print(f"\npipe of four, {rows:.0e} rows: shell {piped:.2f} s, xp run {ran:.2f} s, {ratio}")


def stilts(folder: Path, repeat: int) -> None:
    """A filter and a new column over 3 million rows of 4 columns, as in docs: STILTS VOTable pipe against xp."""
    if not shutil.which("stilts"):
        print("\nSTILTS is not installed (Debian package stilts): its comparison is left out")
        return
    name = max(folder.glob("all-*.arrows"), key=lambda p: p.stat().st_size).name
    keep = "--keep source_id,parallax,phot_g_mean_mag,bp_rp"
    child(f"xp -q convert {keep} {name} -o four.arrows; xp -q convert four.arrows -o four.vot", folder)
    rows = count(folder, "four.arrows")
    select = "xp -q select --where 'parallax > 2 and phot_g_mean_mag + 5*log10(parallax/100) > 6'"
    ours, memory = best(f"cat four.arrows | {select} > /dev/null", folder, repeat)
    cmd = "select 'parallax > 2 && phot_g_mean_mag + 5*log10(parallax/100) > 6'"
    peer = f'stilts tpipe in=- ifmt=votable cmd="{cmd}" ofmt=votable-binary2 out=-'
    theirs, other = best(f"cat four.vot | {peer} > /dev/null", folder, repeat)
    print(
        f"\nfilter of {rows / 1e6:.1f} M rows x 4 columns through a pipe: xp {ours:.2f} s ({memory:.0f} MB), "
        f"STILTS VOTable {theirs:.2f} s ({other:.0f} MB), ratio {theirs / ours:.1f} (goal 5)"
    )


def startup(folder: Path) -> None:
    """`xp --help`, the promise is 0.15 s."""
    times = [child("xp --help > /dev/null", folder)[0] for _ in range(7)]
    print(f"\nxp --help: {sorted(times)[3] * 1000:.0f} ms (median of 7; promise 150)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1e5,1e6,1e7")
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    sizes = [int(float(x)) for x in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="xp-bench-") as name:
        folder = Path(name)
        startup(folder)
        for n in sizes:
            inputs(folder, n)
        commands(folder, sizes, options.repeat)
        pipe(folder, sizes[min(1, len(sizes) - 1)], options.repeat)
        stilts(folder, options.repeat)


if __name__ == "__main__":
    main()
