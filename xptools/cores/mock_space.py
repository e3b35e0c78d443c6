"""Positions drawn from n(R, Z) = exp[-(R - R_sun)/h_R - |Z|/h_Z] inside a heliocentric sphere, four words per star.

Distance, then latitude, then longitude. The envelope is n with |Z| replaced by |d sin b| - |z_sun| and the mean over
longitude I(d cos b) by its largest value out to d; its volume is a one-dimensional integral and its distances and
latitudes have closed or tabulated inverses. A star stays with probability n / envelope (over 0.9 within 1 kpc), so the
stars that stay follow n exactly, up to the table of longitudes (relative error of the density below 1e-4).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xptools.cores.cubic import Cubic

DISTANCES, RADII, FRACTIONS, KNOTS = 4096, 128, 256, 501


class Position(NamedTuple):
    """Heliocentric galactic x, y, z [kpc] (x to the centre, y along rotation, z north), distance, and who stays."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    distance: np.ndarray
    keep: np.ndarray


class Space:
    """Tables of several density laws (component k: h_R[k], h_Z[k] [kpc]) out to `reach` [kpc]."""

    def __init__(self, laws, reach: float, r_sun: float, z_sun: float):
        self.laws, self.reach, self.r_sun, self.z_sun = tuple(laws), float(reach), float(r_sun), float(z_sun)
        self.inverse_h_z = np.array([1.0 / h_z for _, h_z in self.laws])
        self.lift = np.exp(abs(self.z_sun) * self.inverse_h_z)
        p = np.linspace(0.0, self.reach, RADII + 1)
        self._angle = np.concatenate([_rings(h_r, p, self.r_sun).ravel() for h_r, _ in self.laws])
        self._fine = np.linspace(0.0, self.reach, 20_001)
        knots = np.linspace(0.0, self.reach, KNOTS)  # of a spline, within 1e-9 to 8 kpc, 1e-5 to 50 kpc
        self._mean = np.stack([Cubic(knots, _ring_mean(h_r, knots, self.r_sun))(self._fine) for h_r, _ in self.laws])
        self._most = np.maximum.accumulate(self._mean, axis=1)
        self._edge = np.stack([self._envelope(k) for k in range(len(self.laws))])
        self._top = np.cbrt(self._edge[:, -1])
        steps = np.linspace(0.0, 1.0, DISTANCES + 1)
        self._distance = np.concatenate(
            [np.interp(steps * top, np.cbrt(edge), self._fine) for top, edge in zip(self._top, self._edge, strict=True)]
        )

    def _envelope(self, k: int) -> np.ndarray:
        """Volume [kpc3] of the envelope inside each distance of the fine grid: Gauss-Legendre, 3 points a step."""
        nodes, weights = np.polynomial.legendre.leggauss(3)
        step = self._fine[1]
        d = (self._fine[:-1, None] + step * (nodes + 1) / 2).ravel()
        most = np.interp(d, self._fine, self._most[k])
        slice_ = 4 * np.pi * d**2 * most * _mean_exponential(d * self.inverse_h_z[k]) * self.lift[k]
        return np.concatenate([[0.0], np.cumsum((slice_.reshape(-1, 3) * weights).sum(1) * step / 2)])

    def volume(self, k: int, distance) -> np.ndarray:
        """Volume [kpc3] of component k's envelope within `distance` [kpc]."""
        return np.interp(distance, self._fine, self._edge[k])

    def draw(self, k, reach, u_distance, u_latitude, u_longitude, u_keep) -> Position:
        """Positions (n,) of stars of component k (n,) within `reach` (n,) [kpc] at four uniform deviates each.

        `reach` may hold at most this Space's own reach.
        """
        d = self._distances(k, reach, u_distance)
        tau = np.maximum(d * self.inverse_h_z[k], 1e-12)
        signed = 2.0 * u_latitude - 1.0
        sin_b = np.minimum(-np.log1p(np.abs(signed) * np.expm1(-tau)) / tau, 1.0)
        cos_b = np.sqrt((1.0 - sin_b) * (1.0 + sin_b))
        p = d * cos_b
        z = np.copysign(d * sin_b, signed)
        odds = self._lookup(self._mean, k, p) / self._lookup(self._most, k, d)
        if self.z_sun:
            odds = odds * np.exp((d * sin_b - np.abs(z + self.z_sun)) * self.inverse_h_z[k]) / self.lift[k]
        l = self._longitudes(k, p, u_longitude)
        return Position(p * np.cos(l), p * np.sin(l), z, d, u_keep < odds)

    def _distances(self, k, reach, u):
        # in the cube root of the volume the inverse is almost a straight line
        t = np.cbrt(u * self._lookup(self._edge, k, reach)) / self._top[k] * DISTANCES
        i = np.minimum(t.astype(np.intp), DISTANCES - 1)
        base = k * (DISTANCES + 1) + i
        low = self._distance[base]
        return low + (t - i) * (self._distance[base + 1] - low)

    def _lookup(self, table, k, d):
        """Linear interpolation of table (K, fine) at component k and distance d."""
        t = d * ((self._fine.size - 1) / self.reach)
        i = np.minimum(t.astype(np.intp), self._fine.size - 2)
        flat, base = table.ravel(), k * self._fine.size + i
        low = flat[base]
        return low + (t - i) * (flat[base + 1] - low)

    def _longitudes(self, k, p, u):
        """Longitude [rad] in (-pi, pi) at projected distance p: bilinear in the table of inverse distributions."""
        signed = 2.0 * u - 1.0
        row, column = p * (RADII / self.reach), np.abs(signed) * FRACTIONS
        i = np.minimum(row.astype(np.intp), RADII - 1)
        j = np.minimum(column.astype(np.intp), FRACTIONS - 1)
        a, b = row - i, column - j
        base = (k * (RADII + 1) + i) * (FRACTIONS + 1) + j
        t, far = self._angle, base + FRACTIONS + 1
        near_row = t[base] + b * (t[base + 1] - t[base])
        far_row = t[far] + b * (t[far + 1] - t[far])
        return np.copysign(near_row + a * (far_row - near_row), signed)


