"""Attention and normalisation of the generalist's inference on a processor, star by star, as numba kernels.

A star's bits depend on its own numbers only. Numbers are float32, or bfloat16 as uint16; sums are float32 in any case.
"""

from __future__ import annotations

import math

import numpy as np

from xptools.cores._numba import compiled
from xptools.cores._simd import LANES, fused, inverse, larger, load, power, repeated, spread, store, total

STEP = 8  # channels that are kept in registers at a time; a head has a multiple of them
ROUND = np.float32(1.5 * 2**23)  # added and taken away, it leaves a whole number
LOWEST = np.float32(-126.0)  # exponent below which 2 ** x is not told from nothing
# 2 ** r = sum of these times r ** k, |r| <= 1/2, within 3e-7
C1, C2, C3, C4, C5 = (np.float32(c) for c in (0.69314718, 0.24022651, 0.055504109, 0.0096181291, 0.0013333558))
ONE, LOG2E = np.float32(1.0), math.log2(math.e)


@compiled(inline=True)
def _transposed(rows, step, first, count, many, factor, row, out):
    """Columns of `count` rows of `many` numbers, times a factor, LANES rows beside each other; the rest is 0."""
    for lane in range(LANES):
        if lane < count:
            for c in range(0, many, LANES):
                store(row, c, load(rows, first + lane * step + c) * spread(factor))
        else:
            row[:] = 0.0
        for c in range(many):
            out[c * LANES + lane] = row[c]


@compiled(inline=True)
def _scores(q, k, many, first, width, tokens, p):
    """Products (tokens, LANES) of the keys of one head with LANES queries; their largest."""
    top = spread(np.float32(-3e38))
    for c in range(first, first + width, STEP):
        a0, a1, a2, a3, a4, a5, a6, a7 = (
            load(q, c * LANES), load(q, (c + 1) * LANES), load(q, (c + 2) * LANES), load(q, (c + 3) * LANES),
            load(q, (c + 4) * LANES), load(q, (c + 5) * LANES), load(q, (c + 6) * LANES), load(q, (c + 7) * LANES),
        )  # fmt: skip
        for j in range(tokens):
            at = j * many + c
            s = repeated(k, at) * a0
            if c > first:
                s = s + load(p, j * LANES)
            s = fused(repeated(k, at + 1), a1, s)
            s = fused(repeated(k, at + 2), a2, s)
            s = fused(repeated(k, at + 3), a3, s)
            s = fused(repeated(k, at + 4), a4, s)
            s = fused(repeated(k, at + 5), a5, s)
            s = fused(repeated(k, at + 6), a6, s)
            s = fused(repeated(k, at + 7), a7, s)
            store(p, j * LANES, s)
    for j in range(tokens):
        top = larger(top, load(p, j * LANES))
    return top


@compiled(inline=True)
def _powers(p, tokens, top):
    """p <- 2 ** (p - top); their sum over the tokens."""
    whole = spread(np.float32(0.0))
    for j in range(tokens):
        y = larger(load(p, j * LANES) - top, spread(LOWEST))
        z = (y + spread(ROUND)) - spread(ROUND)
        r = y - z
        e = fused(fused(spread(C5), r, spread(C4)), r, spread(C3))
        e = fused(fused(fused(e, r, spread(C2)), r, spread(C1)), r, spread(ONE)) * power(z)
        store(p, j * LANES, e)
        whole = whole + e
    return whole


@compiled(inline=True)
def _mixed(p, v, many, first, width, tokens, scale, out):
    """Sums of the values of one head with the weights p, times scale, for LANES queries."""
    for c in range(first, first + width, STEP):
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = spread(np.float32(0.0))
        for j in range(tokens):
            at, w = j * many + c, load(p, j * LANES)
            a0, a1 = fused(repeated(v, at), w, a0), fused(repeated(v, at + 1), w, a1)
            a2, a3 = fused(repeated(v, at + 2), w, a2), fused(repeated(v, at + 3), w, a3)
            a4, a5 = fused(repeated(v, at + 4), w, a4), fused(repeated(v, at + 5), w, a5)
            a6, a7 = fused(repeated(v, at + 6), w, a6), fused(repeated(v, at + 7), w, a7)
        store(out, c * LANES, a0 * scale)
        store(out, (c + 1) * LANES, a1 * scale)
        store(out, (c + 2) * LANES, a2 * scale)
        store(out, (c + 3) * LANES, a3 * scale)
        store(out, (c + 4) * LANES, a4 * scale)
        store(out, (c + 5) * LANES, a5 * scale)
        store(out, (c + 6) * LANES, a6 * scale)
        store(out, (c + 7) * LANES, a7 * scale)


@compiled()
def attend(queries, query_step, rows, memory, step, at_key, at_value, tokens, key, value, heads, out):
    """softmax(Q K^T / sqrt(width)) V of every star, with a learned key and value (d,) beside those of its tokens.

    Flat arrays: queries with query_step numbers from row to row, rows (S + 1,) where those of each star begin; memory
    likewise, with keys and values from at_key and at_value of each row, tokens (S + 1,). out: (rows, d).
    """
    many = len(key)
    width, most = many // heads, 1
    for s in range(len(tokens) - 1):
        most = max(most, tokens[s + 1] - tokens[s] + 1)
    k, v = np.empty(most * many, np.float32), np.empty(most * many, np.float32)
    row, q, mixed = (np.empty(many, np.float32), np.empty(many * LANES, np.float32), np.empty(many * LANES, np.float32))
    p, factor = np.empty(most * LANES, np.float32), np.float32(LOG2E / math.sqrt(width))
    for s in range(len(tokens) - 1):
        length = tokens[s + 1] - tokens[s]
        for j in range(length):
            start = (tokens[s] + j) * step
            for c in range(0, many, LANES):
                store(k, j * many + c, load(memory, start + at_key + c))
                store(v, j * many + c, load(memory, start + at_value + c))
        k[length * many : (length + 1) * many] = key
        v[length * many : (length + 1) * many] = value
        for first in range(rows[s], rows[s + 1], LANES):
            count = min(LANES, rows[s + 1] - first)
            _transposed(queries, query_step, first * query_step, count, many, factor, row, q)
            for h in range(0, many, width):
                whole = _powers(p, length + 1, _scores(q, k, many, h, width, length + 1, p))
                _mixed(p, v, many, h, width, length + 1, inverse(whole), mixed)
            for lane in range(count):
                for c in range(many):
                    row[c] = mixed[c * LANES + lane]
                for c in range(0, many, LANES):
                    store(out, (first + lane) * many + c, load(row, c))


@compiled()
def normalised(x, y, weight, bias, epsilon, out):
    """LN(x + y), row by row of len(weight) numbers; out may be x or y."""
    many = len(weight)
    row = np.empty(many, np.float32)
    share = np.float32(1.0 / many)
    for start in range(0, len(x), many):
        mean = spread(np.float32(0.0))
        for c in range(0, many, LANES):
            both = load(x, start + c) + load(y, start + c)
            mean = mean + both
            store(row, c, both)
        middle, square = spread(total(mean) * share), spread(np.float32(0.0))
        for c in range(0, many, LANES):
            off = load(row, c) - middle
            square = fused(off, off, square)
        scale = spread(np.float32(1.0 / math.sqrt(total(square) * share + epsilon)))
        for c in range(0, many, LANES):
            off = (load(row, c) - middle) * scale
            store(out, start + c, fused(off, load(weight, c), load(bias, c)))
