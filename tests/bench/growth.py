"""The figure of growth: seconds of processor time and peak memory against rows, from the JSON of `make bench`.

    python tests/bench/growth.py [tests/bench/out/bench.json] [-o growth.png]

Time is what a command takes beyond its start-up on 100 rows; what is below a twentieth of a second is not drawn, since
start-up varies by as much. Beside the figure a table (.csv) has the numbers, and the slope of log time over log rows
between the two largest sizes: 1 is straight growth.
"""

import argparse
import csv
import json
import math
from pathlib import Path

LEAST = 0.05  # seconds beyond the start-up


def points(result: dict) -> dict[str, list[tuple]]:
    """command and options -> rows, processor seconds, of these beyond start-up, peak memory [MB]; two sizes or more."""
    found: dict[str, list] = {}
    for r in result["records"]:
        if "startup_cpu_s" in r and "cpu_s" in r:
            beyond = r["cpu_s"] - r["startup_cpu_s"]
            name = f"{r['command']} {r['case']}".strip()
            found.setdefault(name, []).append((r["rows"], r["cpu_s"], beyond, r["peak_mb"]))
    return {name: sorted(rows) for name, rows in found.items() if len(rows) > 1}


def drawn(rows: list[tuple]) -> list[tuple[int, float]]:
    """Rows and seconds beyond start-up, where there are any to speak of."""
    return [(r[0], r[2]) for r in rows if r[2] >= LEAST]


def slope(rows: list[tuple]) -> float:
    """d log time / d log rows between the two largest sizes; NaN if fewer took any time."""
    if len(drawn(rows)) < 2:
        return math.nan
    (n, t), (N, T) = drawn(rows)[-2:]
    return math.log(T / t) / math.log(N / n)


def draw(result: dict, path: Path) -> Path:
    """Write the figure and its numbers beside it."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    found = points(result)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5.5), layout="constrained")
    marks = "osv^D<>pPXd*h"
    for k, (name, rows) in enumerate(found.items()):
        style = {"color": f"C{k % 10}", "marker": marks[k % len(marks)], "ms": 4, "lw": 1}
        short = name if len(name) < 34 else f"{name[:32]}..."
        seen = drawn(rows) or [(math.nan, math.nan)]
        steep = f" ({slope(rows):.2f})" if slope(rows) == slope(rows) else ""
        left.loglog(*zip(*seen, strict=True), label=short + steep, **style)
        right.loglog([r[0] for r in rows], [r[3] for r in rows], **style)
    ends = [f(r[0] for rows in found.values() for r in rows) for f in (min, max)]
    left.loglog(ends, [2e-6 * n for n in ends], "k:", lw=1, label="straight growth (1)")
    left.set(xlabel="rows", ylabel="processor time beyond the start-up [s]", ylim=(0.03, None))
    right.set(xlabel="rows", ylabel="peak memory of the process [MB]", ylim=(20, 2000))
    words = {"title": "command (slope of time)", "title_fontsize": 7}
    figure.legend(loc="outside right center", fontsize=7, frameon=False, **words)
    figure.savefig(path, dpi=150)
    with path.with_suffix(".csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["command", "rows", "cpu_s", "cpu_beyond_startup_s", "peak_mb", "slope"])
        out.writerows([name, *row, round(slope(rows), 3)] for name, rows in found.items() for row in rows)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, nargs="?", default=Path(__file__).parent / "out" / "bench.json")
    parser.add_argument("-o", "--output", type=Path, default=None)
    args = parser.parse_args()
    print(draw(json.loads(args.json.read_text()), args.output or args.json.with_name("growth.png")))


if __name__ == "__main__":
    main()