def _mean_exponential(tau):
    """int_0^1 exp(-tau s) ds = (1 - exp(-tau)) / tau, 1 at tau = 0."""
    safe = np.where(tau > 0, tau, 1.0)
    return np.where(tau > 0, -np.expm1(-safe) / safe, 1.0)


def _on_ring(h_r, p, cos_l, r_sun):
    """exp[-(R - R_sun)/h_R] at projected distance p and longitude l."""
    R = np.sqrt(r_sun**2 + p**2 - 2 * r_sun * p * cos_l)
    return np.exp((r_sun - R) / h_r)


def _ring_mean(h_r, p, r_sun, around=48):
    """I(p) (P,): mean over longitude; periodic and smooth, so midpoints converge exponentially."""
    cos_l = np.cos(np.pi * (np.arange(around) + 0.5) / around)
    return _on_ring(h_r, np.asarray(p)[:, None], cos_l, r_sun).mean(axis=1)


def _rings(h_r, p, r_sun, around=2048):
    """Inverse distributions of |l| (P, FRACTIONS + 1) [rad] at projected distances p (P,)."""
    angle = np.linspace(0.0, np.pi, around + 1)
    middle = 0.5 * (angle[1:] + angle[:-1])
    below = np.cumsum(_on_ring(h_r, p[:, None], np.cos(middle), r_sun), axis=1)
    below = np.concatenate([np.zeros((len(p), 1)), below], axis=1) / below[:, -1:]
    fractions = np.linspace(0.0, 1.0, FRACTIONS + 1)
    return np.stack([np.interp(fractions, row, angle) for row in below])
