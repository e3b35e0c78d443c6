"""Compiled chi2 of one star by `xp feh` (numba, CPU): what is prepared once a star, residuals and slopes, products.

`lm` holds the same in array form, in JAX. Importing this module imports numba.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from xptools.cores._fehkernels import (
    LEAST_PIVOT,
    assembled,
    cell,
    exponentials,
    factorised,
    look_up,
    look_up_value,
    part,
    place_among,
    whiten,
    whiten_five,
)
from xptools.cores._fehsimd import VALUE, WIDTH
from xptools.cores._fehtiles import add_star_tile, dot_products, model_tile
from xptools.cores._lanes import LANES

M_G_PER_LN = np.float32(2.5 / math.log(10.0) / 3.0)  # of scaled M_G (feh.LABEL_SCALE), in ln flux
SINGLE_PIVOT, DOUBLE_PIVOT = LEAST_PIVOT["float32"], LEAST_PIVOT["float64"]


class Work(NamedTuple):
    """One star's arrays: flux and errors at 10 pc, reference model, flux over it, factor R of C and the inverses V of
    its diagonal blocks, or weights; scratch.

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
    dots: np.ndarray
    H: np.ndarray
    w: np.ndarray
    a: np.ndarray
    inverse: np.ndarray
    a_double: np.ndarray
    inverse_double: np.ndarray
    V_double: np.ndarray
    scale: np.ndarray
    trial_labels: np.ndarray
    trial_slopes: np.ndarray
    system: np.ndarray
    step: np.ndarray
    trial: np.ndarray
    free: np.ndarray
    ridge: np.ndarray
    start: np.ndarray


@part
def scratch(n):
    """Fresh arrays for stars of n samples."""
    single, square = np.float32, WIDTH * WIDTH
    return Work(
        np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(n, np.bool_),
        np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(WIDTH, single), np.zeros(LANES * WIDTH, single),
        np.zeros(WIDTH, single), np.zeros(5 * WIDTH, single), np.zeros(5 * WIDTH, single),
        np.zeros(15, single), np.zeros((2, 5, 5)), np.zeros(24, single),
        np.zeros(square, single), np.zeros(WIDTH, single), np.zeros(square), np.zeros(WIDTH), np.zeros(LANES * WIDTH),
        np.zeros(WIDTH),
        np.zeros(3, single), np.zeros(2, single), np.zeros((4, 5)), np.zeros(4), np.zeros(4, single),
        np.ones(4, np.bool_), np.zeros(4), np.zeros(4, single),
    )  # fmt: skip


