"""The mass function behind errors of mass and [Fe/H]: Phi(M, [Fe/H]) inferred through the response (response.py).

    n(k, s, o) ~ Poisson(rate(k, s, o)),   rate_true(k', c) = Phi V dM d[Fe/H]
    ln Phi = a + alpha ln(M / 0.4) + kinks + beta [Fe/H] + process(ln M, [Fe/H]) + steps(ln M, [Fe/H] bin)

The Gaussian process (Matern-3/2 in ln M, Matern-5/2 in [Fe/H]) lets Phi run smoothly, the steps (the same in ln M, and
slopes; independent between bins) let the mass function change from one [Fe/H] bin to the next. Both amplitudes and
both lengths are inferred, so that the data say how smooth Phi is; where they cannot tell, the plane and the prior speak
and the error is large. A Laplace approximation (laplace.py) gives the posterior of these four, and coordinates in which
Hamiltonian Monte Carlo samples Phi at each.

differs from Li+ 2026, who name the scatter between [Fe/H] bins as their main caveat and do not correct for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from xptools.cores import laplace, response, rounded
from xptools.cores.bins import BinTable
from xptools.cores.errortable import ErrorTable
from xptools.cores.nuts import Sampled, convergence

PIVOT = 0.4  # [Msun]
KNOTS = 0.25  # [dex]: between knots of the process, less than half its usual length
ROUNDS = 3  # of finding how errors are spread at a true [Fe/H], for each trend tried
STEEPEST = 10.0  # trend of ln P(class) with [Fe/H] ln sigma, either way
POINTS = 24  # values of the hyperparameters


@dataclass(frozen=True)
class Joint:
    """The problem: counts n (K, J), true cells, P(observed | true) of masses (K, K + 2, C) and of slices (K, J, C).

    J are slices by class of error, or slices.
    """

    n: np.ndarray
    truth: response.Truth
    mass: np.ndarray
    weight: np.ndarray
    bins: int
    known: np.ndarray | None = None  # stars (K, J) on which the response was counted, if it was
    breaks: Sequence[float] = ()  # masses [Msun] at which slopes may jump

    def problem(self) -> laplace.Problem:
        """The same as one linear response and the coordinates of the process."""
        t = self.truth
        exposure = t.volume * t.size
        middle = 0.5 * (t.feh_edges[1:] + t.feh_edges[:-1])
        ln_m = np.log(np.sqrt(t.mass_edges[1:] * t.mass_edges[:-1]) / PIVOT)
        knots = 1 + max(3, int(np.ceil((t.feh_edges[-1] - t.feh_edges[0]) / KNOTS)))
        return laplace.Problem(
            n=self.n.astype(float),
            mass=self.mass,
            weight=self.weight,
            exposure=exposure,
            level=float(np.log(max(self.n.sum(), 1) / exposure.sum())),
            ln_m=ln_m,
            kinks=np.maximum(ln_m[:, None] - np.log(np.asarray(self.breaks) / PIVOT), 0.0),
            feh=middle - middle.mean(),
            knots=np.linspace(middle[0], middle[-1], knots) - middle.mean(),
            steps=(self.owner[:, None] == np.unique(self.owner)).astype(float),
            volumes=self._volume_errors(),
            shape=np.full(self.n.shape, laplace.EXACT) if self.known is None else np.maximum(self.known, 1.0),
        )

    @property
    def owner(self) -> np.ndarray:
        """The bin (C,) of each slice: -1 below the table, `bins` above it."""
        bin = self.truth.bin
        return np.where(np.arange(len(bin)) > np.flatnonzero(bin >= 0)[-1], self.bins, bin)

    def _volume_errors(self) -> np.ndarray:
        """d ln rate (M C) by the standard errors of V of the bins (M B), no column where V has none."""
        t = self.truth
        M, C = t.volume.shape
        owner = self.owner.clip(0, self.bins - 1)
        out = np.zeros((M, C, M, self.bins))
        for i in range(M):
            out[i, np.arange(C), i, owner] = t.relative_error[i, owner]
        out = out.reshape(M * C, -1)
        return out[:, out.any(axis=0)]

    def densities(self, ln_phi: np.ndarray) -> np.ndarray:
        """ln of Phi (..., B, K) [kpc-3 Msun-1] of the table's bins from that of the cells (..., (K + 2) C)."""
        width = np.diff(self.truth.feh_edges)
        inside = [np.where(self.truth.bin == b, width, 0.0) for b in range(self.bins)]
        phi = np.exp(ln_phi.reshape(*ln_phi.shape[:-1], *self.truth.volume.shape)[..., 1:-1, :])
        return np.stack([np.log(phi @ w) for w in inside], axis=-2)


# Two BLAS threads on matrices of a few hundred rows only wait for each other: on a busy machine, 18 times longer.
_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


