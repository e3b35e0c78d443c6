"""Compiled chi2 of one star by `xp feh` (numba, CPU): what is prepared once a star, residuals and slopes, products.

`lm` holds the same in array form, in JAX. Importing this module imports numba.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from xptools.cores._fehkernels import (
    LEAST_PIVOT,
    VALUE,
    WIDTH,
    assembled,
    exponentials,
    factorised,
    inverted,
    kernel,
    look_up,
    look_up_value,
    part,
    place_among,
    whiten,
    whiten_four,
)  # fmt: skip

M_G_PER_LN = np.float32(2.5 / math.log(10.0) / 3.0)  # of scaled M_G (feh.LABEL_SCALE), in ln flux
SINGLE_PIVOT, DOUBLE_PIVOT = LEAST_PIVOT["float32"], LEAST_PIVOT["float64"]


class Work(NamedTuple):
    """One star's arrays: flux and errors at 10 pc, reference model, flux over it, whitening matrix or weights; scratch.

    H (2, 5, 5) are products of (residual, slopes by four parameters), whitened: H[k, 0, 0] = chi2, H[k, 0, 1:] = half
    its gradient, H[k, 1:, 1:] = J^T C^-1 J.
    """

    y: np.ndarray
    sigma: np.ndarray
    known: np.ndarray
    there: np.ndarray
    ln_reference: np.ndarray
    over: np.ndarray
    u: np.ndarray
    V: np.ndarray
    weight: np.ndarray
    x: np.ndarray
    z: np.ndarray
    pair: np.ndarray
    H: np.ndarray
    w: np.ndarray
    bits: np.ndarray
    a: np.ndarray
    inverse: np.ndarray
    a_double: np.ndarray
    inverse_double: np.ndarray
    scale: np.ndarray
    trial_labels: np.ndarray
    trial_slopes: np.ndarray
    system: np.ndarray
    step: np.ndarray
    trial: np.ndarray
    free: np.ndarray
    ridge: np.ndarray
    start: np.ndarray


@kernel
def scratch(n):
    """Fresh arrays for stars of n samples."""
    single, square = np.float32, WIDTH * WIDTH
    return Work(
        np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(n, np.bool_),
        np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(square, single),
        np.zeros(WIDTH, single), np.zeros(5 * WIDTH, single), np.zeros(5 * WIDTH, single),
        np.zeros(5 * WIDTH, single), np.zeros((2, 5, 5)), np.zeros((6, 4), single), np.zeros(WIDTH, np.int32),
        np.zeros(square, single), np.zeros(WIDTH, single), np.zeros(square), np.zeros(WIDTH), np.zeros(WIDTH),
        np.zeros(3, single), np.zeros(2, single), np.zeros((4, 5)), np.zeros(4), np.zeros(4, single),
        np.ones(4, np.bool_), np.zeros(4), np.zeros(4, single),
    )  # fmt: skip


@kernel
def gathered(y, gain, packed, diagonal, work):
    """Flux at 10 pc and its errors into y and sigma, single precision; `known` (0 or 1) and `there`: which are finite.

    y, gain (n,): flux and what it was multiplied by; packed: lower triangle of its covariance before the gain, or its
    errors if `diagonal`.
    """
    for c in range(len(y)):
        error = packed[c] if diagonal else math.sqrt(packed[c * (c + 3) // 2])
        error *= gain[c]
        there = math.isfinite(y[c]) and math.isfinite(error)
        work.there[c] = there
        work.known[c] = 1.0 if there else 0.0
        work.y[c] = y[c] if there else 0.0
        work.sigma[c] = error if there else 0.0


@kernel
def reference(grid, p, spread, level, work):
    """ln of the model at p (4,) becomes the star's reference, 1 / reference `over`, flux times that u.

    With `level` M_G of p is moved, and the reference with it, so that the model has the observed total flux.
    """
    ln, over, y, known, u, shift = work.ln_reference, work.over, work.y, work.known, work.u, spread * p[3]
    look_up_value(grid, p, ln, work.w)
    for c in range(WIDTH):
        ln[c] -= shift
        over[c] = -ln[c]
    exponentials(over, work.bits)
    if level:
        seen, model = np.float32(0.0), np.float32(0.0)
        for c in range(WIDTH):
            seen += y[c]
            model += known[c] / over[c]
        old, up = p[1], np.float32(math.log(max(seen, np.float32(1e-3) * model) / model))
        p[1] = min(max(old - up * M_G_PER_LN, grid.low[1]), grid.high[1])
        up, down = (old - p[1]) / M_G_PER_LN, np.float32(math.exp((p[1] - old) / M_G_PER_LN))
        for c in range(WIDTH):
            ln[c] += up
            over[c] *= down
    for c in range(WIDTH):
        u[c] = y[c] * over[c] + (np.float32(1.0) - known[c])


@part
def weighted(errors, teff, work):
    """One over the errors of u without their correlations: for a first look, quick and never far off."""
    k, fraction = place_among(errors.teff, teff)
    near, far, w = errors.variance[k], errors.variance[min(k + 1, len(errors.teff) - 1)], np.float32(fraction)
    sigma, over, known, weight = work.sigma, work.over, work.known, work.weight
    for c in range(WIDTH):
        f = sigma[c] * over[c]
        weight[c] = known[c] / math.sqrt(f * f + near[c] + w * (far[c] - near[c]))


@kernel
def prepared(gain, packed, diagonal, errors, teff, work):
    """V of C^-1 = V V^T, C the covariance of u: the flux's and the model's. False if C is not positive.

    Right after `reference`. A sample that is not there gets no weight.
    """
    n = len(gain)
    for c in range(n):
        work.scale[c] = gain[c] * work.over[c]
    assembled(work.scale, packed, diagonal, errors, teff, work.there, work.a)
    if factorised(work.a, work.inverse, SINGLE_PIVOT):
        inverted(work.a, work.inverse, work.V)
    else:  # rare: noise a thousand times what the model misses
        assembled(work.scale, packed, diagonal, errors, teff, work.there, work.a_double)
        if not factorised(work.a_double, work.inverse_double, DOUBLE_PIVOT):
            return False
        work.a[:] = work.a_double
        work.inverse[:] = work.inverse_double
        inverted(work.a, work.inverse, work.V)
    for i in range(n, WIDTH):
        work.V[WIDTH * i + i] = 0.0  # the padding has no residual
    return True


@part
def modelled(grid, p, pair, spread, work):
    """Slopes by p (4,) and residual of u into x: of one star, or of two if there is a sequence `pair`."""
    x, shift = work.x, spread * p[3]
    ln, u, value = work.ln_reference, work.u, work.x[VALUE:]
    if len(pair):
        add_pair(grid, p, pair, shift, work)
    else:
        look_up(grid, p, x, work.w)
        for c in range(WIDTH):
            value[c] -= ln[c] + shift
        exponentials(value, work.bits)
        for c in range(WIDTH):
            e = x[VALUE + c]
            x[c] *= e
            x[WIDTH + c] *= e
            x[2 * WIDTH + c] *= e
    for c in range(WIDTH):
        e = x[VALUE + c]
        x[3 * WIDTH + c] = -spread * e
        x[VALUE + c] = e - u[c]


@part
def on_sequence(pair, M_G, metals, labels, slopes):
    """Scaled labels (3,) of a main-sequence star of scaled M_G and [Fe/H], and the slopes (2,) of Teff by both.

    pair (7, 3): coefficients of Teff, by power of M_G and of [Fe/H], then the range of M_G.
    """
    M_G = min(max(M_G, pair[-1, 0]), pair[-1, 1])
    teff = slope = by_metals = 0.0
    for i in range(len(pair) - 2, -1, -1):
        value = pair[i, 0] + metals * (pair[i, 1] + metals * pair[i, 2])
        slope = slope * M_G + teff
        teff = teff * M_G + value
        by_metals = by_metals * M_G + pair[i, 1] + 2.0 * metals * pair[i, 2]
    labels[0], labels[1], labels[2] = teff, M_G, metals
    slopes[0], slopes[1] = slope, by_metals


@part
def add_pair(grid, p, pair, shift, work):
    """Two stars of M_G p[0] and p[0] + p[1] and [Fe/H] p[2], over the reference: slopes by p and flux into x."""
    labels, slopes, x, y, ln = work.trial_labels, work.trial_slopes, work.x, work.pair, work.ln_reference
    for c in range(5 * WIDTH):
        x[c] = np.float32(0.0)
    for which in range(2):
        on_sequence(pair, p[0] + which * p[1], p[2], labels, slopes)
        look_up(grid, labels, y, work.w)
        value = y[VALUE:]
        for c in range(WIDTH):
            value[c] -= ln[c] + shift
        exponentials(value, work.bits)
        second, by_mag, by_metals = np.float32(which), slopes[0], slopes[1]
        for c in range(WIDTH):
            e = y[VALUE + c]
            of_mag = e * (y[WIDTH + c] + by_mag * y[c])
            x[VALUE + c] += e
            x[c] += of_mag
            x[WIDTH + c] += second * of_mag
            x[2 * WIDTH + c] += e * (y[2 * WIDTH + c] + by_metals * y[c])


@part
def products(p, full, work, H):
    """H (5, 5) from x; returns chi2. V whitens if `full`, otherwise the weights."""
    x, z, weight = work.x, work.z, work.weight
    if full:
        whiten(work.V, x[VALUE:], z[VALUE:])
        whiten_four(work.V, x, z)
    else:
        for c in range(WIDTH):
            f = weight[c]
            z[c] = f * x[c]
            z[WIDTH + c] = f * x[WIDTH + c]
            z[2 * WIDTH + c] = f * x[2 * WIDTH + c]
            z[3 * WIDTH + c] = f * x[3 * WIDTH + c]
            z[VALUE + c] = f * x[VALUE + c]
    s00 = s01 = s02 = s03 = s04 = s11 = s12 = s13 = s14 = s22 = s23 = s24 = s33 = s34 = s44 = np.float32(0.0)
    for c in range(WIDTH):
        z0, z1, z2, z3, z4 = z[VALUE + c], z[c], z[WIDTH + c], z[2 * WIDTH + c], z[3 * WIDTH + c]
        s00 += z0 * z0
        s01 += z0 * z1
        s02 += z0 * z2
        s03 += z0 * z3
        s04 += z0 * z4
        s11 += z1 * z1
        s12 += z1 * z2
        s13 += z1 * z3
        s14 += z1 * z4
        s22 += z2 * z2
        s23 += z2 * z3
        s24 += z2 * z4
        s33 += z3 * z3
        s34 += z3 * z4
        s44 += z4 * z4
    H[0, 0], H[0, 1], H[0, 2], H[0, 3], H[0, 4] = s00 + p[3] * p[3], s01, s02, s03, s04 + p[3]
    H[1, 1], H[2, 2], H[3, 3], H[4, 4] = s11, s22, s33, s44 + 1.0
    H[1, 2], H[1, 3], H[1, 4], H[2, 3], H[2, 4], H[3, 4] = s12, s13, s14, s23, s24, s34
    H[2, 1], H[3, 1], H[4, 1], H[3, 2], H[4, 2], H[4, 3] = s12, s13, s14, s23, s24, s34
    return H[0, 0]


@part
def height(grid, p, spread, work):
    """chi2 alone, with all correlations, at a single star's p (4,)."""
    x, z, ln, u, shift = work.x[VALUE:], work.z[VALUE:], work.ln_reference, work.u, spread * p[3]
    look_up_value(grid, p, x, work.w)
    for c in range(WIDTH):
        x[c] -= ln[c] + shift
    exponentials(x, work.bits)
    for c in range(WIDTH):
        x[c] -= u[c]
    whiten(work.V, x, z)
    total = np.float32(0.0)
    for c in range(WIDTH):
        total += z[c] * z[c]
    return total + p[3] * p[3]
