"""Gaia astrometry: galactic coordinates, the parallax zero point, distances and tangential velocities.

Elementwise over arrays of any one shape; NaN in, NaN out. Angles in degrees, parallaxes in mas.
"""

from __future__ import annotations

import numpy as np

# km/s of 1 au/yr (IAU 2012 au, Julian year): v [km/s] = KMS_PER_AU_YR * mu [mas/yr] / parallax [mas].
KMS_PER_AU_YR = 4.740470463

# ICRS to Galactic: frame bias ICRS -> FK5 J2000 (USNO Circular 179), then the rotation to the north galactic pole
# (192.8594812, +27.1282512) deg with the position angle 122.9319186 deg of the centre; astropy's definition.
# The archive's own l, b use a pole rounded in ICRS: the two differ by up to 0.1 arcsec.
ICRS_TO_GALACTIC = np.array(
    [
        [-0.05487565771259163, -0.8734370519556159, -0.48383507361671546],
        [0.4941094371927268, -0.4448297212232952, 0.7469821839866676],
        [-0.8676661375596576, -0.19807633727300053, 0.4559838136873016],
    ]
)

OBLIQUITY = 84381.406 / 3600.0  # [deg], J2000 (IAU 2006), enough for sin(ecliptic latitude) in the zero point

# Lindegren et al. 2021, A&A 649, A4, Tables 9 and 10: zero point [uas] of 5- and 6-parameter solutions.
# Rows: G [mag]; columns q_jk, j of the colour basis, k of the latitude basis, in the order of _TERMS_*.
_G_KNOTS = np.array([6.0, 10.8, 11.2, 11.8, 12.2, 12.9, 13.1, 15.9, 16.1, 17.5, 19.0, 20.0, 21.0])
_TERMS_5P = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0))
_Q_5P = np.array(
    [
        [-26.98, -9.62, 27.40, -25.1, -0.0, -1257, 0, 0],
        [-27.23, -3.07, 23.04, 35.3, 15.7, -1257, 0, 0],
        [-30.33, -9.23, 9.08, -88.4, -11.8, -1257, 0, 0],
        [-33.54, -10.08, 13.28, -126.7, 11.6, -1257, 0, 0],
        [-13.65, -0.07, 9.35, -111.4, 40.6, -1257, 0, 0],
        [-19.53, -1.64, 15.86, -66.8, 20.6, -1257, 0, 0],
        [-37.99, 2.63, 16.14, -5.7, 14.0, -1257, 107.9, 104.3],
        [-38.33, 5.61, 15.42, 0, 18.7, -1189, 243.8, 155.2],
        [-31.05, 2.83, 8.59, 0, 15.5, -1404, 105.5, 170.7],
        [-29.18, -0.09, 2.41, 0, 24.5, -1165, 189.7, 325.0],
        [-18.40, 5.98, -6.46, 0, 5.5, 0, 0, 276.6],
        [-12.65, -4.57, -7.46, 0, 97.9, 0, 0, 0],
        [-18.22, -15.24, -18.54, 0, 128.2, 0, 0, 0],
    ]
)
_TERMS_6P = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0))
_Q_6P = np.array(
    [
        [-27.85, -7.78, 27.47, -32.1, 14.4, 9.5, -67],
        [-28.91, -3.57, 22.92, 7.7, 12.6, 1.6, -572],
        [-26.72, -8.74, 9.36, -30.3, 5.6, 17.2, -1104],
        [-29.04, -9.69, 13.63, -49.4, 36.3, 17.7, -1129],
        [-12.39, -2.16, 10.23, -92.6, 19.8, 27.6, -365],
        [-18.99, -1.93, 15.90, -57.2, -8.0, 19.9, -554],
        [-38.29, 2.59, 16.20, -10.5, 1.4, 0.4, -960],
        [-36.83, 4.20, 15.76, 22.3, 11.1, 10.0, -1367],
        [-28.37, 1.99, 9.28, 50.4, 17.2, 13.7, -1351],
        [-24.68, -1.37, 3.52, 86.8, 19.8, 21.3, -1380],
        [-15.32, 4.01, -6.03, 29.2, 14.1, 0.4, -563],
        [-13.73, -10.92, -8.30, -74.4, 196.4, -42.0, 536],
        [-29.53, -20.34, -18.74, -39.5, 326.8, -262.3, 1598],
    ]
)

G_RANGE = (6.0, 21.0)
NU_EFF_RANGE = (1.1, 1.9)  # [um^-1], 5-parameter solutions
PSEUDOCOLOUR_RANGE = (1.24, 1.72)  # [um^-1], 6-parameter solutions


