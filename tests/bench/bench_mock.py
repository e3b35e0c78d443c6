"""Stars a second and peak memory of the ways of `xp mock`, output thrown away.

python tests/bench/bench_mock.py [--stars 1e6] [--repeat 1]

There is no peer: what draws a Galaxy elsewhere (Galaxia, Besancon) gives no errors of Gaia and no spectra.
"""

import argparse
import subprocess

from common import XP, child, least, record

WAYS = ("", "--age 10", "--map toy", "--fractions 0 0 1", "--sample giants")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=float, default=1e6)
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    for way in WAYS:
        words = [XP, "-q", "mock", str(int(args.stars)), *way.split()]
        cost = least([child(words, ".", stdout=subprocess.DEVNULL) for _ in range(args.repeat)])
        rows = count(int(args.stars), way)
        record("mock", way or "defaults", rows=rows, rows_per_s=rows / cost["wall_s"],
               rows_per_core_s=rows / cost["cpu_s"], **cost)  # fmt: skip


def count(stars: int, way: str) -> int:
    """Rows that come out: not every star that is drawn is seen."""
    import xptools

    step = xptools.op(f"mock {stars} {way}")
    return sum(len(block["source_id"]) for block in step.universe().blocks())


if __name__ == "__main__":
    main()
