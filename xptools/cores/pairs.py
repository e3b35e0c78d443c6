"""What unresolved pairs do to a mass function: from systems by the mass of their primary to stars as they are counted.

Of the systems of every primary mass a share f are pairs, with q = m2 / m1 from a law of its own (uniform, a power of
q, or twins). The light of a pair adds, so it is seen further than its primary, and its place in the colour-magnitude
diagram is read as the mass of one heavier star. With Phi ~ s(M) inside a bin, a power law,

    n_i ~ Poisson(sum_j T_ij Phi_j V_j dM_j),
    T_ij = (1 - f) delta_ij + f / int_j s V dM  int_j s dM int dq p(q) V(M_G of both) [counted mass of both in i]

and T is the identity for f = 0. Twins all move by one step, so that half a bin's stars can land in one place and half
in the next: where in the bin they are must be known. The counted mass is m1 plus what the companion's light adds to the
mass that the network reads from (M_G, BP-RP), so that faint companions change nothing. V is the table's own, at the M_G
of the sum. Phi is that of singles and primaries; all stars are Phi_i dM_i + f sum_j Phi_j int_j dM P(q M in i).

differs from Li+ 2026, who test one Salpeter slope with a Monte Carlo (Sec. 5.3) and correct nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xptools.cores import mock_light
from xptools.cores.bins import BinTable

RATIOS = 100  # values of q
POINTS = 5000  # systems per mass bin
BELOW = 2  # bins below the table, with its first Phi, from which pairs are counted in it
LEAST_Q = 1e-3  # of a power of q

Light = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # mass [Msun] -> M_G, BP-RP [mag], NaN where no dwarf is
Scale = Callable[[np.ndarray, np.ndarray], np.ndarray]  # M_G, BP-RP -> the mass that is read from them [Msun]


@dataclass(frozen=True)
class Pairs:
    """The share of systems that are pairs; the exponent of q's law (None: twins, q = 1); the largest q in the sample.

    `cut`: pairs with q above it stand so far above the main sequence that they were thrown out (Li+ 2026: 0.5).
    """

    fraction: float
    exponent: float | None = 0.0
    cut: float = 1.0

    def ratios(self, size: int = RATIOS) -> np.ndarray:
        """q (size,) of equal probability, from LEAST_Q to 1."""
        if self.exponent is None:
            return np.ones(1)
        return self.drawn(_middles(size))

    def drawn(self, u: np.ndarray) -> np.ndarray:
        """q at uniform numbers u (N,)."""
        if self.exponent is None:
            return np.ones_like(u)
        p = self.exponent + 1.0
        if abs(p) < 1e-9:
            return LEAST_Q ** (1.0 - u)
        return (LEAST_Q**p + u * (1.0 - LEAST_Q**p)) ** (1.0 / p)


def _middles(size: int) -> np.ndarray:
    """The middles of `size` parts of 0 to 1."""
    return (np.arange(size) + 0.5) / size


def counted(mass, q, light: Light, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Counted mass [Msun] and M_G [mag] (N,) of pairs with primaries of mass (N,) and ratios q (N,); NaN if no dwarf.

    A companion that the isochrones do not reach is dark.
    """
    (M_G, colour), one = light(mass), mock_light.single(*light(mass))
    other = mock_light.single(*light(q * mass))
    both = mock_light.together(one, other, np.arange(len(mass)))
    magnitude, seen = mock_light.magnitude(both.G, "G"), mock_light.colour(both)
    return mass + scale(magnitude, seen) - scale(M_G, colour), magnitude