def galactic(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Galactic longitude l in [0, 360) and latitude b of ICRS ra, dec; all [deg]. No proper motion is applied."""
    ra, dec = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    cos_dec = np.cos(dec)
    v = (cos_dec * np.cos(ra), cos_dec * np.sin(ra), np.sin(dec))
    x, y, z = (row[0] * v[0] + row[1] * v[1] + row[2] * v[2] for row in ICRS_TO_GALACTIC)
    l = np.degrees(np.arctan2(y, x)) % 360.0
    # arctan2 keeps full precision at the poles, where arcsin(z) loses half of the digits.
    b = np.degrees(np.arctan2(z, np.hypot(x, y)))
    return np.where(l >= 360.0, 0.0, l), b


def sin_ecliptic_latitude(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Sine of the ecliptic latitude of ra, dec [deg] (mean ecliptic of J2000)."""
    ra, dec = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    eps = np.radians(OBLIQUITY)
    return np.sin(dec) * np.cos(eps) - np.cos(dec) * np.sin(ra) * np.sin(eps)


def zero_point(
    G: np.ndarray,
    nu_eff: np.ndarray,
    pseudocolour: np.ndarray,
    sin_beta: np.ndarray,
    params_solved: np.ndarray,
) -> np.ndarray:
    """Parallax zero point Z [mas]; subtract it from the parallax (Lindegren+ 2021, Eqs. A3-A5).

    G [mag] is clamped to 6-21; nu_eff [um^-1] serves 5-parameter solutions (params_solved 31), pseudocolour [um^-1]
    6-parameter ones (95). NaN for 2-parameter solutions and where the colour that is needed is unknown.
    """
    G, s = np.asarray(G, np.float64), np.asarray(sin_beta, np.float64)
    solved = np.asarray(params_solved)
    five = _zero_point(G, np.asarray(nu_eff, np.float64), s, _Q_5P, _TERMS_5P)
    six = _zero_point(G, np.asarray(pseudocolour, np.float64), s, _Q_6P, _TERMS_6P)
    return np.where(solved == 31, five, np.where(solved == 95, six, np.nan))


def zero_point_valid(G: np.ndarray, nu_eff: np.ndarray, pseudocolour: np.ndarray, params_solved: np.ndarray):
    """True where the zero point was calibrated: 6 < G < 21 and the colour inside its range."""
    solved = np.asarray(params_solved)
    five = (solved == 31) & (nu_eff > NU_EFF_RANGE[0]) & (nu_eff < NU_EFF_RANGE[1])
    six = (solved == 95) & (pseudocolour > PSEUDOCOLOUR_RANGE[0]) & (pseudocolour < PSEUDOCOLOUR_RANGE[1])
    return (np.asarray(G) > G_RANGE[0]) & (np.asarray(G) < G_RANGE[1]) & (five | six)


def zero_point_bright(G: np.ndarray) -> np.ndarray:
    """The addition of Leung & Bovy 2023 to Z [mas]: 0.005 * clip(G - 13, 0, 4)."""
    return 0.005 * np.clip(np.asarray(G, np.float64) - 13.0, 0.0, 4.0)


def _zero_point(G, x, s, table, terms):
    G, x, s = (np.where(np.isfinite(a), a, np.nan) for a in (G, x, s))
    colour = (
        np.ones_like(x),
        np.clip(x - 1.48, -0.24, 0.24),
        np.clip(1.48 - x, 0.0, 0.24) ** 3,
        np.minimum(0.0, x - 1.24),
        np.maximum(0.0, x - 1.72),
    )
    latitude = (np.ones_like(s), s, s * s - 1.0 / 3.0)
    z = np.zeros(np.broadcast(G, x, s).shape)
    for column, (j, k) in enumerate(terms):
        z += np.interp(G, _G_KNOTS, table[:, column]) * colour[j] * latitude[k]
    return z / 1000.0


def distance(parallax: np.ndarray) -> np.ndarray:
    """1000 / parallax [pc] for a parallax in mas; NaN where it is not positive."""
    parallax = np.asarray(parallax, np.float64)
    return 1000.0 / np.where(parallax > 0, parallax, np.nan)


def tangential(pm: np.ndarray, parallax: np.ndarray) -> np.ndarray:
    """Velocity across the line of sight [km/s]: proper motion [mas/yr] (pmra includes cos dec) at a parallax [mas]."""
    return KMS_PER_AU_YR * np.asarray(pm, np.float64) * distance(parallax) / 1000.0


def tangential_covariance(pmra, pmdec, parallax, errors, correlations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariance of (v_ra, v_dec) as ra-ra, ra-dec, dec-dec [km^2/s^2], to first order in the errors.

    `errors` of parallax, pmra, pmdec [mas, mas/yr]; `correlations` parallax-pmra, parallax-pmdec, pmra-pmdec. NaN where
    something is missing or the parallax is not positive.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        per_pm = KMS_PER_AU_YR * distance(parallax) / 1000.0
        plx, ra, dec = (per_pm * np.asarray(e, np.float64) for e in errors)
        # In units of proper motion, the parallax error moves v along the motion itself.
        a, b = -pmra / parallax, -pmdec / parallax
        plx_ra, plx_dec, ra_dec = (np.asarray(c, np.float64) for c in correlations)
        return (
            ra**2 + (a * plx) ** 2 + 2 * a * plx_ra * plx * ra,
            ra_dec * ra * dec + a * b * plx**2 + b * plx_ra * plx * ra + a * plx_dec * plx * dec,
            dec**2 + (b * plx) ** 2 + 2 * b * plx_dec * plx * dec,
        )
