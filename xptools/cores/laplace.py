"""Laplace's approximation of the posterior of a Gaussian process seen through a response with Poisson counts.

    n ~ Poisson(F exp(ln Phi)),  ln Phi = level + plane + process + V errors,  y = (plane, process, V errors)

Given the hyperparameters theta (standard normal coordinates of ln amplitude and two ln lengths) the prior of y is
Gaussian and its mode is found by Newton steps with the Fisher information. The evidence

    ln p(n | theta) ~ ln p(n, y | theta) - 1/2 ln det H

is maximised over theta (Rasmussen & Williams 2006, section 3.4). What comes out serves NUTS as coordinates in which
the posterior is round; nothing in the result rests on the approximation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats.qmc import Sobol

HYPER = 3  # ln amplitude, ln length in ln M, ln length in [Fe/H]
CENTRE = np.zeros(HYPER)
PRIOR_MEAN = np.log([0.4, 0.7, 0.6])
PRIOR_WIDTH = np.array([0.8, 0.6, 0.6])
PLANE = np.array([4.0, 3.0, 4.0])  # prior widths of a, alpha and beta about 0
JITTER = 1e-4  # keeps neighbouring cells of a smooth process apart
STEPS, CLOSE = 100, 1e-6
TRIALS, WIDER = 64, 1.3  # points at which the posterior of theta is evaluated, from a Gaussian so much wider


@dataclass(frozen=True)
class Problem:
    """Counts n (J,), response F (J, M C) times exposure, level, coordinates (M,) and (C,), V errors (M C, E).

    The process lives on `knots` (Q,) in [Fe/H]; a cubic spline carries it to the C slices.
    """

    n: np.ndarray
    response: np.ndarray
    level: float
    ln_m: np.ndarray
    feh: np.ndarray
    knots: np.ndarray
    volumes: np.ndarray

    @cached_property
    def basis(self) -> np.ndarray:
        """d ln Phi / d (a, alpha, beta, process on the knots) (M C, 3 + M Q)."""
        m, f = np.meshgrid(self.ln_m, self.feh, indexing="ij")
        spline = CubicSpline(self.knots, np.eye(len(self.knots)), axis=0)(self.feh)
        plane = np.column_stack([np.ones(m.size), m.ravel(), f.ravel()])
        return np.hstack([plane, np.kron(np.eye(len(self.ln_m)), spline)])

    @property
    def process(self) -> int:
        """M Q, the size of the process."""
        return len(self.ln_m) * len(self.knots)

    def arrays(self) -> dict[str, np.ndarray]:
        """As the sampler takes it."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)} | {"design": self.design()}

    def ln_phi(self, y: np.ndarray) -> np.ndarray:
        """ln Phi (..., M C) without the errors of V, from y (..., 3 + M Q + E)."""
        return self.level + y[..., : self.basis.shape[1]] @ self.basis.T

    def design(self) -> np.ndarray:
        """d ln rate / d y (M C, D)."""
        return np.hstack([self.basis, self.volumes])

    def prior(self, theta: np.ndarray) -> tuple[np.ndarray, float]:
        """Precision (D, D) of y, and its ln det."""
        amplitude, L, R = factors(theta, self.ln_m, self.knots, np)
        one, two = (cho_solve((f, True), np.eye(len(f))) for f in (L, R))
        cells, errors = self.process, self.volumes.shape[1]
        out = np.zeros((3 + cells + errors,) * 2)
        out[range(3), range(3)] = PLANE**-2
        out[3 : 3 + cells, 3 : 3 + cells] = np.kron(one, two) / amplitude**2
        out[3 + cells :, 3 + cells :] = np.eye(errors)
        ln_det = -2 * (len(R) * np.log(np.diag(L)).sum() + len(L) * np.log(np.diag(R)).sum())
        return out, ln_det - 2 * cells * np.log(amplitude) - 2 * np.log(PLANE).sum()


def factors(theta, ln_m, knots, xp):
    """Amplitude and Cholesky factors of the correlations in ln M (M, M) and between knots in [Fe/H] (Q, Q)."""
    size = xp.exp(xp.asarray(PRIOR_MEAN) + xp.asarray(PRIOR_WIDTH) * theta)
    r = np.sqrt(3.0) * xp.abs(ln_m[:, None] - ln_m) / size[1]
    q = np.sqrt(5.0) * xp.abs(knots[:, None] - knots) / size[2]
    one, two = (1 + r) * xp.exp(-r), (1 + q + q * q / 3) * xp.exp(-q)
    return size[0], *(xp.linalg.cholesky(k + JITTER * xp.eye(len(k))) for k in (one, two))


