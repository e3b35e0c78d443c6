"""eta of stars: xp against zuko over the same cells of [Fe/H], with the same weights, in one run.

python tests/bench/bench_eta.py [--stars 200000] [--few 4000] [--repeat 5] [--threads 1] [--model FILE]

zuko's GMM is conditioned once per cell before the clock starts; inside it log_prob of every star is summed over the
cells. xp does the same and the slopes by velocity besides. Both get the same standardised stars, and before the clock
starts their eta must agree. Rates are the best of the repeats, per second and per second of CPU; the ratios are medians
of repeats that alternate. `command` is `xp eta` as a step on Arrow batches: velocities, errors, flags and all. `share`
compares with numpy's exp alone, of as many numbers as there are Gaussians. Runs where zuko is importable.
"""

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np

DEMO = Path(__file__).parents[2] / "xptools" / "data" / "eta_demo.safetensors"


def main() -> None:
    args = arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    from xptools.artefact import load
    from xptools.cores import eta, mixture

    arrays = load(args.model, "eta").arrays
    scorer, columns = eta.Scorer(arrays), sky(args.stars)
    x = mixture.standardise(arrays, *columns[:4]).astype(np.float32)
    gaussians = sum(t.shape[0] * t.shape[1] for t in scorer.sides)
    print(f"{args.stars:,} stars, {gaussians:,} Gaussians, threads {args.threads}, load {os.getloadavg()[0]:.1f}")
    peer = Zuko(arrays, args.threads)
    ours = scorer.log_densities(x[: args.few], args.threads)[0]
    off = np.abs((ours[0] - ours[1]) / np.log(10) - peer.eta(x[: args.few]))
    print(f"eta differs by {np.median(off):.1e} in the median, {off.max():.1e} dex at most")
    assert off.max() < 1e-3
    step, batches = command(args.model, columns)
    jobs = {
        "zuko": (args.few, lambda: peer.eta(x[: args.few])),
        "xp": (args.stars, lambda: scorer.log_densities(x, args.threads)),
        "command": (args.stars, lambda: [step(b) for b in batches]),
        "exp alone": (args.stars // 10, lambda: exponentials(x[: args.stars // 10], gaussians)),
    }
    report(jobs, args.repeat)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def report(jobs, repeat) -> None:
    """Rates of all jobs, alternating, and the ratios."""
    rates = {name: [] for name in jobs}
    for k in range(repeat + 1):  # the first is to compile
        for name, (n, run) in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if k:
                rates[name].append((n / (time.perf_counter() - wall), n / (time.process_time() - cpu)))
    rates = {name: np.array(r) for name, r in rates.items()}
    for name, r in rates.items():
        print(f"{name:10} {r[:, 0].max():12,.0f} stars/s {r[:, 1].max():12,.0f} per core-second")
    ratio = np.median(rates["xp"] / rates["zuko"], 0)
    share = rates["xp"][:, 1].max() / rates["exp alone"][:, 1].max()
    print(f"xp is {ratio[0]:.0f} times zuko, per core-second {ratio[1]:.0f} times; share {share:.2f}")


class Zuko:
    """The peer: one conditioned distribution per cell of [Fe/H]."""

    def __init__(self, arrays, threads):
        import torch
        import zuko

        from xptools.cores import mixture
        from xptools.cores.mixture_zuko import to_zuko

        torch.set_num_threads(threads)
        model = zuko.mixtures.GMM(4, 1, components=mixture.size(arrays), hidden_features=(32, 32))
        model.load_state_dict({k: torch.from_numpy(v) for k, v in to_zuko(arrays).items()})
        poor, count = arrays["mdf.feh"] < -1.0, arrays["mdf.count"]
        c = mixture.context(arrays, arrays["mdf.feh"]).astype(np.float32)
        self.torch, self.sides = torch, []
        with torch.no_grad():
            for side in (poor & (count > 0), ~poor & (count > 0)):
                weights = np.log(count[side] / count[side].sum())
                self.sides.append([(w, model(torch.tensor([v]))) for w, v in zip(weights, c[side], strict=True)])

    def eta(self, x: np.ndarray, rows: int = 2000) -> np.ndarray:
        torch, out = self.torch, []
        with torch.no_grad():
            for part in torch.from_numpy(x).split(rows):
                sums = [torch.logsumexp(torch.stack([d.log_prob(part) + w for w, d in s]), 0) for s in self.sides]
                out.append(((sums[0] - sums[1]) / np.log(10)).numpy())
        return np.concatenate(out)


def command(model, columns):
    """The step of `xp eta`, and its input."""
    import pyarrow as pa

    import xptools
    from xptools.columns import GAIA

    names = ("ra", "dec", "pmra", "pmdec", "parallax", "parallax_error", "pmra_error", "pmdec_error")
    ra, dec, v_ra, v_dec, parallax = columns
    per_pm = 4.740470463 / parallax
    small = np.full(len(ra), 0.02)
    values = (ra, dec, v_ra / per_pm, v_dec / per_pm, parallax, small, small, small)
    arrays = [
        pa.array(v, {"float32": pa.float32()}.get(GAIA[n].type, pa.float64()))
        for n, v in zip(names, values, strict=True)
    ]
    table = pa.Table.from_arrays(arrays, list(names))
    return xptools.op(f"eta --model {model}"), table.to_batches(max_chunksize=16384)


def sky(n):
    """ra, dec [deg], v_ra, v_dec [km/s], parallax [mas] of disc-like and halo-like stars."""
    rng = np.random.default_rng(1)
    width = np.where(rng.random(n) < 0.9, 40.0, 120.0)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    return (
        rng.uniform(0, 360, n),
        dec,
        width * rng.normal(size=n),
        width * rng.normal(size=n) - 20,
        rng.uniform(1, 9, n),
    )


def exponentials(x, gaussians) -> None:
    """numpy's exp of one number per star and Gaussian, in place, 2,000 stars at a time."""
    block = np.full((500, gaussians), -1.0, np.float32)
    for _ in range(0, len(x), 500):
        np.exp(block, out=block)
        block[:] = -1.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=200_000)
    parser.add_argument("--few", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default=str(DEMO))
    return parser.parse_args()


if __name__ == "__main__":
    main()
