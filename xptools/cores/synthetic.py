"""Synthetic G, BP and RP of XP spectra: photons through Gaia's passbands, an integral over the basis done once.

    n_X = A_pupil / (h c) int f(lambda) T_X(lambda) lambda dlambda = W_X^T c,   X = ZP_X - 2.5 log10 n_X

W (K, 3) per band of coefficients comes with the design matrices (330 to 1050 nm, the passbands of Riello+ 2021).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xptools.cores import xpbasis
from xptools.cores.photometry import POGSON, ZERO_POINT
from xptools.cores.xpdesign import BANDS, Design, passbands

ZERO = np.array([ZERO_POINT[band] for band in BANDS])


def electrons(bp: xpbasis.Coefficients, rp: xpbasis.Coefficients, weights: Design | None = None) -> np.ndarray:
    """Photo-electrons per second (N, 3) in G, BP, RP; NaN unless the star has both bands."""
    return np.where((bp.known & rp.known)[:, None], xpbasis.spectra(bp, rp, weights or integrals()), np.nan)


def magnitudes(
    bp: xpbasis.Coefficients, rp: xpbasis.Coefficients, errors: bool = True, weights: Design | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Vega magnitudes (N, 3) in G, BP, RP and their errors; NaN where the flux is not positive."""
    weights = weights or integrals()
    rate = electrons(bp, rp, weights)
    rate = np.where(rate > 0, rate, np.nan)
    mag = ZERO - POGSON * np.log(rate)
    return mag, POGSON * np.sqrt(xpbasis.flux_variance(bp, rp, weights)) / rate if errors else None


def as_design(bp: np.ndarray, rp: np.ndarray) -> Design:
    """The three integrals W (K, 3) in the place of wavelengths: the same kernels give their values and variances."""
    return Design(np.zeros(3), bp, rp, bp, rp, np.ones(3), np.ones(3))


@lru_cache(maxsize=1)
def integrals() -> Design:
    """Those of Gaia DR3."""
    return as_design(*passbands())
