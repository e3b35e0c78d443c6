"""Effective volumes V_eff(M_G) = int n(x) S(G(M_G, x)) d3x of a magnitude-limited heliocentric sphere.

Li+ 2026 eqs 5-7 (Sec. 3.2-3.3). n(R, Z) is 1 at (R_sun, Z = 0), so V_eff is in kpc3 and a number of stars divided by it
is their density at the Sun's radius in the plane. Without dust S is a step, a star is seen out to d_max(M_G), and
V = (4 pi / 3) d_max^3 nbar(d_max) with nbar the mean density in the sphere: one smooth function of one variable,
tabulated once by quadrature. Sight lines with dust or a completeness map are in `sightlines.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xptools.cores.cubic import Cubic
from xptools.cores.galaxy import R_SUN, Z_SUN, Disc, cylindrical

BALL = 4.0 * np.pi / 3.0


@dataclass(frozen=True)
class Survey:
    """What can be seen, and of what: limits, density law and the Sun's place.

    g_limit        apparent G [mag]; a star counts if G <= g_limit
    max_distance   [kpc]
    mg_limit       absolute magnitude: stars brighter than this do not count (Li+ 2026: M_G > 4), or None
    law            object with density(R, Z, r_sun)
    r_sun, z_sun   [kpc]
    """

    g_limit: float = 17.0
    max_distance: float = 1.0
    mg_limit: float | None = None
    law: object = field(default_factory=Disc)
    r_sun: float = R_SUN
    z_sun: float = Z_SUN

    def reach(self, M_G):
        """d_max [kpc] (N,): where the star fades out or the sphere ends; 0 if M_G is NaN or too bright."""
        M_G = np.asarray(M_G, dtype=np.float64)
        d = np.minimum(10.0 ** ((self.g_limit - M_G) / 5.0 - 2.0), self.max_distance)
        seen = np.isfinite(M_G) if self.mg_limit is None else M_G > self.mg_limit
        return np.where(seen, d, 0.0)


def mean_density(survey, d, radial=16, polar=12, around=16):
    """nbar (N,): mean of n over heliocentric spheres of radius d [kpc] (N,), by Gauss-Legendre quadrature.

    `polar` nodes in sin b on each side of the plane, `around` in l, `radial` on each side of d = |z_sun|,
    so that no node range straddles the kink of |Z|.
    """
    d = np.atleast_1d(np.asarray(d, dtype=np.float64))
    x, w = np.polynomial.legendre.leggauss(radial)
    cut = np.minimum(abs(survey.z_sun), d)[:, None]
    r, wr = cut + (d[:, None] - cut) * (x + 1) / 2, (d[:, None] - cut) * w / 2
    if survey.z_sun:
        r, wr = np.concatenate([cut * (x + 1) / 2, r], axis=1), np.concatenate([cut * w / 2, wr], axis=1)
    wr = wr * r**2  # (N, radial or 2 radial)
    x, w = np.polynomial.legendre.leggauss(polar)
    plane = np.clip(-survey.z_sun / np.maximum(r, 1e-300), -1.0, 1.0)[..., None]
    sin_b, wb = plane + (1 - plane) * (x + 1) / 2, (1 - plane) * w / 2
    if survey.z_sun:
        sin_b = np.concatenate([-1 + (plane + 1) * (x + 1) / 2, sin_b], axis=-1)
        wb = np.concatenate([(plane + 1) * w / 2, wb], axis=-1)  # (N, 2 radial, 2 polar)
    else:
        wb = 2 * wb  # all laws are the same on both sides of the plane
    # n depends on cos l only and is smooth and periodic: midpoints over half a turn converge exponentially
    cos_l = np.cos(np.pi * (np.arange(around) + 0.5) / around)
    rho = r[..., None] * np.sqrt(1 - sin_b**2)
    R = np.sqrt(survey.r_sun**2 + rho[..., None] ** 2 - 2 * survey.r_sun * rho[..., None] * cos_l)
    Z = (r[..., None] * sin_b + survey.z_sun)[..., None]
    n = survey.law.density(R, Z, survey.r_sun).mean(axis=-1)
    return np.einsum("nr,nrb,nrb->n", wr, wb, n) / 2 * 3 / d**3


class Volume:
    """V_eff as a function of M_G for one survey: `Volume(survey)(M_G) -> kpc3`.

    Exact to 3e-7, or to 1e-5 where d_max passes |z_sun| of a Sun beside the plane.
    """

    def __init__(self, survey: Survey, nodes: int = 64):
        self.survey = survey
        far = survey.max_distance
        self._near = far * 1e-3
        grid = np.geomspace(self._near, far, nodes)
        self._spline = Cubic(np.log(grid), mean_density(survey, grid))

    def __call__(self, M_G):
        """V_eff [kpc3] (N,) of stars of absolute magnitude M_G [mag] (N,); 0 where they cannot be seen."""
        d = self.survey.reach(M_G)
        return BALL * d**3 * self._spline(np.log(np.maximum(d, self._near)))


def ball(u, d_max):
    """l, b [deg] and d [kpc] (N,) uniform in spheres of radius d_max [kpc] (N,) for uniform deviates u (3, N)."""
    return 360.0 * u[0], np.rad2deg(np.arcsin(2.0 * u[1] - 1.0)), d_max * np.cbrt(u[2])


def monte_carlo(survey, M_G, rng, seen=None):
    """V_eff [kpc3] and its standard error from one random point per entry of M_G [mag] (N,) (Li+ 2026 Sec. 3.3).

    Points are uniform in the sphere of d_max(M_G) and weighted by n; M_G may vary over a mass bin. Drawing in the whole
    sphere gives the same mean with up to a thousand times the variance. `seen(M_G, l, b, d)` (degrees, kpc) may give a
    detection probability (N,) for dust and completeness.
    """
    d_max = survey.reach(M_G)
    l, b, d = ball(rng.random((3, len(d_max))), d_max)
    R, Z = cylindrical(l, b, d, survey.r_sun, survey.z_sun)
    v = BALL * d_max**3 * survey.law.density(R, Z, survey.r_sun)
    if seen is not None:
        v = v * seen(M_G, l, b, d)
    return float(v.mean()), float(v.std() / np.sqrt(len(v)))
