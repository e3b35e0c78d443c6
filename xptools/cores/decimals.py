"""Numbers written as text, in lists of equal length, to arrays: exact to the last bit, at hundreds of MB/s.

A decimal of at most 2^53 times a power of ten up to 10^22 is one exact division or product in double precision (Clinger
1990); what is longer, and what lies near the middle of two singles, is given to Python's own conversion.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from xptools.errors import DataError


def parse(raw: np.ndarray, starts: np.ndarray, stops: np.ndarray, kind: type) -> np.ndarray:
    """Lists "a, b, c" at raw[starts:stops] as an array (lists, width) of float32 or float64.

    `raw` is uint8; the byte after a list is a bracket or a space. A missing item (null, nan, nothing) is NaN. Raises
    DataError for lists of different lengths and for words.
    """
    from xptools.cores import _decimals

    starts, stops = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
    if len(starts) == 0:
        return np.zeros((0, 0), kind)
    if stops[-1] == len(raw) or np.any(raw[stops] - 48 < 10) or np.any(raw[stops] == 46):
        raise ValueError("a list must be followed by a byte that belongs to no number")
    width = int(np.count_nonzero(raw[starts[0] : stops[0]] == ord(","))) + 1
    out = np.empty((len(starts), width), kind)
    later = np.empty((out.size, 3), np.int64)
    count, wrong = _decimals.lists(raw, starts, stops, width, kind is np.float32, out, later)
    if wrong >= 0:
        have = int(np.count_nonzero(raw[starts[wrong] : stops[wrong]] == ord(","))) + 1
        raise DataError(f"a list of {have} numbers stands among lists of {width}")
    _left_over(raw, later[:count], out)
    return out


def _left_over(raw: np.ndarray, later: np.ndarray, out: np.ndarray) -> None:
    """Convert what the compiled pass left: (place, start, stop) each."""
    if len(later) == 0:
        return
    place, start, size = later[:, 0], later[:, 1], later[:, 2] - later[:, 1]
    longest = int(size.max())
    if longest > 64:
        raise DataError(f"{raw[start[0] : start[0] + 40].tobytes().decode(errors='replace')!r} is no number")
    column = np.arange(longest)
    inside = column < size[:, None]
    cells = np.where(inside, raw[np.minimum(start[:, None] + column, len(raw) - 1)], 0).astype(np.uint8)
    words = np.ascontiguousarray(cells).view(f"S{longest}").ravel()
    try:
        values = words.astype(np.float64)
    except ValueError as fault:
        raise DataError(f"a list holds what is no number: {str(fault)[:60]}") from fault
    out.reshape(-1)[place] = values
    if out.dtype == np.float32:
        with np.errstate(over="ignore"):
            unsure = (values * (1 - 2.0**-50)).astype(np.float32) != (values * (1 + 2.0**-50)).astype(np.float32)
        out.reshape(-1)[place[unsure]] = [_single(w.decode()) for w in words[unsure]]


def _single(text: str) -> np.float32:
    """The single nearest to a decimal, the even one of two."""
    value = float(text)
    if not np.isfinite(value):
        return np.float32(value)
    near = np.float32(value)
    if not np.isfinite(near):
        return near
    exact = Fraction(text)
    others = (near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf)))
    return min(others, key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.int32)) & 1))


__all__ = ["parse"]
