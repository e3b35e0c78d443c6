"""Compiled pieces of the fits of `xp feh` (numba, CPU): table, Cholesky, chi2, Levenberg-Marquardt for one star.

`lm` holds the same in array form, in JAX. Importing this module imports numba.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np

from xptools.cores._numba import compiled

WIDTH = 64  # samples a spectrum is padded to: whole vector registers, and loops whose length the compiler knows
LARGE = np.float32(30.0)  # e^30: a model so far off that only its direction matters
# Falls of chi2: no longer worth a step; within the rounding of float32; a step after which another is due.
TOLERANCE, NOISE, SLOW = 5e-4, 5e-3, 0.02


@cache
def _sources() -> int:
    """A sum of both files of kernels: numba does not see that what one calls in the other has changed."""
    return crc32(b"".join(Path(__file__).with_name(f"_feh{n}.py").read_bytes() for n in ("kernels", "fits")))


kernel = compiled({"contract", "reassoc", "nsz", "arcp"}, f"numba-feh-{_sources():08x}")


@kernel
def spline_weights(x, cells, w, d):
    """First node of the four that a coordinate x [grid steps] touches; their weights and slopes go into w, d (4,)."""
    x = min(max(x, np.float32(0.0)), np.float32(cells))
    i = min(int(x), cells - 1)
    u = x - np.float32(i)
    v = np.float32(1.0) - u
    six, half = np.float32(1 / 6), np.float32(0.5)
    w[0], w[3] = v * v * v * six, u * u * u * six
    w[1] = (np.float32(3) * u * u * u - np.float32(6) * u * u + np.float32(4)) * six
    w[2] = (np.float32(3) * v * v * v - np.float32(6) * v * v + np.float32(4)) * six
    d[0], d[3] = -v * v * half, u * u * half
    d[1] = (np.float32(3) * u * u - np.float32(4) * u) * half
    d[2] = (np.float32(4) * v - np.float32(3) * v * v) * half
    return i


@kernel
def look_up(table, low, per_step, p, out, w):
    """Values and slopes by label of the table (n, n, n, m) at labels p (3,), into out (4, m); w (6, 4) is scratch."""
    cells = table.shape[0] - 3
    i = spline_weights((p[0] - low[0]) * per_step[0], cells, w[0], w[1])
    j = spline_weights((p[1] - low[1]) * per_step[1], cells, w[2], w[3])
    k = spline_weights((p[2] - low[2]) * per_step[2], cells, w[4], w[5])
    value, by0, by1, by2 = out[0], out[1], out[2], out[3]
    for c in range(WIDTH):
        value[c] = by0[c] = by1[c] = by2[c] = np.float32(0.0)
    for a in range(4):
        for b in range(4):
            w01, d01, w0d1 = w[0, a] * w[2, b], w[1, a] * w[2, b] * per_step[0], w[0, a] * w[3, b] * per_step[1]
            for e in range(4):
                f0, f1, f2 = w01 * w[4, e], d01 * w[4, e], w0d1 * w[4, e]
                f3 = w01 * w[5, e] * per_step[2]
                node = table[i + a, j + b, k + e]
                for c in range(WIDTH):
                    x = node[c]
                    value[c] += f0 * x
                    by0[c] += f1 * x
                    by1[c] += f2 * x
                    by2[c] += f3 * x


@kernel
def exponentials(x, bits):
    """exp of x (WIDTH,) in place, float32 to 2e-7; `bits` (WIDTH,) int32 is scratch."""
    power = bits.view(np.float32)
    for c in range(WIDTH):
        y = min(max(x[c], -LARGE), LARGE)
        whole = math.floor(y * np.float32(1.4426950408889634) + np.float32(0.5))
        bits[c] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        r = (y - whole * np.float32(0.693359375)) + whole * np.float32(2.12194440e-4)
        q = np.float32(1.9875691500e-4)
        q = q * r + np.float32(1.3981999507e-3)
        q = q * r + np.float32(8.3334519073e-3)
        q = q * r + np.float32(4.1665795894e-2)
        q = q * r + np.float32(1.6666665459e-1)
        q = q * r + np.float32(5.0000001201e-1)
        x[c] = q * r * r + r + np.float32(1.0)
    for c in range(WIDTH):
        x[c] *= power[c]


@kernel
def factorised(a, factor, inverse):
    """The Cholesky factor L of a symmetric (WIDTH, WIDTH) matrix, of which only the upper triangle is read.

    `factor` float32 becomes L^T without its diagonal, zero elsewhere, `inverse` (WIDTH,) one over the diagonal: so
    solving needs whole rows only. `a` is destroyed. False if it is not positive definite.
    """
    for j in range(0, WIDTH, 4):  # four rows at a time: each pass over the rest of the matrix does four updates
        r0, r1, r2, r3 = a[j], a[j + 1], a[j + 2], a[j + 3]
        if not r0[j] > 0.0:
            return False
        inverse[j] = f = 1.0 / math.sqrt(r0[j])
        for c in range(j, WIDTH):
            r0[c] *= f
        f = r0[j + 1]
        for c in range(j, WIDTH):
            r1[c] -= f * r0[c]
        if not r1[j + 1] > 0.0:
            return False
        inverse[j + 1] = f = 1.0 / math.sqrt(r1[j + 1])
        for c in range(j, WIDTH):
            r1[c] *= f
        f, g = r0[j + 2], r1[j + 2]
        for c in range(j, WIDTH):
            r2[c] -= f * r0[c] + g * r1[c]
        if not r2[j + 2] > 0.0:
            return False
        inverse[j + 2] = f = 1.0 / math.sqrt(r2[j + 2])
        for c in range(j, WIDTH):
            r2[c] *= f
        f, g, h = r0[j + 3], r1[j + 3], r2[j + 3]
        for c in range(j, WIDTH):
            r3[c] -= f * r0[c] + g * r1[c] + h * r2[c]
        if not r3[j + 3] > 0.0:
            return False
        inverse[j + 3] = f = 1.0 / math.sqrt(r3[j + 3])
        for c in range(j, WIDTH):
            r3[c] *= f
        for i in range(j + 4, WIDTH, 2):
            f0, f1, f2, f3, one = r0[i], r1[i], r2[i], r3[i], a[i]
            g0, g1, g2, g3, two = r0[i + 1], r1[i + 1], r2[i + 1], r3[i + 1], a[i + 1]
            for c in range(i - i % 8, WIDTH):
                one[c] -= f0 * r0[c] + f1 * r1[c] + f2 * r2[c] + f3 * r3[c]
                two[c] -= g0 * r0[c] + g1 * r1[c] + g2 * r2[c] + g3 * r3[c]
    for j in range(WIDTH):
        for c in range(WIDTH):
            factor[j, c] = a[j, c]
        for c in range(j + 1):
            factor[j, c] = 0.0
    return True


@kernel
def whitened(factor, inverse, full, x):
    """Solve L X = x in place for right-hand sides x (k, m); L is its diagonal alone unless `full`."""
    k = len(x)
    if not full:
        for r in range(k):
            for c in range(WIDTH):
                x[r, c] *= inverse[c]
        return
    for j in range(WIDTH):
        row = factor[j]
        for r in range(k):
            y = x[r]
            f = y[j] * inverse[j]
            for c in range(WIDTH):
                y[c] -= f * row[c]
            y[j] = f


@kernel
def on_sequence(pair, M_G, metals, labels, slopes):
    """Scaled labels (3,) of a main-sequence star of scaled M_G and [Fe/H], and the slopes (2,) of Teff by both."""
    M_G = min(max(M_G, pair[-1, 0]), pair[-1, 1])
    teff = slope = by_metals = 0.0
    for i in range(len(pair) - 2, -1, -1):
        value = pair[i, 0] + metals * (pair[i, 1] + metals * pair[i, 2])
        slope = slope * M_G + teff
        teff = teff * M_G + value
        by_metals = by_metals * M_G + pair[i, 1] + 2.0 * metals * pair[i, 2]
    labels[0], labels[1], labels[2] = teff, M_G, metals
    slopes[0], slopes[1] = slope, by_metals


@kernel
def add_pair(table, low, per_step, p, pair, shift, star, x, w, bits):
    """The sum of two stars of M_G p[0] and p[0] + p[1] and [Fe/H] p[2], over the reference model, into x (5, WIDTH).

    x[0] is the flux, x[1:4] its slopes by p. pair (7, 3): coefficients of Teff on the main sequence, its M_G range.
    """
    labels, slopes = np.empty(3, np.float32), np.empty(2, np.float32)
    y = np.empty((4, WIDTH), np.float32)
    for r in range(4):
        for c in range(WIDTH):
            x[r, c] = 0.0
    for which in range(2):
        on_sequence(pair, p[0] + which * p[1], p[2], labels, slopes)
        look_up(table, low, per_step, labels, y, w)
        e = y[0]
        for c in range(WIDTH):
            e[c] -= star[0, c] + shift
        exponentials(e, bits)
        for c in range(WIDTH):
            by_mag = e[c] * (y[2, c] + slopes[0] * y[1, c])
            x[0, c] += e[c]
            x[1, c] += by_mag
            x[2, c] += which * by_mag
            x[3, c] += e[c] * (y[3, c] + slopes[1] * y[1, c])


@kernel
def misfit(table, low, per_step, p, pair, spread, star, factor, inverse, full, x, H, w, bits):
    """chi2 of labels and distance shift p (4,), and into H (5, 5) the products of (residual, slopes by p), whitened.

    star (2, m): ln of the reference model and the observed flux over it; spread: 1 sigma of the shift, in ln flux;
    x (5, m), w (6, 4), bits (m,) are scratch. H[0, 0] = chi2, H[0, 1:] = half its gradient, H[1:, 1:] = J^T C^-1 J.
    """
    e, shift = x[4], spread * p[3]
    if len(pair):
        add_pair(table, low, per_step, p, pair, shift, star, x, w, bits)
        for c in range(WIDTH):
            e[c] = -spread * x[0, c]
            x[0, c] -= star[1, c]
    else:
        look_up(table, low, per_step, p, x, w)
        for c in range(WIDTH):
            e[c] = x[0, c] - star[0, c] - shift
        exponentials(e, bits)
        for c in range(WIDTH):
            x[0, c] = e[c] - star[1, c]
            x[1, c] *= e[c]
            x[2, c] *= e[c]
            x[3, c] *= e[c]
            e[c] *= -spread
    whitened(factor, inverse, full, x)
    for a in range(5):
        for b in range(a, 5):
            total = np.float32(0.0)
            one, other = x[a], x[b]
            for c in range(WIDTH):
                total += one[c] * other[c]
            H[a, b] = total
            H[b, a] = total
    H[0, 0] += p[3] * p[3]
    H[0, 4] += p[3]
    H[4, 0] += p[3]
    H[4, 4] += 1.0
    return H[0, 0]


@kernel
def solved(H, free, damping, d, a):
    """The step d (4,) of the free parameters that solves (J^T J + damping diag) d = -gradient; a (4, 5) is scratch.

    Returns the fall of chi2 that a linear model expects from it.
    """
    for i in range(4):
        for j in range(4):
            a[i, j] = H[1 + i, 1 + j] if free[i] and free[j] else 0.0
        a[i, i] = H[1 + i, 1 + i] * (1.0 + damping) + 1e-12 if free[i] else 1.0
        a[i, 4] = -H[0, 1 + i] if free[i] else 0.0
    for i in range(4):
        for r in range(i + 1, 4):
            f = a[r, i] / a[i, i]
            for c in range(i, 5):
                a[r, c] -= f * a[i, c]
    for i in range(3, -1, -1):
        total = a[i, 4]
        for c in range(i + 1, 4):
            total -= a[i, c] * d[c]
        d[i] = total / a[i, i]
    fall = 0.0
    for i in range(4):
        fall -= 2.0 * d[i] * H[0, 1 + i]
        for j in range(4):
            fall -= d[i] * d[j] * H[1 + i, 1 + j]
    return fall


@kernel
def descended(table, box, limits, per_step, p, pair, spread, star, factor, inverse, full, most, x, H, w, bits):
    """Levenberg-Marquardt from p (4,), in place, inside the limits (2, 3) of p; box[0] is the table's corner.

    H[0] of H (2, 5, 5) ends with the products of `misfit` there.

    Returns chi2 and whether a further step would lower it by less than TOLERANCE, after at most `most` evaluations.
    """
    d, a, free, q = np.empty(4), np.empty((4, 5)), np.ones(4, np.bool_), np.empty(4, np.float32)
    low, high, damping, at, last, fell = limits[0], limits[1], 1e-3, 0, False, 0.0
    chi2 = misfit(table, box[0], per_step, p, pair, spread, star, factor, inverse, full, x, H[0], w, bits)
    for _ in range(most):
        for k in range(3):
            stuck = (p[k] <= low[k] and H[at, 0, 1 + k] > 0.0) or (p[k] >= high[k] and H[at, 0, 1 + k] < 0.0)
            free[k] = not stuck
        fall = solved(H[at], free, damping, d, a)
        if fall < TOLERANCE + 2e-6 * chi2 and damping < 0.1 and fell < SLOW:
            last = True
            break
        for k in range(4):
            q[k] = p[k] + d[k]
        for k in range(3):
            q[k] = min(max(q[k], low[k]), high[k])
        new = misfit(table, box[0], per_step, q, pair, spread, star, factor, inverse, full, x, H[1 - at], w, bits)
        if new < chi2:
            at, fell, chi2, damping = 1 - at, chi2 - new, new, max(damping * 0.1, 1e-8)
            for k in range(4):
                p[k] = q[k]
        else:
            damping *= 10.0
            if fall < NOISE or damping > 1e9:  # as low as float32 can tell
                last = fall < NOISE
                break
    if at == 1:
        for i in range(5):
            for j in range(5):
                H[0, i, j] = H[1, i, j]
    return chi2, last
