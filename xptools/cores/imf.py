"""Stellar mass functions dN/dM as piecewise power laws per [Fe/H] bin, and the usual reference curves.

A mass function is written dN/dM = c M^alpha with alpha negative where low masses dominate (Li+ 2026 Sec. 1).
All integrals are closed forms of  int_lo^hi M^(p-1) dM  or of the error function.

Dictionary form (also the TOML file of `xp mock`, and the value of "phi" under the schema key "xp.mock")::

    feh_edges   [B+1]   [Fe/H] bin edges [dex], rising; outside them the nearest bin is used for sampling
    breaks      [S+1]   lower limit, breaks and upper limit in mass [Msun], rising; shared by all bins
    slopes      [B][S]  alpha of each segment; the function is continuous at the inner breaks
    density     [B]     optional: stars per kpc3 at (R_sun, Z = 0) with breaks[0] <= M < breaks[-1] and
                        [Fe/H] inside the bin; Phi(M) = density * pdf(M) has the unit kpc-3 Msun-1
    interpolate         optional, false: true interpolates alpha linearly in [Fe/H] between bin centres
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.special import erf

from xptools.errors import DataError

LI2026_FEH = (-2.2, -1.8, -1.6, -1.4, -1.1, 0.6)
LI2026_BREAKS = (0.1, 0.5, 0.55, 1.1)
# alpha1 below 0.55 Msun and alpha2 above for the four bins of Li+ 2026 Table 5; they say nothing of the disc,
# so stars above [Fe/H] = -1.1 follow Kroupa (2001), -1.3 below 0.5 Msun and -2.3 above.
LI2026_SLOPES = ((0.0, 0.0, -0.4), (0.0, 0.0, -2.8), (-2.7, -2.7, -1.3), (-1.8, -1.8, -2.5), (-1.3, -2.3, -2.3))


def power_integral(lo, hi, p):
    """int_lo^hi M^(p-1) dM, exact through p = 0 (where it is ln(hi/lo)); broadcasts."""
    lo, hi, p = (np.asarray(v, dtype=np.float64) for v in (lo, hi, p))
    t = p * np.log(hi / lo)
    ratio = np.where(t == 0.0, 1.0, np.expm1(t) / np.where(t == 0.0, 1.0, t))
    return lo**p * np.log(hi / lo) * ratio


@dataclass(frozen=True)
class PiecewiseIMF:
    """dN/dM = c_bs M^alpha_bs for breaks_s <= M < breaks_(s+1) and [Fe/H] in bin b, unit integral per bin.

    Fields are plain tuples (module docstring), so that a step holding one pickles and prints.
    """

    feh_edges: tuple[float, ...] = LI2026_FEH
    breaks: tuple[float, ...] = LI2026_BREAKS
    slopes: tuple[tuple[float, ...], ...] = LI2026_SLOPES
    density: tuple[float, ...] | None = None
    interpolate: bool = field(default=False)

    def __post_init__(self):
        B, S = len(self.feh_edges) - 1, len(self.breaks) - 1
        if B < 1 or np.any(np.diff(self.feh_edges) <= 0):
            _refuse(f"feh_edges must rise and hold at least two values, not {list(self.feh_edges)}")
        if S < 1 or np.any(np.diff(self.breaks) <= 0) or self.breaks[0] <= 0:
            _refuse(f"breaks must be positive and rise, not {list(self.breaks)}")
        if len(self.slopes) != B or any(len(row) != S for row in self.slopes):
            _refuse(f"slopes must be {B} rows (bins of feh_edges) of {S} numbers (segments of breaks)")
        if self.density is not None and (len(self.density) != B or min(self.density) < 0):
            _refuse(f"density must hold {B} numbers, none negative")
        if not np.all(np.isfinite(np.concatenate([np.ravel(self.slopes), np.ravel(self.density or 0.0)]))):
            _refuse("slopes and density must be finite")

    @classmethod
    def from_dict(cls, table: dict) -> PiecewiseIMF:
        """The mass function of a dictionary (module docstring); an unknown key or a wrong shape is a DataError."""
        known = {"feh_edges", "breaks", "slopes", "density", "interpolate"}
        if set(table) - known:
            _refuse(f"unknown key {sorted(set(table) - known)[0]!r}; known are {', '.join(sorted(known))}")
        if {"breaks", "slopes"} - set(table):
            _refuse("keys 'breaks' and 'slopes' are required")
        try:
            return cls(
                feh_edges=_numbers(table.get("feh_edges", (-10.0, 10.0))),
                breaks=_numbers(table["breaks"]),
                slopes=tuple(_numbers(row) for row in table["slopes"]),
                density=None if table.get("density") is None else _numbers(table["density"]),
                interpolate=bool(table.get("interpolate", False)),
            )
        except (TypeError, ValueError) as error:
            _refuse(f"lists of numbers expected ({error})")

    def to_dict(self) -> dict:
        """JSON- and TOML-able form; `from_dict(to_dict())` gives the same object."""
        table = {
            "feh_edges": list(self.feh_edges),
            "breaks": list(self.breaks),
            "slopes": [list(row) for row in self.slopes],
            "interpolate": self.interpolate,
        }
        return table if self.density is None else table | {"density": list(self.density)}

    def with_density(self, density) -> PiecewiseIMF:
        """The same shapes with `density` (B,) [kpc-3] stars between the outer breaks at (R_sun, Z = 0)."""
        return replace(self, density=_numbers(density))

    def row(self, feh):
        """Index (N,) of the [Fe/H] bin; below the first edge 0, above the last B - 1."""
        index = np.searchsorted(self.feh_edges, feh, side="right") - 1
        return np.clip(index, 0, len(self.slopes) - 1)

    def alpha(self, feh):
        """Slopes (N, S) at [Fe/H] (N,): the bin's, or linear between bin centres if `interpolate`."""
        slopes = np.asarray(self.slopes, dtype=np.float64)
        if not self.interpolate:
            return slopes[self.row(feh)]
        edges = np.asarray(self.feh_edges)
        centres = 0.5 * (edges[1:] + edges[:-1])
        return np.stack([np.interp(feh, centres, column) for column in slopes.T], axis=-1)

    def _tables(self, alpha):
        """Coefficients (..., S) of unit total and cumulative numbers (..., S + 1) for slopes (..., S)."""
        edges = np.asarray(self.breaks, dtype=np.float64)
        # c_(s+1) = c_s * break^(alpha_s - alpha_(s+1)) makes the function continuous
        steps = (alpha[..., :-1] - alpha[..., 1:]) * np.log(edges[1:-1])
        c = np.exp(np.concatenate([np.zeros_like(alpha[..., :1]), np.cumsum(steps, axis=-1)], axis=-1))
        parts = c * power_integral(edges[:-1], edges[1:], alpha + 1.0)
        total = parts.sum(axis=-1, keepdims=True)
        cumulative = np.concatenate([np.zeros_like(total), np.cumsum(parts / total, axis=-1)], axis=-1)
        return c / total, cumulative

    @cached_property
    def _bins(self):
        return self._tables(np.asarray(self.slopes, dtype=np.float64))

    def _at(self, feh):
        if self.interpolate:
            alpha = self.alpha(feh)
            return (alpha, *self._tables(alpha))
        b = self.row(feh)
        return np.asarray(self.slopes, dtype=np.float64)[b], self._bins[0][b], self._bins[1][b]

    def pdf(self, mass, feh):
        """Probability density [1/Msun] of mass (N,) at [Fe/H] (N,) or scalar; zero outside the breaks."""
        mass, feh = np.broadcast_arrays(np.asarray(mass, dtype=np.float64), np.asarray(feh, dtype=np.float64))
        alpha, c, _ = self._at(feh)
        s = np.clip(np.searchsorted(self.breaks, mass, side="right") - 1, 0, len(self.breaks) - 2)[..., None]
        alpha, c = np.take_along_axis(alpha, s, -1)[..., 0], np.take_along_axis(c, s, -1)[..., 0]
        inside = (mass >= self.breaks[0]) & (mass <= self.breaks[-1])
        return np.where(inside, c * np.where(inside, mass, 1.0) ** alpha, 0.0)

    def integrate(self, lo, hi, feh, moment=0):
        """int_lo^hi M^moment pdf(M) dM at one [Fe/H]; closed form; lo, hi [Msun] scalars or arrays."""
        lo, hi = np.broadcast_arrays(np.asarray(lo, dtype=np.float64), np.asarray(hi, dtype=np.float64))
        alpha, c, _ = self._at(np.float64(feh))
        edges = np.asarray(self.breaks, dtype=np.float64)
        a = np.clip(lo[..., None], edges[:-1], edges[1:])
        b = np.clip(hi[..., None], edges[:-1], edges[1:])
        return np.sum(c * power_integral(a, b, alpha + 1.0 + moment), axis=-1)

    def sample(self, u, feh):
        """Masses (N,) [Msun] by inverting the cumulative number at uniform deviates u (N,) and [Fe/H] (N,)."""
        u = np.asarray(u, dtype=np.float64)
        feh = np.broadcast_to(np.asarray(feh, dtype=np.float64), u.shape)
        alpha, c, cumulative = self._at(feh)
        s = np.sum(u[..., None] >= cumulative[..., 1:-1], axis=-1)[..., None]
        start = np.asarray(self.breaks, dtype=np.float64)[s[..., 0]]
        stop = np.asarray(self.breaks, dtype=np.float64)[s[..., 0] + 1]
        p = np.take_along_axis(alpha, s, -1)[..., 0] + 1.0
        below = np.take_along_axis(cumulative, s, -1)[..., 0]
        area = (u - below) / (np.take_along_axis(c, s, -1)[..., 0] * start**p)
        # M = start * (1 + p area)^(1/p); log1p keeps it exact through p = 0
        tiny = np.abs(p) < 1e-12
        growth = np.where(tiny, area, np.log1p(np.maximum(p * area, -1.0 + 1e-15)) / np.where(tiny, 1.0, p))
        return np.clip(start * np.exp(growth), start, stop)

    def phi(self, mass, feh_lo, feh_hi):
        """Phi [kpc-3 Msun-1] at (R_sun, Z = 0) of stars of mass (N,) with feh_lo <= [Fe/H] < feh_hi.

        Inside a bin of `feh_edges` the density counts as uniform in [Fe/H]: state finer bins where it is not.
        """
        if self.density is None:
            _refuse("no 'density' stated, so Phi has no absolute scale")
        edges = np.asarray(self.feh_edges, dtype=np.float64)
        total = np.zeros(np.shape(mass))
        for low, high, number in zip(edges[:-1], edges[1:], self.density, strict=True):
            a, b = max(low, feh_lo), min(high, feh_hi)
            if b <= a:
                continue
            points = a + (b - a) * (np.arange(8) + 0.5) / 8 if self.interpolate else np.array([0.5 * (a + b)])
            total += number * (b - a) / (high - low) * np.mean([self.pdf(mass, f) for f in points], axis=0)
        return total


