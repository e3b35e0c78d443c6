"""XP coefficients of mock stars: model spectra into Gaia's basis, with errors and correlations as real ones have.

A spectrum f is brought to the star's own photometry by exp(a + b x + c x^2), x = (lambda - 650 nm) / 350 nm, so that
its synthetic G, BP and RP are exact, and goes into each band's basis by least squares in photo-electrons,

    c = argmin |r (f - D^T c)|^2 + mu sum_i c_i^2 / v_i,     r = A_pupil R lambda / (h c),

v_i the mean square of real stars' coefficients; what the basis cannot hold is lost, as in the satellite. Dust comes
between the two, by the curve: the photometry is that without dust. Errors follow 2,000 real stars: |sigma| over |c| is
a function of the band's magnitude with its scatter, the pattern of sigma_i over |sigma| another. Correlations are the
mean of two real stars', the same for all: the only ones at hand. Noise is normal with that covariance.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from xptools.cores import spectra_model, xpdesign
from xptools.cores.cubic import Cubic
from xptools.cores.photometry import POGSON, ZERO_POINT

TABLE = Path(__file__).parent.parent / "data" / "xp_noise.npz"
BANDS = ("bp", "rp")
GRID = np.arange(330.0, 1050.1, 2.0)  # [nm] of the model spectra
REACH = {"bp": (330.0, 690.0), "rp": (615.0, 1050.0)}  # [nm] where a band's response counts
RIDGE = 1e-5
STEPS = 5  # of Newton's method: the photometry is met to 1e-9


@lru_cache(maxsize=1)
def learned() -> dict[str, np.ndarray]:
    """The arrays of data/xp_noise.npz, which says what they are."""
    with TABLE.open("rb") as stream, np.load(stream) as file:
        return {name: file[name] for name in file.files if name != "what"}


@lru_cache(maxsize=2)
def projection(band: str) -> np.ndarray:
    """The matrix (n, K) that takes a flux on GRID (n,) to coefficients of one band."""
    arrays = xpdesign.gaia_dr3()
    low, high = REACH[band]
    inside = (GRID >= low) & (GRID <= high)
    w = GRID[inside]
    r = np.maximum(Cubic(*arrays[f"{band}.response"])(w), 0.0) * w * xpdesign.PUPIL / xpdesign.HC_NM
    E = xpdesign.model(w, arrays, band) * r
    v = learned()[f"{band}.size"] ** 2
    gram = E @ E.T
    out = np.zeros((len(GRID), len(E)))
    out[inside] = np.linalg.solve(gram + RIDGE * gram[0, 0] * v[0] * np.diag(1.0 / v), E * r).T
    return out


@lru_cache(maxsize=1)
def passbands_on_grid() -> tuple[np.ndarray, np.ndarray]:
    """GRID (n,) and photo-electrons/s in G, BP, RP (3, n) that flux at each of its wavelengths gives."""
    bp, rp = xpdesign.passbands()
    return GRID, np.ascontiguousarray((projection("bp") @ bp + projection("rp") @ rp).T)


def spectrum(teff, logg, feh, alpha_fe, M_G) -> np.ndarray:
    """Flux at 10 pc (N, n) on GRID; zero for a star without labels (NaN)."""
    known = np.isfinite(teff) & np.isfinite(M_G)
    out = np.zeros((len(known), len(GRID)))
    labels = [np.broadcast_to(a, known.shape)[known] for a in (teff, logg, feh, alpha_fe, M_G)]
    out[known] = spectra_model.flux_at_10pc(*labels, GRID)
    return out


def matched(flux: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Spectra (N, n) bent to the photo-electrons/s (N, 3) that the star has in G, BP, RP."""
    from xptools.cores._xpkernels import product

    x = (GRID - 650.0) / 350.0
    powers = np.stack([np.ones_like(x), x, x * x])
    V = passbands_on_grid()[1]
    sums = np.ascontiguousarray((V[:, None, :] * powers[None, :, :]).reshape(9, -1).T)
    base = np.ascontiguousarray(flux / flux.max(axis=1, keepdims=True))
    a = np.zeros((len(flux), 3))
    bent, moments = base, np.empty((len(flux), 9))
    for _ in range(STEPS):
        product(bent, sums, moments)
        J = moments.reshape(-1, 3, 3)
        off = np.log(rates / J[:, :, 0])
        step = np.linalg.solve(J / J[:, :, :1], off[:, :, None])[:, :, 0]
        # the level may jump by any factor, the slopes only by little at a time
        step[:, 1:] = np.clip(step[:, 1:], -2.0, 2.0)
        a += step
        bend = np.empty_like(base)
        product(a, powers, bend)
        bent = base * np.exp(bend)
    return bent


