"""What held-out stars say of a generalist: the calibration of its errors, its scatter, its proper scores.

Contexts are what xp ask meets most: all numbers of a star but the labels (entries with ask = true) and the group that
is asked for; every other star shows its spectra only. Pulls are (label - answer) / sqrt(total^2 + sigma^2), sigma the
label's own error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, ndtr

from xptools.cores.ask import Engine, moments
from xptools.cores.ask_training import Sample

MOST, FEWEST = 8192, 30  # held-out stars that are used; that a token needs


def calibrated(engine: Engine, sample: Sample, held: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """k and f (V, 2) of cores/ask.py for every token, and the metrics of each label by name."""
    z, sigma = sample.at(held[:: max(1, -(-len(held) // MOST))])
    out = np.tile([1.0, 0.0], (z.shape[1], 1))
    metrics = {}
    labels, wide = (np.array([bool(getattr(e, key)) for e in engine.vocabulary.entries])[engine.vocabulary.entry_of]
                    for key in ("ask", "width"))  # fmt: skip
    for tokens in _asked_together(engine, labels):
        shown = z.copy()
        shown[:, tokens] = np.nan
        shown[:, labels] = np.nan
        shown[1::2, ~wide] = np.nan
        mean, variance, weight = engine.answers(shown, tokens)
        middle, spread = moments(mean, variance, weight)
        for r, token in enumerate(tokens):
            known = np.isfinite(z[:, token])
            if known.sum() < FEWEST:
                continue
            y, s = z[known, token].astype(np.float64), sigma[known, token].astype(np.float64)
            out[token] = fitted(y - middle[known, r], spread[known, r], s)
            if labels[token]:
                parts = (a[known, r].astype(np.float64) for a in (mean, variance, weight))
                told = _metrics(y, s, middle[known, r], spread[known, r], out[token], engine.scale[token])
                metrics[engine.vocabulary.tokens[token]] = told | scores(y, s, *parts)
    return out, metrics


def _asked_together(engine: Engine, labels: np.ndarray) -> list[np.ndarray]:
    """Tokens that are asked in one pass: all labels, then each other group."""
    entries = engine.vocabulary.entries
    names = np.array([e.group or e.name for e in entries])[engine.vocabulary.entry_of]
    usable = engine.usable > 0
    groups = [np.flatnonzero(labels & usable)]
    groups += [np.flatnonzero((names == g) & ~labels & usable) for g in dict.fromkeys(names.tolist())]
    return [g for g in groups if len(g)]


def fitted(residual: np.ndarray, variance: np.ndarray, sigma: np.ndarray) -> tuple[float, float]:
    """k and f >= 0 of the greatest likelihood of residuals with variance k^2 variance + f^2 + sigma^2."""

    def loss(p):
        v = np.exp(2 * p[0]) * variance + p[1] ** 2 + sigma**2
        # a Gaussian with the tails cut: a few wild stars must not widen the errors of all
        return np.mean(np.minimum(0.5 * residual**2 / v, 12.5) + 0.5 * np.log(v))

    tried = (minimize(loss, start, method="Nelder-Mead") for start in ((0.0, 0.02), (0.0, 0.2)))
    found = min(tried, key=lambda m: m.fun)
    return float(np.exp(found.x[0])), float(abs(found.x[1]))


def mad_std(x: np.ndarray) -> float:
    """1.4826 times the median absolute deviation."""
    return float(1.4826 * np.median(np.abs(x - np.median(x))))


def _metrics(y, s, middle, spread, calibration, scale) -> dict[str, float]:
    """In the label's unit: scatter against the (noisy) label, its median error, the answers' median errors, pulls."""
    total = np.sqrt(calibration[0] ** 2 * spread + calibration[1] ** 2)
    residual = y - middle
    return {
        "stars": len(y),
        "mad_std": mad_std(residual) * float(scale),
        "rms": float(np.sqrt(np.mean(residual**2)) * scale),
        "label_error": float(np.median(s) * scale),
        "error": float(np.median(np.sqrt(spread)) * scale),
        "total_error": float(np.median(total) * scale),
        "pull": float(np.std(residual / np.sqrt(spread + s**2))),
        "total_pull": float(np.std(residual / np.sqrt(total**2 + s**2))),
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
