"""Extinction on a HEALPix x distance grid: E(l, b, d) as the dust map of Edenhofer et al. 2024 gives it.

`Cube` answers on the CPU with compiled kernels; `integrated` is the same in array form for numpy and JAX, the reference
and the GPU path. Between shells ln E is bilinear over the four nearest pixels and linear in distance; before the first
node E is proportional to d; beyond the last one it stays at the last value.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from xptools.cores.astrometry import ICRS_TO_GALACTIC

INSIDE, BELOW, BEYOND, OUTSIDE = 0, 1, 2, 3  # where a star lies: in the grid, before it, behind it, nowhere
CHUNK = 1 << 17  # stars per call of the JAX kernel
FEW = 4096  # stars that one thread handles quicker than several


class Rings(NamedTuple):
    """HEALPix rings 1 ... 4 nside - 1, with the poles as rings 0 and 4 nside (no pixels of their own)."""

    theta: np.ndarray  # colatitude [rad]
    first: np.ndarray  # first pixel, ring order
    count: np.ndarray  # pixels
    shift: np.ndarray  # longitude of the first pixel's centre, in pixels


def rings(nside: int) -> Rings:
    """The rings of a resolution (Gorski et al. 2005, Sec. 5.1)."""
    i = np.arange(4 * nside + 1)
    polar = np.minimum(i, 4 * nside - i)
    cap = polar < nside
    count = 4 * np.minimum(polar, nside)
    z = (2 * nside - i) * 2.0 / (3.0 * nside)
    near_pole = 2.0 * np.arcsin(np.minimum(polar, nside) / (nside * np.sqrt(6.0)))
    theta = np.where(cap, np.where(i < nside, near_pole, np.pi - near_pole), np.arccos(np.clip(z, -1, 1)))
    shift = np.where(cap | ((i - nside) % 2 == 0), 0.5, 0.0)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    count[[0, -1]] = 4  # never read; keeps the arithmetic of the neighbours finite
    return Rings(theta, first, count, shift)


@dataclass(frozen=True, eq=False)
class Cube:
    """An integrated map. lnE (12 nside^2 in ring order, samples, nodes) float32, radii (nodes,) [pc] rising.

    `release(stars)` is told how many stars were answered; it may give pages of a memory-mapped lnE back to the system.
    """

    nside: int
    lnE: np.ndarray
    radii: np.ndarray
    release: Callable[[int], None] | None = None

    @cached_property
    def tables(self) -> Rings:
        return rings(self.nside)

    @cached_property
    def guide(self) -> tuple[np.ndarray, float]:
        """First node at or beyond each of equal steps in distance, and steps per pc."""
        r = self.radii
        steps = 2.0 / np.diff(r).min() if len(r) > 1 else 1.0
        steps = min(steps, 65536.0 / max(r[-1] - r[0], 1e-9))
        at = r[0] + (np.arange(int((r[-1] - r[0]) * steps) + 2) - 1e-6) / steps
        return np.minimum(np.searchsorted(r, at), len(r) - 1), steps

    def query(self, lon, lat, d, equatorial: bool = False, threads: int = 1):
        """E, its standard deviation over samples (NaN without) and the place code of stars at lon, lat [deg], d [pc].

        lon, lat are galactic, or ICRS with `equatorial`.
        """
        lon, lat, d = (np.ascontiguousarray(a, np.float64) for a in (lon, lat, d))
        E, spread, place = np.empty(len(d)), np.full(len(d), np.nan), np.empty(len(d), np.int8)

        def stretch(start, stop):
            some = slice(start, stop)
            x, factor = self._interpolate(*directions(lon[some], lat[some], equatorial), d[some], place[some])
            if x.shape[1] == 1:
                np.multiply(factor, np.exp(x[:, 0]), out=E[some])
                return
            values = factor[:, None] * np.exp(x)
            E[some] = values.mean(axis=1)
            spread[some] = values.std(axis=1)

        spread_out(stretch, len(d), threads)
        if self.release is not None:
            self.release(len(d))
        return E, spread, place

    def _interpolate(self, theta, phi, z, d, place):
        """ln E (stars, samples) and the factor before the first node (stars,); fills in `place`."""
        from xptools.cores import _dustkernels as kernels

        guide, steps = self.guide
        x, factor = np.empty((len(d), self.lnE.shape[1])), np.empty(len(d))
        kernels.interpolate(
            theta, phi, z, d, self.lnE, self.radii, guide, steps, tuple(self.tables), x, factor, place
        )
        return x, factor

    def query_jax(self, lon, lat, d, equatorial: bool = False, threads: int = 1):
        """As `query`, by `integrated` on JAX's device: the whole map is copied there once."""
        from xptools.cores._jax import chunked

        theta, phi, _ = directions(lon, lat, equatorial)
        d = np.ascontiguousarray(d, np.float64)
        if not len(d):
            return np.empty(0), np.empty(0), np.empty(0, np.int8)
        E, spread, place = chunked(self._jitted, CHUNK)(theta, phi, d)
        return E, spread, place.astype(np.int8)

    @cached_property
    def _jitted(self):
        from xptools.cores._jax import configure

        jax = configure()
        lnE, radii = jax.numpy.asarray(self.lnE), jax.numpy.asarray(self.radii)

        # lnE is an argument: as a constant of the program it would be copied into it and folded for minutes.
        @jax.jit
        def kernel(theta, phi, d, lnE, radii):
            return integrated(theta, phi, d, lnE, radii, self.tables, jax.numpy)

        return lambda theta, phi, d: kernel(theta, phi, d, lnE, radii)