def _numbers(values) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def _refuse(why):
    raise DataError(f"mass function: {why}. TRY: see the TABLES section of `xp help mock`, or omit it for Li+ 2026")


@dataclass(frozen=True)
class LognormalIMF:
    """dN/dlogM ~ exp(-(log M - log m_c)^2 / 2 sigma^2) below 1 Msun, M^-x above, continuous (Chabrier 2003)."""

    m_c: float
    sigma: float
    x: float = 1.3

    def pdf(self, mass, feh=0.0):
        """dN/dM in arbitrary normalisation at mass (N,) [Msun]; [Fe/H] is ignored."""
        mass = np.asarray(mass, dtype=np.float64)
        bell = np.exp(-0.5 * ((np.log10(mass) - np.log10(self.m_c)) / self.sigma) ** 2) / mass
        return np.where(mass < 1.0, bell, self._knee() * mass ** (-self.x - 1.0))

    def _knee(self):
        return float(np.exp(-0.5 * (np.log10(self.m_c) / self.sigma) ** 2))

    def integrate(self, lo, hi, feh=0.0, moment=0):
        """int_lo^hi M^moment dN/dM dM, closed form (error function, then a power law above 1 Msun)."""
        lo, hi = np.asarray(lo, dtype=np.float64), np.asarray(hi, dtype=np.float64)
        s, mu = self.sigma * np.log(10.0), np.log(self.m_c)
        scale = np.exp(moment * mu + 0.5 * (moment * s) ** 2) * s * np.sqrt(np.pi / 2)

        def bell(m):
            return scale * erf((np.log(np.minimum(m, 1.0)) - mu - moment * s * s) / (s * np.sqrt(2.0)))

        tail = power_integral(np.maximum(lo, 1.0), np.maximum(hi, 1.0), moment - self.x)
        return bell(hi) - bell(lo) + self._knee() * tail


