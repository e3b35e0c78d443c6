"""Effective volumes where the selection differs from one line of sight to the next: dust, completeness, parallax S/N.

    V_eff(M_G, k) = sum_lines (4 pi / L) int n d^2 S dd,   G(d) = M_G + 5 log10(d / 10 pc) + k E(l, b, d)

The sky is L cells of equal area. Along a line the extinction only grows, so the edge G = g_limit is one distance, found
inside its step by linear interpolation in (ln d, G). What the cells and steps miss of the smooth part is taken out by
scaling with the ratio of the exact volume to the same sum without dust (Volume in `veff.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xptools.cores.astrometry import ICRS_TO_GALACTIC
from xptools.cores.galaxy import cylindrical
from xptools.cores.healpix import nested_pixel
from xptools.cores.veff import Volume

NEAREST = 1e-3  # kpc, where the steps begin
# Typical parallax error [mas] at G: 0.03 below G = 15, 0.07 at 17, 0.5 at 20, 1.3 at 21
# (Gaia Collaboration 2021, A&A 649, A1)
SIGMA_G = (13.0, 15.0, 17.0, 20.0, 21.0)
SIGMA_PLX = (0.02, 0.03, 0.07, 0.5, 1.3)


def parallax_error(G):
    """Typical standard error of a DR3 parallax [mas] at G [mag], log-linear between the published values."""
    return np.exp(np.interp(G, SIGMA_G, np.log(SIGMA_PLX)))


@dataclass(frozen=True)
class Completeness:
    """Probability that a star of apparent G (and colour) is in the catalogue, per sky pixel.

    table   (T, C, K) on the magnitude grid `g` (K,) and colour grid `colour` (C,); linear in G, nearest in colour,
            the first and last values hold beyond the grid
    order   HEALPix order of the T = 12 * 4^order nested equatorial pixels, or -1 with T = 1: the same everywhere
    """

    g: np.ndarray
    table: np.ndarray
    colour: np.ndarray = field(default_factory=lambda: np.zeros(1))
    order: int = -1

    def rows(self, l, b):
        """Row (N,) of `table` for galactic l, b [deg] (N,)."""
        if self.order < 0:
            return np.zeros(np.shape(l), dtype=np.int64)
        return nested_pixel(*equatorial(l, b), order=self.order)

    def columns(self, colour):
        """Nearest index (N,) on the colour grid."""
        return np.abs(np.asarray(colour)[:, None] - self.colour).argmin(axis=1)

    def __call__(self, G, l, b, colour):
        """Completeness (N,) at G, colour [mag] (N,) and l, b [deg] (N,)."""
        rows, columns = self.rows(l, b), self.columns(np.broadcast_to(colour, np.shape(G)))
        at = np.interp(G, self.g, np.arange(len(self.g)))
        low = np.minimum(at.astype(np.int64), max(len(self.g) - 2, 0))
        high = np.minimum(low + 1, len(self.g) - 1)
        t = at - low
        return self.table[rows, columns, low] * (1 - t) + self.table[rows, columns, high] * t


@dataclass(frozen=True)
class Sky:
    """What lies between us and the stars: E(l, b, d) [map unit] with l, b [deg], d [pc]; completeness; S/N > plx_sn."""

    dust: object = None
    completeness: Completeness | None = None
    plx_sn: float | None = None

    def plain(self) -> bool:
        """Whether nothing but the limits of the survey matters."""
        return self.dust is None and self.completeness is None and self.plx_sn is None


def equatorial(l, b):
    """ra, dec [deg] (N,) of galactic l, b [deg] (N,)."""
    l, b = np.deg2rad(l), np.deg2rad(b)
    x, y, z = ICRS_TO_GALACTIC.T @ np.stack([np.cos(b) * np.cos(l), np.cos(b) * np.sin(l), np.sin(b)])
    return np.rad2deg(np.arctan2(y, x)) % 360.0, np.rad2deg(np.arcsin(np.clip(z, -1.0, 1.0)))


def cells(polar, around):
    """Centres l, b [deg] (L,) of polar x around cells of equal area; an even `polar` has no cell astride the plane."""
    sin_b = -1 + (2 * np.arange(polar) + 1) / polar
    l = 360.0 * (np.arange(around) + 0.5) / around
    b = np.rad2deg(np.arcsin(sin_b))
    return np.tile(l, polar), np.repeat(b, around)


def grid(sky) -> tuple[int, int]:
    """How many cells a sky needs: few if all directions are alike, many where only edges are looked up."""
    if sky.dust is None and (sky.completeness is None or sky.completeness.order < 0):
        return 8, 16
    return (64, 128) if sky.completeness is None and sky.plx_sn is None else (32, 64)


class LineVolume:
    """V_eff as a function of (M_G, colour, k) for one survey and sky: `LineVolume(survey, sky)(M_G, colour, k)`."""

    def __init__(self, survey, sky: Sky, polar=None, around=None, steps=96):
        self.survey, self.sky, self.exact = survey, sky, Volume(survey)
        few, many = grid(sky)
        l, b = cells(polar or few, around or many)
        self.ln_d = np.linspace(np.log(NEAREST), np.log(survey.max_distance), steps + 1)
        middle = np.exp(0.5 * (self.ln_d[1:] + self.ln_d[:-1]))
        R, Z = cylindrical(l[:, None], b[:, None], middle, survey.r_sun, survey.z_sun)
        # the innermost ball goes to the first step
        self.cube = np.concatenate([[0.0], np.exp(3.0 * self.ln_d[1:])]) / 3.0
        self.n = survey.law.density(R, Z, survey.r_sun) * (4 * np.pi / len(l))
        clear = np.zeros((len(l), steps + 1))
        self.E = clear if sky.dust is None else _extinction(sky.dust, l, b, np.exp(self.ln_d))
        self.complete = sky.completeness or Completeness(np.array([0.0]), np.ones((1, 1, 1)))
        self.rows = self.complete.rows(l, b)

    def __call__(self, M_G, colour, k):
        """V_eff [kpc3] (P,) for absolute magnitude, colour [mag] and A_G per unit of E, each (P,)."""
        from xptools.cores import _skykernels as kernels  # numba, which a clear sky has no use for

        exact = self.exact(M_G)
        use = np.flatnonzero(exact > 0)
        M_G, k = np.asarray(M_G, dtype=np.float64)[use], np.asarray(k, dtype=np.float64)[use]
        sums = np.concatenate([np.zeros((len(self.n), 1)), np.cumsum(self.n * np.diff(self.cube), axis=1)], axis=1)
        common = (self.survey.g_limit, self.ln_d, self.cube, self.n)
        clear = kernels.edges(M_G, 0.0 * k, *common, np.zeros_like(self.E), sums)
        if self.sky.completeness is None and self.sky.plx_sn is None:
            seen = kernels.edges(M_G, k, *common, self.E, sums)
        else:
            columns = self.complete.columns(np.nan_to_num(colour))[use]
            G = np.arange(0.0, 25.0, 0.05)
            table = np.stack([np.stack([np.interp(G, self.complete.g, c) for c in row]) for row in self.complete.table])
            seen = kernels.weighted(
                M_G, k, *common, self.E, columns, self.rows, G, table, parallax_error(G), self.sky.plx_sn or 0.0
            )
        out = np.zeros_like(exact)
        out[use] = exact[use] * seen / clear
        return out


def _extinction(dust, l, b, d):
    """E (L, D) along the lines, made to grow outwards; beyond the map's ends the nearest known value holds."""
    E = dust(np.repeat(l, len(d)), np.repeat(b, len(d)), np.tile(d * 1000.0, len(l)))
    E = np.asarray(E, dtype=np.float64).reshape(len(l), len(d))
    return np.maximum.accumulate(np.nan_to_num(E, nan=0.0), axis=1)
