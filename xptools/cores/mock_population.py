"""Populations of the mock Galaxy, and the table from which a star's population, [Fe/H], mass and reach are drawn.

The number of stars per kpc3, dex and Msun at a place x is
    rho(x, k, [Fe/H], M) = n0 w_k P_k([Fe/H]) phi(M | [Fe/H]) n_k(x),
n_k = 1 at (R_sun, Z = 0), w_k the local shares, P_k truncated Gaussians, phi of unit integral. Stars are drawn from
rho inside a sphere whose radius is the farthest distance at which a star of that mass and [Fe/H] could be selected;
one entry of the table is a population, a [Fe/H] cell and a mass bin, with the volume of its sphere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from xptools.cores.draws import Alias, truncated_normal_share
from xptools.cores.mock_noise import parallax_error

FEH_STEP = 0.05  # dex, finest [Fe/H] cells; the cells also hold every edge of the mass function
BINS = 200  # mass bins between the outer breaks


@dataclass(frozen=True)
class Component:
    """One population.

    h_r, h_z [kpc]; feh: mean, sigma, lowest, highest of a truncated Gaussian [dex]; age: range of a uniform law [Gyr];
    rotation: mean v_phi [km/s] = v0 + slope ([Fe/H] - pivot), as (v0, slope, pivot); sigma: (v_R, v_phi, v_Z) [km/s].
    """

    name: str
    h_r: float
    h_z: float
    feh: tuple[float, float, float, float]
    age: tuple[float, float]
    rotation: tuple[float, float, float]
    sigma: tuple[float, float, float]


# The halo's density law is Xiang+ 2025's as used by Li+ 2026 Sec. 3.1, so that `xp veff` with its defaults is true for
# it, and below [Fe/H] = -1.1 there is nothing but halo. Disc scales and velocity ellipsoids are rounded textbook values
# (Bland-Hawthorn & Gerhard 2016); rotation falls with [Fe/H] in the thin disc and rises in the thick one, as observed.
COMPONENTS = (
    Component("thin disc", 2.6, 0.30, (-0.10, 0.20, -0.80, 0.50), (1.0, 9.0), (222.0, -20.0, 0.0), (36.0, 25.0, 18.0)),
    Component("thick disc", 2.0, 0.90, (-0.55, 0.25, -1.10, 0.2), (8.0, 12.0), (180.0, 40.0, -0.6), (62.0, 48.0, 40.0)),
    Component("halo", 1.5, 1.43, (-1.45, 0.40, -2.50, -0.70), (10.0, 13.0), (0.0, 0.0, 0.0), (145.0, 85.0, 85.0)),
)
FRACTIONS = (0.86, 0.13, 0.01)  # of the local density, by number


@dataclass(frozen=True)
class Limits:
    """What is selected: apparent G below g_limit, parallax above parallax_min [mas]; `noise` scales their errors."""

    g_limit: float = 17.5
    parallax_min: float = 1.0
    noise: float = 1.0

    def farthest(self) -> float:
        """Largest true distance [kpc] of a selected star: parallax_over_error > 10 and an error of 3.5 sigma."""
        return 1.0 / (self.parallax_min * (1.0 - 0.35 * self.noise))

    def reach(self, brightest, faintest, pair: bool = False):
        """Distance [kpc] beyond which no star with M_G between `brightest` and `faintest` is selected; they broadcast.

        A pair is brighter than its primary by at most 0.753 mag. Parallax errors count with 4.7 times the median error,
        at most 0.35 of the limit: beyond are 4 in 1e5 stars (of the one in ten with a bad fit).
        """
        limit = self.g_limit + (0.7526 if pair else 0.0) + (0.02 if self.noise else 0.0)
        far = np.full(np.broadcast(brightest, faintest).shape, self.farthest())
        for _ in range(6):  # from above, so that every iterate is an envelope
            G = faintest + 5.0 * np.log10(far) + 10.0
            error = self.noise * np.minimum(self.parallax_min / 10.0, 1.35 * parallax_error(G))
            far = np.minimum(far, 1.0 / (self.parallax_min - 3.5 * error))
        return np.minimum(far, 10.0 ** ((limit - brightest) / 5.0 - 2.0))


@dataclass(frozen=True)
class Cells:
    """[Fe/H] cells of all populations (C,): population, edges [dex], share of the local density."""

    component: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, components, fractions, feh_edges) -> Cells:
        """Cells of FEH_STEP that also break at `feh_edges` and where a population ends."""
        total = sum(fractions)
        parts = []
        for k, (component, fraction) in enumerate(zip(components, fractions, strict=True)):
            mean, sigma, lo, hi = component.feh
            steps = np.arange(np.floor(lo / FEH_STEP), np.ceil(hi / FEH_STEP) + 1) * FEH_STEP
            edges = np.unique(np.round(np.concatenate([steps, feh_edges, [lo, hi]]), 6))
            edges = edges[(edges >= lo) & (edges <= hi)]
            share = fraction / total * truncated_normal_share(edges, mean, sigma, lo, hi)
            parts.append((np.full(len(share), k), edges[:-1], edges[1:], share))
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Proposal:
    """The table: entries are cells (C,) times bins (B,) of mass (of M_G for giants); of pairs too, if there are any.

    `number` (C, B) is the integral of the mass function over the bin at the cell, `reach` (C, B) [kpc]. Pairs are seen
    farther than single stars, so they are bins of their own: B ... 2 B - 1 of (C, 2 B).
    """

    def __init__(self, components, cells: Cells, number, reach, space):
        self.cells, self.reach, self.bins = cells, np.ascontiguousarray(reach).ravel(), number.shape[1]
        volume = np.stack([space.volume(k, r) for k, r in zip(cells.component, reach, strict=True)])
        weight = cells.share[:, None] * number * volume
        self.total = float(weight.sum())  # kpc3: stars drawn = n0 * total
        self.drawn = weight.sum(axis=1)
        self._alias = Alias.of(weight.ravel()) if self.total else None
        self._mean, self._sigma = (np.array([components[k].feh[i] for k in cells.component]) for i in (0, 1))
        self._below = ndtr((cells.lo - self._mean) / self._sigma)
        self._inside = ndtr((cells.hi - self._mean) / self._sigma) - self._below

    def draw(self, u_entry, u_feh):
        """Cell, bin, population, [Fe/H] and reach [kpc] (n,) at two uniform deviates each."""
        entry = self._alias.draw(u_entry)
        cell = entry // self.bins
        feh = self._mean[cell] + self._sigma[cell] * ndtri(self._below[cell] + u_feh * self._inside[cell])
        return cell, entry - cell * self.bins, self.cells.component[cell], feh, self.reach[entry]


class Masses:
    """Mass bins (B,) and, inside each, the power law of its [Fe/H] cell."""

    def __init__(self, imf, cells: Cells):
        self.edges = np.unique(np.concatenate([imf.breaks, np.linspace(imf.breaks[0], imf.breaks[-1], BINS + 1)]))
        centre = 0.5 * (cells.lo + cells.hi)
        self.alpha = imf.alpha(centre)  # (C, S)
        lo, hi = self.edges[:-1], self.edges[1:]
        self.number = np.stack([imf.integrate(lo, hi, f) for f in centre])  # (C, B)
        self._segment = np.searchsorted(imf.breaks, lo, side="right") - 1
        self._segments = self.alpha.shape[1]
        # the inverse of M^p has a limit at p = 0, which p = 1e-7 meets to the last digits that matter
        p = self.alpha + 1.0
        self._p = np.where(np.abs(p) < 1e-7, 1e-7, p).ravel()
        self._span = np.log(hi / lo)

    def draw(self, cell, bin_, u):
        """Masses (n,) [Msun]."""
        p = self._p[cell * self._segments + self._segment[bin_]]
        area = np.expm1(p * self._span[bin_])
        return self.edges[bin_] * np.exp(np.log1p(u * area) / p)
