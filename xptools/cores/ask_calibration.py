"""What held-out stars say of a generalist: the correction of its errors, its scatter, its proper scores.

Every other held-out star corrects the errors (ask_errors), under contexts as they are drawn in training and as xp ask
meets them: all numbers but the labels (entries with ask = true), the spectra alone or parts of them, a few single
numbers. The others are what is told: pulls are (label - answer) / sqrt(total^2 + sigma^2), sigma the label's own error.
A label that is itself shown has to come back as it is, so sigma is not counted there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp, ndtr

from xptools.cores import ask_errors
from xptools.cores.ask import Engine, moments
from xptools.cores.ask_errors import Errors, Rows
from xptools.cores.ask_training import Plan, Sample, Sampler

MOST, FEWEST = 16384, 20  # stars that correct, and as many that tell; that a token needs to be told of
PASSES, OTHERS = 64, 4  # contexts of each star, tokens of arrays that are asked for in each
EMPTY, LOST = 0.05, 0.3  # share of the contexts without anything, and of some without an array
LOW = 0.7  # share of the cut arrays that keep their low orders


def calibrated(
    engine: Engine, sample: Sample, held: np.ndarray, plan: Plan, seed: int
) -> tuple[Errors, dict[str, Any]]:
    """The correction, and the metrics of each label by name."""
    one, other = (rows[:: max(1, -(-len(rows) // MOST))] for rows in (held[::2], held[1::2]))
    errors = Errors(engine.vocabulary, engine.usable, _fitted(engine, *sample.at(one), plan, seed))
    engine.errors = errors
    return errors, _told(engine, *sample.at(other))


def _kinds(engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens (V,) are labels, and which are of arrays."""
    rows = (np.array([bool(getattr(e, key)) for e in engine.vocabulary.entries]) for key in ("ask", "width"))
    return tuple(r[engine.vocabulary.entry_of] for r in rows)


def _fitted(engine: Engine, z: np.ndarray, sigma: np.ndarray, plan: Plan, seed: int) -> tuple:
    """Layers of the correction, from stars z (N, V) with errors sigma; none where too few know anything."""
    rng = np.random.default_rng([seed, 3])
    contexts = Contexts(engine, plan, rng)
    single, arrays = (np.flatnonzero((engine.usable > 0) & w) for w in (~contexts.wide, contexts.wide))
    found: dict[int, list] = {}
    for k in range(PASSES):
        known = np.isfinite(z) & contexts.drawn(z, k) & (rng.random((len(z), 1)) > EMPTY)
        asked = np.concatenate([single, _drawn(arrays, engine.errors.order, rng)])
        mean, variance = moments(*engine.answers(np.where(known, z, np.nan), asked))
        x = engine.errors.inputs(mean, variance, known, np.isfinite(z), asked)
        seen = engine.seen(known)
        error = np.where(seen[:, asked], 0.0, sigma[:, asked])
        kinds = np.where(np.isfinite(z[:, asked]), engine.errors.kinds(seen, asked), -1)
        for kind in np.unique(kinds[kinds >= 0]):
            use = kinds == kind
            row = (a[use] for a in (x, variance, mean, z[:, asked] - mean, error))
            found.setdefault(int(kind), []).append(tuple(row))
    rows = {k: Rows.of(*map(np.concatenate, zip(*found.pop(k), strict=True))) for k in sorted(found)}
    rows = {k: r for k, r in rows.items() if len(r.x) >= FEWEST}
    return ask_errors.fitted(rows, 2 * len(engine.vocabulary.entries), len(z), seed) if rows else ()


