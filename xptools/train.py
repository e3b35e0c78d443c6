"""The training loop all models share: order, split, schedule, best epoch, the stop at NaN. It never sees an array.

A Learner holds data, weights and optimiser in whatever library it likes:

    step(rows, rate) -> loss     one optimiser step on these row numbers
    score(rows) -> loss          no step; the held-out score
    arrays() -> {name: array}    a copy of the weights as they are now

and, where the training keeps a checkpoint,

    kept() -> {name: array}      all that a step depends on and changes: weights, moments of the optimiser
    restore(kept)                back to that

Schedules are pure functions (epoch, past scores) -> rate, so a run is repeatable from (seed, schedule, data), and a
run that was killed goes on from its checkpoint to the very same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xptools.errors import ComputeError

if TYPE_CHECKING:
    from xptools.checkpoint import Slot

Schedule = Callable[[int, list[float]], float | None]  # None ends the run


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
    scores: list[float] = field(default_factory=list)
    waited: int = 0

    def note(self, score: float, arrays: Callable[[], dict[str, np.ndarray]]) -> None:
        """One more held-out score, of the epoch that follows the history; the weights are asked for if it is best."""
        self.scores.append(score)
        self.waited += 1
        if score < self.score:
            self.epoch, self.score, self.arrays, self.waited = len(self.history), score, arrays(), 0


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


def plateau(
    rate: float, factor: float = 0.5, patience: int = 10, last: float = 1e-6, threshold: float = 0.0, end: bool = False
) -> Schedule:
    """`rate` times `factor` for every time the score has not improved for `patience` scores, never below `last`.

    An improvement is more than `threshold`, an absolute difference. With `end` the run ends where the rate falls below.
    """

    def at(_epoch: int, scores: list[float]) -> float | None:
        best, waited, now = math.inf, 0, rate
        for s in scores:
            best, waited = (s, 0) if s < best - threshold else (best, waited + 1)
            if waited >= patience:
                now, waited = now * factor, 0
        return None if end and now < last else max(now, last)

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
    slot: Slot | None = None,
) -> Fit:
    """Train for `epochs`; the weights of the best held-out score come back.

    No row is dropped: the last, smaller batch of an epoch is a batch too, and the epoch's loss weighs batches by rows.
    The score is taken every `stride` epochs and after the last; `stop_after` scores without improvement end the run.
    With `slot` the state is kept between epochs, and a run that finds one there goes on from it.
    """
    out = Fit() if slot is None else slot.restored(learner)
    for epoch in range(len(out.history), epochs):
        rate = schedule(epoch, out.scores)
        if rate is None or (stop_after is not None and out.waited >= stop_after):
            break
        record = _epoch(learner, train, epoch, rate, batch, seed)
        if epoch % stride == stride - 1 or epoch == epochs - 1:
            record["score"] = float(learner.score(held))
            out.note(record["score"], learner.arrays)
        out.history.append(record)
        if log is not None:
            log(record)
        if slot is not None:
            slot.keep(learner, out)
    if out.epoch < 0:
        raise ComputeError("training gave no finite held-out score. TRY: a smaller --rate")
    if slot is not None:
        slot.keep(learner, out, now=True)
    return out


def _epoch(learner: Learner, train: np.ndarray, epoch: int, rate: float, batch: int, seed: int) -> dict[str, Any]:
    """One pass over the rows in an order of its own; the record of it."""
    order = np.random.default_rng([seed, epoch]).permutation(train)
    total = 0.0
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        total += float(learner.step(rows, rate)) * len(rows)
    if not math.isfinite(total):
        raise ComputeError(f"training diverged: the loss is {total} in epoch {epoch}. TRY: a smaller --rate")
    return {"epoch": epoch, "rate": rate, "loss": total / len(order)}
