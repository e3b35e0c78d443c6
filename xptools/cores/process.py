"""A continuous mass function: ln Phi(ln M) as a Gaussian process behind Poisson counts in fine bins of mass.

    n_i ~ Poisson(Phi(M_i) exp(s_k eps_k) int_i V dM),   x = ln M,
    ln Phi = level + a + alpha x + sum_j b_j f_j(x) + sum_s c_s max(x - x_s, 0)
    b_j ~ Normal(0, S(w_j)),   S(w) = sigma^2 12 sqrt(3) l^-3 (3 / l^2 + w^2)^-2   (Matern 3/2),   c_s ~ Normal(0, KINK)

The process is smooth: a kink it rounds off, and the slopes beside it with it. So where two power laws are asked to
meet, at x_s, the slope may jump; what is neither a line nor a jump there is the process's.

f_j, w_j are the eigenfunctions of the Laplacian on an interval EDGE times as wide as the data (Solin & Sarkka 2020):
MODES numbers instead of a matrix over all bins. Amplitude and length have the posterior that Laplace's approximation
gives them, on a grid; Phi is sampled at each (rounded.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from xptools.cores import nuts, rounded
from xptools.cores.bins import BinTable, simpson

CELLS = 8  # fine bins per mass bin
MODES = 60  # shortest wave: 0.15 in ln M for bins from 0.15 to 0.9 Msun
EDGE = 2.5
PIVOT = 0.4  # [Msun]
PRIOR_MEAN = np.log([0.5, 0.7])  # amplitude, and length in ln M
PRIOR_WIDTH = np.array([1.0, 0.7])
LINE = np.array([4.0, 3.0])  # prior widths of a and alpha about 0 and LINE_SLOPE
LINE_SLOPE = -1.0
KINK = 2.0  # prior width of the change of slope at a break
NEWTON, CLOSE = 60, 1e-6
GRID, WIDEST = 15, 2.6  # of theta
POINTS = 32  # values of theta at which Phi is drawn


def refined(table: BinTable, cells: int = CELLS) -> BinTable:
    """The table with every mass bin in `cells` parts, V as it runs in the bin."""
    K, P = len(table.width), table.fine.shape[2]
    edges = np.concatenate([np.linspace(*table.mass_edges[k : k + 2], cells + 1)[:-1] for k in range(K)])
    edges = np.append(edges, table.mass_edges[-1])
    fine = np.empty((len(table.veff), K * cells, P))
    for b, i in np.ndindex(fine.shape[:2]):
        fine[b, i] = table.volume(b, i // cells, np.linspace(edges[i], edges[i + 1], P))
    veff = simpson(fine)
    # Simpson's rule and a kink inside: the parts must add up to the bin
    whole = np.repeat(veff.reshape(len(veff), K, cells).mean(axis=2), cells, axis=1)
    scale = np.divide(np.repeat(table.veff, cells, axis=1), whole, out=np.zeros_like(veff), where=whole > 0)
    return BinTable(edges, table.feh_edges, veff * scale, np.repeat(_relative(table), cells, axis=1) * veff * scale,
                    fine * scale[..., None])  # fmt: skip


def _relative(table: BinTable) -> np.ndarray:
    """sigma_V / V (B, K), 0 where there is no volume."""
    return np.divide(table.veff_err, table.veff, out=np.zeros_like(table.veff), where=table.veff > 0)


@dataclass(frozen=True)
class Curve:
    """Counts n (I,), exposure int V dM (I,), x = ln(M / PIVOT) (I,), and what errors of V do, d ln rate (I, E).

    breaks (S,): x where the slope may jump.
    """

    n: np.ndarray
    exposure: np.ndarray
    x: np.ndarray
    volumes: np.ndarray
    breaks: np.ndarray

    @classmethod
    def of(cls, table: BinTable, b: int, n: np.ndarray, breaks: Sequence[float] = (), cells: int = CELLS) -> Curve:
        """Of a [Fe/H] bin of a refined table: n (I,), counts where there is no volume left out; breaks [Msun]."""
        exposure = table.veff[b] * table.width
        s = _relative(table)[b]
        volumes = np.where(np.arange(len(s))[:, None] // cells == np.arange(len(s) // cells), s[:, None], 0.0)
        return cls(np.where(exposure > 0, n, 0).astype(float), exposure, np.log(table.centre / PIVOT),
                   volumes if np.any(s > 0) else volumes[:, :0], np.log(np.asarray(breaks) / PIVOT))  # fmt: skip

    @property
    def level(self) -> float:
        """ln Phi of a flat function with as many stars."""
        return float(np.log(max(self.n.sum(), 1.0) / self.exposure.sum()))

    @cached_property
    def waves(self) -> np.ndarray:
        """w_j (MODES,)."""
        return np.pi * np.arange(1, MODES + 1) / (2 * self._reach)

    @property
    def _reach(self) -> float:
        return EDGE * 0.5 * float(np.ptp(self.x))

    @cached_property
    def design(self) -> np.ndarray:
        """d ln rate / d (a, alpha, b_j, c_s, eps) (I, 2 + MODES + S + E)."""
        middle = 0.5 * (self.x[0] + self.x[-1])
        modes = np.sin(np.outer(self.x - middle + self._reach, self.waves)) / np.sqrt(self._reach)
        jumps = np.maximum(self.x[:, None] - self.breaks, 0.0)
        return np.column_stack([np.ones(len(self.x)), self.x, modes, jumps, self.volumes])

    @property
    def smooth(self) -> int:
        """How many coordinates Phi has; those of the volumes follow."""
        return 2 + MODES + len(self.breaks)

    def widths(self, theta: np.ndarray) -> np.ndarray:
        """Prior widths of (a, alpha, b_j, c_s, eps) at theta (2,)."""
        jumps, volumes = np.full(len(self.breaks), KINK), np.ones(self.volumes.shape[1])
        return np.r_[LINE, np.exp(0.5 * ln_density(theta, self.waves)), jumps, volumes]


def ln_density(theta, waves):
    """ln S (MODES,) at theta (2,): standard normal coordinates of ln amplitude and ln length."""
    ln_size, ln_length = PRIOR_MEAN[0] + PRIOR_WIDTH[0] * theta[0], PRIOR_MEAN[1] + PRIOR_WIDTH[1] * theta[1]
    return 2 * ln_size + np.log(12 * np.sqrt(3.0)) - 3 * ln_length - 2 * np.log(3 * np.exp(-2 * ln_length) + waves**2)


def mode(curve: Curve, theta: np.ndarray, start: np.ndarray | None = None):
    """The mode of y = (a, alpha, b_j, c_s, eps) at theta by Newton steps; the information there; the ln evidence."""
    A, width = curve.design, curve.widths(theta)
    centre = np.zeros(A.shape[1])
    centre[1] = LINE_SLOPE
    y = centre.copy() if start is None else start

    def value(y):
        ln_rate = np.minimum(A @ y + curve.level, 700.0)
        return float(curve.n @ ln_rate - curve.exposure @ np.exp(ln_rate) - 0.5 * (((y - centre) / width) ** 2).sum())

    best = value(y)
    for _ in range(NEWTON):
        rate = curve.exposure * np.exp(np.minimum(A @ y + curve.level, 700.0))
        H = (A.T * rate) @ A + np.diag(width**-2)
        gradient = A.T @ (curve.n - rate) - (y - centre) / width**2
        step, factor = cho_solve(cho_factor(H), gradient), 1.0
        while factor > 1e-6 and not value(y + factor * step) >= best:
            factor *= 0.5
        if factor <= 1e-6 or gradient @ step < CLOSE:
            break
        y = y + factor * step
        best = value(y)
    evidence = best - np.log(width).sum() - np.log(np.diag(cho_factor(H)[0])).sum()
    return y, H, evidence


def hyper_draws(curve: Curve, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws (n, 2) of theta, spread evenly over its posterior by Laplace's approximation on a GRID x GRID."""
    axis = np.linspace(-WIDEST, WIDEST, GRID)
    thetas, start, ln_p = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1), None, np.empty((GRID, GRID))
    for i, row in enumerate(thetas):
        for j in range(GRID)[:: 1 if i % 2 == 0 else -1]:  # there and back, so that the last mode is near the next
            start, _, evidence = mode(curve, row[j], start)
            ln_p[i, j] = evidence - 0.5 * float(row[j] @ row[j])
    p = np.exp(ln_p - ln_p.max()).ravel()
    at = np.searchsorted(np.cumsum(p) / p.sum(), (np.arange(n) + rng.random()) / n).clip(0, GRID**2 - 1)
    return thetas.reshape(-1, 2)[at] + (rng.random((n, 2)) - 0.5) * (axis[1] - axis[0])


