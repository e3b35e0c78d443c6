"""One epoch of the conditional mixture's training: xp against zuko, the same weights and rows, in one run.

python tests/bench/bench_train_eta.py [--rows 65536] [--components 20] [--batch 4096,1024] [--repeat 3] [--threads 1]

Both take the same steps of Adam on the weighted likelihood of the same batches. Before the clock starts the loss and
its gradient of the first batch are compared. Without zuko only xp is timed.
"""

import argparse
from importlib.util import find_spec

import numpy as np
from common import absent, compared, goal, pinned, turns


def main() -> None:
    args = arguments()
    pinned(args.threads)
    rng = np.random.default_rng(0)
    c = rng.uniform(-4, 2, args.rows).astype(np.float32)
    x = (np.where(c[:, None] < -1, 1.5, 0.5) * rng.normal(size=(args.rows, 4))).astype(np.float32)
    w = rng.uniform(0.2, 3, args.rows).astype(np.float32)
    if not find_spec("zuko"):
        absent("train eta", "zuko", "pip install --no-deps zuko")
    for batch in (int(b) for b in args.batch.split(",")):
        compare(args, x, c, w, batch)


def compare(args, x, c, w, batch) -> None:
    """The rates at one batch size."""
    learners = {"xp": Ours(x, c, w, args.components, batch)}
    if find_spec("zuko"):
        learners = {"zuko": Zuko(x, c, w, args.components), **learners}
        same(learners["zuko"], learners["xp"], np.arange(batch))

    def epoch(learner):
        for start in range(0, args.rows, batch):
            learner.step(np.arange(start, min(start + batch, args.rows)))

    jobs = {name: (args.rows, lambda one=one: epoch(one)) for name, one in learners.items()}
    rates = turns(jobs, args.repeat)
    peer = "zuko" if "zuko" in rates else None
    goals = [goal(">= 4 x zuko per core", np.median(rates["xp"] / rates[peer], 0)[1], low=4)] if peer else []
    flop = 3 * 2 * (32 + 32 * 32 + 32 * 15 * args.components)  # a step's matrix products, forward and back
    compared("train eta", f"batch {batch}, {args.components} Gaussians", jobs, rates, "xp", peer,
             bound={"gemm": flop}, goals=goals)  # fmt: skip


def same(theirs, ours, rows) -> None:
    """The same weights give the same loss and gradient."""
    theirs.take(ours.params())
    (a, g), (b, h) = ours.gradient(rows), theirs.gradient(rows)
    worst = max(np.abs(g[k] - h[k]).max() / np.abs(h[k]).max() for k in h)
    print(f"batch {len(rows)}: loss {a:.6f} and {b:.6f}, gradients differ by {worst:.1e} of the largest")
    assert abs(a - b) < 1e-4 and worst < 1e-3


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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--batch", default="4096,1024")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