def power_law(slopes, breaks) -> PiecewiseIMF:
    """One mass function for every [Fe/H]: `slopes` (S,) between `breaks` (S + 1,) [Msun]."""
    return PiecewiseIMF((-10.0, 10.0), _numbers(breaks), (_numbers(slopes),))


KROUPA = power_law((-0.3, -1.3, -2.3), (0.01, 0.08, 0.5, 150.0))
SALPETER = power_law((-2.35,), (0.01, 150.0))
CHABRIER_SINGLE = LognormalIMF(0.079, 0.69)
CHABRIER_SYSTEM = LognormalIMF(0.22, 0.57)
CHABRIER_2005 = LognormalIMF(0.2, 0.55, 1.35)
REFERENCES = {
    "Kroupa 2001": KROUPA,
    "Chabrier 2003 single": CHABRIER_SINGLE,
    "Chabrier 2003 system": CHABRIER_SYSTEM,
    "Chabrier 2005": CHABRIER_2005,
    "Salpeter 1955": SALPETER,
}


def mass_ratio(imf, upper=0.7, lower=0.2, split=0.5, feh=0.0):
    """xi_MR = int_lower^split M dN / int_lower^upper M dN (Li+ 2026 eq. 10) of a mass function, closed form."""
    return float(imf.integrate(lower, split, feh, moment=1) / imf.integrate(lower, upper, feh, moment=1))
