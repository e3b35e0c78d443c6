"""M_G(M, [M/H], age) and BP-RP of the main sequence: smooth tensor B-splines fitted to the PARSEC tables.

    Q(M, h, t) = sum_ijk C_ijk B_i(sqrt M) B_j(h) P_k(s),   s = (t^1.5 - 1) / (13.5^1.5 - 1)

B are cubic B-splines on uniform knots (30 intervals in sqrt M over 0.1 ... 1.1 Msun, 10 in [M/H] over -2.5 ... 0.5),
P_k the cubic Bernstein polynomials of the age t [Gyr], C (33, 13, 4) the numbers of data/sequence.csv for Q = M_G and
Q = BP-RP. All basis functions are >= 0 and C falls with i: both Q fall strictly with mass everywhere, by construction.

What it was fitted to (tests/fit_sequence.py makes the numbers again): PARSEC v1.2S with YBC bolometric corrections
(Bressan+ 2012, Chen+ 2014, 2019), Gaia EDR3 passbands: [M/H] = -1.5, -1.2 ... 0 at 10 ... 13.5 Gyr; six [M/H] from
-2.19 to +0.14 at 1 Gyr, three near solar to 3.2 Gyr; loci at [M/H] = -2, 5 ... 12.6 Gyr, masses derived (+-0.007 Msun).

Largest error against the main-sequence rows (label 1) of the real tables: TABLE_ERROR below, [mag] in (M_G, BP-RP).
Interpolated in age: 3.2 ... 10 Gyr at [M/H] > -2, where real loci without masses say that the colour at given
M_G > 4.5 is right to 0.03 mag from 5 Gyr on (0.08 mag at [M/H] = -1.5 ... -1, and 0.12 mag there at 1 ... 3 Gyr).
Extrapolated: M_G at [M/H] > +0.15 (colours there follow the real loci at +0.5: 0.03 mag to 8 Gyr, 0.1 mag at 12.6 Gyr);
everything at [M/H] < -2.19; every mass above `turn_off(mh, age)`, where no main-sequence star exists.
Ages below 1 Gyr are taken as 1 Gyr (contracting stars are not described), ages above 13.5 Gyr as 13.5 Gyr.
"""

from functools import lru_cache
from math import sqrt
from pathlib import Path

import numpy as np

MASS_RANGE = (0.1, 1.1)  # [Msun]
MH_RANGE = (-2.5, 0.5)
AGE_RANGE = (1.0, 13.5)  # [Gyr]
KNOTS = (30, 10)  # intervals in sqrt(mass) and in [M/H]
TABLE = Path(__file__).parent.parent / "data" / "sequence.csv"
ORIGIN = "parametric main sequence fitted to PARSEC v1.2S with YBC bolometric corrections"

# (M_G, BP-RP) [mag]: max |fit - table| over label-1 rows
TABLE_ERROR = {
    "10 Gyr, 0.15-0.8 Msun": (0.030, 0.010),
    "10-13.5 Gyr, 0.15-0.8 Msun": (0.035, 0.025),
    "1-3.2 Gyr, 0.15-0.8 Msun": (0.015, 0.015),
    "0.1-0.15 Msun": (0.020, 0.040),
    "0.8-1.1 Msun": (0.050, 0.025),
}

_X = (sqrt(MASS_RANGE[0]), sqrt(MASS_RANGE[1]))
_SLACK = 1e-6  # lets 1.1 in float32 in
# log10 of the turn-off mass: coefficients of 1, h, h^2, h^3, l, l^2, h l with h = [M/H], l = log10(age / 10 Gyr)
_TURN_OFF = (-0.0048, 0.0992, 0.0386, 0.0046, -0.2728, 0.0555, -0.0022)


@lru_cache(maxsize=1)
def coefficients() -> np.ndarray:
    """C (33, 13, 4, 2): mass, [M/H], age, (M_G, BP-RP) [mag], from the package's own table."""
    with TABLE.open() as file:  # by its name, numpy would load all that it could be packed with
        flat = np.loadtxt(file, delimiter=",")
    return flat.reshape(KNOTS[0] + 3, KNOTS[1] + 3, 4, 2)


@lru_cache(maxsize=64)
def _at_age(age: float) -> np.ndarray:
    """C contracted with P_k(age): (33 * 13, 2)."""
    weight = np.array(_bernstein(_age_coordinate(np.float64(age), np)))
    return np.ascontiguousarray(np.einsum("ijkq,k->ijq", coefficients(), weight).reshape(-1, 2))


