"""Red giants of the mock Galaxy: a luminosity function and what a spectroscopic catalogue would say of them.

Enough for a training sample of the kinematic discriminator (same places, motions and [Fe/H] as the dwarfs; Li+ 2026
App. B): the labels are plausible and their errors span the quality cuts, but no isochrone stands behind them.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

BRIGHTEST, FAINTEST, STEP = -2.5, 3.0, 0.1  # M_G [mag]
RISE, CLUMP = 0.25, (0.35, 0.45, 0.20)  # dlogN/dM_G of the branch; share, M_G and width of the red clump


def bins() -> np.ndarray:
    """Edges (B + 1,) of the bins of M_G."""
    return np.linspace(BRIGHTEST, FAINTEST, round((FAINTEST - BRIGHTEST) / STEP) + 1)


def luminosity_function() -> np.ndarray:
    """Share (B,) of giants in each bin of M_G; uniform inside a bin. Branch 10^(RISE M_G) plus the clump."""
    edges = bins()
    branch = np.diff(10.0 ** (RISE * edges))
    clump = np.diff(ndtr((edges - CLUMP[1]) / CLUMP[2]))
    return (1 - CLUMP[0]) * branch / branch.sum() + CLUMP[0] * clump / clump.sum()


def temperature(M_G: np.ndarray, feh: np.ndarray) -> np.ndarray:
    """Teff [K]: fainter and metal-poorer giants are hotter."""
    return 4700.0 + 150.0 * (M_G - 0.5) - 200.0 * feh


def gravity(M_G: np.ndarray, feh: np.ndarray) -> np.ndarray:
    """log g [cgs]: from 1 at the tip to 3.4 at the base."""
    return 2.40 + 0.42 * (M_G - 0.5) - 0.10 * feh


def colour(M_G: np.ndarray, feh: np.ndarray) -> np.ndarray:
    """BP-RP [mag], linear in 5040 K / Teff: 1.24 at 4700 K."""
    return 1.24 + 2.4 * (5040.0 / temperature(M_G, feh) - 5040.0 / 4700.0)


def label_errors(G: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sigma of [Fe/H] [dex], Teff [K], log g at magnitude G: medians 0.05, 30, 0.06 when bright; normals (3, n)."""
    faint = 1.0 + 0.25 * np.clip(G - 13.0, 0.0, 5.0)
    return tuple(s * faint * np.exp(0.25 * z) for s, z in zip((0.05, 30.0, 0.06), normals, strict=True))
