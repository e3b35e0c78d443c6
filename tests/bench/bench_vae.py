"""The scatter auto-encoder: training and inference against the published architecture in PyTorch, in one run.

python tests/bench/bench_vae.py [--stars 100000] [--repeat 5] [--load N] [--parquet FOLDER]

The network is rebuilt from the paper's layer list and its published state dict (110-90-70-50-30-10-6 and back, batch
norm, GELU). Training: one epoch, batch 1024, AdamW. `published` runs it the way the authors' loop does, by our
reading of it: a gradient scaler that is switched off, losses fetched three times a step, the data copied and shuffled
each epoch, the last partial batch dropped; `plain loop` is the same network without any of that. xp trains all rows in
one compiled scan; `streamed` has them on disk, not in memory. Inference: encode, and decode with scatter, PyTorch in
eval mode without gradients on one and on all threads; the better is the peer. Rates are per second and per second of
CPU. With --load, N processes spin beside them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

import numpy as np
import torch
from common import compared, goal, turns

sys.path.insert(0, str(Path(__file__).parents[1] / "comparison"))
from test_vae_torch import Published

from xptools.cores import vae, vae_training
from xptools.cores.vae_training import Sample

BATCH = 1024
PEER = "PyTorch, published"
FLOP = {"encode": 43e3, "decode + scatter": 86e3, "epoch": 388e3}


def main() -> None:
    args = arguments()
    threads = len(os.sched_getaffinity(0))
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.load)]
    try:
        print(f"{args.stars:,} stars, {threads} cores, load {os.getloadavg()[0]:.1f}, {args.load} spinning beside")
        x, sigma = data(args.stars)
        training(x, sigma, args)
        inference(x, threads, args)
    finally:
        for process in spin:
            process.kill()


def data(n, seed=0):
    """Smooth spectra of six numbers with noise: (n, 110) and its errors."""
    rng = np.random.default_rng(seed)
    z, k = rng.normal(size=(n, 6)), np.arange(110) / 110
    modes = np.stack([np.cos((m + 1) * 3.0 * k + m) for m in range(6)])
    sigma = np.full((n, 110), 0.1, np.float32)
    return (np.tanh(z) @ modes + 0.1 * rng.normal(size=(n, 110))).astype(np.float32), sigma


def training(x, sigma, args):
    sample = Sample.of(x, sigma)
    jobs = {PEER: Peer(x, sigma, True).epoch, "PyTorch, plain loop": Peer(x, sigma, False).epoch}
    learner = vae_training.Learner(
        vae.init(0, 110, vae.PAPER, 6), vae_training.Objective(), BATCH, 0, lambda _: iter((sample,)),
        sample.rows(slice(0, 2)),
    )  # fmt: skip
    jobs["xp"] = lambda: learner.epoch(1, 1e-4)
    with tempfile.TemporaryDirectory(dir=args.parquet) as folder:
        jobs["xp, streamed"] = streamed(x, sigma, Path(folder) / "x.parquet")
        jobs = {name: (len(x), run) for name, run in jobs.items()}
        report("train vae", "epoch", jobs, [PEER], args, training_goals)


def training_goals(name, ratios, rates) -> list[dict]:
    """Twice the peer, and streaming at the rate from memory."""
    goals = [goal(">= 2 x the peer per core", ratios[1], low=2)]
    if name == "xp, streamed":
        goals.append(goal("as fast as from memory", np.median(rates[name] / rates["xp"], 0)[1], low=0.95))
    return goals


def streamed(x, sigma, path):
    """An epoch of the same rows as `--stream` keeps them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from xptools.commands import _vae_sample as reading
    from xptools.cores import vae_fitting

    def wide(a):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(a).ravel()), a.shape[1])

    columns = {"source_id": np.arange(len(x)) * 7919, "phot_g_mean_flux": np.ones(len(x))}
    for band, some in (("bp", slice(0, 55)), ("rp", slice(55, 110))):
        columns[f"{band}_coefficients"] = wide(x[:, some].astype(np.float64))
        columns[f"{band}_coefficient_errors"] = wide(sigma[:, some])
    pq.write_table(pa.table(columns), path, row_group_size=1 << 15, compression="zstd")
    table = reading.table(str(path), 0.001, 0, False, True)
    learner = vae_fitting.learner(vae_fitting.Plan(), table.norms, table.blocks, table.held)
    return lambda: learner.epoch(0, 1e-4)


