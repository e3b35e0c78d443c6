"""Velocities of mock stars: one Gaussian ellipsoid per population in (v_R, v_phi, v_Z), seen from the moving Sun.

The mean rotation is linear in [Fe/H] inside a population, so that kinematics tell [Fe/H] within discs too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xptools.cores.astrometry import ICRS_TO_GALACTIC, KMS_PER_AU_YR

V_SUN = (12.9, 245.6, 7.78)  # km/s towards l = 0, l = 90 deg, b = 90 deg: astropy's frame v4.0, which has R_sun = 8.122


class Sky(NamedTuple):
    """ra, dec [deg], pmra (with cos dec), pmdec [mas/yr], radial velocity [km/s]."""

    ra: np.ndarray
    dec: np.ndarray
    pmra: np.ndarray
    pmdec: np.ndarray
    radial_velocity: np.ndarray


def heliocentric(x, y, v_R, v_phi, v_Z, r_sun: float):
    """Velocity (3, n) [km/s] relative to the Sun along x, y, z, of stars at heliocentric x, y [kpc]."""
    R = np.hypot(r_sun - x, y)
    out_x, out_y = (x - r_sun) / R, y / R  # away from the axis; rotation is (out_y, -out_x), +y at the Sun
    return (v_R * out_x + v_phi * out_y - V_SUN[0], v_R * out_y - v_phi * out_x - V_SUN[1], v_Z - V_SUN[2])


def on_the_sky(x, y, z, distance, velocity) -> Sky:
    """Positions and motions in ICRS of stars at heliocentric galactic x, y, z [kpc] with `velocity` (3, n) [km/s]."""
    A = ICRS_TO_GALACTIC
    e = [(A[0, i] * x + A[1, i] * y + A[2, i] * z) / distance for i in range(3)]
    v = [A[0, i] * velocity[0] + A[1, i] * velocity[1] + A[2, i] * velocity[2] for i in range(3)]
    cos_dec = np.hypot(e[0], e[1])
    cos_ra, sin_ra = e[0] / cos_dec, e[1] / cos_dec
    ra = np.degrees(np.arctan2(e[1], e[0]))
    ra = np.where(ra < 0, ra + 360.0, ra)
    per_pm = KMS_PER_AU_YR * distance  # km/s per mas/yr at a distance in kpc
    along = v[0] * cos_ra + v[1] * sin_ra
    return Sky(
        np.where(ra >= 360.0, 0.0, ra),
        np.degrees(np.arctan2(e[2], cos_dec)),
        (v[1] * cos_ra - v[0] * sin_ra) / per_pm,
        (v[2] * cos_dec - along * e[2]) / per_pm,
        along * cos_dec + v[2] * e[2],
    )
