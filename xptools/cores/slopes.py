"""Power-law slopes dN/dM ~ M^alpha of a binned mass function, in mass segments that meet at given breaks.

Two recipes. `least_squares`: a straight line through log10 Phi against log10 M at the bin centres (Li+ 2026 Sec. 4.1
give no recipe; this is the simplest). `PoissonSlopes`: the likelihood of the counts themselves,

    n_k ~ Poisson( sum_s A_s int_(bin k, segment s) M^alpha_s V(M) dM ),

which uses empty bins, the run of V inside a bin, and splits a bin that a break cuts. Differs from the paper: with V
falling sixfold over the lowest bins, a line through bin centres is off by up to 0.1 in alpha, the likelihood is not.
"""

from __future__ import annotations

from copy import copy
from itertools import pairwise

import numpy as np

NODES = 16  # Gauss-Legendre points per bin and segment
ALPHA_WIDTH = 10.0  # Normal(0, 10) on alpha keeps a segment with few stars proper; negligible with ten stars


def members(centre, segment):
    """Bins (K,) whose centre lies strictly inside the segment (lo, hi)."""
    return (centre > segment[0]) & (centre < segment[1])


def least_squares(centre, log_phi, sigma, segment):
    """alpha and its error of a line through the bins with centres inside `segment`; NaN from fewer than 3.

    Weighted with sigma (K,): the error is the formal one times max(1, sqrt(reduced chi-square)). sigma None: no
    weights, and the error is that of the scatter about the line. A bin without finite log_phi is left out.
    """
    use = members(centre, segment) & np.isfinite(log_phi)
    if sigma is not None:
        use &= np.isfinite(sigma) & (np.nan_to_num(sigma) > 0)
    if use.sum() < 3:
        return np.nan, np.nan
    x, y = np.log10(centre[use]), log_phi[use]
    w = np.ones(len(x)) if sigma is None else sigma[use] ** -2
    x = x - np.average(x, weights=w)
    alpha = np.sum(w * x * y) / np.sum(w * x * x)
    residual = y - np.average(y, weights=w) - alpha * x
    scatter = np.sqrt(np.sum(w * residual**2) / (use.sum() - 2))
    inflate = scatter if sigma is None else max(1.0, scatter)
    return float(alpha), float(inflate / np.sqrt(np.sum(w * x * x)))


def lines(centre, ln_phi, sigma, segments):
    """Slopes (D, S) of each draw of ln Phi (D, K): lines weighted with sigma (K,) over the bins of each segment.

    As draws of a posterior in which bins are correlated, their spread is that of the slope; NaN from fewer than 2 bins.
    """
    out = np.full((len(ln_phi), len(segments) - 1), np.nan)
    for s, segment in enumerate(pairwise(segments)):
        use = members(centre, segment) & np.isfinite(sigma) & np.isfinite(ln_phi).all(axis=0)
        if use.sum() >= 2:
            w = sigma[use] ** -2
            x = np.log(centre[use])
            x = x - np.average(x, weights=w)
            out[:, s] = ln_phi[:, use] @ (w * x) / np.sum(w * x * x)
    return out