class Seen:
    """V [kpc3] of one [Fe/H] bin of a table at any M_G [mag]: `Seen(table, b, light)(M_G)`."""

    def __init__(self, table: BinTable, b: int, light: Light, brightest: float = -np.inf):
        K, P = table.fine.shape[1:]
        mass = np.concatenate([np.linspace(*table.mass_edges[k : k + 2], P) for k in range(K)])
        V = np.concatenate([table.volume(b, k, mass[k * P : (k + 1) * P]) for k in range(K)])
        M_G = light(mass)[0]
        ok = np.isfinite(M_G) & (V > 0)
        order = np.argsort(M_G[ok], kind="stable")
        self.M_G, self.ln_V, self.brightest = M_G[ok][order], np.log(V[ok][order]), brightest

    def __call__(self, M_G: np.ndarray) -> np.ndarray:
        """ln V is linear between the table's points and goes on so to fainter stars; to brighter ones V stays."""
        if len(self.M_G) < 2:
            return np.zeros(np.shape(M_G))
        ln_V = np.interp(M_G, self.M_G, self.ln_V)
        far = np.searchsorted(self.M_G, self.M_G[-1] - 0.2)
        slope = (self.ln_V[-1] - self.ln_V[far]) / max(self.M_G[-1] - self.M_G[far], 1e-9)
        ln_V = ln_V + slope * np.maximum(M_G - self.M_G[-1], 0.0)
        return np.where(M_G > self.brightest, np.exp(np.nan_to_num(ln_V)), 0.0)


def mixing(
    table: BinTable, b: int, pairs: Pairs, light: Light, scale: Scale, brightest=-np.inf, slopes=0.0
) -> np.ndarray:
    """T (K, K) of one [Fe/H] bin: stars counted in i for every star expected in j were there no pairs.

    light, scale: of this [Fe/H]; brightest: the M_G [mag] above which stars are no part of the sample; slopes (K,):
    of Phi inside the bins, that of the first below the table as well.
    """
    K, edges = len(table.width), table.mass_edges
    seen, q = Seen(table, b, light, brightest), pairs.ratios()
    T, slopes = np.zeros((K, K)), np.broadcast_to(slopes, K)
    inside = _middles(POINTS // len(q))
    singles = table.veff[b] * table.width * _within(table, b, slopes)
    for j in range(-BELOW, K):
        width = table.width[max(j, 0)]
        start = edges[j] if j >= 0 else edges[0] + j * width
        at = np.maximum(start + width * inside, 1e-3)
        m, ratio = (v.ravel() for v in np.meshgrid(at, q, indexing="ij"))
        mass, M_G = counted(m, ratio, light, scale)
        i = np.searchsorted(edges, np.nan_to_num(mass, nan=-1.0), side="right") - 1
        ok = (i >= 0) & (i < K) & (ratio <= pairs.cut)
        weight = seen(M_G)[ok] * (m[ok] / table.centre[max(j, 0)]) ** slopes[max(j, 0)]
        got = np.bincount(i[ok], weight, K) * width / len(m)
        T[:, max(j, 0)] += np.divide(got, singles[max(j, 0)], out=np.zeros(K), where=singles[max(j, 0)] > 0)
    return (1.0 - pairs.fraction) * np.eye(K) + pairs.fraction * T


def _within(table: BinTable, b: int, slopes: np.ndarray) -> np.ndarray:
    """int s V dM / int V dM (K,) over each bin, s = (M / centre)^slope."""
    out = np.ones(len(slopes))
    for j, slope in enumerate(slopes):
        m = table.mass_edges[j] + table.width[j] * _middles(RATIOS)
        V = table.volume(b, j, m)
        if V.sum() > 0:
            out[j] = np.sum((m / table.centre[j]) ** slope * V) / V.sum()
    return out


def companions(table: BinTable, pairs: Pairs) -> np.ndarray:
    """C (K, K): Phi of companions is C @ Phi of singles and primaries; primaries above the table are not in it."""
    K, edges = len(table.width), table.mass_edges
    C = np.zeros((K, K))
    for j in range(K):
        at = edges[j] + table.width[j] * _middles(50)
        m = np.outer(at, pairs.ratios(10 * RATIOS)).ravel()
        i = np.searchsorted(edges, m, side="right") - 1
        C[:, j] = np.bincount(i[i >= 0].clip(0, K), minlength=K + 1)[:K] / len(m) * table.width[j] / table.width
    return pairs.fraction * C
