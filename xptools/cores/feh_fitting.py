"""The whole training of a model of `xp feh`: folds, the error model they give, their table, and the final networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xptools.cores import feh, feh_training
from xptools.cores.feh_training import Sample, Validation


@dataclass(frozen=True)
class Plan:
    """How to train: layers of both networks, folds, fraction held out for the stop, epochs, patience, batch, rate."""

    hidden: tuple[int, ...]
    guess: tuple[int, ...]
    folds: int = 3
    held: float = 0.1
    epochs: int = 200
    patience: int = 30
    batch: int = 1024
    rate: float = 1e-3
    seed: int = 0


def trained(
    sample: Sample, wavelength: np.ndarray, source_id: np.ndarray, plan: Plan, watch: Callable, loop,
    slot: Callable = lambda name: None,
) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and metrics of the model file. `loop` is the training loop (train.fit and friends); `watch(what, record)`.

    `slot(name)` is where one of the trainings keeps its checkpoint.

    Every fold's networks are trained on the other folds; what they miss on the fold gives the model's covariance, with
    which the fold's stars are then inverted. The final networks see all stars.
    """
    fixed = fixed_arrays(sample, wavelength, plan.seed)
    fold = feh_training.folds(source_id, plan.folds)
    models, ln_model = [], np.full(sample.spectra.flux.shape, np.nan)
    for k in range(plan.folds):
        rows = np.flatnonzero(fold != k)
        arrays, _ = networks(
            pick(sample, rows), plan, lambda w, r, k=k: watch(f"fold {k + 1} {w}", r), loop,
            lambda w, k=k: slot(f"fold{k + 1}-{w}"),
        )  # fmt: skip
        models.append({**fixed, **arrays})
        own = np.flatnonzero(fold == k)
        ln_model[own] = feh_training.predicted(feh.Model(models[-1]), pick(sample, own))
    arrays, scores = networks(sample, plan, watch, loop, slot)
    final = {**fixed, **arrays}
    floor = feh_training.model_covariances(sample, ln_model)
    check = validated([{**m, **floor} for m in models], fold, sample)
    pulls = (check.found - sample.labels) / check.errors
    good = np.isfinite(pulls).all(-1) & (check.flag & ~feh.DIAGONAL == 0)
    metrics = scores | {
        "folds": plan.folds,
        "validation": check.table(sample.labels),
        "pull_width": [round(float(1.4826 * np.median(np.abs(p - np.median(p)))), 3) for p in pulls[good].T],
        "floor": round(float(np.sqrt(np.median(np.diagonal(floor["error.cov"], axis1=1, axis2=2)))), 5),
    }
    return final | {k: v.astype(np.float32) for k, v in floor.items()}, metrics


def fixed_arrays(sample: Sample, wavelength: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What does not depend on weights: wavelengths, box, hull, main sequence, a floor to begin with."""
    n = len(wavelength)
    return {
        "wavelength": np.asarray(wavelength, np.float64),
        "box": feh_training.box(sample.labels),
        "sequence": feh_training.sequence(sample.labels),
        "error.cov": feh_training.EPSILON**2 * np.eye(n)[None],
        "error.teff": np.zeros(1),
        **feh_training.hull(sample.labels, seed),
    }


def networks(
    sample: Sample, plan: Plan, watch: Callable, loop, slot: Callable = lambda name: None
) -> tuple[dict[str, np.ndarray], dict]:
    """Weights and normalisations of both networks trained on a sample, and their held-out scores."""
    norm = feh_training.norms(sample.observed()[0], sample.labels)
    rows, held = loop.split(len(sample.labels), plan.held, plan.seed)
    out, scores = dict(norm), {}
    learners = (
        ("forward", feh_training.ForwardLearner, plan.hidden),
        ("guess", feh_training.GuessLearner, plan.guess),
    )
    for name, kind, layers in learners:
        learner = kind(sample, norm, layers, plan.batch, plan.seed)
        schedule = loop.cosine(plan.rate, 1e-6, plan.epochs)
        fit = loop.fit(
            learner, rows, held, schedule, plan.epochs, plan.batch, plan.seed, lambda r, n=name: watch(n, r),
            stop_after=plan.patience, slot=slot(name),
        )  # fmt: skip
        out |= fit.arrays
        scores |= {f"{name}_score": fit.score, f"{name}_epoch": fit.epoch, f"{name}_epochs": len(fit.history)}
    return out, scores


def pick(sample: Sample, rows: np.ndarray) -> Sample:
    """Some of the stars."""
    return Sample(sample.labels[rows], sample.spectra.part(rows))


def validated(models: list[dict[str, np.ndarray]], fold: np.ndarray, sample: Sample) -> Validation:
    """Every star inverted by the model of its own fold, which has not seen it."""
    n = len(fold)
    found, errors, flag = np.full((n, 3), np.nan), np.full((n, 3), np.nan), np.zeros(n, np.int16)
    for k, arrays in enumerate(models):
        own = np.flatnonzero(fold == k)
        out = feh.infer(feh.Model(arrays), pick(sample, own).spectra)
        found[own] = np.stack([out[name] for name in feh.LABELS], -1)
        errors[own] = np.stack([out[f"{name}_err"] for name in feh.LABELS], -1)
        flag[own] = out["flag"]
    return Validation(found, errors, flag)
