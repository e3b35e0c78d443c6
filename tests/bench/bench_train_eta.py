"""One epoch of the conditional mixture's training: xp against zuko, the same weights and rows, in one run.

python tests/bench/bench_train_eta.py [--rows 65536] [--components 20] [--batch 4096,1024] [--repeat 5] [--threads 1]

Both take the same steps of Adam on the weighted likelihood of the same batches. Before the clock starts the loss and
its gradient of the first batch are compared. Rates are the best of the repeats, per second and per second of CPU; the
ratios are medians of repeats that alternate. `share` is how far xp is from what its matrix products alone would cost
at the speed of a large float32 product timed in the same run. Runs where zuko is importable.
"""

import argparse
import os
import time

import numpy as np


def main() -> None:
    args = arguments()
    cores = sorted(os.sched_getaffinity(0))[: args.threads]
    os.sched_setaffinity(0, cores)  # before JAX starts its threads
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    c = rng.uniform(-4, 2, args.rows).astype(np.float32)
    x = (np.where(c[:, None] < -1, 1.5, 0.5) * rng.normal(size=(args.rows, 4))).astype(np.float32)
    w = rng.uniform(0.2, 3, args.rows).astype(np.float32)
    print(f"{args.rows:,} rows, K = {args.components}, threads {args.threads}, load {os.getloadavg()[0]:.1f}")
    for batch in (int(b) for b in args.batch.split(",")):
        compare(args, x, c, w, batch)


def compare(args, x, c, w, batch) -> None:
    """The rates at one batch size."""
    ours, theirs = Ours(x, c, w, args.components, batch), Zuko(x, c, w, args.components)
    theirs.take(ours.params())
    rows = np.arange(batch)
    (a, g), (b, h) = ours.gradient(rows), theirs.gradient(rows)
    worst = max(np.abs(g[k] - h[k]).max() / np.abs(h[k]).max() for k in h)
    print(f"batch {batch}: loss {a:.6f} and {b:.6f}, gradients differ by {worst:.1e} of the largest")
    assert abs(a - b) < 1e-4 and worst < 1e-3
    rates = {"zuko": [], "xp": []}
    for _ in range(args.repeat + 1):  # the first is to compile
        for name, peer in (("zuko", theirs), ("xp", ours)):
            wall, cpu = time.perf_counter(), time.process_time()
            for start in range(0, args.rows, batch):
                peer.step(np.arange(start, min(start + batch, args.rows)))
            rates[name].append((args.rows / (time.perf_counter() - wall), args.rows / (time.process_time() - cpu)))
    rates = {name: np.array(r[1:]) for name, r in rates.items()}
    for name, r in rates.items():
        print(f"{name:6} {r[:, 0].max():10,.0f} rows/s {r[:, 1].max():10,.0f} rows per core-second")
    ratio = np.median(rates["xp"] / rates["zuko"], 0)
    share = rates["xp"][:, 1].max() / limit(args.components)
    print(f"xp is {ratio[0]:.1f} times zuko, per core-second {ratio[1]:.1f} times; share {share:.2f}")


class Ours:
    """xp's learner."""

    def __init__(self, x, c, w, components, batch):
        from xptools.cores import mixture_training

        start = mixture_training.start(x, w, components, (32, 32), 0)
        self.learner = mixture_training.MixtureLearner(x, c, w, start, batch, 1.0)

    def params(self):
        return self.learner.arrays()

    def gradient(self, rows):
        one = self.learner
        loss, gradients = one.jax.jit(one._gradient)(one.params, one.x[rows].T, one.c[rows], one.w[rows] / len(rows))
        return float(loss), {k: np.asarray(v) for k, v in gradients.items()}

    def step(self, rows):
        self.learner.step(rows, 1e-4)


class Zuko:
    """zuko's GMM and torch's Adam, eager, as a user would write it."""

    def __init__(self, x, c, w, components):
        import torch
        import zuko

        self.x, self.c, self.w = (torch.from_numpy(a) for a in (x, c, w))
        self.model = zuko.mixtures.GMM(4, 1, components=components, hidden_features=(32, 32))
        self.adam = torch.optim.Adam(self.model.parameters(), 1e-4)

    def take(self, params):
        import torch

        from xptools.cores.mixture_zuko import to_zuko

        self.model.load_state_dict({k: torch.from_numpy(v) for k, v in to_zuko(params).items()})

    def _loss(self, rows):
        return -(self.w[rows] * self.model(self.c[rows, None]).log_prob(self.x[rows])).mean()

    def gradient(self, rows):
        from xptools.cores.mixture_zuko import from_zuko

        self.adam.zero_grad()
        loss = self._loss(rows)
        loss.backward()
        found = {k: p.grad.numpy() for k, p in self.model.named_parameters()}
        return loss.item(), from_zuko(found, self.model.components)

    def step(self, rows):
        self.adam.zero_grad()
        loss = self._loss(rows)
        loss.backward()
        self.adam.step()
        return loss.item()


def limit(components: int) -> float:
    """Rows a core could do in a second if only the products of a step's layers took time."""
    n, best = 1024, 0.0
    a, b = np.ones((2, n, n), np.float32)
    for _ in range(8):
        cpu = time.process_time()
        _ = a @ b
        best = max(best, 2 * n**3 / (time.process_time() - cpu))
    return best / (3 * 2 * (32 + 32 * 32 + 32 * 15 * components))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--batch", default="4096,1024")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
