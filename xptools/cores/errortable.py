"""How far measured [Fe/H] is from the true one, measured on stars whose [Fe/H] is known.

Stated errors of [Fe/H] from low-resolution spectra need not be right: at low mass and low [Fe/H] there are a bias and
tails, and how errors are spread at a true [Fe/H] is unknown. Known stars tell all of it: what measured - true and the
stated error are in a mass bin at a true [Fe/H] is what they are for the stars of the bin near there, weighted by a
Gaussian, each moved as the line through them runs; where they are few they come from further away. No more is smoothed
than that: over masses, or over more of [Fe/H], cool stars' errors change too fast. The known are counted themselves:
their own noise widens the result (laplace.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

NEAR = 0.03  # in [Fe/H] [dex]
FEWEST = 40  # stars that count at a place: it widens to hold them
COLUMN = 200  # stars that tell of a mass bin: it borrows from beyond where it has fewer
RIDGE = 10.0  # stars at NEAR that hold the line level
WIDEST, STEP = 2.5, 0.02  # of measured - true, and the grid it is counted on [dex]
SMOOTH = 1.5  # grid steps of a Gaussian over it, taken out of the spread
GRID = np.r_[-9.0, np.arange(-WIDEST, WIDEST + STEP / 2, STEP), 9.0]
LEAST = 30  # known stars, below which nothing is measured
SHARE, CLASS = 0.01, 1000  # known stars that a class of stated errors has at least


@dataclass(frozen=True)
class ErrorTable:
    """Known stars: mass [Msun], true [Fe/H], measured - true [dex], stated error of it [dex], each (N,).

    Without stated errors those are 0.
    """

    mass: np.ndarray
    feh: np.ndarray
    off: np.ndarray
    err: np.ndarray

    @classmethod
    def of(cls, mass, measured, true, err=None) -> ErrorTable:
        """Of columns (N,), rows with something missing left out."""
        err = np.zeros(len(mass)) if err is None else err
        ok = np.isfinite(mass) & np.isfinite(measured) & np.isfinite(true) & (np.asarray(err) >= 0)
        mass, measured, true, err = (np.asarray(v, np.float64)[ok] for v in (mass, measured, true, err))
        return cls(mass, true, np.clip(measured - true, GRID[1], GRID[-2]), err)

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

    def shares(self, low: float, high: float, feh: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Of the masses from `low` to `high` at true [Fe/H] (C,): of each class of stated error, between `classes`
        (S + 1,), the share with measured - true below GRID, (C, S, len(GRID)); the last of all classes add up to 1.
        """
        mine = self._column(low, high)
        order = mine[np.argsort(self.feh[mine])]
        x, off, kind = self.feh[order], self.off[order], np.searchsorted(classes, self.err[order], side="right") - 1
        out = np.zeros((len(feh), len(classes) - 1, len(GRID)))
        for row, place in zip(out, feh, strict=True):
            moved, weight, near = _near(x, off, place)
            for s in range(len(row)):
                of_class = kind[near] == s
                if of_class.any():
                    row[s, 1:-1] = _below(moved[of_class], weight[of_class])
                    row[s, -1] = row[s, -2]
        return out

    def _column(self, low: float, high: float) -> np.ndarray:
        """The stars of these masses; with the nearest beyond them, where they are few."""
        inside = np.flatnonzero((self.mass >= low) & (self.mass < high))
        if len(inside) >= min(COLUMN, len(self.mass)):
            return inside
        return np.argsort(np.abs(self.mass - 0.5 * (low + high)), kind="stable")[:COLUMN]

    def spread(self, feh_edges: np.ndarray) -> float:
        """The rms of measured - true [dex] of those that are observed inside the edges, of all if none is."""
        found = self.feh + self.off
        inside = (found >= feh_edges[0]) & (found < feh_edges[-1])
        return float(np.sqrt(np.mean(np.square(self.off[inside] if inside.any() else self.off))))

    def seen(self, mass_edges: np.ndarray, feh_edges: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """How many of them (K, S, O) are observed in bins of mass, of a class, in slices of [Fe/H]."""
        stars = np.column_stack([self.mass, self.err, self.feh + self.off])
        return np.histogramdd(stars, [mass_edges, np.minimum(classes, 1e9), feh_edges])[0]


def _near(x: np.ndarray, off: np.ndarray, place: float) -> tuple[np.ndarray, np.ndarray, slice]:
    """Of stars at rising x (N,): measured - true as it would be at `place`, weights that sum to 1, which stars."""
    middle, few = np.searchsorted(x, place), min(FEWEST, len(x))
    around = np.sort(np.abs(x[max(middle - few, 0) : middle + few] - place))
    width = max(NEAR, around[few - 1] / 1.5)
    near = slice(*np.searchsorted(x, [place - 3 * width, place + 3 * width]))
    d = x[near] - place
    weight = np.exp(-0.5 * (d / width) ** 2)
    flat = d - np.average(d, weights=weight)
    slope = np.sum(weight * flat * off[near]) / (np.sum(weight * flat**2) + RIDGE * NEAR**2)
    return off[near] - d * slope, weight / weight.sum(), near


def _below(off: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weight of `off` below each inner point of GRID."""
    centre = np.average(off, weights=weight)
    variance = np.average((off - centre) ** 2, weights=weight) + 1e-9
    off = centre + (off - centre) * np.sqrt(max(1.0 - (SMOOTH * STEP) ** 2 / variance, 0.0))
    counted = np.histogram(off.clip(GRID[1], GRID[-2] - 1e-9), GRID[1:-1], weights=weight)[0]
    share = np.cumsum(gaussian_filter1d(counted, SMOOTH, mode="constant"))
    return np.r_[0.0, share] * weight.sum() / share[-1]
