"""Mass from (M_G, BP-RP): xp's looked-up network against scipy's interpolation over isochrone points, in one run.

python tests/bench/bench_mass.py [--stars 2000000] [--few 50000] [--repeat 5]

scipy's LinearNDInterpolator is built over 100,000 points (M_G, BP-RP) -> mass, [M/H] before the clock starts, and asked
for stars in no order, as tables come. xp gives values and slopes by both inputs (`core`), or the whole step on Arrow
batches, with errors and flags (`step`).
"""

import argparse

import numpy as np
import pyarrow as pa
from common import compared, goal, pinned, turns

PEER = "scipy LinearND"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=2_000_000)
    parser.add_argument("--few", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    pinned(1)
    from scipy.interpolate import LinearNDInterpolator

    import xptools
    from xptools.artefact import load
    from xptools.cores.mass import Emulator

    model = Emulator(load(xptools.__path__[0] + "/data/mass_default.safetensors", "mass").arrays)
    M_G, color = stars(model, args.stars, 1)
    points = stars(model, 100_000, 2)
    peer = LinearNDInterpolator(np.stack(points, -1), model(*points)[0].T)
    agree(peer, model, M_G[: args.few], color[: args.few])
    step, batches = xptools.op("mass"), table(M_G, color).to_batches(max_chunksize=16384)
    jobs = {
        PEER: (args.few, lambda: peer(M_G[: args.few], color[: args.few])),
        "core": (args.stars, lambda: [model(M_G[k : k + 16384], color[k : k + 16384]) for k in starts(args.stars)]),
        "step": (args.stars, lambda: [step(b) for b in batches]),
    }
    rates = turns(jobs, args.repeat)
    core = rates["core"][:, 1].max()
    # Two numbers in; two values, each with two slopes, out; four corners of the table, each in a line of its own.
    compared("mass", "core", jobs, rates, "core", PEER, bound={"copy": 4 * (2 + 6) + 4 * 64},
             goals=[goal(">= 10 M/core-s [M]", core / 1e6, low=10)])  # fmt: skip
    compared("mass", "step", jobs, rates, "step", PEER, bound={"copy": 4 * (4 + 5) + 4 * 64})


def starts(rows: int) -> range:
    """Where batches begin."""
    return range(0, rows, 16384)


def stars(model, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """M_G and BP-RP [mag] (n,) inside the model's hull."""
    rng, a = np.random.default_rng(seed), model.arrays
    M_G = rng.uniform(5.0, 11.0, n).astype(np.float32)
    blue, red = (np.interp(M_G, a["hull.M_G"], a[f"hull.{side}"]) for side in ("blue", "red"))
    return M_G, (blue + rng.random(n) * (red - blue)).astype(np.float32)


def agree(peer, model, M_G, color) -> None:
    """Both give the same masses."""
    off = np.abs(peer(M_G, color)[:, 0] - model(M_G, color)[0][0])
    print(f"masses differ by {np.nanmedian(off):.1e} in the median, {np.nanquantile(off, 0.99):.1e} at 99 % [Msun]")
    assert np.nanquantile(off, 0.99) < 2e-3


def table(M_G, color) -> pa.Table:
    """What the step reads."""
    error = np.full(len(M_G), 0.02, np.float32)
    return pa.table({"mg0": M_G, "bp_rp0": color, "mg0_err": error, "bp_rp0_err": error})


if __name__ == "__main__":
    main()
