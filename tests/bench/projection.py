"""What whole data releases take, from the rates of `make bench`: core-hours, hours and disc for 220 million spectra.

    python tests/bench/projection.py [tests/bench/out/bench.json]

A rate is that of a command's largest size, per second of one core; hours assume that cores share the files without
waiting for each other or for the disc, and the last column says how fast the disc must be for that on 100 cores.
"""

import argparse
import json
from pathlib import Path

RELEASES = {"DR3": 220e6, "DR4": 2e9}  # spectra; of DR4 assumed: every source that has a BP/RP photometry
CORES = {"1 core": 1, "16 cores": 16, "100 cores": 100}
# step: command and beginning of the case, bytes that a star brings in: the archive's text, or a stream
STEPS = {
    "read the archive's gzip files": ("fetch xp", "bulk file, gzip, all", 15_300),
    "deredden": ("deredden", "--map-file", 160),
    "eta": ("eta", "", 160),
    "mass": ("mass", "", 180),
    "calibrate, no errors": ("calibrate", "--no-errors", 1_500),
    "calibrate": ("calibrate", "--drop", 13_500),
    "feh": ("feh", "--drop", 13_500),
    "vae": ("vae", "", 1_500),
    "ask, small model": ("ask", "mass age", 1_500),
    "ask, published size": ("ask", "full contexts, xp bfloat16", 0),
}

PIPE = ("read the archive's gzip files", "deredden", "feh", "eta", "mass")


def rate(result: dict, command: str, case: str) -> float | None:
    """Rows per core-second of the largest size of a command."""
    process = [r for r in result["records"] if r["command"] == command and r["case"].startswith(case)]
    process = [r for r in process if r.get("rows_per_core_s")]
    whole = [r for r in process if r.get("kind") == "process"] or process
    return max(whole, key=lambda r: r["rows"])["rows_per_core_s"] if whole else None


def lines(result: dict) -> list[str]:
    """The table: a line for a step and a release, and for the pipe of some."""
    out = [f"{'step':30} {'per core-s':>10} {'release':>8}" + "".join(f"{c:>11}" for c in CORES) + f"{'read':>11}"]
    rates = {step: rate(result, command, case) for step, (command, case, _) in STEPS.items()}
    rates["pipe"] = 1 / sum(1 / r for r in (rates[s] for s in PIPE)) if all(rates[s] for s in PIPE) else None
    for step, per_core in rates.items():
        if per_core is None:
            out.append(f"{step:30} not measured")
            continue
        size = STEPS[step][2] if step in STEPS else STEPS[PIPE[0]][2]
        for release, stars in RELEASES.items():
            hours = "".join(f"{took(stars / per_core / n):>11}" for n in CORES.values())
            speed = f"{100 * per_core * size / 1e9:6.1f} GB/s" if size else ""
            out.append(f"{step:30} {per_core:10,.0f} {release:>8}{hours}{speed:>11}")
    return [*out, f"pipe: {', '.join(PIPE)}"]


def took(seconds: float) -> str:
    """Hours, minutes or seconds."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, nargs="?", default=Path(__file__).parent / "out" / "bench.json")
    print("\n".join(lines(json.loads(parser.parse_args().json.read_text()))))


if __name__ == "__main__":
    main()
