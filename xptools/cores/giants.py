"""Red giants of any ([M/H], age): the first giant branch at log g, the red clump at the fraction of its lifetime.

`load(None)` is the parametric branch, polynomials fitted to PARSEC v1.2S with YBC bolometric corrections (Bressan+
2012, Chen+ 2019; labels 3 and 4), `load(paths)` the rows of real PARSEC tables; both answer `at` with a Giant.

    log Teff, log M = P(log g - 2.5, [M/H], log10(age / 10 Gyr))            branch; in the clump u instead of log g
    M_G = 4.77 - 2.5 log L - BC(log Teff - 3.68, [M/H], log g - 2.5),       log L = log M + 4 log(Teff / 5772 K)
    BP-RP = P(log Teff - 3.68, [M/H], log g - 2.5)                                  - (log g - 4.438)

The coefficients are data/giants.csv; tests/fit_giants.py makes them again and prints the errors in ERROR, over 67
isochrones ([M/H] -2.19 to 0.145 at 1 Gyr, near solar at 1.8 and 3.2 Gyr, -1.5 to 0 from 10 to 13.5 Gyr). Between 3.2
and 10 Gyr they interpolate; real loci without masses say that BP-RP at given M_G is right to 0.025 mag there. Below
[M/H] = -1.5 and above 0.15 they extrapolate: BP-RP is off by up to 0.12 mag at -2 and 0.1 at 0.5. So does the clump
below 1.7 Gyr. The last 3 % of the clump's lifetime, when the star leaves it, are left out. Mass is the present one,
after Reimers' loss with eta = 0.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xptools.cores import isochrone
from xptools.cores._giant_files import Rows, read_file
from xptools.errors import DataError

TABLE = Path(__file__).parent.parent / "data" / "giants.csv"
MH_RANGE, AGE_RANGE = (-2.2, 0.5), (1.0, 13.5)  # [dex], [Gyr]
GRAVITY = (1.0, 3.4)  # log g of the branch that is described
STAY = 0.97  # of the clump's lifetime that is described
SUN_TEFF, SUN_GRAVITY, SUN_BOLOMETRIC = 5772.0, 4.438, 4.77
# largest |fit - table| on the branch and in the clump from 1.7 Gyr on; the rms is 3 to 8 times smaller
ERROR = {"log Teff": (0.0026, 0.028), "mass [%]": (0.7, 1.5), "M_G": (0.034, 0.21), "BP-RP": (0.020, 0.13)}


class Giant(NamedTuple):
    """Arrays of one shape: log g [cgs], present mass [Msun], Teff [K], M_G and BP-RP [mag]; NaN where there is none."""

    logg: np.ndarray
    mass: np.ndarray
    teff: np.ndarray
    M_G: np.ndarray
    BP_RP: np.ndarray


@lru_cache(maxsize=1)
def coefficients() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per quantity its powers (n, 3) and coefficients (n,)."""
    raw = np.genfromtxt(TABLE, delimiter=",", names=True, dtype=None, encoding="ascii")
    return {
        str(q): (np.stack([raw[p][raw["quantity"] == q] for p in "ijk"], 1), raw["c"][raw["quantity"] == q])
        for q in np.unique(raw["quantity"])
    }


def polynomial(quantity: str, x, h, l) -> np.ndarray:
    """P(x, h, l) of a quantity of the table; arrays (N,)."""
    powers, c = coefficients()[quantity]
    table = [[np.ones_like(v)] for v in (x, h, l)]
    for column, values in zip(table, (x, h, l), strict=True):
        for _ in range(powers.max()):
            column.append(column[-1] * values)
    return sum(a * table[0][i] * table[1][j] * table[2][k] for a, (i, j, k) in zip(c, powers, strict=True))


class Branch:
    """The parametric giants."""

    family = "parametric"
    origin = "parametric giant branch and clump fitted to PARSEC v1.2S with YBC bolometric corrections"
    mh_range, age_range = MH_RANGE, AGE_RANGE

    def at(self, clump, place, mh, age) -> Giant:
        """Giants at [M/H] and age [Gyr]; `place` is log g on the branch, the fraction of the lifetime in the clump.

        All broadcast. NaN beyond the branch's base and GRAVITY.
        """
        clump, place, mh, age = np.broadcast_arrays(clump, place, mh, age)
        h, l = np.clip(mh, *MH_RANGE), np.log10(np.clip(age, *AGE_RANGE) / 10.0)
        u, g = np.where(clump, place * STAY, 0.5) - 0.5, np.where(clump, 2.5, place)
        logg = np.where(clump, polynomial("clump_logg", u, h, l), g)
        x = np.where(clump, u, g - 2.5)
        log_teff, log_mass = (
            np.where(clump, polynomial(f"clump_{q}", np.where(clump, x, 0.0), h, l),
                     polynomial(f"branch_{q}", np.where(clump, 0.0, x), h, l)) for q in ("teff", "mass")
        )  # fmt: skip
        t, y = log_teff - 3.68, logg - 2.5
        log_L = log_mass + 4.0 * (log_teff - np.log10(SUN_TEFF)) - (logg - SUN_GRAVITY)
        M_G = SUN_BOLOMETRIC - 2.5 * log_L - polynomial("bolometric", t, h, y)
        none = ~clump & ((g < GRAVITY[0]) | (g > np.minimum(GRAVITY[1], polynomial("base", np.zeros_like(h), h, l))))
        found = (logg, 10.0**log_mass, 10.0**log_teff, M_G, polynomial("colour", t, h, y))
        return Giant(*(np.where(none, np.nan, v) for v in found))


class _Phase(isochrone.Grid):
    """Rows of one phase at ([M/H], age), interpolated as main sequences are, by place instead of mass."""

    @staticmethod
    def columns(rows: Rows) -> np.ndarray:
        return rows.values


class Tables:
    """Giants of real PARSEC tables: linear in log g, or in the lifetime, in log age and in [M/H]."""

    def __init__(self, rows: Iterable[Rows], skipped: tuple[str, ...] = ()):
        rows = list(rows)
        self.phases = [_Phase([r for r in rows if r.clump == clump], skipped) for clump in (False, True)]

    @property
    def origin(self) -> str:
        return f"red giants of {self.phases[0].origin}"

    def at(self, clump, place, mh, age) -> Giant:
        """As `Branch.at`; NaN outside the tables."""
        clump, place, mh, age = np.broadcast_arrays(clump, place, mh, age)
        shape = clump.shape
        clump, place, mh, age = (np.ravel(v) for v in (clump, place, mh, age))
        out = np.full((len(place), 5), np.nan)
        for phase, grid in zip((~clump, clump), self.phases, strict=True):
            where = np.flatnonzero(phase & np.isfinite(place))
            if len(where):
                out[where] = grid.interpolated(place[where], mh[where], age[where])
        return Giant(*(v.reshape(shape) for v in out.T))


def load(isochrones: str | Path | None = None) -> Branch | Tables:
    """The giants of `--isochrones`: None is the parametric branch."""
    if not isochrones:
        return Branch()
    found, skipped = [], []
    for path in isochrone.tables(isochrones):
        try:
            found += read_file(path)
        except isochrone.NotAnIsochrone:
            skipped.append(path.name)
    if not any(r.clump for r in found) or all(r.clump for r in found):
        raise DataError(
            f"no giants with labels 3 and 4 in the isochrones. {isochrones}. TRY: PARSEC tables of CMD 3.x with all "
            "columns, or leave --isochrones out"
        )
    return Tables(found, tuple(skipped))
