"""Compiled fits of `xp feh` (numba, CPU): single stars and pairs; `feh` and `lm` hold the same in array form.

Every star is fitted by itself with its own number of steps, so neither batches nor threads can change a bit of it.
Importing this module imports numba; the cores do so inside the functions that need it.
"""

from __future__ import annotations

import math

import numpy as np

from xptools.cores._fehkernels import TOLERANCE, WIDTH, descended, factorised, kernel, look_up, misfit, solved

FIRST_LOOK, MOST = 8, 40  # evaluations at most
ALONG, WIDE = (2.5, 6.0), 0.1  # further starts: standard errors along the valley, where that of [Fe/H]' is WIDE
SINGLE = np.empty((0, 3), np.float32)
M_G_UNIT = 3.0  # [mag], of the scaled label (feh.LABEL_SCALE)
EMPTY, UNFINISHED, SINGULAR = 1, 2, 4  # bits of a star's state
# Beyond this error of [Fe/H]' all starts are tried; below, those where chi2 rises less than this part of a parabola.
BLURRED, FLAT = 0.6, 0.6
GONE = 1e6  # variance, in units of the model's flux squared, of a sample that is not there


@kernel
def place_among(nodes, x):
    """Cell and fraction of it of x among rising nodes (K,), held at the ends."""
    last = len(nodes) - 1
    if last == 0 or not x > nodes[0]:
        return 0, 0.0
    for k in range(last):
        if x < nodes[k + 1]:
            return k, (x - nodes[k]) / (nodes[k + 1] - nodes[k])
    return last - 1, 1.0


@kernel
def prepared(y, gain, packed, diagonal, floor, nodes, teff, star, a, factor, inverse):
    """Relative flux, the factor of its covariance plus the model's own, in units of the reference model exp(star[0]).

    y, gain (n,): flux and what it was multiplied by; packed: lower triangle of its covariance before the gain, or its
    errors if `diagonal`; floor (K, n, n): relative covariance of the model at the Teff' nodes (K,).
    A sample that is not finite gets no weight.
    """
    n = len(y)
    scale = inverse  # scratch until it is filled
    for i in range(WIDTH):
        one_over = math.exp(-star[0, i]) if i < n else 0.0
        scale[i] = gain[i] * one_over if i < n else 0.0
        star[1, i] = y[i] * one_over if i < n else 0.0
    k, w = place_among(nodes, teff)
    near, far = floor[k], floor[min(k + 1, len(nodes) - 1)]
    for j in range(WIDTH):
        row = a[j]
        for i in range(j, WIDTH):
            row[i] = 0.0
        if j >= n:
            row[j] = 1.0
            continue
        for i in range(j, n):
            row[i] = near[j, i] + w * (far[j, i] - near[j, i])
        if diagonal:
            row[j] += (packed[j] * scale[j]) ** 2
        else:
            position, f = j * (j + 3) // 2, float(scale[j])
            for i in range(j, n):
                row[i] += packed[position] * f * scale[i]
                position += i + 1
    for i in range(n):
        if not (math.isfinite(star[1, i]) and math.isfinite(a[i, i])):
            star[1, i] = 1.0
            for j in range(n):
                a[min(i, j), max(i, j)] = 0.0
            a[i, i] = GONE
    done = factorised(a, factor, inverse)
    for i in range(n, WIDTH):
        inverse[i] = 0.0  # the padding has no residual
    return done


@kernel
def prepared_diagonal(y, gain, packed, diagonal, floor, nodes, teff, star, inverse):
    """As `prepared` with all correlations left out: a first look, quick and never far off."""
    n = len(y)
    position = 0
    k, w = place_among(nodes, teff)
    near, far = floor[k], floor[min(k + 1, len(nodes) - 1)]
    for i in range(WIDTH):
        star[1, i], inverse[i] = 0.0, 0.0
        if i < n:
            position += i + 1
            value = packed[i] * packed[i] if diagonal else packed[position - 1]
            f = gain[i] * math.exp(-star[0, i])
            value = value * f * f + near[i, i] + w * (far[i, i] - near[i, i])
            relative = y[i] * math.exp(-star[0, i])
            if math.isfinite(relative) and math.isfinite(value):
                star[1, i], inverse[i] = relative, 1.0 / math.sqrt(value)


@kernel
def reference(table, box, per_step, p, spread, star, x, w):
    """ln of the model at p (4,) into star[0]."""
    look_up(table, box[0], per_step, p, x, w)
    for c in range(WIDTH):
        star[0, c] = x[0, c] - spread * p[3]


@kernel
def levelled(table, box, per_step, p, y, star, x, w):
    """Move M_G of p so that the model has the observed total flux; leaves star[0] at the model there."""
    reference(table, box, per_step, p, np.float32(0.0), star, x, w)
    seen = model = 0.0
    for c in range(len(y)):
        if math.isfinite(y[c]):
            seen += y[c]
            model += math.exp(star[0, c])
    if seen > 0.0:
        p[1] -= 2.5 * math.log10(seen / model) / M_G_UNIT
        p[1] = min(max(p[1], box[0, 1]), box[1, 1])
        reference(table, box, per_step, p, np.float32(0.0), star, x, w)


@kernel
def valley(curvature, work, ridge, scratch):
    """Where the labels go along the bottom of chi2's valley as [Fe/H] does: the column of the covariance, into ridge.

    Returns the standard error of scaled [Fe/H]: ridge over it is one standard error along the valley.
    """
    for i in range(4):
        work[0, 1 + i] = -1.0 if i == 2 else 0.0
        for j in range(4):
            work[1 + i, 1 + j] = curvature[i, j]
    free = np.ones(4, np.bool_)
    solved(work, free, 0.0, ridge, scratch)
    return np.float32(math.sqrt(max(ridge[2], 0.0)))


