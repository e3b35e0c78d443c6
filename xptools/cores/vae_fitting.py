"""A training of the scatter variational auto-encoder from its plan, and what held-out stars say of its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xptools.cores import vae, vae_fit, vae_training
from xptools.cores.vae_training import Blocks, Learner, Sample

LAST_RATE = 1e-10
MARGIN = 0.1  # of the range of the held-out stars' latents, on either side
MOST_HELD = 20_000  # stars that are held in memory to score


@dataclass(frozen=True)
class Plan:
    """How to train: layer widths, latents, objective, schedule."""

    hidden: tuple[int, ...] = vae.PAPER
    latents: int = 6
    batch_norm: bool = True
    loss: str = "code"
    kl_weight: float = 1.0
    epochs: int = 500
    restarts: int = 0
    batch: int = 1024
    rate: float = 1e-4
    decay: float = 0.01
    held: float = 0.1
    settle: float = 0.3
    warm: float = 0.0
    precision: str = "float32"
    seed: int = 0


class Moments:
    """Count, mean and sum of squared deviations per coefficient; parts merge in any order (Chan+ 1983)."""

    def __init__(self, n=0, mean=0.0, square=0.0):
        self.n, self.mean, self.square = n, mean, square

    def add(self, x: np.ndarray) -> None:
        """Count rows (N, K); NaN is not counted."""
        known = np.isfinite(x)
        n = known.sum(0)
        mean = np.where(known, x, 0).sum(0) / np.maximum(n, 1)
        square = (np.where(known, x - mean, 0) ** 2).sum(0)
        whole, step = self.n + n, mean - self.mean
        share = n / np.maximum(whole, 1)
        self.square = self.square + square + step**2 * self.n * share
        self.mean, self.n = self.mean + step * share, whole

    def norms(self) -> vae.Arrays:
        """norm.mean and norm.scale (K,), float64: a coefficient that never varies has scale 1."""
        spread = np.sqrt(self.square / np.maximum(self.n, 1))
        return {"norm.mean": np.asarray(self.mean), "norm.scale": np.where(spread > 0, spread, 1.0)}


def learner(plan: Plan, norms: vae.Arrays, blocks: Blocks, held: Sample) -> Learner:
    """A learner with fresh weights."""
    arrays = vae.init(plan.seed, len(norms["norm.mean"]), plan.hidden, plan.latents, plan.batch_norm)
    objective = vae_training.Objective(plan.loss, plan.kl_weight, plan.decay, plan.precision)
    settle, warm = round((1 - plan.settle) * plan.epochs), round(plan.warm * plan.epochs)
    return Learner(arrays, objective, plan.batch, plan.seed, blocks, held, settle, warm)


def trained(plan: Plan, learner: Learner, loop: Any, log: Callable, slot: Any = None) -> Any:
    """The Fit of xptools.train (`loop`); `slot` is where the training keeps its checkpoint."""
    schedule = loop.cosine(plan.rate, LAST_RATE, plan.epochs, plan.restarts)
    nothing = np.zeros(0, np.int64)  # the learner has its own rows
    rest = (schedule, plan.epochs, plan.batch, plan.seed, log)
    return loop.fit(learner, nothing, nothing, *rest, slot=slot)


def finished(arrays: vae.Arrays, norms: vae.Arrays, held: Sample, seed: int) -> tuple[vae.Arrays, dict, dict]:
    """(arrays with norms and calibration, metrics, domain of the latents) from held-out stars."""
    arrays = {**arrays, **norms}
    known = np.isfinite(held.variance)
    x, sigma = np.where(known, held.x, np.nan), np.sqrt(held.variance)
    blank = {"calibration.share": np.zeros(1), "calibration.y": 1 + 0.1 * vae_fit.SCORES[None]}
    verdict = vae_fit.judged(vae.Model({**arrays, **blank}), x, sigma)
    arrays |= vae_fit.calibration(verdict.chi2, verdict.share)
    model = vae.Model(arrays)
    pulls = predictive_pulls(model, x, sigma, verdict, seed)
    with np.errstate(invalid="ignore"):
        spread = np.nanstd(pulls, 0)
    low, high = verdict.mu.min(0), verdict.mu.max(0)
    room = MARGIN * (high - low)
    domain = {f"z{k + 1}": [float(low[k] - room[k]), float(high[k] + room[k])] for k in range(model.L)}
    metrics = {
        "held_rows": len(x), "chi2_median": float(np.nanmedian(verdict.chi2)),
        "pull_variance": [float(f(spread**2)) for f in (np.nanmin, np.nanmedian, np.nanmax)],
        "latent_information": [float(v) for v in information(verdict)],
    }  # fmt: skip
    return arrays, metrics, domain


def predictive_pulls(model: vae.Model, x: np.ndarray, sigma: np.ndarray, verdict, seed: int) -> np.ndarray:
    """(x - x^(z)) / sqrt(sigma^2 + s^(z)^2) (N, K) at one draw of z from the star's posterior, as in the loss."""
    normal = np.random.default_rng([seed, 5]).normal(size=verdict.mu.shape)
    z = verdict.mu + np.sqrt(verdict.variance) * normal
    return (x - model.decode(z)) / np.sqrt(sigma.astype(np.float64) ** 2 + model.scatter(z) ** 2)


def information(verdict) -> np.ndarray:
    """Mean KL term of each latent (L,) [nat]: near 0 for one that is not used."""
    v = verdict.variance.astype(np.float64)
    return 0.5 * (verdict.mu**2 + v - 1 - np.log(v)).mean(0)