@part
def gathered(y, gain, packed, diagonal, work):
    """Flux at 10 pc and its errors into y and sigma, single precision; `known` (0 or 1) and `there`: which are finite.

    y, gain (n,): flux and what it was multiplied by; packed: lower triangle of its covariance before the gain, or its
    errors if `diagonal`.
    """
    one, none = np.float32(1.0), np.float32(0.0)
    for c in range(len(y)):
        if diagonal:
            error = np.float32(packed[c] * gain[c])
        else:
            error = math.sqrt(np.float32(packed[c * (c + 3) // 2] * gain[c] * gain[c]))
        there = math.isfinite(y[c]) and math.isfinite(error)
        work.there[c] = there
        work.known[c] = one if there else none
        work.y[c] = np.float32(y[c]) if there else none
        work.sigma[c] = error if there else none


@part
def reference(grid, p, spread, level, work):
    """ln of the model at p (4,) becomes the star's reference, 1 / reference `over`, flux times that u.

    With `level` M_G of p is moved, and the reference with it, so that the model has the observed total flux. Without,
    x becomes what `modelled` would make of a single star at p.
    """
    ln, over, y, known, u, x, shift = work.ln_reference, work.over, work.y, work.known, work.u, work.x, spread * p[3]
    if level:
        look_up_value(grid, p, ln, work.w)
    else:
        look_up(grid, p, x, work.w)
        for c in range(WIDTH):
            ln[c] = x[VALUE + c]
    for c in range(WIDTH):
        ln[c] -= shift
        over[c] = -ln[c]
    exponentials(over, WIDTH)
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
    for c in range(WIDTH):
        x[3 * WIDTH + c] = -spread
        x[VALUE + c] = np.float32(1.0) - u[c]


@part
def weighted(errors, teff, work):
    """One over the errors of u without their correlations: for a first look, quick and never far off."""
    k, fraction = place_among(errors.teff, teff)
    near, far, w = errors.variance[k], errors.variance[min(k + 1, len(errors.teff) - 1)], np.float32(fraction)
    sigma, over, known, weight = work.sigma, work.over, work.known, work.weight
    for c in range(WIDTH):
        f = sigma[c] * over[c]
        weight[c] = known[c] / math.sqrt(f * f + near[c] + w * (far[c] - near[c]))


@part
def prepared(gain, packed, following, diagonal, errors, teff, work):
    """R of C = R^T R, C the covariance of u: the flux's and the model's. False if C is not positive.

    Right after `reference`. A sample that is not there gets no weight.
    """
    n = len(gain)
    for c in range(n):
        work.scale[c] = gain[c] * work.over[c]
    assembled(work.scale, packed, following, diagonal, errors, teff, work.there, work.a)
    if not factorised(work.a, work.inverse, work.V, SINGLE_PIVOT):  # rare: noise a thousand times what the model misses
        assembled(work.scale, packed, following, diagonal, errors, teff, work.there, work.a_double)
        if not factorised(work.a_double, work.inverse_double, work.V_double, DOUBLE_PIVOT):
            return False
        for c in range(WIDTH * WIDTH):
            work.a[c] = work.a_double[c]
        for c in range(LANES * WIDTH):
            work.V[c] = work.V_double[c]
    for i in range(n, WIDTH):  # the padding has no residual
        work.V[LANES * i + i % LANES] = 0.0
    return True


@part
def modelled(grid, p, pair, spread, work):
    """Slopes by p (4,) and residual of u into x: of one star, or of two if there is a sequence `pair`."""
    x, shift = work.x, spread * p[3]
    if len(pair):
        add_pair(grid, p, pair, spread, shift, work)
        return
    start, row = cell(grid, p, work.w), grid.nodes * WIDTH
    for tile in range(0, WIDTH, LANES):
        model_tile(x, tile, grid.flat, start + tile, row, row * grid.nodes, work.w, work.ln_reference, work.u, shift,
                   spread)  # fmt: skip


@part
def on_sequence(pair, M_G, metals, labels, slopes):
    """Scaled labels (3,) of a main-sequence star of scaled M_G and [Fe/H], and the slopes (2,) of Teff by both.

    pair (7, 3): coefficients of Teff, by power of M_G and of [Fe/H], then the range of M_G. Returns how much M_G moves
    as it is asked to: 0 outside the range, where the star at its end stands in.
    """
    asked = M_G
    M_G = min(max(M_G, pair[-1, 0]), pair[-1, 1])
    teff = slope = by_metals = 0.0
    for i in range(len(pair) - 2, -1, -1):
        value = pair[i, 0] + metals * (pair[i, 1] + metals * pair[i, 2])
        slope = slope * M_G + teff
        teff = teff * M_G + value
        by_metals = by_metals * M_G + pair[i, 1] + 2.0 * metals * pair[i, 2]
    labels[0], labels[1], labels[2] = teff, M_G, metals
    slopes[0], slopes[1] = slope, by_metals
    return np.float32(1.0) if asked == M_G else np.float32(0.0)


@part
def add_pair(grid, p, pair, spread, shift, work):
    """Two stars of M_G p[0] together, p[1] apart, and [Fe/H] p[2], over the reference: slopes by p and residual into x.

    With the sum as a parameter the excess changes the shape of the spectrum alone, and chi2 has no bent valley.
    """
    labels, slopes, x, row = work.trial_labels, work.trial_slopes, work.x, grid.nodes * WIDTH
    for c in range(5 * WIDTH):
        x[c] = np.float32(0.0)
    light = np.float32(math.exp(-p[1] / M_G_PER_LN))  # of the secondary, the primary's being one
    M_G = p[0] + M_G_PER_LN * np.float32(math.log(np.float32(1.0) + light))
    by_excess = -light / (np.float32(1.0) + light)
    for _ in range(2):
        moves = on_sequence(pair, M_G, p[2], labels, slopes)
        start = cell(grid, labels, work.w)
        for tile in range(0, WIDTH, LANES):
            add_star_tile(x, tile, grid.flat, start + tile, row, row * grid.nodes, work.w, work.ln_reference, shift,
                          moves, by_excess, slopes[0], slopes[1])  # fmt: skip
        M_G += p[1]
        by_excess += np.float32(1.0)
    for c in range(WIDTH):
        x[3 * WIDTH + c] = -spread * x[VALUE + c]
    for c in range(WIDTH):
        x[VALUE + c] -= work.u[c]


@part
def products(p, full, work, H):
    """H (5, 5) from x, which is used up; returns chi2. C whitens if `full`, otherwise the weights."""
    x, z, weight, dots = work.x, work.z, work.weight, work.dots
    if full:
        whiten_five(work.a, work.V, x, z)
    else:
        for row in range(0, 5 * WIDTH, WIDTH):
            for c in range(WIDTH):
                z[row + c] = weight[c] * x[row + c]
    dot_products(z, dots)
    k = 0
    for i in range(5):
        for j in range(i, 5):
            H[i, j] = H[j, i] = dots[k]
            k += 1
    H[0, 0] += p[3] * p[3]
    H[0, 4] += p[3]
    H[4, 4] += 1.0
    return H[0, 0]


@part
def height(grid, p, spread, work):
    """chi2 alone, with all correlations, at a single star's p (4,)."""
    x, z, ln, u, shift = work.x, work.z, work.ln_reference, work.u, spread * p[3]
    look_up_value(grid, p, x, work.w)
    for c in range(WIDTH):
        x[c] -= ln[c] + shift
    exponentials(x, WIDTH)
    for c in range(WIDTH):
        x[c] -= u[c]
    whiten(work.a, work.V, x, z)
    total = np.float32(0.0)
    for c in range(WIDTH):
        total += z[c] * z[c]
    return total + p[3] * p[3]
