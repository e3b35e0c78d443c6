"""Learners, error model, domain and cross-validation of the networks of `xp feh` (Li+ 2026 App. C.2).

    loss = mean of Huber_3((y(theta) - y) / sqrt(sigma^2 + (EPSILON y(theta))^2))      forward network
    loss = mean of |labels - guess|^2, scaled                                          first guess

differs from the plan: residuals are taken in flux, over the model, not in log10 flux. At high signal to noise the two
are the same; at low signal to noise the logarithm of a noisy flux is biased, and of a negative one nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from xptools.cores import feh, nn
from xptools.cores._jax import Resumable, configure
from xptools.cores.draws import mixed
from xptools.cores.feh import LABEL_MEAN, LABEL_SCALE, LN10, Spectra
from xptools.errors import DataError

EPSILON = 0.005 * LN10  # relative error that no sample is trained below
BEND = 3.0
REACH = 0.995  # of held-out stars are inside the hull
HULL_STARS = 4000
NODE_STARS, MOST_NODES = 600, 6  # of the model's covariance along Teff
MARGIN = np.array([150.0, 0.5, 0.3])  # K, mag, dex: the box beyond the training labels
LEAST_FLOOR = 1e-3  # relative; no model is better
M_G_EDGES = (3.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0)
FEH_EDGES = (-3.0, -1.5, -1.0, -0.5, 0.0, 0.8)


class Sample(NamedTuple):
    """Training stars: labels (N, 3) Teff [K], M_G [mag], [Fe/H]; their spectra."""

    labels: np.ndarray
    spectra: Spectra

    def observed(self) -> tuple[np.ndarray, np.ndarray]:
        """Flux at 10 pc and its errors (N, n) [1e-18 W m^-2 nm^-1]."""
        gain, s = self.spectra.gain(), self.spectra
        errors = s.noise if s.diagonal else np.sqrt(s.noise[:, feh.diagonal_places(s.flux.shape[1])])
        return s.flux * gain, errors * gain


def norms(y: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Median and 1.4826 MAD of log10 flux: over 10^(-0.4 (M_G - 7)) for the forward network, as it is for the guess."""
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.log10(np.where(y > 0, y, np.nan))
    out = {}
    for name, values in (("norm.out_", t + 0.4 * (labels[:, 1:2] - 7)), ("init.", t)):
        middle = np.nanmedian(values, 0)
        spread = 1.4826 * np.nanmedian(np.abs(values - middle), 0)
        out |= {f"{name}mean": middle.astype(np.float32), f"{name}scale": np.maximum(spread, 0.01).astype(np.float32)}
    return out


class _Learner(Resumable):
    """What both learners share: weights, AdamW, batches of one shape (train.Learner), in JAX, float32."""

    prefix = "net."

    def __init__(self, sizes: tuple[int, ...], batch: int, seed: int):
        self.jax, self.batch = configure(), batch
        put = self.put = self.jax.numpy.asarray
        self.params = self.jax.tree.map(put, nn.init(seed, sizes))
        zero = self.jax.tree.map(self.jax.numpy.zeros_like, self.params)
        self.state = (put(np.float32(0)), zero, zero)
        self._step, self._score = self.jax.jit(self._stepped), self.jax.jit(self._loss)

    def _stepped(self, params, state, data, use, rate):
        loss, gradients = self.jax.value_and_grad(self._loss)(params, data, use)
        return loss, *nn.adamw(self.jax.tree.map, rate, params, gradients, state)

    def _loss(self, params, data, use):
        raise NotImplementedError

    def _batch(self, rows, size):
        use = np.zeros(size, np.float32)
        use[: len(rows)] = 1
        rows = np.pad(rows, (0, size - len(rows)))
        return tuple(d[rows] for d in self.data), use

    def step(self, rows: np.ndarray, rate: float) -> float:
        data, use = self._batch(rows, self.batch)
        loss, self.params, self.state = self._step(self.params, self.state, data, use, np.float32(rate))
        return float(loss)

    def score(self, rows: np.ndarray) -> float:
        total = 0.0
        for i in range(0, len(rows), self.batch):
            part = rows[i : i + self.batch]
            total += float(self._score(self.params, *self._batch(part, self.batch))) * len(part)
        return total / len(rows)

    def arrays(self) -> dict[str, np.ndarray]:
        return {self.prefix + k[4:]: v for k, v in nn.flatten(self.params).items()}


