"""How well a spectrum is one of the model's: chi2, residuals, the denoised spectrum, the outlier probability.

    chi2 / n = mean_j (x_j - x^_j)^2 / (sigma_j^2 + s^_j^2),    R(j) = (x_j - x^_j) / sigma_j   (LS24 eq 6)
    RMSE = sqrt(mean R^2) over the first 32 coefficients of each band                           (LS24 eq 7)
    denoised: (x / sigma^2 + x^ / s^2) / (1 / sigma^2 + 1 / s^2), variance 1 / (1 / sigma^2 + 1 / s^2)

The outlier probability is that of a larger chi2 among held-out stars of the training. y = (chi2 / n)^(1/3) is nearly
normal (Wilson & Hilferty 1931); its centre and width, which differ from those of independent residuals because noise is
correlated and the encoder has seen the star, are read off those stars as a function of the share of noise in the
variance: quantiles at -2, -1, 0 and 1 sigma, so that outliers among them count for nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from xptools import settings
from xptools.cores import _vaekernels as kernels
from xptools.cores.dustcube import spread_out
from xptools.cores.vae import Arrays, Model

LOW_ORDERS = 32  # of each band
SCORES = np.array([-2.0, -1.0, 0.0, 1.0])  # where the quantiles of y are kept
MOST_BINS, BIN_STARS = 8, 150


class Verdict(NamedTuple):
    """Latents and what the model makes of N stars; arrays (N, L), (N, K) or (N,), standardised units."""

    mu: np.ndarray
    variance: np.ndarray
    fit: np.ndarray
    scatter: np.ndarray
    chi2: np.ndarray
    known: np.ndarray
    share: np.ndarray
    rmse: np.ndarray
    probability: np.ndarray


def low_orders(K: int) -> np.ndarray:
    """Which (K,) of two bands' coefficients count in the RMSE."""
    k = np.arange(K)
    return np.where(k < K // 2, k, k - K // 2) < LOW_ORDERS


def judged(model: Model, x: np.ndarray, sigma: np.ndarray) -> Verdict:
    """Stars of standardised coefficients x and errors sigma (N, K), NaN and inf where unknown, at z = mu."""
    mu, log_var = model.encode(np.nan_to_num(x, nan=0.0))
    fit, scatter = model.decode(mu), model.scatter(mu)
    out, low = np.empty((len(x), 5)), low_orders(model.K)

    def work(start, stop):
        rows = slice(start, stop)
        kernels.judge(x[rows], sigma[rows], fit[rows], scatter[rows], low, out[rows])

    spread_out(work, len(x), settings.threads())
    chi2, known, share, square, few = out.T
    with np.errstate(invalid="ignore", divide="ignore"):
        reduced, rmse = chi2 / np.where(known > 0, known, np.nan), np.sqrt(square / np.where(few > 0, few, np.nan))
    p = probability(model.arrays, reduced, known, share)
    variance = np.exp(np.clip(log_var, -60, 60))  # a wild spectrum may ask for more than float32 holds
    return Verdict(mu, variance, fit, scatter, reduced, known.astype(np.int64), share, rmse, p)


def denoised(x: np.ndarray, sigma: np.ndarray, fit: np.ndarray, scatter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (N, K) of the true coefficients; where unknown the model's."""
    data, prior = 1 / sigma.astype(np.float64) ** 2, 1 / np.maximum(scatter.astype(np.float64), 1e-12) ** 2
    mean = (np.where(data > 0, x, 0) * data + fit * prior) / (data + prior)
    return mean, 1 / np.sqrt(data + prior)


def calibration(chi2: np.ndarray, share: np.ndarray) -> Arrays:
    """Quantiles of y per bin of the share of noise, from held-out stars (N,): what `probability` reads."""
    use = np.isfinite(chi2) & np.isfinite(share)
    y, share = np.cbrt(chi2[use]), share[use]
    if not len(y):
        return {"calibration.share": np.zeros(1), "calibration.y": 1 + 0.1 * SCORES[None]}
    bins = int(np.clip(len(y) // BIN_STARS, 1, MOST_BINS))
    groups = np.array_split(np.argsort(share, kind="stable"), bins)
    nodes = np.stack([np.quantile(y[g], ndtr(SCORES)) for g in groups])
    nodes = np.maximum.accumulate(nodes + 1e-9 * np.arange(len(SCORES)), axis=1)
    return {"calibration.share": np.array([np.median(share[g]) for g in groups]), "calibration.y": nodes}


def probability(arrays: Arrays, chi2: np.ndarray, known: np.ndarray, share: np.ndarray) -> np.ndarray:
    """P (N,) that a star of the model's fits worse: uniform between 0 and 1 for such stars, small for odd ones."""
    at, table = arrays["calibration.share"], arrays["calibration.y"].astype(np.float64)
    K = shape_width(arrays)
    nodes = np.stack([np.interp(share, at, column) for column in table.T], -1)
    # fewer coefficients, wider chi2
    y = nodes[:, 2] + (np.cbrt(chi2) - nodes[:, 2]) * np.sqrt(np.maximum(known, 1) / K)
    place = np.clip((y[:, None] > nodes[:, 1:3]).sum(-1), 0, len(SCORES) - 2)
    row = np.arange(len(y))
    low, high = nodes[row, place], nodes[row, place + 1]
    return ndtr(-(SCORES[place] + (y - low) / np.maximum(high - low, 1e-12)))


def shape_width(arrays: Arrays) -> int:
    """K of a model's arrays."""
    return len(arrays["norm.mean"])


def flux_rmse(values: np.ndarray, fit: np.ndarray, bands: tuple, design) -> np.ndarray:
    """RMSE (N,) over wavelengths (LS24 eq 9): coefficients and the model's (N, K) in the archive's units, their errors.

    bands: BP and RP as `xpbasis.Coefficients`, whose errors and correlations give sigma of the flux.
    """
    from xptools.cores import xpbasis

    half = values.shape[1] // 2
    seen, made = (xpbasis.flux(a[:, :half], a[:, half:], design) for a in (values, fit))
    sigma = xpbasis.flux_errors(*bands, design)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt((((seen - made) / sigma) ** 2).mean(-1))
