"""Extinction along the lines of sight of a HEALPix map of mixed resolutions, as Bayestar's maps are.

Nearest pixel on the sky (the finest that covers a place), linear in distance modulus along it; proportional to distance
before the first modulus, constant behind the last. `dustmaps.bayestar.BayestarQuery` is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xptools.cores.dustcube import directions, spread_out

STATISTICS = ("mean", "median", "best")


@dataclass(frozen=True, eq=False)
class Pixels:
    """A map of lines of sight.

    start, row, width (pixels,): the first finest nested pixel of each map pixel (rising), its row, its finest pixels;
    coarse: first map pixel at or after each pixel of resolution `base`; top: the finest nside;
    profiles (rows, 1 + samples, moduli) float32: best fit, then samples; modulus (moduli,) [mag];
    quality (rows, 3) float32: converged, first and last reliable modulus.
    """

    start: np.ndarray
    row: np.ndarray
    width: np.ndarray
    coarse: np.ndarray
    top: int
    base: int
    profiles: np.ndarray
    modulus: np.ndarray
    quality: np.ndarray
    release: Callable[[int], None] | None = None

    def query(self, lon, lat, d, equatorial: bool = False, threads: int = 1, statistic: str = "mean"):
        """E, its standard deviation over samples, place code, converged and reliable for lon, lat [deg], d [pc].

        `statistic` is the mean or the median of the samples, or the best fit.
        """
        lon, lat, d = (np.ascontiguousarray(a, np.float64) for a in (lon, lat, d))
        E, spread, place = np.empty(len(d)), np.empty(len(d)), np.empty(len(d), np.int8)
        found = np.empty(len(d), np.int64)
        which = STATISTICS.index(statistic)
        spread_out(lambda a, b: self._find(lon[a:b], lat[a:b], equatorial, found[a:b]), len(d), threads)

        def answer(start, stop):
            some = slice(start, stop)
            self._answer(found[some], d[some], which, E[some], spread[some], place[some])

        spread_out(answer, len(d), threads)
        if self.release is not None:
            self.release(len(d))
        return E, spread, place, *self._quality(found, d)

    def _find(self, lon, lat, equatorial, found):
        from xptools.cores import _dustkernels as kernels

        theta, phi, _ = directions(lon, lat, equatorial)
        shift = 2 * (int(np.log2(self.top)) - int(np.log2(self.base)))
        kernels.rows_of(theta, phi, self.start, self.row, self.width, self.top, self.coarse, shift, found)

    def _answer(self, found, d, which, E, spread, place):
        from xptools.cores import _dustkernels as kernels

        kernels.along_sight(found, d, self.profiles, self.modulus, which, E, spread, place)

    def _quality(self, found, d):
        converged, low, high = (self.quality[np.maximum(found, 0), k] for k in range(3))
        with np.errstate(divide="ignore", invalid="ignore"):
            modulus = 5.0 * np.log10(d / 10.0)
        here = found >= 0
        return here & (converged > 0), here & (modulus >= low) & (modulus <= high)


def index_pixels(nside: np.ndarray, pixel: np.ndarray):
    """start, row, width, coarse, top, base of `Pixels` from each row's nside and nested pixel."""
    nside, pixel = np.asarray(nside, np.int64), np.asarray(pixel, np.int64)
    top, base = int(nside.max()), int(nside.min())
    width = (top // nside) ** 2
    start = pixel * width
    row = np.lexsort((-width, start))  # where two resolutions cover a place, the finer one comes last and is found
    start, width = start[row], width[row]
    coarse = np.searchsorted(start, np.arange(12 * base**2 + 1) * (top // base) ** 2)
    return start, row.astype(np.int64), width, coarse.astype(np.int64), top, base