def _drawn(arrays: np.ndarray, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """OTHERS of the tokens of arrays, rather low orders than high ones: most of a spectrum is in them."""
    share = 1.0 / (2.0 + order[arrays])
    return rng.choice(arrays, min(OTHERS, len(arrays)), replace=False, p=share / share.sum())


class Contexts:
    """Contexts as xp ask meets them."""

    def __init__(self, engine: Engine, plan: Plan, rng: np.random.Generator):
        self.labels, self.wide = _kinds(engine)
        self.entries, self.rng = engine.vocabulary.entry_of, rng
        self.sampler = Sampler(engine.vocabulary, engine.network.sizes.context, plan, engine.usable > 0)

    def drawn(self, z: np.ndarray, k: int) -> np.ndarray:
        """What is shown (N, V) of stars z if it is known, by the k-th way of eight, over and over."""
        coin, other = self.rng.random((2, len(z), 1))
        some = self.rng.random((2, len(z), self.entries[-1] + 1))[..., self.entries]
        few = some[0] < 2 * coin - 0.5  # of single numbers none, a few, or all
        band, cut = ~self.wide | (some[1] > LOST), self._orders(z) | ~self.wide
        ways = (
            lambda: ~self.labels & (self.wide | few),
            lambda: ~self.labels & (self.wide | few) & cut,
            lambda: self.sampler.shown(self.rng, z),
            lambda: self.wide | few,
            lambda: ~self.labels & (self.wide | few) & band & (cut | (other < 0.5)),
            lambda: np.where(self.wide, (some[1] < LOST) & (cut | (other < 0.3)), few),
            lambda: ~self.wide & (some[0] < coin),
            lambda: np.where(self.wide, cut, some[0] < coin),
        )
        return ways[k % len(ways)]()

    def _orders(self, z: np.ndarray) -> np.ndarray:
        """Orders (N, V) below an edge, or from it on, in each star at one of those that it knows, rather a low one."""
        order = np.where(self.wide, self.sampler.order, -1)
        top = np.where(np.isfinite(z), order + 1, 0).max(1)[:, None]
        edge = np.floor(np.exp(self.rng.random((len(z), 1)) * np.log(np.maximum(top, 1))))
        return np.where(self.rng.random((len(z), 1)) < LOW, order < edge, order >= edge)


def _told(engine: Engine, z: np.ndarray, sigma: np.ndarray) -> dict[str, Any]:
    """Metrics by label, of contexts without labels: all the rest of a star, or every other time its spectra alone."""
    labels, wide = _kinds(engine)
    tokens = np.flatnonzero(labels & (engine.usable > 0))
    known = np.isfinite(z) & ~labels
    known[1::2, ~wide] = False
    mean, variance, weight = engine.answers(np.where(known, z, np.nan), tokens)
    middle, spread = moments(mean, variance, weight)
    middle, total = engine.corrected(middle, spread, known, np.isfinite(z), tokens)
    metrics = {}
    for r, token in enumerate(tokens):
        use = np.isfinite(z[:, token])
        if use.sum() < FEWEST:
            continue
        y, s, m, v, e, *parts = (a[use].astype(np.float64) for a in (
            z[:, token], sigma[:, token], middle[:, r], spread[:, r], total[:, r], mean[:, r], variance[:, r],
            weight[:, r]))  # fmt: skip
        told = _metrics(y, s, m, v, e, engine.scale[token])
        metrics[engine.vocabulary.tokens[token]] = told | scores(y, s, *parts)
    return metrics


def mad_std(x: np.ndarray) -> float:
    """1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(x - np.median(x))))


def _metrics(y, s, middle, spread, total, scale) -> dict[str, float]:
    """In the label's unit: scatter against the (noisy) label, its median error, the answers' median errors, pulls."""
    residual = y - middle
    return {
        "stars": len(y),
        "mad_std": mad_std(residual) * float(scale),
        "rms": float(np.sqrt(np.mean(residual**2)) * scale),
        "label_error": float(np.median(s) * scale),
        "error": float(np.median(np.sqrt(spread)) * scale),
        "total_error": float(np.median(total) * scale),
        "pull": float(np.sqrt(np.mean(residual**2 / (spread + s**2)))),
        "total_pull": float(np.sqrt(np.mean(residual**2 / (total**2 + s**2)))),
    }


def scores(y, sigma, mean, variance, weight) -> dict[str, float]:
    """Mean -ln p and continuous ranked probability score of Gaussian mixtures (N, K) for noisy labels y (N,).

    CRPS = sum_k w_k A(y - m_k, v_k) - 1/2 sum_kl w_k w_l A(m_k - m_l, v_k + v_l), A(m, v) = E|N(m, v)| (Grimit+ 2006).
    """
    v = variance + sigma[:, None] ** 2
    nll = -logsumexp(-0.5 * ((y[:, None] - mean) ** 2 / v + np.log(2 * np.pi * v)) + np.log(weight + 1e-30), axis=1)
    pair = _absolute(mean[:, :, None] - mean[:, None, :], v[:, :, None] + v[:, None, :])
    crps = (weight * _absolute(y[:, None] - mean, v)).sum(1)
    crps -= 0.5 * (weight[:, :, None] * weight[:, None, :] * pair).sum((1, 2))
    return {"nll": float(nll.mean()), "crps": float(crps.mean())}


def _absolute(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    """E|x| of x ~ N(m, v)."""
    s = np.sqrt(v)
    return m * (2 * ndtr(m / s) - 1) + 2 * s * np.exp(-0.5 * (m / s) ** 2) / np.sqrt(2 * np.pi)
