"""The compiled part of `decimals` (numba, CPU): one pass over the bytes of many lists of numbers."""

from __future__ import annotations

import numpy as np

from xptools.cores._numba import compiled

POWERS = 10.0 ** np.arange(23)  # exact in double precision
EXACT, LATER, MISSING = 0, 1, 2
MOST = np.uint64(1 << 53)
DOWN, UP = 1.0 - 2.0**-52, 1.0 + 2.0**-52


@compiled(folder="numba")
def number(raw, start, stop):
    """(kind, value, whole): the number in raw[start:stop]; LATER where double precision cannot hold the mantissa."""
    i, sign = start, 1.0
    if i < stop and (raw[i] == 45 or raw[i] == 43):
        sign = -1.0 if raw[i] == 45 else 1.0
        i += 1
    mantissa, power, digits, seen = np.uint64(0), 0, 0, False
    point = False
    while i < stop:
        c = raw[i]
        if 48 <= c <= 57:
            seen = True
            if mantissa > 0 or c > 48:
                digits += 1
            mantissa = mantissa * np.uint64(10) + np.uint64(c - 48)
            power -= point
        elif c == 46 and not point:
            point = True
        else:
            break
        i += 1
    if not seen or digits > 18:
        return (LATER if seen else MISSING), 0.0
    if i < stop:
        if raw[i] != 101 and raw[i] != 69:
            return LATER, 0.0
        i += 1
        down = i < stop and raw[i] == 45
        if i < stop and (raw[i] == 45 or raw[i] == 43):
            i += 1
        exponent = 0
        if i == stop or stop - i > 4:
            return LATER, 0.0
        while i < stop:
            if raw[i] < 48 or raw[i] > 57:
                return LATER, 0.0
            exponent = exponent * 10 + raw[i] - 48
            i += 1
        power += -exponent if down else exponent
    if mantissa == 0:
        return EXACT, sign * 0.0
    if mantissa > MOST or power > 22 or power < -22:
        return LATER, 0.0
    value = float(mantissa)
    return EXACT, sign * (value * POWERS[power] if power >= 0 else value / POWERS[-power])


@compiled(folder="numba")
def lists(raw, starts, stops, width, single, out, later):
    """Numbers of lists raw[starts[k]:stops[k]] into out (lists, width); `later` (n, 3) gets place, start and stop of
    those left over. Returns (how many are left over, first list of another length or -1)."""
    count = 0
    for k in range(len(starts)):
        i, stop, j = starts[k], stops[k], 0
        while i <= stop:
            end = i
            while end < stop and raw[end] != 44:
                end += 1
            a, b = i, end
            while a < b and (raw[a] <= 32 or raw[a] == 34):
                a += 1
            while b > a and (raw[b - 1] <= 32 or raw[b - 1] == 34):
                b -= 1
            if j == width:
                return count, k
            kind, value = number(raw, a, b)
            if kind == EXACT and single and np.float32(value * DOWN) != np.float32(value * UP):
                kind = LATER  # so near the middle of two singles that rounding twice may go astray
            if kind == EXACT:
                out[k, j] = value
            elif kind == MISSING and (a == b or raw[a] == 110 or raw[a] == 78):
                out[k, j] = np.nan
            else:
                later[count, 0], later[count, 1], later[count, 2] = k * width + j, a, b
                count += 1
            j += 1
            i = end + 1
        if j != width:
            return count, k
    return count, -1