@_one_thread
def prepare(
    table: BinTable, counts: response.Counts, known: ErrorTable | None = None, breaks: Sequence[float] = ()
) -> Joint:
    """The response for these counts: by stated errors, or as stars of known [Fe/H] tell.

    Of stated errors, how they are spread at a true [Fe/H] is that of the highest evidence. The classes of error only
    tell this: Phi is inferred from slices of [Fe/H] summed over classes, as it is far less wrong there where the spread
    is not what `shares` can be, and nine times as fast. Where known stars tell the spread, Phi is inferred from the
    classes: those of small error resolve the bins.
    """
    truth = response.truth_of(table, counts, None if known is None else known.spread(table.feh_edges))
    edges, _ = response.slices(table.feh_edges)
    mass, bins = response.mass_matrix(truth, counts, known), len(table.feh_edges) - 1
    if known is not None:
        return _as_known(truth, counts, mass, known, edges, bins, breaks)
    weight = _by_class(truth, counts, mass, response.feh_matrix(truth, counts, edges), bins, breaks)
    weight = weight.reshape(*counts.n.shape, -1).sum(axis=1)
    return Joint(counts.n.sum(axis=1), truth, mass, weight, bins, breaks=breaks)


def _as_known(truth, counts: response.Counts, mass, known: ErrorTable, edges, bins: int, breaks) -> Joint:
    """The response as known stars tell, for every class of stated error.

    How many stars of a mass are in a class is fitted to the counts: the known may be brighter than the sample.
    """
    n, stars, given, share = response.by_known(truth, counts, edges, known)

    def joint(level):
        part = share * np.exp(level)[:, :, None]
        weight = given * (part / part.sum(axis=1, keepdims=True))[:, :, None, :]
        n_k, r, weight = (v.reshape(len(n), -1, *v.shape[3:]) for v in (n, stars, weight))
        return Joint(n_k, truth, mass, weight, bins, r, breaks)

    level, start = np.zeros(n.shape[:2]), None
    for _ in range(ROUNDS if n.shape[1] > 1 else 0):
        level, start, _ = _releveled(joint(level), n, level, start)
    return joint(level)


def _releveled(joint: Joint, n: np.ndarray, level: np.ndarray, start: np.ndarray | None):
    """ln of the classes' shares (K, S) nearer to the counts n (K, S, O); the mode, and its evidence."""
    problem = joint.problem()
    found = laplace.mode(problem, laplace.CENTRE, start)
    expected = problem.rates(np.exp(problem.ln_phi(found.y))).reshape(n.shape).sum(axis=2)
    return response.releveled(n.sum(axis=2), level, expected), found.y, found.evidence


def _by_class(truth, counts: response.Counts, mass, given, bins: int, breaks) -> np.ndarray:
    """P (K, S O, C) of slices and classes with the spread of the errors of the highest evidence."""
    from scipy.optimize import minimize_scalar

    level, start = np.log(response.plain_shares(counts)), None
    n = counts.n.reshape(len(counts.n), -1)

    def at(trend):
        nonlocal level, start
        for _ in range(ROUNDS):
            share = response.shares(truth, counts, level, trend)
            weight = (given * share[:, :, None, :]).reshape(len(mass), -1, len(truth.bin))
            joint = Joint(n, truth, mass, weight, bins, breaks=breaks)
            level, start, evidence = _releveled(joint, counts.n, level, start)
        return weight, evidence

    if (counts.n.sum(axis=(0, 2)) > 0).sum() < 2:
        return at(0.0)[0]
    best = minimize_scalar(lambda t: -at(t)[1], bounds=(-STEEPEST, STEEPEST), method="bounded", options={"xatol": 0.1})
    return at(best.x)[0]


@_one_thread
def sample(joint: Joint, seed: int, *, chains=4, warmup=1000, draws=1000, target_accept=0.98) -> Sampled:
    """Draws of ln Phi of the table's bins (chains, draws, B K), and how well the chains agree.

    Hyperparameters come from their Laplace posterior, the same POINTS values for every chain; at each of them
    Hamiltonian Monte Carlo draws Phi, in coordinates that the Laplace approximation there makes round, so that little
    warm-up is needed and trajectories of fixed length do.
    """
    problem, rng = joint.problem(), np.random.default_rng((seed, 1))
    points = min(POINTS, draws)
    arrays, modes = problem.arrays(), laplace.modes(problem, laplace.hyper_draws(problem, points, rng))
    frames = [rounded.Frame(arrays | {"precision": m.precision}, *m.round()) for m in modes]
    each, warm = -(-draws // points), max(20, warmup // points)
    y, diverging, moved = rounded.sample(energy, frames, seed, chains, warm, each, target_accept)
    y = y[:, :draws]
    ln_phi = joint.densities(problem.ln_phi(y)).reshape(chains, draws, -1)
    mixed = ln_phi[:, np.random.default_rng((seed, 2)).permutation(draws)]  # points take turns
    return Sampled(mixed, *convergence(mixed), diverging, moved, rejected=chains * draws)


def energy(y, d):
    """-ln p(n, y | theta) + const at y = (plane, process, steps, V errors), as in laplace.py."""
    import jax.numpy as jnp

    phi = jnp.exp(jnp.minimum(d["design"] @ y, 50.0) + d["level"])
    rate = laplace.rates(phi, d["mass"], d["weight"], d["exposure"], jnp)
    return -laplace.fitted(d["n"], rate, d["shape"], jnp) + 0.5 * y @ (d["precision"] @ y)