@dataclass(frozen=True)
class Mode:
    """Where ln p(n, y | theta) is highest: y (D,), the information (D, D) there, the prior's part, the ln evidence."""

    y: np.ndarray
    information: np.ndarray
    precision: np.ndarray
    evidence: float

    def round(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre (D,) and stretch (D, D) such that y = centre + stretch w has w about Normal(0, 1)."""
        lower = np.linalg.cholesky(self.information)
        return self.y, solve_triangular(lower, np.eye(len(lower)), lower=True).T


def mode(problem: Problem, theta: np.ndarray, start: np.ndarray | None = None) -> Mode:
    """The mode of y given theta, by Newton steps with Fisher's information, halved where they overshoot."""
    precision, ln_det = problem.prior(theta)
    design = problem.design()
    y = np.zeros(len(precision)) if start is None else start
    value, rate, true = _value(problem, precision, design, y)
    for _ in range(STEPS):
        J = (problem.response * true) @ design
        gradient = J.T @ (problem.n / rate - 1.0) - precision @ y
        H = J.T @ (J / rate[:, None]) + precision
        step = cho_solve(cho_factor(H), gradient)
        gain, factor = 0.5 * gradient @ step, 1.0
        while factor > 1e-4:
            new, rate, true = _value(problem, precision, design, y + factor * step)
            if new > value:
                break
            factor *= 0.5
        else:
            break
        y, value = y + factor * step, new
        if gain < CLOSE:
            break
    _, rate, true = _value(problem, precision, design, y)
    J = (problem.response * true) @ design
    H = J.T @ (J / rate[:, None]) + precision
    return Mode(y, H, precision, value + 0.5 * ln_det - np.log(np.diag(cho_factor(H)[0])).sum())


def _value(problem, precision, design, y):
    """ln p(n, y | theta) + const, rates (J,) and exp(ln Phi) (M C,)."""
    true = np.exp(np.minimum(problem.level + design @ y, 50.0 + problem.level))
    rate = problem.response @ true + 1e-12
    return float(problem.n @ np.log(rate) - rate.sum() - 0.5 * y @ precision @ y), rate, true


def modes(problem: Problem, thetas: np.ndarray) -> list[Mode]:
    """The modes at each theta (N, 3)."""
    out, start = [], None
    for theta in thetas:
        out.append(mode(problem, theta, start))
        start = out[-1].y
    return out


def hyper_draws(problem: Problem, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (n, 3) of theta from its Laplace posterior: a Gaussian about its mode, weighted by the evidence.

    TRIALS points of the Gaussian are weighted by the posterior over it, then picked systematically.
    """
    loss = _Loss(problem)
    best = minimize(loss, CENTRE, method="Nelder-Mead", options={
        "initial_simplex": np.vstack([CENTRE, CENTRE + 0.7 * np.eye(HYPER)]), "xatol": 0.05, "fatol": 0.05,
        "maxfev": 80,
    })  # fmt: skip
    width = _widths(loss, best.x, best.fun)
    z = norm.ppf(Sobol(HYPER, seed=rng).random(TRIALS))
    trial = best.x + z * width * WIDER
    ln_w = np.array([best.fun - loss(t) for t in trial]) + 0.5 * (z**2).sum(axis=1)
    w = np.exp(ln_w - ln_w.max())
    return trial[np.searchsorted(np.cumsum(w) / w.sum(), (np.arange(n) + rng.random()) / n).clip(0, TRIALS - 1)]


class _Loss:
    """-ln p(theta | n) + const, each call starting where the last one ended."""

    def __init__(self, problem: Problem):
        self.problem, self.start = problem, None

    def __call__(self, theta: np.ndarray) -> float:
        found = mode(self.problem, theta, self.start)
        self.start = found.y
        return 0.5 * float(theta @ theta) - found.evidence


def _widths(loss, theta, lowest, h=0.3):
    """Posterior widths (3,) of theta from second differences, at most the prior's."""
    bend = [(loss(theta + s) + loss(theta - s) - 2 * lowest) / h**2 for s in h * np.eye(HYPER)]
    return 1.0 / np.sqrt(np.maximum(bend, 1.0))
