"""xi_MR = int_lower^split M Phi dM / int_lower^upper M Phi dM, the mass share of low-mass stars (Li+ 2026 eq. 10)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from xptools.cores.imf import power_integral

NODES = 16


def flat_moments(edges, lo, hi):
    """int M dM (K,) over the part of each bin between lo and hi: Phi constant inside a bin."""
    a, b = np.clip(edges[:-1], lo, hi), np.clip(edges[1:], lo, hi)
    return 0.5 * (b * b - a * a)


def shaped_moments(table, b, alpha, breaks, lo, hi):
    """int M f_k dM (K,) over the part of each bin between lo and hi, for f_k ~ M^alpha inside the bin.

    f_k has V-weighted mean 1, because Phi_k is what counts and V say: int f V dM = int V dM. alpha (S,) are the slopes
    of the segments between `breaks` (S - 1,) [Msun]; a bin that a break cuts is continuous there.
    """
    edges = np.asarray(table.mass_edges)
    x, w = np.polynomial.legendre.leggauss(NODES)
    out = np.zeros(len(edges) - 1)
    for k in range(len(out)):
        cuts = [edges[k], *[c for c in breaks if edges[k] < c < edges[k + 1]], edges[k + 1]]
        segment = [int(np.searchsorted(breaks, 0.5 * (p + q))) for p, q in pairwise(cuts)]
        scale, weighted, volume = 1.0, 0.0, 0.0
        for (p, q), s in zip(pairwise(cuts), segment, strict=True):
            a, c = np.clip((p, q), lo, hi)
            out[k] += scale * power_integral(a, c, alpha[s] + 2.0) / p ** alpha[s] if c > a else 0.0
            m = p + (q - p) * (x + 1) / 2
            V = table.volume(b, k, m)
            weighted += scale * np.sum(w * V * (m / p) ** alpha[s]) * (q - p) / 2
            volume += np.sum(w * V) * (q - p) / 2
            scale *= (q / p) ** alpha[s]
        out[k] *= volume / weighted if weighted > 0 else np.nan
    return out


def mass_ratio(phi, moments):
    """xi (...) of Phi (..., K) with `moments` (2, K): those of the numerator and of the denominator."""
    known = np.isfinite(moments).all(axis=0) & (moments[1] > 0)
    phi, moments = phi[..., known], moments[:, known]
    return (phi @ moments[0]) / (phi @ moments[1])