class ForwardLearner(_Learner):
    """Labels to flux."""

    def __init__(self, sample: Sample, norm: dict, hidden: tuple[int, ...], batch: int, seed: int):
        y, sigma = sample.observed()
        known = np.isfinite(y) & np.isfinite(sigma)
        scaled = ((sample.labels - LABEL_MEAN) / LABEL_SCALE).astype(np.float32)
        self.data = tuple(
            a.astype(np.float32) for a in (scaled, np.where(known, y, 0), np.where(known, sigma, 0), known)
        )
        self.norm = {k: v for k, v in norm.items() if k.startswith("norm.")}
        super().__init__((3, *hidden, y.shape[1]), batch, seed)

    def _loss(self, params, data, use):
        jnp, stop = self.jax.numpy, self.jax.lax.stop_gradient
        scaled, y, sigma, known = data
        z = nn.apply(params, scaled, jnp) * self.norm["norm.out_scale"] + self.norm["norm.out_mean"]
        ln_y = jnp.float32(LN10) * (z - jnp.float32(0.4 * LABEL_SCALE[1]) * scaled[:, 1:2])
        over = jnp.exp(-stop(ln_y))  # the model itself is the unit, so no star's brightness matters
        r = jnp.abs(jnp.exp(ln_y - stop(ln_y)) - y * over) / jnp.sqrt((sigma * over) ** 2 + jnp.float32(EPSILON**2))
        huber = jnp.where(r < BEND, 0.5 * r * r, BEND * (r - 0.5 * BEND)) * known
        return (huber.sum(-1) * use).sum() / (use.sum() * y.shape[1])


class GuessLearner(_Learner):
    """Flux to labels."""

    prefix = "init."

    def __init__(self, sample: Sample, norm: dict, hidden: tuple[int, ...], batch: int, seed: int):
        y, _ = sample.observed()
        x = feh.guess_input(y, norm["init.mean"], norm["init.scale"])
        self.data = (x, ((sample.labels - LABEL_MEAN) / LABEL_SCALE).astype(np.float32))
        super().__init__((y.shape[1], *hidden, 3), batch, seed)

    def _loss(self, params, data, use):
        miss = nn.apply(params, data[0], self.jax.numpy) - data[1]
        return ((miss * miss).mean(-1) * use).sum() / use.sum()


def box(labels: np.ndarray) -> np.ndarray:
    """(2, 3): the labels to search, a margin around those of the training stars."""
    return np.stack([
        np.maximum(labels.min(0) - MARGIN, feh.WIDEST[0]), np.minimum(labels.max(0) + MARGIN, feh.WIDEST[1])
    ])  # fmt: skip


def predicted(model: feh.Model, sample: Sample) -> np.ndarray:
    """ln of the model's flux at 10 pc (N, n) at the reference labels."""
    return model.ln_flux(((sample.labels - LABEL_MEAN) / LABEL_SCALE).astype(np.float32)).astype(np.float64)