def coefficients(flux: np.ndarray, band: str) -> np.ndarray:
    """Coefficients (N, K) of spectra (N, n) on GRID."""
    from xptools.cores._xpkernels import product

    A = projection(band)
    out = np.empty((len(flux), A.shape[1]))
    product(np.ascontiguousarray(flux), A, out)
    return out


def errors(values: np.ndarray, mag: np.ndarray, normal: np.ndarray, band: str) -> np.ndarray:
    """Standard errors (N, K) of coefficients (N, K) of stars of this magnitude in the band; normal (N,) scatters."""
    table = learned()
    nodes = table[f"{band}.nodes"]
    level = np.interp(mag, nodes, table[f"{band}.log_error"])
    # fainter than the faintest real star: the sky's noise is the same, the star's light is not
    level = level + 0.4 * np.maximum(mag - nodes[-1], 0.0) + table[f"{band}.scatter"] * normal
    t = np.interp(mag, nodes, np.arange(len(nodes)))
    k = np.clip(t.astype(int), 0, len(nodes) - 2)
    pattern = table[f"{band}.pattern"].astype(np.float64)
    u = (t - k)[:, None]
    shape = (1.0 - u) * pattern[k] + u * pattern[k + 1]
    size = np.sqrt(np.einsum("ij,ij->i", values, values))
    return shape * (size * 10.0**level)[:, None]


@lru_cache(maxsize=2)
def correlated_noise(band: str) -> np.ndarray:
    """L^T (K, K) of the correlation matrix rho = L L^T."""
    K = len(learned()[f"{band}.size"])
    rho = np.eye(K)
    i, j = np.tril_indices(K, -1)
    rho[i, j] = rho[j, i] = learned()[f"{band}.correlations"]
    return np.ascontiguousarray(np.linalg.cholesky(rho).T)


def noisy(values: np.ndarray, sigma: np.ndarray, z: np.ndarray, band: str) -> np.ndarray:
    """Coefficients (N, K) with noise of errors sigma (N, K) and the band's correlations; z (N, K) standard normal."""
    from xptools.cores._xpkernels import product

    out = np.empty_like(values)
    product(np.ascontiguousarray(z), correlated_noise(band), out)
    return values + sigma * out


def relevant(values: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """How many leading coefficients stand out (N,): behind them the scatter of c / sigma is that of noise.

    The smallest n for which the rms of the other K - n is below 1 + 2 / sqrt(2 (K - n)): two sigma of what noise gives.
    """
    square = (values / sigma) ** 2
    K = values.shape[1]
    left = K - np.arange(K)  # behind the first n = 0 ... K - 1
    tail = np.cumsum(square[:, ::-1], axis=1)[:, ::-1] / left
    quiet = np.sqrt(tail) < 1.0 + 2.0 / np.sqrt(2.0 * left)
    first = np.where(quiet.any(axis=1), quiet.argmax(axis=1), K)
    return np.maximum(first, 1).astype(np.int16)


def observed(streams, flux: np.ndarray, rates: np.ndarray, noise: float, correlations: bool) -> dict[str, np.ndarray]:
    """The archive's columns of spectra (N, n) on GRID, `matched`, of stars of photo-electrons/s rates (N, 3)."""
    out = {}
    for band, name, rate in zip(BANDS, ("BP", "RP"), rates.T[1:], strict=True):
        c = coefficients(flux, band)
        mag = ZERO_POINT[name] - POGSON * np.log(rate)
        sigma = errors(c, mag, streams.normal(f"{band} coefficient errors"), band).astype(np.float32)
        z = np.stack([streams.normal(f"{band} coefficient {i}") for i in range(c.shape[1])], axis=1)
        seen = noisy(c, noise * sigma.astype(np.float64), z, band) if noise else c
        out[f"{band}_coefficients"], out[f"{band}_coefficient_errors"] = seen, sigma
        if correlations:
            rho = learned()[f"{band}.correlations"]
            out[f"{band}_coefficient_correlations"] = np.broadcast_to(rho, (len(c), len(rho)))
        out[f"{band}_n_relevant_bases"] = relevant(seen, sigma)
    return out
