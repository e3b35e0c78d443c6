"""The compiled sum over Gaussians of `xp eta` (numba, CPU); `eta.in_jax` is the same in array form.

A block of stars is the inner loop, so every step is a whole vector register, the exponential too; each star is summed
in the order of the Gaussians, so neither batches nor threads can change a bit of it. Importing this imports numba.
"""

from __future__ import annotations

import math

import numpy as np

from xptools.cores._numba import compiled

BLOCK = 256  # stars summed together: what is loaded for each Gaussian is shared by many
EVERY = 16  # of the Gaussians tell the scale of a star's sum
OVERFLOW = np.float32(2.0**100)  # a sum this large was scaled too low
# Adding and taking away 1.5 2^23 rounds a float32 to a whole number: no freedom to reorder sums, then.
ROUND = np.float32(12582912.0)

kernel = compiled({"contract", "nsz", "nnan"}, "numba-eta")


@kernel
def power_of_two(t):
    """2^t of a float32, to 3e-6; t is held between -126 and 127."""
    t = min(max(t, np.float32(-126.0)), np.float32(127.0))
    shifted = np.float32(t + ROUND)
    f = t - (shifted - ROUND)  # within half
    p = np.float32(9.5828532e-3) * f + np.float32(5.5906426e-2)  # the quartic of least largest error
    p = p * f + np.float32(2.4024099e-1)
    p = p * f + np.float32(6.9312419e-1)
    p = np.float32(p * f + np.float32(1.0))
    bits = np.int32(p.view(np.int32) + (shifted.view(np.int32) << np.int32(23)))
    return np.int32(bits).view(np.float32)


@kernel
def numbers(g):
    """A Gaussian of a table (15,) as scalars: the compiler keeps them in registers, since no array can alias them."""
    return g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11], g[12], g[13], g[14]


@kernel
def standard(b0, b1, b2, b3, l00, l10, l11, l20, l21, l22, l30, l31, l32, l33, x0, x1, x2, x3):
    """z = A x + b of one star."""
    return (
        l00 * x0 + b0,
        l10 * x0 + (l11 * x1 + b1),
        l20 * x0 + (l21 * x1 + (l22 * x2 + b2)),
        l30 * x0 + (l31 * x1 + (l32 * x2 + (l33 * x3 + b3))),
    )


@kernel
def highest(table, every, x, top):
    """The highest exponent (BLOCK,) that any of every so many Gaussians has at stars x (4, BLOCK), into top."""
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    for s in range(BLOCK):
        top[s] = np.float32(-3e38)
    for m in range(0, len(table), every):
        gaussian = numbers(table[m])
        q, shape = gaussian[0], gaussian[1:]
        for s in range(BLOCK):
            z0, z1, z2, z3 = standard(*shape, x0[s], x1[s], x2[s], x3[s])
            top[s] = max(top[s], q - z0 * z0 - z1 * z1 - z2 * z2 - z3 * z3)


@kernel
def summed(table, x, top, out):
    """Into out (3, BLOCK): sum of 2^(exponent - top), and of that times the exponent's slopes by x2 and x3, / -2."""
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    total, by2, by3 = out[0], out[1], out[2]
    for s in range(BLOCK):
        total[s] = by2[s] = by3[s] = np.float32(0.0)
    for m in range(len(table)):
        gaussian = numbers(table[m])
        q, shape, (l22, l32, l33) = gaussian[0], gaussian[1:], (gaussian[10], gaussian[13], gaussian[14])
        for s in range(BLOCK):
            z0, z1, z2, z3 = standard(*shape, x0[s], x1[s], x2[s], x3[s])
            e = power_of_two(q - top[s] - z0 * z0 - z1 * z1 - z2 * z2 - z3 * z3)
            total[s] += e
            by2[s] += e * (z2 * l22 + z3 * l32)
            by3[s] += e * (z3 * l33)


@kernel
def log_sums(table, x, start, stop, out):
    """Into out (3, N), for stars x (N, 4) from start to stop: log2 of the sum over Gaussians, its slopes / -2."""
    block, top = np.zeros((4, BLOCK), np.float32), np.empty(BLOCK, np.float32)
    sums, again = np.empty((3, BLOCK), np.float32), np.empty((3, BLOCK), np.float32)
    highest_of_all = np.empty(BLOCK, np.float32)
    for first in range(start, stop, BLOCK):
        n, low = min(BLOCK, stop - first), False
        for s in range(n):
            for d in range(4):
                block[d, s] = x[first + s, d]
        highest(table, EVERY, block, top)
        summed(table, block, top, sums)
        for s in range(n):
            low = low or not sums[0, s] < OVERFLOW
        if low:
            highest(table, 1, block, highest_of_all)
            summed(table, block, highest_of_all, again)
        for s in range(n):
            use, scale = sums, top[s]
            if not sums[0, s] < OVERFLOW:
                use, scale = again, highest_of_all[s]
            out[0, first + s] = scale + np.float32(math.log2(use[0, s]))
            out[1, first + s] = use[1, s] / use[0, s]
            out[2, first + s] = use[2, s] / use[0, s]
