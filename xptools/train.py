"""The training loop all models share: order, split, schedule, best epoch, the stop at NaN. It never sees an array.

A Learner holds data, weights and optimiser in whatever library it likes:

    step(rows, rate) -> loss     one optimiser step on these row numbers
    score(rows) -> loss          no step; the held-out score
    arrays() -> {name: array}    a copy of the weights as they are now
    epoch(number, rate) -> loss  if it is there: the learner orders its rows itself (one compiled scan, or a stream)

Schedules are pure functions (epoch, past scores) -> rate, so a run is repeatable from (seed, schedule, data).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from xptools.errors import ComputeError

Schedule = Callable[[int, list[float]], float]


class Learner(Protocol):
    """What `fit` asks of a model in training."""

    def step(self, rows: np.ndarray, rate: float) -> float: ...

    def score(self, rows: np.ndarray) -> float: ...

    def arrays(self) -> dict[str, np.ndarray]: ...


@dataclass
class Fit:
    """The best epoch (counted from 0), its held-out score, its weights, and one record per epoch."""

    epoch: int = -1
    score: float = math.inf
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def split(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train, held) row numbers of n rows, sorted: a function of (n, fraction, seed) alone."""
    order = np.random.default_rng([seed, n]).permutation(n)
    held = round(n * fraction)
    return np.sort(order[held:]), np.sort(order[:held])


def cosine(rate: float, last: float, epochs: int, restarts: int = 0) -> Schedule:
    """From `rate` to `last` along half a cosine, `restarts` times over again."""
    period = max(1, math.ceil(epochs / (restarts + 1)))

    def at(epoch: int, _scores: list[float]) -> float:
        phase = (epoch % period) / max(1, period - 1)
        return last + (rate - last) * (1 + math.cos(math.pi * phase)) / 2

    return at


def plateau(rate: float, factor: float = 0.5, patience: int = 10, last: float = 1e-6) -> Schedule:
    """`rate` times `factor` for every time the score has not improved for `patience` scores, never below `last`."""

    def at(_epoch: int, scores: list[float]) -> float:
        best, waited, now = math.inf, 0, rate
        for s in scores:
            best, waited = (s, 0) if s < best else (best, waited + 1)
            if waited >= patience:
                now, waited = now * factor, 0
        return max(now, last)

    return at


def fit(
    learner: Learner,
    train: np.ndarray,
    held: np.ndarray,
    schedule: Schedule,
    epochs: int,
    batch: int,
    seed: int,
    log: Callable[[dict[str, Any]], None] | None = None,
    stride: int = 1,
    stop_after: int | None = None,
    begin: Fit | None = None,
    after: Callable[[Fit], None] | None = None,
) -> Fit:
    """Train for `epochs`; the weights of the best held-out score come back.

    No row is dropped: the last, smaller batch of an epoch is a batch too, and the epoch's loss weighs batches by rows.
    The score is taken every `stride` epochs and after the last; `stop_after` scores without improvement end the run.
    `begin` is a Fit to go on from, with a learner in the state of then; `after` sees the Fit after every epoch.
    """
    out = begin or Fit()
    scores = [r["score"] for r in out.history if "score" in r]
    since = sum("score" in r for r in out.history[out.epoch + 1 :])
    for epoch in range(len(out.history), epochs):
        rate = schedule(epoch, scores)
        loss = _epoch(learner, train, batch, seed, epoch, rate)
        record: dict[str, Any] = {"epoch": epoch, "rate": rate, "loss": loss}
        if not math.isfinite(loss):
            raise ComputeError(f"training diverged: the loss is {loss} in epoch {epoch}. TRY: a smaller --rate")
        if epoch % stride == stride - 1 or epoch == epochs - 1:
            score = float(learner.score(held))
            scores.append(score)
            record["score"] = score
            since += 1
            if score < out.score:
                out.epoch, out.score, out.arrays, since = epoch, score, learner.arrays(), 0
        out.history.append(record)
        if log is not None:
            log(record)
        if after is not None:
            after(out)
        if stop_after is not None and since >= stop_after:
            break
    if out.epoch < 0:
        raise ComputeError("training gave no finite held-out score. TRY: a smaller --rate")
    return out


def _epoch(learner: Learner, train: np.ndarray, batch: int, seed: int, epoch: int, rate: float) -> float:
    """One pass over the rows: the mean loss."""
    if hasattr(learner, "epoch"):
        return learner.epoch(epoch, rate)
    order, total = np.random.default_rng([seed, epoch]).permutation(train), 0.0
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        total += float(learner.step(rows, rate)) * len(rows)
    return total / len(order)