def model_covariances(sample: Sample, ln_model: np.ndarray) -> dict[str, np.ndarray]:
    """S at up to MOST_NODES temperatures, each from the stars nearest to it: error.teff (K,), error.cov (K, n, n).

    ln_model (N, n) is what networks that have not seen the star predict for its reference labels.
    """
    teff = (sample.labels[:, 0] - LABEL_MEAN[0]) / LABEL_SCALE[0]
    count = int(np.clip(len(teff) // NODE_STARS, 1, MOST_NODES))
    groups = np.array_split(np.argsort(teff, kind="stable"), count)
    cov = [model_covariance(Sample(sample.labels[g], sample.spectra.part(g)), ln_model[g]) for g in groups]
    return {"error.teff": np.array([np.median(teff[g]) for g in groups]), "error.cov": np.stack(cov)}


def model_covariance(sample: Sample, ln_model: np.ndarray) -> np.ndarray:
    """S (n, n): the mean of products of relative residuals over what noise explains, precise samples counting most.

    Stars with a residual beyond six times its sample's spread are left out; negative eigenvalues are set to none.
    """
    residual = sample.spectra.flux * sample.spectra.gain() * np.exp(-ln_model) - 1
    noise = _relative_noise(sample.spectra, ln_model)
    variance = noise[:, feh.diagonal_places(residual.shape[1])]
    pull = np.abs(residual) / np.sqrt(variance + EPSILON**2)
    known = np.isfinite(pull).all(-1)
    if not known.any():
        raise DataError("no training star has all samples of its spectrum. TRY: a table with BP and RP")
    keep = known & (pull < 6 * np.median(pull[known], 0) / 0.6745).all(-1)
    w = np.sqrt(1 / (variance[keep] + EPSILON**2))
    x, (i, j) = residual[keep] * w, np.tril_indices(residual.shape[1])
    total, weight = x.T @ x, w.T @ w
    total[i, j] -= (noise[keep] * w[:, i] * w[:, j]).sum(0)
    total = np.tril(total) + np.tril(total, -1).T
    values, vectors = np.linalg.eigh(total / weight)
    return (vectors * np.maximum(values, 0)) @ vectors.T + LEAST_FLOOR**2 * np.eye(len(total))


def _relative_noise(s: Spectra, ln_model: np.ndarray) -> np.ndarray:
    """The noise's covariance over the model's flux, lower triangles (N, n (n + 1) / 2)."""
    scale = s.gain() * np.exp(-ln_model)
    i, j = np.tril_indices(s.flux.shape[1])
    if not s.diagonal:
        return s.noise * scale[:, i] * scale[:, j]
    out = np.zeros((len(scale), len(i)))
    out[:, i == j] = (s.noise * scale) ** 2
    return out


def hull(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Scaled labels of some training stars, and the distance from them within which others nearly always are."""
    from scipy.spatial import cKDTree

    scaled = ((labels - LABEL_MEAN) / LABEL_SCALE).astype(np.float32)
    order = np.random.default_rng([seed, 3]).permutation(len(scaled))
    some = max(len(scaled) // 2, 1)
    kept, others = scaled[order[: min(HULL_STARS, some)]], scaled[order[some:]]
    distance, _ = cKDTree(kept).query(others)
    return {"hull.labels": kept, "hull.reach": np.array([np.quantile(distance, REACH)], np.float32)}


def sequence(labels: np.ndarray) -> np.ndarray:
    """(7, 3): coefficients c_ij of Teff' = sum_ij c_ij M_G'^i [Fe/H]'^j, scaled, then the range of M_G' it holds for.

    The training stars' own main sequence: fitted twice, without what was beyond three sigma (evolved stars, binaries).
    """
    x = (labels - LABEL_MEAN) / LABEL_SCALE
    A = terms(x[:, 1], x[:, 2])
    use = np.ones(len(x), bool)
    for _ in range(2):
        c = np.linalg.lstsq(A[use], x[use, 0], rcond=1e-8)[0]
        r = x[:, 0] - A @ c
        use = np.abs(r) < 3 * 1.4826 * np.median(np.abs(r))
    return np.vstack([c.reshape(6, 3), [*np.quantile(x[:, 1], (0.005, 0.995)), 0.0]])


def terms(M_G, metals) -> np.ndarray:
    """(N, 18) the products M_G'^i [Fe/H]'^j."""
    return np.stack([M_G**i * metals**j for i in range(6) for j in range(3)], -1)


def folds(source_id: np.ndarray, count: int = 3) -> np.ndarray:
    """The fold (N,) of each star: a mixed source_id modulo `count`, so a star's fold is its own."""
    return (mixed(source_id) % np.uint64(count)).astype(np.int64)


@dataclass(frozen=True)
class Validation:
    """Held-out inference: labels found (N, 3), their errors (N, 3), flags (N,)."""

    found: np.ndarray
    errors: np.ndarray
    flag: np.ndarray

    def table(self, labels: np.ndarray) -> list[dict[str, float]]:
        """Median bias and 1.4826 MAD of all labels per M_G bin and per [Fe/H] bin, and over all stars."""
        use = np.isfinite(self.found).all(-1) & (self.flag & (feh.NO_DATA | feh.AT_BOUND) == 0)
        rows = [("all", -np.inf, np.inf, np.ones(len(labels), bool))]
        for name, column, edges in (("mg", 1, M_G_EDGES), ("feh", 2, FEH_EDGES)):
            rows += [
                (name, lo, hi, (labels[:, column] >= lo) & (labels[:, column] < hi))
                for lo, hi in pairwise(edges)
            ]
        out = []
        for name, lo, hi, where in rows:
            d = (self.found - labels)[use & where]
            row = {"bin": name, "n": len(d)} | ({} if name == "all" else {"lo": lo, "hi": hi})
            if len(d) >= 5:
                bias = np.median(d, 0)
                spread = 1.4826 * np.median(np.abs(d - bias), 0)
                row |= {f"{what}_{k}": round(float(v), 4) for what, values in (("bias", bias), ("mad", spread))
                        for k, v in zip(("teff", "mg", "feh"), values, strict=True)}  # fmt: skip
            out.append(row)
        return out
