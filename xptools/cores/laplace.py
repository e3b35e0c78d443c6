"""Laplace's approximation of the posterior of a Gaussian process seen through a response with Poisson counts.

    n ~ Poisson(rates(exp(ln Phi))),  ln Phi = level + plane + process + steps + V errors,  y = the last four

or, where the response itself was counted on r stars, the negative binomial of shape r that this makes of Poisson.
The process is smooth in ln M and [Fe/H]; the steps are free from one [Fe/H] bin to the next, in slope as well as in
level: power laws of its own in every bin, that meet at the breaks, and what is smooth in ln M. Without slopes of their
own, steps of the size that levels need make jumps in slope unlikely, and neighbours' slopes are drawn together. Given
the hyperparameters theta (standard normal coordinates of both ln amplitudes and two ln lengths) the prior of y is
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
from scipy.linalg import block_diag, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats.qmc import Sobol

HYPER = 4  # ln amplitude of the process, ln length in ln M, ln length in [Fe/H], ln amplitude of the steps
CENTRE = np.zeros(HYPER)
PRIOR_MEAN = np.log([0.4, 0.7, 0.6, 0.4])
PRIOR_WIDTH = np.array([0.8, 0.6, 0.6, 1.0])
LEVER = 0.3  # in ln M: a step of slope is as large as the amplitude of the steps over this much
PLANE = np.array([4.0, 3.0, 4.0])  # prior widths of a, alpha and beta about 0
KINK = 2.0  # and of the change of slope at a break
EXACT = 1e12
SHORTEST = 0.2  # [dex]: the process knows nothing shorter than its knots; steps do
JITTER = 1e-4  # keeps neighbouring cells of a smooth process apart
STEPS, CLOSE = 100, 1e-6
TRIALS, WIDER = 256, 1.4  # points at which the posterior of theta is evaluated, from a Gaussian so much wider


@dataclass(frozen=True)
class Problem:
    """Counts n (K, J), P of mass (K, M, C) and of [Fe/H] (K, J, C), exposure (M, C), level, coordinates (M,) and (C,).

    `kinks` (M, S) are max(ln M - ln M_s, 0) of the breaks.
    The process lives on `knots` (Q,) in [Fe/H]; a cubic spline carries it to the C slices. `steps` (C, G) says which
    bin a slice is in. Errors of V are (M C, E).
    """

    n: np.ndarray
    mass: np.ndarray
    weight: np.ndarray
    exposure: np.ndarray
    level: float
    ln_m: np.ndarray
    kinks: np.ndarray
    feh: np.ndarray
    knots: np.ndarray
    steps: np.ndarray
    volumes: np.ndarray
    shape: np.ndarray  # r (K, J); EXACT where the response is known

    @cached_property
    def basis(self) -> np.ndarray:
        """d ln Phi / d (a, alpha, beta, kinks, process on the knots, steps) (M C, 3 + S + M (Q + G))."""
        m, f = np.meshgrid(self.ln_m, self.feh, indexing="ij")
        spline = CubicSpline(self.knots, np.eye(len(self.knots)), axis=0)(self.feh)
        kinks = np.repeat(self.kinks, len(self.feh), axis=0)
        plane = np.column_stack([np.ones(m.size), m.ravel(), f.ravel(), kinks])
        return np.hstack([plane, *(np.kron(np.eye(len(self.ln_m)), b) for b in (spline, self.steps))])

    def arrays(self) -> dict[str, np.ndarray]:
        """As the sampler takes it."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)} | {"design": self.design}

    def rates(self, phi: np.ndarray) -> np.ndarray:
        """Expected stars (K, J) where Phi is (M C,)."""
        return rates(phi, self.mass, self.weight, self.exposure, np)

    def jacobian(self, phi: np.ndarray) -> np.ndarray:
        """d rates / d y (K J, D) where Phi is (M C,)."""
        true = (phi.reshape(self.exposure.shape) * self.exposure)[:, :, None] * self.design.reshape(
            *self.exposure.shape, -1
        )
        seen = self.mass.transpose(2, 0, 1) @ true.transpose(1, 0, 2)  # (C, K, D)
        return (self.weight @ seen.transpose(1, 0, 2)).reshape(self.n.size, -1)

    def ln_phi(self, y: np.ndarray) -> np.ndarray:
        """ln Phi (..., M C) without the errors of V, from y (..., D)."""
        return self.level + y[..., : self.basis.shape[1]] @ self.basis.T

    @cached_property
    def design(self) -> np.ndarray:
        """d ln rate / d y (M C, D)."""
        return np.hstack([self.basis, self.volumes])

    def prior(self, theta: np.ndarray) -> tuple[np.ndarray, float]:
        """Precision (D, D) of y, and its ln det."""
        size, step, L, R, S = factors(theta, self.ln_m, self.kinks, self.knots)
        plane = np.r_[PLANE, np.full(self.kinks.shape[1], KINK)]
        one, two, own = (cho_solve((f, True), np.eye(len(f))) for f in (L, R, S))
        M, Q, G = len(L), len(R), self.steps.shape[1]
        blocks = np.diag(plane**-2), np.kron(one, two) / size**2, np.kron(own, np.eye(G)) / step**2
        ln_det = -2 * sum(n * np.log(np.diag(f)).sum() for n, f in ((Q, L), (G, S), (M, R)))
        ln_det -= 2 * M * (Q * np.log(size) + G * np.log(step)) + 2 * np.log(plane).sum()
        return block_diag(*blocks, np.eye(self.volumes.shape[1])), ln_det


