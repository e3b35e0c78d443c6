"""Stars a second and peak memory of `xp mock`, end to end, output thrown away: python tests/bench/bench_mock.py"""

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path


def measure(stars: int, *options: str) -> dict:
    """Rows, seconds and peak memory [MB] of one run; the rows are counted in a second process."""
    program = shutil.which("xp", path=str(Path(sys.executable).parent))
    start = time.perf_counter()
    with open("/dev/null", "wb") as nowhere:
        subprocess.run([program, "mock", str(stars), *options], stdout=nowhere, check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "stars": stars,
        "options": list(options),
        "rows": count(stars, *options),
        "seconds": seconds,
        "peak_mb": peak,
    }


def count(stars: int, *options: str) -> int:
    """Rows that come out."""
    import xptools

    step = xptools.op(" ".join(["mock", str(stars), *options]))
    return sum(len(block["source_id"]) for block in step.universe().blocks())


def main() -> None:
    for stars, options in (
        (200_000, ()),
        (2_000_000, ()),
        (2_000_000, ("--age", "10")),
        (2_000_000, ("--map", "toy")),
        (2_000_000, ("--fractions", "0", "0", "1")),
        (1_000_000, ("--sample", "giants")),
        (10_000_000, ()),
    ):
        result = measure(stars, *options)
        result["rows_per_second"] = round(result["rows"] / result["seconds"])
        print(json.dumps(result))


if __name__ == "__main__":
    main()
