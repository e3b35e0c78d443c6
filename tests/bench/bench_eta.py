"""eta of stars: xp against zuko over the same cells of [Fe/H], with the same weights, in one run.

python tests/bench/bench_eta.py [--stars 200000] [--few 4000] [--repeat 5] [--threads 1] [--model FILE]

zuko's GMM is conditioned once per cell before the clock starts; inside it log_prob of every star is summed over the
cells. xp does the same and the slopes by velocity besides. Both get the same standardised stars, and before the clock
starts their eta must agree. `step` is `xp eta` on Arrow batches: velocities, errors, flags and all. The limit is one
exponential for each Gaussian and star, or the matrix product. Without zuko only xp is timed.
"""

import argparse
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import absent, compared, goal, peak, pinned, turns

DEMO = Path(__file__).parents[2] / "xptools" / "data" / "eta_demo.safetensors"


def main() -> None:
    args = arguments()
    pinned(args.threads)
    from xptools.artefact import load
    from xptools.cores import eta, mixture

    arrays = load(args.model, "eta").arrays
    scorer, columns = eta.Scorer(arrays), sky(args.stars)
    x = mixture.standardise(arrays, *columns[:4]).astype(np.float32)
    gaussians = sum(t.shape[0] * t.shape[1] for t in scorer.sides)
    step, batches = command(args.model, columns)
    jobs = {
        "xp": (args.stars, lambda: scorer.log_densities(x, args.threads)),
        "command": (args.stars, lambda: [step(b) for b in batches]),
    }
    peer = None
    if find_spec("zuko"):
        peer, zuko = "zuko", Zuko(arrays, args.threads)
        agree(scorer, zuko, x[: args.few], args.threads)
        jobs["zuko"] = (args.few, lambda: zuko.eta(x[: args.few]))
    else:
        absent("eta", "zuko", "pip install --no-deps zuko")
    rates = turns(jobs, args.repeat)
    bound = {"exp": gaussians, "gemm": 2 * 15 * gaussians}  # quadratic features times every Gaussian, then exp
    core = rates["xp"][:, 1].max()
    goals = [goal(">= 1 M/core-s of 640 Gaussians", core * gaussians / 640 / 1e6, low=1)]
    if peer:
        goals += [goal(">= 16 x zuko per core", np.median(rates["xp"][:, 1] / rates[peer][:, 1]), low=16)]
    case = f"{gaussians:,} Gaussians, {args.threads} thread(s)"
    compared("eta", f"densities, {case}", jobs, rates, "xp", peer, bound=bound, goals=goals, peak_mb=peak())
    compared("eta", f"step, {case}", jobs, rates, "command", peer, bound=bound)


def agree(scorer, peer, x, threads) -> None:
    """The same weights give the same eta."""
    ours = scorer.log_densities(x, threads)[0]
    off = np.abs((ours[0] - ours[1]) / np.log(10) - peer.eta(x))
    print(f"eta differs by {np.median(off):.1e} in the median, {off.max():.1e} dex at most")
    assert off.max() < 1e-3


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
    return xptools.op(f"eta --model {shlex.quote(str(model))}"), table.to_batches(max_chunksize=16384)


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