def _age_coordinate(age, xp):
    t = xp.clip(age, *AGE_RANGE)
    return (t * xp.sqrt(t) - 1) / (AGE_RANGE[1] ** 1.5 - 1)


def _bernstein(s):
    r = 1 - s
    return r * r * r, 3 * r * r * s, 3 * r * s * s, s * s * s


def _cubic(t, n: int, xp):
    """Interval i and the four weights of the uniform cubic B-spline at t in 0 ... n [intervals]."""
    i = xp.clip(xp.nan_to_num(t).astype(int), 0, n - 1)
    u = t - i
    v = 1 - u
    return i, (v * v * v / 6, ((3 * u - 6) * u * u + 4) / 6, ((3 * v - 6) * v * v + 4) / 6, u * u * u / 6)


def _inside(value, limits, xp):
    return xp.where((value >= limits[0] - _SLACK) & (value <= limits[1] + _SLACK), value, xp.nan)


def absolute(mass, mh, age=10.0, xp=np):
    """(M_G, BP-RP) [mag] of main-sequence stars of initial `mass` [Msun], `mh` = [M/H] and `age` [Gyr]; all broadcast.

    NaN outside 0.1 ... 1.1 Msun and -2.5 <= [M/H] <= 0.5. `xp=jax.numpy` works under jit, grad and vmap.
    A scalar `age` is about three times as fast as one age per star (8 against 2.6 M stars/s on one core).
    """
    scalar_age = isinstance(age, int | float) or (xp is np and np.ndim(age) == 0)
    mass, mh = _inside(xp.asarray(mass) * 1.0, MASS_RANGE, xp), _inside(xp.asarray(mh) * 1.0, MH_RANGE, xp)
    mass, mh = xp.broadcast_arrays(mass, mh)
    if not scalar_age:
        mass, mh, age = xp.broadcast_arrays(mass, mh, xp.asarray(age) * 1.0)
    i, along_mass = _cubic((xp.sqrt(mass) - _X[0]) / (_X[1] - _X[0]) * KNOTS[0], KNOTS[0], xp)
    j, along_mh = _cubic((mh - MH_RANGE[0]) / (MH_RANGE[1] - MH_RANGE[0]) * KNOTS[1], KNOTS[1], xp)
    table = xp.asarray(_at_age(float(age)) if scalar_age else coefficients().reshape(-1, 8))
    base = i * (KNOTS[1] + 3) + j
    total = 0.0
    for a in range(4):
        for b in range(4):
            near = xp.take(table, base + (a * (KNOTS[1] + 3) + b), axis=0)
            total = total + (along_mass[a] * along_mh[b])[..., None] * near
    if not scalar_age:
        weight = xp.stack(_bernstein(_age_coordinate(age, xp)), -1)  # (..., 4)
        total = (total.reshape(*total.shape[:-1], 4, 2) * weight[..., None]).sum(-2)
    return total[..., 0], total[..., 1]


def mass(M_G, mh, age=10.0, xp=np):
    """The mass [Msun] whose absolute magnitude is `M_G` [mag]: the inverse of `absolute`, NaN where there is none.

    Bisection in sqrt(mass), 1e-9 Msun; the magnitude falls strictly with mass, so the answer is unique.
    """
    M_G, mh = xp.broadcast_arrays(xp.asarray(M_G) * 1.0, xp.asarray(mh) * 1.0)
    low, high = xp.full_like(M_G, _X[0]), xp.full_like(M_G, _X[1])
    bright, faint = absolute(high * high, mh, age, xp)[0], absolute(low * low, mh, age, xp)[0]
    for _ in range(30):
        middle = (low + high) / 2
        too_faint = absolute(middle * middle, mh, age, xp)[0] > M_G
        low, high = xp.where(too_faint, middle, low), xp.where(too_faint, high, middle)
    return xp.where((M_G >= bright) & (M_G <= faint), ((low + high) / 2) ** 2, xp.nan)


def turn_off(mh, age=10.0, xp=np):
    """Mass [Msun] where the main sequence ends: the last label-1 row of PARSEC at [M/H] = mh and this age [Gyr].

    Within 0.005 Msun of the tables from 10 Gyr on, within 0.03 Msun below 3.2 Gyr.
    """
    h, l = xp.asarray(mh) * 1.0, xp.log10(xp.clip(xp.asarray(age) * 1.0, *AGE_RANGE) / 10)
    terms = (1.0, h, h * h, h * h * h, l, l * l, h * l)
    return 10 ** sum(c * t for c, t in zip(_TURN_OFF, terms, strict=True))
