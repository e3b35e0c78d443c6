"""Teff, M_G, [Fe/H] from XP spectra: a forward network inverted star by star (Li+ 2026 Sec. 2.2, App. C.2).

    ln y(theta) = ln 10 (mean + scale net(theta') - 0.4 (M_G - 7)),    y: flux at 10 pc [1e-18 W m^-2 nm^-1]
    theta'      = ((Teff - 5000 K)/1000 K, (M_G - 7)/3, ([Fe/H] + 0.5)/0.5)
    chi2        = r^T C^-1 r + s^2,    r = y(theta) 10^(-0.4 sigma s) - y_seen
    C           = k^2 C_XP + y0 y0^T S,    k = (100 mas / parallax)^2 10^(0.4 A)
    sigma       = 2.1715 sigma_parallax / parallax [mag]

The reference y0 is the model at the star's labels as a first look without correlations finds them: so C does not change
during the fit, and every method minimises the same chi2. Errors are those of Gauss and Newton, (J^T C^-1 J)^-1.

differs from Li+ 2026 and the plan made of it:
1. The network learns the flux over 10^(-0.4 M_G): brightness at a given shape needs no learning, and away from the
   training stars, which lie on a thin sheet, it stays right.
2. The parallax enters once. The flux at 10 pc carries the parallax's error as a whole, so that error is a fourth number
   s of the fit with its prior, not an independent measurement of M_G beside the flux.
3. S, the relative covariance of what the network misses, is measured on held-out stars, as a function of Teff; not
   1 % on the diagonal and 0.02 mag in M_G.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from xptools.cores import nn
from xptools.cores.feh_table import Table, tabulate

LABELS = ("teff", "mg", "feh")
UNIT = 1e-18  # [W m^-2 nm^-1]
LN10 = np.log(10.0)
LABEL_MEAN, LABEL_SCALE = np.array([5000.0, 7.0, -0.5]), np.array([1000.0, 3.0, 0.5])
WIDEST = np.array([[2800.0, 3.0, -3.0], [8000.0, 15.0, 0.8]])  # Teff [K], M_G [mag], [Fe/H]
CHUNK = 1024
NOT_CONVERGED, AT_BOUND, BAD_FIT, OUTSIDE_HULL, NEGATIVE, MISSING_BAND, DIAGONAL, NO_DATA = (1 << k for k in range(8))
SOLVER_ROWS = 256  # stars that JAX fits together: all wait for the slowest
WORST_CHI2, MOST_NEGATIVE, MISSING_SAMPLES = 5.0, 5, 3


class Spectra(NamedTuple):
    """Observed stars: flux (N, n) [W m^-2 nm^-1] and the lower triangle of its covariance, row by row with diagonal.

    `noise` is (N, n (n + 1) / 2), or the errors (N, n). parallax and its error [mas] (N,); extinction A (N, n) [mag].
    """

    flux: np.ndarray
    noise: np.ndarray
    parallax: np.ndarray
    parallax_error: np.ndarray
    extinction: np.ndarray | None = None

    @property
    def diagonal(self) -> bool:
        """Whether `noise` is errors alone."""
        return self.noise.shape[1] == self.flux.shape[1]

    def gain(self) -> np.ndarray:
        """What turns flux into flux at 10 pc without dust [1e-18 W m^-2 nm^-1] (N, n); NaN without a parallax."""
        parallax = np.where(self.parallax > 0, self.parallax, np.nan).astype(np.float64)
        k = np.broadcast_to((1e4 / parallax**2 / UNIT)[:, None], self.flux.shape)
        return k if self.extinction is None else k * 10 ** (0.4 * self.extinction.astype(np.float64))

    def spread(self) -> np.ndarray:
        """sigma (N,), in ln flux; NaN without a parallax or its error."""
        parallax = np.where(self.parallax > 0, self.parallax, np.nan)
        return 2 * np.abs(self.parallax_error.astype(np.float64)) / parallax

    def part(self, rows: slice) -> Spectra:
        """Some of the stars."""
        return Spectra(*(None if a is None else a[rows] for a in self))


def packed(cov: np.ndarray) -> np.ndarray:
    """The lower triangle (N, n (n + 1) / 2) of symmetric matrices (N, n, n), row by row with the diagonal."""
    i, j = np.tril_indices(cov.shape[-1])
    return cov[:, i, j]


class Model:
    """A trained model: arrays as in its file.

    net.*, init.*: weights of the forward and the first-guess network; norm.out_mean, norm.out_scale (n,): the former's
    outputs; init.mean, init.scale (n,): the latter's inputs; wavelength (n,) [nm]; box (2, 3): labels fitted; error.cov
    (K, n, n): S at scaled Teff error.teff (K,), linear between them; hull.labels (H, 3) and hull.reach:
    training labels, and how far from one a star may be, scaled; sequence (7, 3): Teff of the main sequence.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self.net = nn.unflatten(arrays)
        self.init = nn.unflatten({"net." + k[5:]: v for k, v in arrays.items() if k.startswith("init.")})
        self.wavelength = arrays["wavelength"]
        self.box = (arrays["box"] - LABEL_MEAN) / LABEL_SCALE
        self.floor = np.ascontiguousarray(arrays["error.cov"], np.float64)
        self.nodes = np.ascontiguousarray(arrays["error.teff"], np.float64)

    def ln_flux(self, scaled, xp=np, arrays=None):
        """ln of the flux at 10 pc [1e-18 W m^-2 nm^-1] (N, n) at scaled labels (N, 3): the network itself."""
        a = self.arrays if arrays is None else arrays
        z = nn.apply(self.net if arrays is None else nn.unflatten(arrays), scaled, xp)
        return LN10 * (a["norm.out_mean"] + a["norm.out_scale"] * z - 0.4 * LABEL_SCALE[1] * scaled[:, 1:2])

    def floor_at(self, teff, xp=np):
        """S (N, n, n) at scaled Teff (N,)."""
        if len(self.nodes) == 1:
            return xp.broadcast_to(xp.asarray(self.floor[0]), (len(teff), *self.floor.shape[1:]))
        k = xp.clip(xp.searchsorted(xp.asarray(self.nodes), teff) - 1, 0, len(self.nodes) - 2)
        nodes, floor = xp.asarray(self.nodes), xp.asarray(self.floor)
        w = xp.clip((teff - nodes[k]) / (nodes[k + 1] - nodes[k]), 0, 1)[:, None, None]
        return floor[k] + w * (floor[k + 1] - floor[k])

    def network_arrays(self) -> dict[str, np.ndarray]:
        """What `ln_flux` needs."""
        return {k: v for k, v in self.arrays.items() if k.startswith(("net.", "norm."))}

    @cached_property
    def table(self) -> Table:
        """`ln_flux` as a table over the box."""
        return tabulate(lambda p: self.ln_flux(p.astype(np.float32)), *self.box)

    @cached_property
    def compiled(self):
        """Table and floor as the compiled kernels read them."""
        from xptools.cores._fehkernels import WIDTH, Errors, Grid

        t, n = self.table, len(self.wavelength)
        floor = np.zeros((len(self.nodes), WIDTH, WIDTH), np.float32)
        floor[:, :n, :n] = self.floor
        low, high, per_step = (np.asarray(a, np.float32) for a in (t.low, t.high, 1 / t.step))
        grid = Grid(t.padded.ravel(), t.padded.shape[0], low, high, per_step)
        variance = np.ones((len(self.nodes), WIDTH), np.float32)
        variance[:, :n] = np.diagonal(self.floor, axis1=1, axis2=2)
        return grid, Errors(floor.reshape(len(floor), -1), variance, self.nodes)

    def guess(self, y: np.ndarray) -> np.ndarray:
        """Scaled labels (N, 3) from flux at 10 pc (N, n), inside the box; samples that are unknown count as typical."""
        from xptools.cores._fehguess import guess_stars

        labels = np.empty((len(y), 3))
        guess_stars(self._guessing, self.box, np.ascontiguousarray(y, np.float64), labels)
        return labels

    @cached_property
    def _guessing(self):
        from xptools.cores._fehguess import layers

        return layers(self.init, self.arrays["init.mean"], self.arrays["init.scale"])

    @cached_property
    def _training_labels(self):
        from scipy.spatial import cKDTree

        return cKDTree(self.arrays["hull.labels"])

    def outside(self, scaled: np.ndarray) -> np.ndarray:
        """Whether (N,) no training star is near labels (N, 3)."""
        distance, _ = self._training_labels.query(np.nan_to_num(scaled), distance_upper_bound=2.0)
        return ~(distance <= self.arrays["hull.reach"][0])