def frame(curve: Curve, theta: np.ndarray) -> rounded.Frame:
    """What the sampler takes at theta."""
    y, H, _ = mode(curve, theta)
    data = {"n": curve.n, "exposure": curve.exposure, "level": np.float64(curve.level), "design": curve.design,
            "width": curve.widths(theta)}  # fmt: skip
    return rounded.Frame(data, y, solve_triangular(np.linalg.cholesky(H), np.eye(len(H)), lower=True).T)


def energy(y, d):
    """-ln p(n, y | theta) + const at y = (a, alpha, b_j, c_s, eps)."""
    import jax.numpy as jnp

    ln_rate = jnp.minimum(d["design"] @ y + d["level"], 100.0)
    off = y.at[1].add(-LINE_SLOPE) / d["width"]
    return 0.5 * jnp.sum(off**2) - jnp.sum(d["n"] * ln_rate - d["exposure"] * jnp.exp(ln_rate))


def sample(curve: Curve, seed: int, *, chains=4, warmup=1000, draws=1000, target_accept=0.9):
    """Draws of ln Phi (chains, draws, I) as nuts.Sampled, and of amplitude and length in ln M (POINTS, 2).

    Amplitude and length come from their Laplace posterior, the same POINTS values for every chain; at each of them
    Hamiltonian Monte Carlo draws Phi.
    """
    rng, points = np.random.default_rng((seed, 3)), min(POINTS, draws)
    thetas = hyper_draws(curve, points, rng)
    each, warm = -(-draws // points), max(10, warmup // points)
    frames = [frame(curve, theta) for theta in thetas]
    y, diverging, moved = rounded.sample(energy, frames, seed, chains, warm, each, target_accept)
    ln_phi = curve.level + y[:, :draws, : curve.smooth] @ curve.design[:, : curve.smooth].T
    mixed = ln_phi[:, rng.permutation(draws)]  # points take turns
    got = nuts.Sampled(mixed, *nuts.convergence(mixed), diverging, moved, rejected=chains * draws)
    return got, np.exp(PRIOR_MEAN + PRIOR_WIDTH * thetas)