class Peer:
    """The published network in training."""

    def __init__(self, x, sigma, published):
        torch.manual_seed(0)
        self.network, self.published = Published(), published
        self.optimiser = torch.optim.AdamW(self.network.parameters(), 1e-4, fused=not published)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.x, self.sigma = x, sigma

    def epoch(self):
        self.network.train()
        order = np.random.default_rng(0).permutation(len(self.x))
        if self.published:  # copies of the whole set, cut into a list of batches
            x, sigma = self.x.copy()[order], self.sigma.copy()[order]
            stop = len(x) // BATCH * BATCH
            batches = list(zip(np.split(x[:stop], stop // BATCH), np.split(sigma[:stop], stop // BATCH), strict=True))
        else:
            batches = ((self.x[r], self.sigma[r]) for r in np.array_split(order, -(-len(order) // BATCH)))
        total = [0.0, 0.0, 0.0]
        for x, sigma in batches:
            losses = self.step(torch.as_tensor(x), torch.as_tensor(sigma))
            if self.published:
                total = [t + v.item() for t, v in zip(total, losses, strict=True)]

    def step(self, x, sigma):
        n = self.network
        self.optimiser.zero_grad(set_to_none=not self.published)
        h = n.encoder(x)
        mu, log_var = n.mu(h), n.log_var(h)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * log_var)
        V = sigma**2 + n.scatter(z) ** 2
        misfit = 0.5 * ((x - n.decoder(z)) ** 2 / V + torch.log(V)).sum(-1).mean()
        kl = -0.5 * (1 + log_var - mu**2 - log_var.exp()).sum(-1).mean()
        loss = misfit + kl
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss, misfit, kl


def inference(x, threads, args):
    network = Published().eval()
    with torch.no_grad():
        network(torch.as_tensor(x[:64]))
    arrays = vae.init(0, 110, vae.PAPER, 6)
    model, z = vae.Model(arrays), np.random.default_rng(1).normal(size=(len(x), 6)).astype(np.float32)

    def eager(count, encode):
        def run():
            torch.set_num_threads(count)
            with torch.no_grad():
                if encode:
                    h = network.encoder(torch.as_tensor(x))
                    return network.mu(h), network.log_var(h)
                return network.decoder(torch.as_tensor(z)), network.scatter(torch.as_tensor(z))

        return run

    for name, mine in (("encode", lambda: model.encode(x)),
                       ("decode + scatter", lambda: (model.decode(z), model.scatter(z)))):  # fmt: skip
        jobs = {f"PyTorch, {n} thread{'s' * (n > 1)}": eager(n, name == "encode") for n in sorted({1, threads})}
        jobs["xp"] = mine
        jobs = {n: (len(x), run) for n, run in jobs.items()}
        wanted = lambda _name, ratios, _rates: [goal("no slower than PyTorch's best", ratios[0], low=1)]  # noqa: E731
        report("vae", name, jobs, [n for n in jobs if n != "xp"], args, wanted)


def report(command, case, jobs, peers, args, goals):
    """Rates in turns; the peer is whichever of `peers` is best. goals(name, ratios, rates): the goals of a job."""
    rates = turns(jobs, args.repeat)
    peer = max(peers, key=lambda name: np.median(rates[name][:, 0]))
    for name in (n for n in jobs if n.startswith("xp")):
        ratios = np.median(rates[name] / rates[peer], 0)
        title = " ".join(w for w in (case, name.removeprefix("xp, ").removeprefix("xp")) if w)
        compared(command, title, jobs, rates, name, peer, bound={"gemm": FLOP[case]}, goals=goals(name, ratios, rates))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--load", type=int, default=0, help="processes that spin beside")
    parser.add_argument("--parquet", default=None, help="folder of the streamed file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
