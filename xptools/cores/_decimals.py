"""The compiled part of `decimals` (numba, CPU): one pass over the bytes of many lists of numbers."""

from __future__ import annotations

import numpy as np

from xptools.cores._numba import compiled

POWERS = 10.0 ** np.arange(23)  # exact in double precision
INVERSE = 1 / POWERS
MOST = np.uint64(1 << 53)
DOWN, UP = 1.0 - 2.0**-50, 1.0 + 2.0**-50  # more than any double here can be off
TEN, ZERO, NINE = np.uint64(10), np.uint64(48), np.uint64(9)


@compiled(folder="numba")
def _exponent(raw, i, stop):
    """(exponent, place after it) of digits with sign at i; the place is negative if they are none."""
    down = i < stop and raw[i] == 45
    if i < stop and (raw[i] == 45 or raw[i] == 43):
        i += 1
    first, exponent = i, 0
    while i < stop and 48 <= raw[i] <= 57 and exponent < 1000:
        exponent = exponent * 10 + raw[i] - 48
        i += 1
    return (-exponent if down else exponent), (i if i > first else -1)


@compiled(folder="numba")
def _scaled(mantissa, power, single):
    value = float(mantissa)
    if power >= 0:
        return value * POWERS[power]
    # A product is four times as fast as a quotient, and near enough where singles are wanted.
    return value * INVERSE[-power] if single else value / POWERS[-power]


@compiled(folder="numba")
def _split(x):
    high = x * 134217729.0  # 2^27 + 1: the upper half of the digits (Dekker 1971)
    high -= high - x
    return high, x - high


@compiled(folder="numba")
def _divided(mantissa, power):
    """(value, sure) of a mantissa beyond 2^53 over an exact power of ten: the quotient and what it leaves over."""
    divisor, top = POWERS[-power], float(mantissa)
    rest = float(np.int64(mantissa) - np.int64(top))
    quotient = top / divisor
    (a, b), (c, d) = _split(quotient), _split(divisor)
    product = quotient * divisor
    lost = ((a * c - product) + a * d + b * c) + b * d
    more = ((top - product) - lost + rest) / divisor
    value = quotient + more * DOWN
    return value, value == quotient + more * UP


@compiled(folder="numba")
def lists(raw, starts, stops, width, single, out, later):
    """Numbers of lists raw[starts[k]:stops[k]] into out (lists, width); `later` (n, 3) gets place, start and stop of
    those left over. Returns (how many are left over, first list of another length or -1). raw[stops] is no digit."""
    count = 0
    # One long loop: a call for each number would cost more than the number.
    for k in range(len(starts)):
        i, stop, j = starts[k], stops[k], 0
        while i <= stop:
            if j == width:
                return count, k
            while i < stop and raw[i] <= 32:
                i += 1
            first, negative = i, raw[i] == 45
            i += negative | (raw[i] == 43)  # signs are random: a branch would be guessed wrongly half the time
            begin, mantissa, power = i, np.uint64(0), 0
            digit = np.uint64(raw[i]) - ZERO
            while digit <= NINE:
                mantissa = mantissa * TEN + digit
                i += 1
                digit = np.uint64(raw[i]) - ZERO
            seen = i - begin
            if raw[i] == 46:
                i += 1
                begin = i
                digit = np.uint64(raw[i]) - ZERO
                while digit <= NINE:
                    mantissa = mantissa * TEN + digit
                    i += 1
                    digit = np.uint64(raw[i]) - ZERO
                power = begin - i
                seen -= power
            good = 0 < seen <= 18  # more may not fit; leading zeros count
            if good and i < stop and (raw[i] == 101 or raw[i] == 69):
                shift, place = _exponent(raw, i + 1, stop)
                good, i, power = place > 0, max(place, i), power + shift
            end = i
            while i < stop and raw[i] != 44:
                good = good and raw[i] <= 32
                end = end if raw[i] <= 32 else i + 1
                i += 1
            if good and not single and mantissa > MOST and -22 <= power <= 0:
                value, good = _divided(mantissa, power)
                out[k, j] = -value if negative else value
            elif good and (single or mantissa <= MOST) and (mantissa == 0 or -22 <= power <= 22):
                value = _scaled(mantissa, power, single) if mantissa else 0.0
                # So near the middle of two singles that rounding twice may go astray?
                good = not single or np.float32(value * DOWN) == np.float32(value * UP)
                out[k, j] = -value if negative else value
            elif first == end or raw[first] == 110 or raw[first] == 78:
                good = True
                out[k, j] = np.nan
            else:
                good = False
            if not good:
                later[count, 0], later[count, 1], later[count, 2] = k * width + j, first, end
                count += 1
            j += 1
            i += 1
        if j != width:
            return count, k
    return count, -1
