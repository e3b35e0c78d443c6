"""Density laws n(R, Z) of the solar neighbourhood, 1 at (R_sun, Z = 0), and the way from (l, b, d) to (R, Z)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

R_SUN = 8.122  # kpc, GRAVITY Collaboration 2018
Z_SUN = 0.0  # kpc, Li+ 2026 Sec. 3.1 put the Sun in the plane; astropy's frame has 0.0208
H_R, H_Z = 1.5, 1.43  # kpc, Xiang+ 2025 as quoted by Li+ 2026 Sec. 3.1


@dataclass(frozen=True)
class Disc:
    """n(R, Z) = exp[-(R - R_sun)/h_R - |Z|/h_Z] (Li+ 2026 eq. 5); lengths [kpc], infinity allowed."""

    h_r: float = H_R
    h_z: float = H_Z

    def density(self, R, Z, r_sun=R_SUN):
        """n at R, Z [kpc] (N,), 1 at (r_sun, 0)."""
        return np.exp((r_sun - R) / self.h_r - np.abs(Z) / self.h_z)


@dataclass(frozen=True)
class Halo:
    """n(R, Z) = (sqrt(R^2 + (Z/q)^2) / R_sun)^-slope, a flattened power law."""

    slope: float = 2.5
    q: float = 0.7

    def density(self, R, Z, r_sun=R_SUN):
        """n at R, Z [kpc] (N,), 1 at (r_sun, 0)."""
        return ((R**2 + (Z / self.q) ** 2) / r_sun**2) ** (-0.5 * self.slope)


@dataclass(frozen=True)
class Mixture:
    """Weighted sum of laws; the weights are shares of the density at (R_sun, 0) and are scaled to add up to 1."""

    parts: tuple[tuple[float, Disc | Halo], ...]

    def density(self, R, Z, r_sun=R_SUN):
        """n at R, Z [kpc] (N,), 1 at (r_sun, 0)."""
        total = sum(weight for weight, _ in self.parts)
        return sum(weight / total * law.density(R, Z, r_sun) for weight, law in self.parts)


def cylindrical(l, b, d, r_sun=R_SUN, z_sun=Z_SUN):
    """Galactocentric R, Z [kpc] of galactic l, b [deg] at distance d [kpc]; arrays broadcast."""
    l, b = np.deg2rad(l), np.deg2rad(b)
    x = r_sun - d * np.cos(b) * np.cos(l)
    y = d * np.cos(b) * np.sin(l)
    return np.hypot(x, y), d * np.sin(b) + z_sun
