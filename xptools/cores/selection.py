"""The cuts of Li+ 2026 Sec. 2 (Table 1) and the general ones: each says which rows pass and which it cannot judge.

A cut returns (passes, unknown), two bool arrays of the rows' shape (N,); no row is both. A row is unknown when a
value the cut needs is NaN. All intervals are open, LO < x < HI, as the paper's predicates are.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from xptools.cores import photometry

Verdict = tuple[np.ndarray, np.ndarray]


def _verdict(passes: np.ndarray, *needed: np.ndarray) -> Verdict:
    unknown = reduce(np.logical_or, [np.isnan(np.asarray(x, dtype=np.float64)) for x in needed])
    return passes & ~unknown, unknown


def interval(x: np.ndarray, low: float | None, high: float | None) -> Verdict:
    """LO < x < HI; an end that is None is open. Decimal limits are taken in the column's own precision.

    -inf is unknown: nothing measured is so small, only the logarithm of a zero. +inf may be the odds of a sure star.
    """
    x = np.asarray(x)
    if x.dtype.kind == "f":
        x = np.where(x == -np.inf, x.dtype.type(np.nan), x)
    passes = np.ones(x.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        if low is not None:
            passes &= x > low
        if high is not None:
            passes &= x < high
    return _verdict(passes, x)


def main_sequence(bp_rp: np.ndarray, M_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a locus on the faint side of its bluest point, sorted by colour: one M_G per colour.

    Above the turn-off an isochrone comes back to redder colours, where a colour has two magnitudes.
    """
    bp_rp, M_G = np.asarray(bp_rp, dtype=np.float64), np.asarray(M_G, dtype=np.float64)
    faint = M_G >= M_G[np.argmin(bp_rp)]
    order = np.argsort(bp_rp[faint], kind="stable")
    return bp_rp[faint][order], M_G[faint][order]


def below_locus(
    BP_RP0: np.ndarray,
    M_G0: np.ndarray,
    locus: tuple[np.ndarray, np.ndarray],
    offset: float = 0.0,
    colours: tuple[float, float] = (0.0, 4.0),
    brightest: float = 4.0,
    keep_blue: bool = True,
) -> Verdict:
    """Rows fainter than the locus + offset [mag] at their colour, with M_G0 > brightest and BP_RP0 within colours.

    Li+ 2026 Sec. 2: below the [M/H] = 0 isochrone, which rejects unresolved binaries and young stars. `locus` is
    (BP-RP, M_G) as `main_sequence` gives it. Redder than it reaches there is nothing to compare with: rejected.
    Bluer than its turn-off a star is on the faint, blue side of the curve and stays unless keep_blue is False: at
    5 Gyr the solar turn-off is at 0.70 mag, and stars of [M/H] = -2 above 0.71 Msun are bluer than that.
    """
    x = np.asarray(BP_RP0, dtype=np.float64)
    y = np.asarray(M_G0, dtype=np.float64)
    limit = np.interp(x, *locus, left=-np.inf if keep_blue else np.inf, right=np.inf) + offset
    passes = (y > limit) & (y > brightest) & (x > colours[0]) & (x < colours[1])
    return _verdict(passes, x, y)


def good_excess(C: np.ndarray, BP_RP: np.ndarray, G: np.ndarray, n_sigma: float) -> Verdict:
    """|C*| < n sigma_C*(G) (Riello+ 2021, Eqs. 6 and 18); the colour is the observed one."""
    C_star = photometry.excess_corrected(C, BP_RP)
    sigma = photometry.excess_sigma(G)
    with np.errstate(invalid="ignore"):
        return _verdict(np.abs(C_star) < n_sigma * sigma, C_star, sigma)


def among(source_id: np.ndarray, wanted: np.ndarray) -> Verdict:
    """Rows whose identifier is one of `wanted` (M,), sorted int64."""
    source_id = np.asarray(source_id)
    if not len(wanted):
        return np.zeros(source_id.shape, dtype=bool), np.zeros(source_id.shape, dtype=bool)
    place = np.minimum(np.searchsorted(wanted, source_id), len(wanted) - 1)
    return wanted[place] == source_id, np.zeros(source_id.shape, dtype=bool)


# The upper quantile of a whole table, in two passes of fixed memory: float32 values in the order of their bits.

HALF = 1 << 16


def ordered_keys(x: np.ndarray) -> np.ndarray:
    """uint32 keys that sort as the float32 values do; x holds no NaN."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def key_value(key: int) -> float:
    """The float32 value of a key of `ordered_keys`."""
    bits = np.uint32(key & 0x7FFFFFFF) if key >> 31 else ~np.uint32(key)
    return float(np.array([bits], dtype=np.uint32).view(np.float32)[0])


def key_counts(x: np.ndarray, high: int | None = None) -> np.ndarray:
    """Counts (65536,) of the keys' upper halves, or of the lower halves of the keys whose upper half is `high`."""
    keys = ordered_keys(x[~np.isnan(x)])
    if high is None:
        return np.bincount(keys >> 16, minlength=HALF)
    return np.bincount(keys[keys >> 16 == high] & 0xFFFF, minlength=HALF)


def from_the_top(counts: np.ndarray, wanted: int) -> tuple[int, int]:
    """(bin, above): the bin that holds the wanted-th highest value (from 1) and how many lie in higher bins."""
    down = np.cumsum(counts[::-1])
    place = int(np.searchsorted(down, wanted))
    above = int(down[place - 1]) if place else 0
    return len(counts) - 1 - place, above


def just_below(x: float) -> float:
    """The limit that the float32 value x passes by `>` and the next lower float32 does not."""
    value = np.float32(x)
    return 0.5 * (float(value) + float(np.nextafter(value, np.float32(-np.inf))))