def guess_input(y: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What the first-guess network sees of flux at 10 pc (N, n): standardised log10, no further out than 5."""
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (np.log10(np.maximum(y, 1e-30)) - mean) / scale
    return np.nan_to_num(np.clip(z, -5, 5)).astype(np.float32)


@dataclass(frozen=True)
class Fit:
    """Scaled labels and shift p (N, 4), curvature J^T C^-1 J + prior (N, 4, 4), chi2 (N,), state bits of the kernels.

    ref (N, 4) are the labels and shift of the reference model.
    """

    p: np.ndarray
    curvature: np.ndarray
    chi2: np.ndarray
    state: np.ndarray
    ref: np.ndarray


def fitted(model: Model, spectra: Spectra, begin=None, threads: int = 1, look_only: bool = False) -> Fit:
    """Levenberg-Marquardt on the table, star by star, compiled: the quick way.

    It starts from the first guess, or from `begin` (N, K, 3). With `look_only` the reference model is found and nothing
    more.
    """
    from xptools.cores import _fehfits as kernels

    N = len(spectra.flux)
    out = tuple(np.full(shape, np.nan) for shape in ((N, 4), (N, 4), (N,), (N, 4, 4)))
    state = np.zeros(N, np.int8)
    grid, errors = model.compiled
    box = model.box.astype(np.float32)

    def run(a: int, b: int) -> None:
        s = spectra.part(slice(a, b))
        gain, noise = np.ascontiguousarray(s.gain()), frozen(s.noise)
        y = s.flux * gain
        start = model.guess(y)[:, None, :] if begin is None else begin[a:b]
        kernels.fit_stars(
            grid, box, y, gain, noise, s.diagonal, errors, s.spread(), start, look_only,
            *(v[a:b] for v in out), state[a:b],
        )  # fmt: skip

    spread_out(run, N, threads)
    ref, p, chi2, curvature = out
    return Fit(p, curvature, chi2, state, ref)


def refined(model: Model, spectra: Spectra, begin: Fit, method: str, exact: bool = False) -> Fit:
    """`begin` carried on in JAX: "lm-network" and "bfgs" on the network itself, "table" as the kernels do.

    Same reference model, same chi2. With `exact` the curvature is half the Hessian of chi2, not J^T C^-1 J.
    """
    from xptools.cores import _fehfits as kernels
    from xptools.cores._jax import chunked

    run = _Solver.of(model, method, exact)
    gain = spectra.gain()
    y = spectra.flux * gain
    empty = begin.state & kernels.EMPTY > 0
    ref = np.where(empty[:, None], 0.0, begin.ref)
    p = np.where(np.isfinite(begin.p), begin.p, ref)
    out = chunked(run, SOLVER_ROWS)(p, ref, y, gain, spectra.noise, spectra.spread())
    p, curvature, chi2, converged = (np.array(o) for o in out)
    p[empty], curvature[empty], chi2[empty] = np.nan, np.nan, np.nan
    state = np.where(converged | empty, 0, kernels.UNFINISHED) | begin.state & ~kernels.UNFINISHED
    return Fit(p, curvature, chi2, state.astype(np.int8), begin.ref)


def frozen(array: np.ndarray) -> np.ndarray:
    """The array, not to be written to, whether it was or not: kernels are compiled for one kind only."""
    out = np.ascontiguousarray(array).view()
    out.flags.writeable = False
    return out


def usable(y: np.ndarray, spectra: Spectra) -> np.ndarray:
    """Stars (N,) with flux at 10 pc that can be fitted: enough samples known, some light, a parallax."""
    errors = spectra.noise if spectra.diagonal else spectra.noise[:, diagonal_places(y.shape[1])]
    known = np.isfinite(y) & np.isfinite(errors)
    return (known.sum(-1) > 2 * MISSING_SAMPLES) & (np.where(known, y, 0).sum(-1) > 0) & np.isfinite(spectra.spread())


def diagonal_places(n: int) -> np.ndarray:
    """Where the diagonal stands in a packed lower triangle."""
    k = np.arange(n)
    return k * (k + 3) // 2


def spread_out(work, n: int, threads: int) -> None:
    """Run `work(start, stop)` over 0 ... n on several threads; it must release the lock and write each star once."""
    if threads < 2 or n < 256:
        work(0, n)
        return
    from concurrent.futures import ThreadPoolExecutor

    parts = min(8 * threads, n // 64)
    edges = [n * i // parts for i in range(parts + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


METHODS = ("lm", "lm-network", "bfgs")


def infer(model: Model, spectra: Spectra, method="lm", exact=False, threads=1, on_gpu=False) -> dict[str, np.ndarray]:
    """teff, mg, feh, their errors and correlations, chi2 and flag bits, each (N,): see `solution`."""
    return labelled(model, spectra, solution(model, spectra, method, exact, threads, on_gpu))


def solution(model: Model, spectra: Spectra, method="lm", exact=False, threads=1, on_gpu=False) -> Fit:
    """The best single stars.

    method: "lm" on the table, "lm-network" and "bfgs" on the network. `exact`: errors from the Hessian of chi2.
    """
    direct = method == "lm" and not on_gpu
    fit = fitted(model, spectra, threads=threads, look_only=not direct)
    if not direct or exact:
        fit = refined(model, spectra, fit, "table" if method == "lm" else method, exact)
    return fit


def labelled(model: Model, spectra: Spectra, fit: Fit) -> dict[str, np.ndarray]:
    """A Fit as physical labels, errors, correlations and flags."""
    gone = ~np.isfinite(fit.p).all(-1) | ~np.isfinite(fit.curvature).all((-1, -2))
    curvature = np.where(gone[:, None, None], np.eye(4), fit.curvature)
    cov = np.linalg.inv(curvature)[:, :3, :3]
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(cov[:, np.arange(3), np.arange(3)])
        correlation = cov / (sigma[:, :, None] * sigma[:, None, :])
    values, errors = fit.p[:, :3] * LABEL_SCALE + LABEL_MEAN, sigma * LABEL_SCALE
    errors[gone], correlation[gone], values[gone] = np.nan, np.nan, np.nan
    out = {name: values[:, k] for k, name in enumerate(LABELS)}
    out |= {f"{name}_err": errors[:, k] for k, name in enumerate(LABELS)}
    out |= {f"{LABELS[i]}_{LABELS[j]}": correlation[:, i, j] for i, j in ((0, 1), (0, 2), (1, 2))}
    chi2 = np.where(gone, np.nan, fit.chi2)
    return out | {"chi2": chi2, "flag": _flags(model, spectra, fit, chi2, gone)}


def _flags(model, spectra, fit, chi2, gone) -> np.ndarray:
    from xptools.cores import _fehfits as kernels

    known = np.isfinite(spectra.flux)
    p, tiny = fit.p[:, :3], 1e-4
    with np.errstate(invalid="ignore"):
        bound = ((p < model.box[0] + tiny) | (p > model.box[1] - tiny)).any(-1)
        flag = NOT_CONVERGED * (
            (fit.state & (kernels.UNFINISHED | kernels.SINGULAR) > 0) & ~(fit.state & kernels.EMPTY > 0)
        )
        flag = flag + AT_BOUND * bound + BAD_FIT * (chi2 > WORST_CHI2 * np.maximum(known.sum(-1) - 3, 1))
        flag = flag + NEGATIVE * ((spectra.flux < 0).sum(-1) > MOST_NEGATIVE)
    flag = flag + OUTSIDE_HULL * (model.outside(p) & ~gone)
    flag = flag + MISSING_BAND * ((~known).sum(-1) > MISSING_SAMPLES) + NO_DATA * gone
    return flag.astype(np.int16)


class _Solver:
    """The compiled JAX fit of one model."""

    @staticmethod
    def of(model: Model, method: str, exact: bool):
        """(p, ref, y, gain, noise, spread) -> (p, curvature, chi2, converged), compiled once per model and method."""
        made = model.__dict__.setdefault("_solvers", {})
        if (method, exact) not in made:
            made[method, exact] = _Solver.build(model, method, exact)
        return made[method, exact]

    @staticmethod
    def build(model: Model, method: str, exact: bool):
        from xptools.cores import lm
        from xptools.cores._jax import configure

        jax = configure()
        jnp, n = jax.numpy, len(model.wavelength)
        i, j = np.tril_indices(n)
        double = {k: jnp.asarray(v, jnp.float64) for k, v in model.network_arrays().items()}
        coefficients = jnp.asarray(model.table.coefficients)

        def kernel(p, ref, y, gain, noise, spread, coefficients, double):
            def on_table(q):
                return model.table.values(q, jnp, coefficients)

            def on_network(q):
                return model.ln_flux(q, jnp, double)

            if noise.shape[1] == n:
                cov = (noise * noise)[:, :, None] * jnp.eye(n)
            else:
                lower = jnp.zeros((len(noise), n, n)).at[:, i, j].set(noise)
                cov = lower + jnp.tril(lower, -1).transpose(0, 2, 1)
            ln_ref = on_table(ref[:, :3]) - spread[:, None] * ref[:, 3:]
            star = lm.whiten(jnp, jax.scipy.linalg, y, gain, cov, model.floor_at(ref[:, 0], jnp), ln_ref, spread)
            function = on_table if method == "table" else on_network
            solve = lm.bfgs if method == "bfgs" else lm.levenberg_marquardt
            p, curvature, chi2, done = solve(jax, function, p, star, jnp.asarray(model.box))
            if exact:
                curvature = lm.hessian(jax, function, p, star)
            return p, curvature, chi2, done

        compiled = jax.jit(kernel)
        return lambda *stars: compiled(*stars, coefficients, double)