@kernel
def parabola(curvature, q, best):
    """How far chi2 would be above its minimum at `best` if it were a parabola."""
    total = 0.0
    for i in range(4):
        for j in range(4):
            total += (q[i] - best[i]) * (q[j] - best[j]) * curvature[i, j]
    return total


@kernel
def fit_stars(
    table, box, per_step, y, gain, packed, diagonal, floor, nodes, spread, starts, look_only, ref, p, chi2, H, state
):
    """Fit stars 0 ... N - 1: see `feh.fitted`. Writes ref, p (N, 4), chi2 (N,), H (N, 4, 4), state (N,).

    y, gain (N, n); packed (N, n (n + 1) / 2) or errors (N, n); spread (N,): 1 sigma of ln flux that the parallax
    leaves; starts (N, K, 3). The first start is refined without correlations: the star's reference model. Where
    [Fe/H] is uncertain chi2 can have two minima along its valley, so the fit starts again on either side of the first.
    """
    a, factor = np.empty((WIDTH, WIDTH)), np.empty((WIDTH, WIDTH), np.float32)
    inverse, star = np.empty(WIDTH, np.float32), np.empty((2, WIDTH), np.float32)
    x, w, bits = np.empty((5, WIDTH), np.float32), np.empty((6, 4), np.float32), np.empty(WIDTH, np.int32)
    products, best = np.empty((2, 5, 5)), np.empty(4, np.float32)
    q, ridge, scratch = np.empty(4, np.float32), np.empty(4), np.empty((4, 5))
    for i in range(len(y)):
        if state[i] & EMPTY:
            continue
        s = np.float32(spread[i])
        for k in range(3):
            q[k] = min(max(starts[i, 0, k], box[0, k]), box[1, k])
        q[3] = 0.0
        levelled(table, box, per_step, q, y[i], star, x, w)
        prepared_diagonal(y[i], gain[i], packed[i], diagonal, floor, nodes, q[0], star, inverse)
        descended(
            table, box, box, per_step, q, SINGLE, s, star, factor, inverse, False, FIRST_LOOK, x, products, w, bits
        )
        reference(table, box, per_step, q, s, star, x, w)
        for k in range(4):
            ref[i, k] = q[k]
        if look_only:
            continue
        if not prepared(y[i], gain[i], packed[i], diagonal, floor, nodes, q[0], star, a, factor, inverse):
            state[i] |= SINGULAR
            continue
        lowest, converged, along, spacing = np.inf, False, 0, np.float32(0.0)
        for start in range(starts.shape[1] + 2 * len(ALONG)):
            if start > 0:
                for k in range(4):
                    q[k] = starts[i, start, k] if start < starts.shape[1] and k < 3 else 0.0
            if start >= starts.shape[1]:
                if spacing < WIDE:
                    break
                f = ALONG[along // 2] * (1.0 - 2.0 * (along % 2)) / spacing
                along += 1
                for k in range(4):
                    q[k] = best[k] + f * ridge[k]
            for k in range(3):
                q[k] = min(max(q[k], box[0, k]), box[1, k])
            if start >= starts.shape[1] and spacing < BLURRED:
                here = misfit(
                    table, box[0], per_step, q, SINGLE, s, star, factor, inverse, True, x, products[0], w, bits
                )
                if here > lowest + FLAT * parabola(H[i], q, best):
                    continue
            found, done = descended(
                table, box, box, per_step, q, SINGLE, s, star, factor, inverse, True, MOST, x, products, w, bits
            )
            if found < lowest - TOLERANCE:
                lowest, converged = found, done
                for k in range(4):
                    best[k] = q[k]
                    for j in range(4):
                        H[i, k, j] = products[0, 1 + k, 1 + j]
            if start == starts.shape[1] - 1:
                spacing = valley(H[i], products[1], ridge, scratch)
        chi2[i] = lowest
        if not converged:
            state[i] |= UNFINISHED
        for k in range(4):
            p[i, k] = best[k]


@kernel
def fit_pairs(
    table, box, limits, per_step, pair, y, gain, packed, diagonal, floor, nodes, spread, ref, starts, p, chi2
):
    """The best sum of two main-sequence stars: p (N, 4) M_G, its excess, [Fe/H] and shift, chi2 (N,).

    ref (N, 4) as `fit_stars` wrote it: C is the same, so chi2 compares. starts (N, K, 3); limits (2, 3) of p.
    """
    a, factor = np.empty((WIDTH, WIDTH)), np.empty((WIDTH, WIDTH), np.float32)
    inverse, star = np.empty(WIDTH, np.float32), np.empty((2, WIDTH), np.float32)
    x, w, bits = np.empty((5, WIDTH), np.float32), np.empty((6, 4), np.float32), np.empty(WIDTH, np.int32)
    products, q = np.empty((2, 5, 5)), np.empty(4, np.float32)
    for i in range(len(y)):
        if not math.isfinite(ref[i, 0]):
            continue
        s = np.float32(spread[i])
        for k in range(4):
            q[k] = ref[i, k]
        teff = q[0]
        reference(table, box, per_step, q, s, star, x, w)
        if not prepared(y[i], gain[i], packed[i], diagonal, floor, nodes, teff, star, a, factor, inverse):
            continue
        lowest = np.inf
        for start in range(starts.shape[1]):
            for k in range(3):
                q[k] = min(max(starts[i, start, k], limits[0, k]), limits[1, k])
            q[3] = ref[i, 3]
            found, _ = descended(
                table, box, limits, per_step, q, pair, s, star, factor, inverse, True, MOST, x, products, w, bits
            )
            if found < lowest:
                lowest = found
                for k in range(4):
                    p[i, k] = q[k]
        chi2[i] = lowest