class PoissonSlopes:
    """Posterior of (ln A_s, alpha_s) for one [Fe/H] bin, all segments at once.

    table, b: BinTable and row; `segments` (S + 1,) mass limits [Msun]; bins count whose centre lies inside the range.
    `mixing` (K, K): stars counted in a bin for every one expected in another (pairs.py), else each in its own.
    """

    def __init__(self, table, b, segments, pivot=0.5, mixing=None):
        self.segments, self.pivot = tuple(segments), pivot
        inside = members(table.centre, (segments[0], segments[-1]))
        inside &= np.isfinite(table.veff[b]) & (table.veff[b] > 0)
        self.use = np.flatnonzero(inside)
        self.mixing = None if mixing is None else mixing[np.ix_(self.use, self.use)]
        x, w = np.polynomial.legendre.leggauss(NODES)
        edges, S = np.asarray(table.mass_edges), len(segments) - 1
        self.ln_m = np.zeros((len(self.use), S, NODES))
        self.weight = np.zeros((len(self.use), S, NODES))
        for i, k in enumerate(self.use):
            for s, lo, hi in self._pieces(edges[k], edges[k + 1]):
                m = lo + (hi - lo) * (x + 1) / 2
                self.ln_m[i, s] = np.log(m / pivot)
                self.weight[i, s] = table.volume(b, k, m) * w * (hi - lo) / 2
        self.s_V = np.nan_to_num(table.veff_err[b, self.use] / table.veff[b, self.use])

    def _pieces(self, lo, hi):
        """(segment, lo, hi) of a bin; beyond the outer limits the outer segment's law continues."""
        limits = np.array([-np.inf, *self.segments[1:-1], np.inf])
        for s in range(len(limits) - 1):
            a, b = max(lo, limits[s]), min(hi, limits[s + 1])
            if b > a:
                yield s, a, b

    def expected(self, ln_A, alpha):
        """lambda_k per segment (..., K, S) and its derivative by alpha, for ln_A, alpha (..., S)."""
        terms = self.weight * np.exp(alpha[..., None, :, None] * self.ln_m)
        scale = np.exp(ln_A)[..., None, :]
        both = scale * terms.sum(-1), scale * (terms * self.ln_m).sum(-1)
        return both if self.mixing is None else tuple(self.mixing @ v for v in both)

    def rates(self, ln_A, alpha):
        """The first of `expected` alone, only where a bin has a part in the segment: four times as quick."""
        k, s = np.nonzero(self.weight.any(axis=-1))
        terms = self.weight[k, s] * np.exp(alpha[..., s, None] * self.ln_m[k, s])
        rate = np.zeros((*alpha.shape[:-1], *self.weight.shape[:2]))
        rate[..., k, s] = np.exp(ln_A)[..., s] * terms.sum(-1)
        return rate if self.mixing is None else self.mixing @ rate

    def log_posterior(self, n, theta):
        """ln p (...) at theta (..., 2S) = (ln A, alpha), flat in ln A."""
        S = self.weight.shape[1]
        with np.errstate(over="ignore"):  # a wild trial has probability 0
            rate = self.rates(theta[..., :S], theta[..., S:]).sum(-1)
        fit = (n * np.log(np.clip(rate, 1e-300, 1e300))).sum(-1) - rate.sum(-1)
        return fit - 0.5 * np.sum((theta[..., S:] / ALPHA_WIDTH) ** 2, axis=-1)

    def mode(self, n, rounds=100):
        """theta (2S,) at the maximum, by Fisher scoring with step halving, and the inverse information (2S, 2S)."""
        S = self.weight.shape[1]
        counts = np.array([np.sum(n * (self.weight[:, s].sum(-1) > 0)) for s in range(S)]) + 0.5
        flat = self.weight.sum(axis=(0, 2))
        theta = np.concatenate([np.log(counts / np.maximum(flat, 1e-300)), np.full(S, -1.0)])
        best = self.log_posterior(n, theta)
        for _ in range(rounds):
            gradient, information, _ = self._scores(n, theta)
            step = np.linalg.solve(information, gradient)
            step *= min(1.0, 4.0 / np.max(np.abs(step)))
            while (value := self.log_posterior(n, theta + step)) < best and np.max(np.abs(step)) > 1e-12:
                step = 0.5 * step
            theta, best = theta + step, max(value, best)
            if np.max(np.abs(step)) < 1e-9:
                break
        _, information, J = self._scores(n, theta)
        return theta, np.linalg.inv(information), J

    def _scores(self, n, theta):
        S = self.weight.shape[1]
        rate, slope = self.expected(theta[:S], theta[S:])
        J = np.concatenate([rate, slope], axis=-1)  # (K, 2S)
        total = np.maximum(rate.sum(-1), 1e-300)
        gradient = J.T @ (n / total - 1.0)
        gradient[S:] -= theta[S:] / ALPHA_WIDTH**2
        information = J.T @ (J / total[:, None]) + np.diag([0.0] * S + [ALPHA_WIDTH**-2] * S)
        return gradient, information, J

    def draws(self, counts, rng, size=4000):
        """Draws (size, 2S) of (ln A, alpha) for counts (K_all,) of the [Fe/H] bin; NaN for a segment without stars.

        Stars of a bin that a break cuts may be either segment's: who has no others might have none, and ln A no end.

        A Student t around the mode, resampled with importance weights, so exact for skewed posteriors too; the
        uncertainty of V moves the mode by -F^-1 J^T delta ln V to first order.
        """
        n = np.asarray(counts, dtype=np.float64)[self.use]
        S = self.weight.shape[1]
        seen = self.weight.sum(axis=2) > 0  # (K, S)
        own = seen & (seen.sum(axis=1, keepdims=True) == 1)
        live = np.flatnonzero((seen.sum(axis=0) > 1) & (n @ own > 0))
        out = np.full((size, 2 * S), np.nan)
        if len(live):
            # a bin that an empty segment shares says nothing about the other one
            pure = ~np.delete(seen, live, axis=1).any(axis=1)
            part = copy(self)
            part.weight, part.ln_m = self.weight[:, live] * pure[:, None, None], self.ln_m[:, live]
            if self.mixing is not None:
                part.mixing = self.mixing * pure[:, None]
            out[:, np.concatenate([live, S + live])] = part._resampled(n * pure, rng, size)
        return out

    def _resampled(self, n, rng, size, t=5.0):
        theta, covariance, J = self.mode(n)
        z = rng.standard_normal((4 * size, len(theta))) / np.sqrt(rng.chisquare(t, (4 * size, 1)) / t)
        trial = theta + z @ np.linalg.cholesky(covariance).T
        log_w = self.log_posterior(n, trial) + 0.5 * (t + len(theta)) * np.log1p(np.sum(z * z, axis=1) / t)
        w = np.exp(log_w - np.max(log_w))
        # systematic resampling: less noise than independent picks
        picks = np.searchsorted(np.cumsum(w) / w.sum(), (np.arange(size) + rng.random()) / size)
        chosen = rng.permutation(trial[np.minimum(picks, len(trial) - 1)])
        if np.any(self.s_V > 0):
            chosen = chosen - (rng.standard_normal((size, len(n))) * self.s_V) @ J @ covariance
        return chosen