def rates(phi, mass, weight, exposure, xp):
    """Expected stars (K, J) where Phi is (M C,): masses are scattered first, [Fe/H] then, both as in response.py."""
    seen = xp.sum(mass * (phi.reshape(exposure.shape) * exposure), axis=1)
    return (weight @ seen[:, :, None])[:, :, 0] + 1e-12


def fitted(n, rate, shape, xp):
    """ln p(n | rate) + const, summed: negative binomial, Poisson where shape is EXACT."""
    return xp.sum(n * xp.log(rate) - (n + shape) * xp.log1p(rate / shape))


def factors(theta, ln_m, kinks, knots):
    """Both amplitudes, Cholesky factors of the correlations in ln M (M, M), between knots (Q, Q), of a step (M, M)."""
    size = np.exp(PRIOR_MEAN + PRIOR_WIDTH * theta)
    r = np.sqrt(3.0) * np.abs(ln_m[:, None] - ln_m) / size[1]
    q = np.sqrt(5.0) * np.abs(knots[:, None] - knots) / np.hypot(size[2], SHORTEST)
    one, two = (1 + r) * np.exp(-r), (1 + q + q * q / 3) * np.exp(-q)
    own = one + (np.outer(ln_m, ln_m) + kinks @ kinks.T) / LEVER**2
    return size[0], size[3], *(np.linalg.cholesky(k + JITTER * np.eye(len(k))) for k in (one, two, own))


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
    y = np.zeros(len(precision)) if start is None else start
    value, rate, true = _value(problem, precision, y)
    for _ in range(STEPS):
        J = problem.jacobian(true)
        r = problem.shape
        gradient = J.T @ (problem.n / rate - (problem.n + r) / (rate + r)).ravel() - precision @ y
        H = _information(problem, J, rate) + precision
        step = cho_solve(cho_factor(H), gradient)
        gain, factor = 0.5 * gradient @ step, 1.0
        while factor > 1e-4:
            new, rate, true = _value(problem, precision, y + factor * step)
            if new > value:
                break
            factor *= 0.5
        else:
            break
        y, value = y + factor * step, new
        if gain < CLOSE:
            break
    _, rate, true = _value(problem, precision, y)
    H = _information(problem, problem.jacobian(true), rate) + precision
    return Mode(y, H, precision, value + 0.5 * ln_det - np.log(np.diag(cho_factor(H)[0])).sum())


def _information(problem: Problem, J: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Fisher's (D, D)."""
    return J.T @ (J / (rate * (1.0 + rate / problem.shape)).reshape(-1, 1))


def _value(problem, precision, y):
    """ln p(n, y | theta) + const, rates (K, J) and exp(ln Phi) (M C,)."""
    true = np.exp(np.minimum(problem.level + problem.design @ y, 50.0 + problem.level))
    rate = problem.rates(true)
    fit = fitted(problem.n, rate, problem.shape, np)
    return float(fit - 0.5 * y @ precision @ y), rate, true


def modes(problem: Problem, thetas: np.ndarray) -> list[Mode]:
    """The modes at each theta (N, HYPER)."""
    out, start = [], None
    for theta in thetas:
        out.append(mode(problem, theta, start))
        start = out[-1].y
    return out


def hyper_draws(problem: Problem, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (n, HYPER) of theta from its Laplace posterior: a Gaussian about its mode, weighted by the evidence.

    TRIALS points of the Gaussian are weighted by the posterior over it, then picked systematically.
    """
    loss = _Loss(problem)
    best = minimize(loss, CENTRE, method="Nelder-Mead", options={
        "initial_simplex": np.vstack([CENTRE, CENTRE + 0.7 * np.eye(HYPER)]), "xatol": 0.05, "fatol": 0.05,
        "maxfev": 120,
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
    """Posterior widths (HYPER,) of theta from second differences, at most the prior's."""
    bend = [(loss(theta + s) + loss(theta - s) - 2 * lowest) / h**2 for s in h * np.eye(HYPER)]
    return 1.0 / np.sqrt(np.maximum(bend, 1.0))
