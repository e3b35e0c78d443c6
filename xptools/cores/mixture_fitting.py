"""The whole training of a model of `xp eta`: one mixture, or several sizes of which held-out stars choose one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xptools.cores import mixture, mixture_sample, mixture_training
from xptools.cores.mixture_sample import Giants
from xptools.errors import DataError

HIDDEN = (32, 32)
THRESHOLD = 1e-4  # nats per star: less is no improvement to the schedule
LAST_RATE = 1e-6
PER_COMPONENT = 50  # stars, at least
QUANTILES = (0.001, 0.01, 0.5)
QUANTILE_STARS = 20_000


@dataclass(frozen=True)
class Plan:
    """How to train: sizes K to try, weights ("mdf", "none"), loss scale, epochs, epochs per check, patience of the
    schedule and of the stop [checks], batch, rate, seed."""

    components: tuple[int, ...] = (20,)
    weights: str = "mdf"
    gain: float = 1e6
    epochs: int = 1000
    check: int = 20
    patience: int = 5
    stop: int = 15
    batch: int = 4096
    rate: float = 1e-3
    seed: int = 0


def trained(
    stars: Giants, plan: Plan, watch: Callable, loop, slot: Callable = lambda name: None
) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and metrics of the model file. `loop` is the training loop (train.fit); `watch(what, record)`.

    `slot(name)` is where one of the trainings keeps its checkpoint. DataError for too few stars.
    """
    least, rows, held = max(plan.components) * PER_COMPONENT, np.flatnonzero(~stars.held), np.flatnonzero(stars.held)
    if len(rows) < least or not len(held):
        raise DataError(
            f"{len(rows):,} stars are left to train on and {len(held):,} held out; {max(plan.components)} components "
            f"need {least:,}. TRY: fewer cuts, more stars, or fewer --components"
        )
    norm, w = mixture_sample.norms(stars), mixture_sample.weights(stars.feh, plan.weights)
    x, c = mixture_sample.standard(stars, norm)
    best, tried = None, []
    for K in plan.components:
        params = mixture_training.start(x, w, K, HIDDEN, plan.seed, rows)
        learner = mixture_training.MixtureLearner(x, c, w, params, plan.batch, plan.gain)
        fit = loop.fit(
            learner, rows, held, loop.plateau(plan.rate, 0.5, plan.patience, LAST_RATE, THRESHOLD, end=True),
            plan.epochs, plan.batch, plan.seed, lambda r, K=K: watch(f"K = {K}", r), plan.check, plan.stop,
            slot(f"K{K}" if len(plan.components) > 1 else ""),
        )  # fmt: skip
        log_prob = learner.log_density(fit.arrays, held).astype(np.float64)
        tried.append({"components": K, "epoch": fit.epoch, "epochs": len(fit.history), "score": fit.score,
                      "log_prob": float(log_prob.mean())})  # fmt: skip
        if best is None or fit.score < best[0].score:
            best = fit, log_prob, tried[-1]
    fit, log_prob, chosen = best
    distribution = mixture_sample.mdf(stars.feh)
    metrics = {
        **chosen, "held_rows": len(held), "held": mixture_sample.per_bin(stars.feh[held], log_prob),
        "log_prob_quantiles": quantiles(fit.arrays, norm | distribution, x, plan.seed),
    }  # fmt: skip
    return fit.arrays | norm | distribution, metrics | ({"tried": tried} if len(tried) > 1 else {})


def quantiles(params: dict, arrays: dict[str, np.ndarray], x: np.ndarray, seed: int) -> dict[str, float]:
    """Quantiles over training stars of ln p(x), the mixture averaged over the sample's metallicity distribution."""
    some = x if len(x) <= QUANTILE_STARS else x[np.random.default_rng([seed, 2]).choice(len(x), QUANTILE_STARS, False)]
    there = arrays["mdf.count"] > 0
    log_share = np.log(arrays["mdf.count"][there] / arrays["mdf.count"].sum())
    c = mixture.context(arrays, arrays["mdf.feh"][there]).astype(np.float32)
    weight, mean, L = mixture.components(params, c)
    total = np.full(len(some), -np.inf)
    for j, share in enumerate(log_share):
        z = np.linalg.inv(L[j]) @ (some.T - mean[j][:, :, None])  # (K, 4, N)
        log_det = np.log(L[j].diagonal(axis1=1, axis2=2)).sum(1)
        each = weight[j][:, None] - 0.5 * (z * z).sum(1) - (log_det + 2 * np.log(2 * np.pi))[:, None]
        total = np.logaddexp(total, share + np.logaddexp.reduce(each, 0))
    return {f"{q:g}": round(float(v), 4) for q, v in zip(QUANTILES, np.quantile(total, QUANTILES), strict=True)}