def directions(lon, lat, equatorial: bool):
    """Galactic colatitude and longitude [rad], and the former's cosine, of lon, lat [deg], ICRS if `equatorial`.

    NaN where there is no place.
    """
    a, b = np.radians(np.asarray(lon, np.float64)), np.radians(np.asarray(lat, np.float64))
    nowhere = ~((np.abs(lat) <= 90.0) & np.isfinite(a))
    if nowhere.any():
        a, b = np.where(nowhere, np.nan, a), np.where(nowhere, np.nan, b)
    w, cos_b = circle(b)
    if not equatorial:
        return 0.5 * np.pi - b, a, w
    sin_a, cos_a = circle(a)
    u, v = cos_b * cos_a, cos_b * sin_a
    x, y, z = (row[0] * u + row[1] * v + row[2] * w for row in ICRS_TO_GALACTIC)
    return np.arctan2(np.sqrt(x * x + y * y), z), np.arctan2(y, x), z


def circle(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of angles [rad], to 4e-16.

    By the tangent of the half angle, which numpy has vectorised in float64, as it has not the sine: five times quicker.
    """
    t = np.tan(0.5 * angle)
    square = t * t
    over = 1.0 / (1.0 + square)
    return 2.0 * t * over, (1.0 - square) * over


def spread_out(work: Callable[[int, int], None], n: int, threads: int, few: int = FEW) -> None:
    """Run `work(start, stop)` over 0 ... n on several threads; it must release the lock and write each star once."""
    if threads < 2 or n < few:
        work(0, n)
        return
    parts = threads * max(1, n // (8 * few * threads))
    edges = [n * i // parts for i in range(parts + 1)]
    list(_pool(os.getpid(), threads).map(work, edges[:-1], edges[1:]))


@lru_cache(maxsize=2)
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)  # of this process: threads do not survive a fork


def integrated(theta, phi, d, lnE, radii, tables: Rings, xp=np):
    """The same as `Cube.query` in array form: E, standard deviation, place of stars at theta, phi [rad], d [pc].

    Works for numpy and jax.numpy; arrays (stars,). Written for clarity: it gathers eight values per star and sample.
    """
    pixel, weight = neighbours(theta, phi, tables, xp)
    nodes = len(radii)
    right = xp.clip(xp.searchsorted(radii, d), 1, nodes - 1) if nodes > 1 else xp.zeros(d.shape, int)
    left = xp.maximum(right - 1, 0)
    below, beyond = d <= radii[0], d > radii[-1]
    inner = xp.where(below, radii[0], xp.where(beyond, radii[-1], d))
    width = radii[right] - radii[left] if nodes > 1 else xp.ones(d.shape)
    far = (inner - radii[left]) / width
    ends = [sum(w[:, None] * lnE[p, :, k] for p, w in zip(pixel, weight, strict=True)) for k in (left, right)]
    # A weight of zero must not meet a node that is not used: 0 x ln 0 is NaN.
    x = xp.where((far == 0)[:, None], ends[0], xp.where((far == 1)[:, None], ends[1], 0.0))
    x = xp.where(((far == 0) | (far == 1))[:, None], x, (1 - far)[:, None] * ends[0] + far[:, None] * ends[1])
    values = xp.where(below, d / radii[0], 1.0)[:, None] * xp.exp(x)
    nowhere = xp.isnan(theta) | ~(d > 0)
    E = xp.where(nowhere, xp.nan, values.mean(axis=1))
    spread = xp.where(nowhere, xp.nan, values.std(axis=1)) if lnE.shape[1] > 1 else xp.full(d.shape, xp.nan)
    place = xp.where(nowhere, OUTSIDE, xp.where(below, BELOW, xp.where(beyond, BEYOND, INSIDE)))
    return E, spread, place


def neighbours(theta, phi, tables: Rings, xp=np):
    """Four pixels (ring order) about theta, phi [rad] and their weights: linear along two rings and between them."""
    ring_theta, first, count, shift = (xp.asarray(t) for t in tables)
    last = len(tables.theta) - 1
    # A place on a ring may be given to either side of it: the interpolation is the same.
    safe = xp.where(xp.isnan(theta), 1.0, theta)
    north = xp.clip(xp.searchsorted(ring_theta, safe, side="right") - 1, 0, last - 1)
    t = (safe - ring_theta[north]) / (ring_theta[north + 1] - ring_theta[north])

    def along(ring):
        u = xp.where(xp.isnan(phi), 0.0, phi) * count[ring] / (2 * np.pi) - shift[ring]
        low = xp.floor(u)
        west = low.astype("int64") % count[ring]
        return first[ring] + west, first[ring] + (west + 1) % count[ring], u - low

    a, b, u = along(xp.maximum(north, 1))
    c, e, v = along(xp.minimum(north + 1, last - 1))
    top, bottom = north == 0, north == last - 1
    south_cap = first[last - 1]
    pixels = (
        xp.where(top, (c + 2) % 4, a),
        xp.where(top, (e + 2) % 4, b),
        xp.where(bottom, south_cap + (a - south_cap + 2) % 4, c),
        xp.where(bottom, south_cap + (b - south_cap + 2) % 4, e),
    )
    q = xp.where(top, 0.25 * (1 - t), xp.where(bottom, 0.25 * t, 0.0))
    upper = xp.where(top, 0.0, 1 - t)
    lower = xp.where(bottom, 0.0, t)
    return pixels, (upper * (1 - u) + q, upper * u + q, lower * (1 - v) + q, lower * v + q)
