"""Gaia photometry: the corrected excess factor C*, absolute magnitudes and magnitude errors.

Every function is elementwise over arrays of any one shape; NaN in, NaN out.
"""

from __future__ import annotations

import numpy as np

# Riello et al. 2021, A&A 649, A3, Table 2: f(x) = a0 + a1 x + a2 x^2 + a3 x^3 with x = BP-RP as observed.
BLUE = (1.154360, 0.033772, 0.032277, 0.0)
MIDDLE = (1.162004, 0.011464, 0.049255, -0.005879)
RED = (1.057572, 0.140537, 0.0, 0.0)
BREAKS = (0.5, 4.0)

# Gaia EDR3 zero points in the Vega system, G BP RP [mag], and their errors.
ZERO_POINT = {"G": 25.6873668671, "BP": 25.3385422158, "RP": 24.7478955012}
ZERO_POINT_ERROR = {"G": 0.0027553202, "BP": 0.0027901700, "RP": 0.0037793818}

POGSON = 2.5 / np.log(10.0)


def _cubic(a: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    return a[0] + x * (a[1] + x * (a[2] + x * a[3]))


def excess_expected(BP_RP: np.ndarray) -> np.ndarray:
    """f(BP-RP), the excess factor of a well-behaved star (Riello+ 2021, Table 2); BP_RP [mag] as observed."""
    x = np.asarray(BP_RP, dtype=np.float64)
    x = np.where(np.isfinite(x), x, np.nan)
    f = np.where(x < BREAKS[0], _cubic(BLUE, x), np.where(x < BREAKS[1], _cubic(MIDDLE, x), _cubic(RED, x)))
    return f


def excess_corrected(C: np.ndarray, BP_RP: np.ndarray) -> np.ndarray:
    """C* = C - f(BP-RP) (Riello+ 2021, Eq. 6); C is phot_bp_rp_excess_factor, BP_RP [mag] is not dereddened."""
    return np.asarray(C, dtype=np.float64) - excess_expected(BP_RP)


def excess_sigma(G: np.ndarray) -> np.ndarray:
    """sigma_C*(G), the scatter of C* of isolated stars at magnitude G [mag] (Riello+ 2021, Eq. 18)."""
    G = np.asarray(G, dtype=np.float64)
    return 0.0059898 + 8.817481e-12 * np.where(G > 0, G, np.nan) ** 7.618399


def absolute_magnitude(G: np.ndarray, parallax: np.ndarray) -> np.ndarray:
    """M = G + 5 log10(parallax / 100 mas) [mag]; NaN where the parallax [mas] is not positive."""
    parallax = np.asarray(parallax, dtype=np.float64)
    return np.asarray(G, dtype=np.float64) + 5.0 * np.log10(np.where(parallax > 0, parallax, np.nan) / 100.0)


def magnitude_error(flux_over_error: np.ndarray, band: str | None = None) -> np.ndarray:
    """1 sigma [mag] from the flux signal-to-noise; with `band` G, BP or RP the zero point's error adds in square."""
    snr = np.asarray(flux_over_error, dtype=np.float64)
    random = POGSON / np.where(snr > 0, snr, np.nan)
    return random if band is None else np.hypot(random, ZERO_POINT_ERROR[band])


def magnitude(flux: np.ndarray, band: str) -> np.ndarray:
    """Vega magnitude of a Gaia mean flux [electron/s] in band G, BP or RP; NaN where the flux is not positive."""
    flux = np.asarray(flux, dtype=np.float64)
    return ZERO_POINT[band] - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
