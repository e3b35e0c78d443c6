"""Metal-poor against metal-rich from where a star is and how it moves (Li+ 2026 Sec. 2.1, Eqs. 1-2).

    N_<(x) = sum_j n_j p(x | c_j) over the cells of [Fe/H] below the split,  N_>(x) above it,  n = sum_j n_j
    eta       = log10 [(N_< / n_<) / (N_> / n_>)]     odds between normalised densities
    eta_joint = log10 (N_< / N_>) = eta - log10(n_> / n_<)     posterior odds in the training sample
    sigma_eta^2 = g^T C g,  g = d eta / d(v_ra, v_dec),  C of parallax and proper motion (astrometry)

The network is evaluated once, at the cells: what is left is a fixed sum of some 3,000 Gaussians, each
2^(q - |A x + b|^2). The whole 0.02 dex grid is summed, for fewer nodes do not pay: at 24 nodes a side of Gauss
quadrature one star in a thousand is off by 0.005 dex, since the mixture moves fast and, from ReLU, with corners.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xptools.cores import mixture

NO_PARALLAX, NO_MOTION, CLIPPED, EXTRAPOLATED, NO_ERROR, CRUDE = 1, 2, 4, 8, 16, 32
RARE = 0.001  # of the model's own stars lie where its density is lower than what counts as known
DRAWN = 32768  # stars from which that density is found
LEAST_SN = 5.0  # of the parallax: below, velocities are too skewed to linearise
PER_BIT = np.log(2.0)
PACKED = np.tril_indices(mixture.DIM)
JAX_ROWS = 16384


class Scorer:
    """A trained mixture, ready for stars: arrays as in the model file (`mixture`), divided at `split` [dex].

    Raises ValueError if the model has no training stars on one side of the split.
    """

    def __init__(self, arrays: dict[str, np.ndarray], split: float = -1.0):
        self.arrays = {k: np.asarray(v, np.float64) for k, v in arrays.items()}
        poor, count = self.arrays["mdf.feh"] < split, self.arrays["mdf.count"]
        self.number = np.array([count[poor].sum(), count[~poor].sum()])
        if not self.number.all():
            raise ValueError(f"no star the model was trained on is {'above' if self.number[0] else 'below'} {split:g}")
        self.sides = tuple(
            self._table(side & (count > 0), n) for side, n in zip((poor, ~poor), self.number, strict=True)
        )

    def _table(self, cells: np.ndarray, total: float) -> np.ndarray:
        """(J, K, 15) Gaussians of these cells as q, b (4,) and A (10,), its lower triangle row by row."""
        a = self.arrays
        log_weight, mean, lower = mixture.components(a, mixture.context(a, a["mdf.feh"][cells]))
        inverse = np.linalg.inv(lower)
        whole = np.log(a["mdf.count"][cells] / total)[:, None] + log_weight - 0.5 * mixture.DIM * np.log(2 * np.pi)
        q = whole + np.log(np.diagonal(inverse, axis1=-2, axis2=-1)).sum(-1)
        scaled = inverse * np.sqrt(0.5 / PER_BIT)
        b = -np.einsum("jkxy,jky->jkx", scaled, mean)
        return np.concatenate([q[..., None] / PER_BIT, b, scaled[..., PACKED[0], PACKED[1]]], -1)

    @property
    def constant(self) -> float:
        """log10(n_> / n_<), by which eta exceeds eta_joint."""
        return float(np.log10(self.number[1] / self.number[0]))

    @cached_property
    def _compact(self) -> tuple[np.ndarray, ...]:
        return tuple(np.ascontiguousarray(t.reshape(-1, t.shape[-1]), np.float32) for t in self.sides)

    @cached_property
    def _compiled(self):
        return in_jax(self.sides, np.float32)

    @cached_property
    def lowest(self) -> float:
        """ln p(x) below which RARE of the model's own stars lie, drawn from it with its own [Fe/H] distribution."""
        rng = np.random.default_rng(0)
        a = self.arrays
        cell = rng.choice(len(a["mdf.feh"]), DRAWN, p=a["mdf.count"] / a["mdf.count"].sum())
        log_weight, mean, lower = mixture.components(a, mixture.context(a, a["mdf.feh"]))
        chance = np.cumsum(np.exp(log_weight), -1)[cell]
        k = np.minimum((chance < rng.random(DRAWN)[:, None]).sum(-1), log_weight.shape[-1] - 1)
        x = mean[cell, k] + np.einsum("nij,nj->ni", lower[cell, k], rng.normal(size=(DRAWN, mixture.DIM)))
        return float(np.quantile(self.density(self.log_densities(x)[0]), RARE))

    def density(self, log_densities: np.ndarray) -> np.ndarray:
        """ln p(x) (N,) of all cells together, from both sides' (2, N)."""
        return np.logaddexp(*(log_densities + np.log(self.number / self.number.sum())[:, None]))

    def log_densities(self, x: np.ndarray, threads: int = 1, on_gpu: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """ln(N / n) (2, N), metal-poor first, and its slopes by standardised v_ra, v_dec (2, 2, N), of x (N, 4)."""
        out = self._on_gpu(x) if on_gpu else self._on_cpu(np.ascontiguousarray(x, np.float32), threads)
        return out[:, 0] * PER_BIT, out[:, 1:] * (-2.0 * PER_BIT)

    def _on_gpu(self, x: np.ndarray) -> np.ndarray:
        from xptools.cores._jax import chunked

        (out,) = chunked(self._compiled, JAX_ROWS)(x)
        return out.transpose(1, 2, 0)

    def _on_cpu(self, x: np.ndarray, threads: int) -> np.ndarray:
        from xptools.cores import _etakernels as kernels
        from xptools.cores.feh import spread_out

        out = np.empty((2, 3, len(x)), np.float32)

        def work(start: int, stop: int) -> None:
            for side, table in enumerate(self._compact):
                kernels.log_sums(table, x, start, stop, out[side])

        spread_out(work, len(x), threads)
        return out.astype(np.float64)


def in_jax(sides, dtype):
    """x (N, 4) -> ((N, 2, 3),): per side log2 of the sum over Gaussians (J, K, 15) and its slopes by x2, x3, / -2.

    A scan over the cells of [Fe/H], with a running maximum: nothing larger than (N, K) is ever held.
    """
    from xptools.cores._jax import configure

    jax = configure()
    jnp = jax.numpy
    sides = [jnp.asarray(side, dtype) for side in sides]

    def cell(state, gaussians):
        x, top, total, by2, by3 = state
        q, b, A = gaussians[:, 0], gaussians[:, 1:5], gaussians[:, 5:].T
        z = [b[:, i] + sum(A[i * (i + 1) // 2 + j] * x[:, j, None] for j in range(i + 1)) for i in range(4)]
        exponent = q - sum(v * v for v in z)
        new = jnp.maximum(top, exponent.max(-1))
        e, fall = jnp.exp2(exponent - new[:, None]), jnp.exp2(top - new)
        slope2, slope3 = z[2] * A[5] + z[3] * A[8], z[3] * A[9]
        sums = (total * fall + e.sum(-1), by2 * fall + (e * slope2).sum(-1), by3 * fall + (e * slope3).sum(-1))
        return (x, new, *sums), None

    def kernel(x):
        x, out = x.astype(dtype), []
        nothing = jnp.zeros(len(x), dtype)
        for side in sides:
            first = (x, jnp.full(len(x), -jnp.inf, dtype), nothing, nothing, nothing)
            (_, top, total, by2, by3), _ = jax.lax.scan(cell, first, side)
            out.append(jnp.stack([top + jnp.log2(total), by2 / total, by3 / total], -1))
        return (jnp.stack(out, 1),)

    return jax.jit(kernel)


def score(
    model: Scorer, ra, dec, v_ra, v_dec, covariance=None, threads: int = 1, on_gpu: bool = False
) -> dict[str, np.ndarray]:
    """eta, eta_joint, eta_err [dex] and flag bits CLIPPED and EXTRAPOLATED, each (N,).

    ra, dec [deg], v_ra, v_dec [km/s] (N,); covariance of the velocities [km^2/s^2] as (ra-ra, ra-dec, dec-dec), each
    (N,). NaN gives NaN, and no bit.
    """
    known = np.isfinite(ra) & np.isfinite(dec) & np.isfinite(v_ra) & np.isfinite(v_dec)
    ra, dec, v_ra, v_dec = (np.where(known, a, 0.0) for a in (ra, dec, v_ra, v_dec))
    log_density, slope = model.log_densities(mixture.standardise(model.arrays, ra, dec, v_ra, v_dec), threads, on_gpu)
    gone = np.where(known, 0.0, np.nan)
    eta = (log_density[0] - log_density[1]) / np.log(10.0) + gone
    free = np.abs([v_ra, v_dec]) <= model.arrays["norm.clip"]
    g_ra, g_dec = (slope[0] - slope[1]) * free / np.log(10.0) / model.arrays["norm.std"][2:, None]
    out = {"eta": eta, "eta_joint": eta - model.constant}
    if covariance is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            variance = g_ra**2 * covariance[0] + 2 * g_ra * g_dec * covariance[1] + g_dec**2 * covariance[2]
            out["eta_err"] = np.sqrt(np.maximum(variance, 0.0)) + gone
    rare = model.density(log_density) < model.lowest
    return out | {"flag": (CLIPPED * (~free.all(0) & known) + EXTRAPOLATED * (rare & known)).astype(np.int16)}
