"""How far measured [Fe/H] is from the true one, measured on stars whose [Fe/H] is known.

Stated errors of [Fe/H] from low-resolution spectra need not be right: at low mass and low [Fe/H] there are a bias and
tails, and how errors are spread at a true [Fe/H] is unknown. Known stars tell all of it: the distribution of
measured - true at a mass and a true [Fe/H] is that of the stars near there, weighted by a Gaussian, each moved as the
plane through them runs; where they are few they come from further away. They must be seen as the sample is, to the
same limits, and are counted themselves: their own noise widens the result (laplace.py).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

SCALE = np.array([0.02, 0.05])  # what is near: in mass [Msun] and in [Fe/H] [dex]
FEWEST, MOST = 40, 4000  # stars that count at a place: it widens to hold the former
MANY = 400  # the same where shares are counted: a class of a tenth is then known to a sixth
RIDGE = 10.0  # stars at one SCALE that hold the plane level
WIDEST, STEP = 2.5, 0.02  # of measured - true, and the grid it is counted on [dex]
SMOOTH = 1.5  # grid steps of a Gaussian over it, taken out of the spread
GRID = np.r_[-9.0, np.arange(-WIDEST, WIDEST + STEP / 2, STEP), 9.0]
LEAST = 30  # known stars, below which nothing is measured
SHARE, CLASS, RAREST = 0.01, 1000, 1e-4  # of a class of stated errors: known stars at least; least share at a place


@dataclass(frozen=True)
class ErrorTable:
    """Known stars: mass, true [Fe/H], measured - true [dex], stated error of it [dex], true mass [Msun], each (N,).

    Without stated errors those are 0; true masses that are not known are NaN.
    """

    mass: np.ndarray
    feh: np.ndarray
    off: np.ndarray
    err: np.ndarray
    true_mass: np.ndarray

    @classmethod
    def of(cls, mass, measured, true, err=None, true_mass=None) -> ErrorTable:
        """Of columns (N,), rows with something missing left out, but for true masses."""
        err = np.zeros(len(mass)) if err is None else np.asarray(err)
        true_mass = np.full(len(mass), np.nan) if true_mass is None else np.asarray(true_mass)
        ok = np.isfinite(mass) & np.isfinite(measured) & np.isfinite(true) & np.isfinite(err) & (err >= 0)
        rows = (np.asarray(v, np.float64)[ok] for v in (mass, measured, true, err, true_mass))
        mass, measured, true, err, true_mass = rows
        return cls(mass, true, np.clip(measured - true, GRID[1], GRID[-2]), err, true_mass)

    def classes(self, edges: np.ndarray) -> np.ndarray:
        """Those of `edges` [dex] of the stated error that leave enough stars in every class to tell of it."""
        held, enough = np.histogram(self.err, edges)[0], max(CLASS, SHARE * len(self.off))
        out, stars, left = [edges[0]], 0, held.sum()
        for n, edge in zip(held, edges[1:-1], strict=False):
            stars, left = stars + n, left - n
            if min(stars, left) >= enough:
                out.append(edge)
                stars = 0
        return np.append(out, edges[-1])

    def part(self, low: float, high: float) -> ErrorTable:
        """Those of a stated error from `low` to below `high`."""
        ok = (self.err >= low) & (self.err < high)
        return ErrorTable(*(getattr(self, f.name)[ok] for f in fields(self)))

    def shares(self, edges: np.ndarray, mass: np.ndarray, feh: np.ndarray) -> np.ndarray:
        """P (N, len(edges) - 1) of the classes of stated error at masses and true [Fe/H] (N,)."""
        each = (np.searchsorted(edges, self.err, side="right") - 1)[:, None] == np.arange(len(edges) - 1)
        out = np.ones((len(mass), len(edges) - 1))
        if out.shape[1] == 1:
            return out
        for row, place in zip(out, np.column_stack([mass, feh]) / SCALE, strict=True):
            there, weight = self._at(place, each.astype(float), MANY)
            row[:] = np.average(there, axis=0, weights=weight).clip(RAREST)
        return out / out.sum(axis=1, keepdims=True)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(np.column_stack([self.mass, self.feh]) / SCALE)

    def distribution(self, mass: np.ndarray, feh: np.ndarray) -> np.ndarray:
        """F (N, len(GRID)): the share of measured - true below GRID at masses and true [Fe/H] (N,)."""
        out = np.ones((len(mass), len(GRID)))
        out[:, 0] = 0.0
        for row, place in zip(out, np.column_stack([mass, feh]) / SCALE, strict=True):
            off, weight = self._at(place, self.off)
            centre = np.average(off, weights=weight)
            variance = np.average((off - centre) ** 2, weights=weight) + 1e-9
            off = centre + (off - centre) * np.sqrt(max(1.0 - (SMOOTH * STEP) ** 2 / variance, 0.0))
            counted = np.histogram(off.clip(GRID[1], GRID[-2] - 1e-9), GRID[1:-1], weights=weight)[0]
            share = np.cumsum(gaussian_filter1d(counted, SMOOTH, mode="constant"))
            row[1:-1] = np.r_[0.0, share] / share[-1]
        return out

    def _at(self, place: np.ndarray, values: np.ndarray, fewest: int = FEWEST) -> tuple[np.ndarray, np.ndarray]:
        """Values (N, ...) of the stars near a place (2,) in SCALE, as they would be there, and their weights."""
        far, near = self._tree.query(place, k=min(MOST, len(self.off)))
        width = max(1.0, far[min(fewest, len(far)) - 1] / 1.5)
        weight = np.exp(-0.5 * (far / width) ** 2)
        away = place - self._tree.data[near]
        flat = away - np.average(away, axis=0, weights=weight)
        slope = np.linalg.solve((flat.T * weight) @ flat + RIDGE * np.eye(2), (flat.T * weight) @ values[near])
        return values[near] + away @ slope, weight

    def spread(self, feh_edges: np.ndarray) -> float:
        """The rms of measured - true [dex] of those that are observed inside the edges, of all if none is."""
        found = self.feh + self.off
        inside = (found >= feh_edges[0]) & (found < feh_edges[-1])
        return float(np.sqrt(np.mean(np.square(self.off[inside] if inside.any() else self.off))))

    def cells(self, mass_edges: np.ndarray, true_edges: np.ndarray, classes: np.ndarray, edges: np.ndarray):
        """How many (K, S, O + 1, C) of each mass and true slice are of a class and observed in a slice, or in none."""
        seen = np.column_stack([self.mass, self.err, _inside(self.feh + self.off, edges), self.feh])
        return np.histogramdd(seen, [mass_edges, classes, np.append(edges, np.inf), true_edges])[0]

    def masses(self, true_masses: np.ndarray, true_edges: np.ndarray, mass_edges: np.ndarray) -> np.ndarray:
        """How many (M, K + 1, C) of each true mass and slice are observed in a bin of mass, or in none."""
        seen = np.column_stack([self.true_mass, _inside(self.mass, mass_edges), self.feh])
        edges = [true_masses, np.append(mass_edges, np.inf), true_edges]
        return np.histogramdd(seen[np.isfinite(self.true_mass)], edges)[0]


def _inside(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """`values` (N,), those outside of the edges as the last of them."""
    return np.where((values >= edges[0]) & (values < edges[-1]), values, edges[-1])
