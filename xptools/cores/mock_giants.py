"""Red giants of the mock Galaxy: who is where on the branch and in the clump, and what catalogues say of them.

Numbers along the branch are a stated law, not an isochrone's; what a giant is like at its place, [M/H] and age comes
from cores/giants.py. Errors of the labels are like those of APOGEE's pipeline and, for mass and age, of its DistMass
catalogue, sigma_M / M = 0.18722 - 0.03477 log g.
"""

from __future__ import annotations

import numpy as np

from xptools.cores.draws import truncated_normal
from xptools.cores.giants import GRAVITY

STEP, RISE = 0.1, 0.6  # of log g; dlogN/dlog g of the branch (1.0 as many giants at M_G + 4 as 10^0.25 per mag says)
CLUMP, CLUMP_BINS = 0.35, 10
# [alpha/Fe] = a + b [Fe/H] of thin disc, thick disc and halo, with this scatter, cut at 2.5 sigma
ALPHA, ALPHA_SCATTER, ALPHA_CUT = ((0.04, -0.15), (0.17, -0.15), (0.28, 0.0)), 0.03, 2.5
AGE_ERROR, LABELS = 0.25, ("feh", "teff", "logg", "mh", "alpha_m", "mass", "age")


def bins() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lo, hi, clump) of all bins (B,): log g on the branch, then fractions of the clump's lifetime."""
    g = np.linspace(*GRAVITY, round((GRAVITY[1] - GRAVITY[0]) / STEP) + 1)
    u = np.linspace(0.0, 1.0, CLUMP_BINS + 1)
    clump = np.repeat([False, True], [len(g) - 1, CLUMP_BINS])
    return np.r_[g[:-1], u[:-1]], np.r_[g[1:], u[1:]], clump


def shares() -> np.ndarray:
    """Share (B,) of the giants in each bin: 10^(RISE log g) on the branch, even in the clump."""
    lo, hi, clump = bins()
    branch = np.where(clump, 0.0, 10.0 ** (RISE * hi) - 10.0 ** (RISE * lo))
    return (1.0 - CLUMP) * branch / branch.sum() + CLUMP * clump / clump.sum()


def alpha_fe(k: np.ndarray, feh: np.ndarray, u: np.ndarray) -> np.ndarray:
    """[alpha/Fe] [dex] of stars of population k and [Fe/H] at uniform u."""
    a, b = np.array(ALPHA).T
    spread = ALPHA_CUT * ALPHA_SCATTER
    return a[k] + b[k] * feh + truncated_normal(u, 0.0, ALPHA_SCATTER, -spread, spread)


def label_errors(G: np.ndarray, true: dict[str, np.ndarray], normal) -> dict[str, np.ndarray]:
    """sigma of each label: of G-dependent size with a scatter of 25 %, `normal(name)` standard normal deviates (n,).

    Medians of bright stars: 0.05 dex, 30 K, 0.06 dex in log g, 0.05 and 0.02 dex in [M/H] and [alpha/M].
    """
    faint = 1.0 + 0.25 * np.clip(G - 13.0, 0.0, 5.0)
    typical = {"feh": 0.05, "teff": 30.0, "logg": 0.06, "mh": 0.05, "alpha_m": 0.02}
    out = {name: s * faint * np.exp(0.25 * normal(name)) for name, s in typical.items()}
    out["mass"] = true["mass"] * (0.18722 - 0.03477 * true["logg"])
    out["age"] = AGE_ERROR * true["age"]
    return out
