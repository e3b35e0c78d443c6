"""Compiled fits of `xp feh` (numba, CPU): single stars and pairs; `feh` and `lm` hold the same in array form.

Every star is fitted by itself with its own number of steps, so neither batches nor threads can change a bit of it.
Importing this module imports numba; the cores do so inside the functions that need it.
"""

from __future__ import annotations

import math

import numpy as np

from xptools.cores._fehkernels import kernel, part
from xptools.cores._fehmodel import (
    gathered,
    height,
    modelled,
    prepared,
    products,
    reference,
    scratch,
    weighted,
)  # fmt: skip

# numpy's numbers, not Python's: numba compiles a function once more for every literal
MOST, MOST_LOOKED = np.int64(40), np.int64(4)  # steps at most
FULL, WEIGHTS, LEVEL, STAY = np.bool_(True), np.bool_(False), np.bool_(True), np.bool_(False)
THERE, ANEW = np.bool_(True), np.bool_(False)  # whether x already holds the model where a descent begins
ENOUGH, ENOUGH_LOOKED = 0.01, 0.5  # a fall of chi2 still to come that is not worth looking at its end
NOISE, SLOW = 5e-3, 0.02  # of chi2 in float32; a fall that ends even a slow descent
ALONG, WIDE = (2.5, 6.0), 0.1  # further starts: standard errors along the valley, where that of [Fe/H]' is WIDE
NEAR, SHORTEST, LONGEST = 3.0, 0.2, 1.6
# Beyond this error of [Fe/H]' all starts are tried; below, those where chi2 rises less than this part of a parabola.
BLURRED, FLAT = 0.6, 0.6
GLANCE, FOLLOWED = np.int64(2), 3  # steps from every start of a pair, and of how many then to the end
MISSING = 6  # samples known at most in a star that cannot be fitted (feh.usable)
EMPTY, UNFINISHED, SINGULAR = 1, 2, 4  # bits of a star's state


@part
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
        over = 1.0 / a[i, i]
        for r in range(i + 1, 4):
            f = a[r, i] * over
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


@part
def copied(source, target):
    """source (4,) into target."""
    for k in range(4):
        target[k] = source[k]


@part
def stretched(length, slope, rise):
    """How long the next step should be, in Gauss-Newton steps, after one of `length` that changed chi2 by `rise`.

    Where the model bends, all these steps are too long or too short by one factor: that of the parabola along the last.
    `slope` is that of chi2 where that step began; without one the answer is 1.
    """
    bend = rise - length * slope
    if not (slope < 0.0 and bend > 0.0):
        return 1.0
    return min(max(-0.5 * slope * length * length / bend, SHORTEST), LONGEST)


@part
def descended(grid, limits, p, pair, spread, work, full, most, enough, begun):
    """Levenberg-Marquardt from p (4,), in place, inside the limits (2, 3) of p: chi2, and whether that is a minimum.

    H[0] of the work ends with the products there or less than `enough` of chi2 away: the last step is not looked at.
    """
    H, d, q, free = work.H, work.step, work.trial, work.free
    low, high, damping, at, fell, fall, chi2 = limits[0], limits[1], 1e-3, 1, np.inf, np.inf, np.inf
    length, slope, refused = 1.0, 0.0, False
    copied(p, q)
    for _ in range(most + 1):
        if begun:
            begun = False
        else:
            modelled(grid, q, pair, spread, work)
        new = products(q, full, work, H[1 - at])
        longer = stretched(length, slope, new - chi2)
        if new < chi2:
            at, fell, chi2 = 1 - at, chi2 - new, new
            damping = damping if refused else max(damping * 0.1, 1e-8)
            refused = False
            length = longer if SLOW < fell < NEAR else 1.0
            copied(q, p)
        else:
            damping *= 10.0
            refused = True
            length = min(longer, 0.6)
            if fall < NOISE or damping > 1e9:  # as low as float32 can tell
                break
        for k in range(3):
            free[k] = not ((p[k] <= low[k] and H[at, 0, 1 + k] > 0.0) or (p[k] >= high[k] and H[at, 0, 1 + k] < 0.0))
        fall = solved(H[at], free, damping, d, work.system)
        slope = 0.0
        for k in range(4):
            slope += 2.0 * d[k] * H[at, 0, 1 + k]
            q[k] = p[k] + length * d[k]
        inside(limits, q)
        if fall < enough + 2e-6 * chi2 and damping < 0.1 and (fell < SLOW or fall < 0.1 * fell):
            chi2, fall = chi2 - fall, 0.0
            copied(q, p)
            break
    if at == 1:
        for i in range(5):
            for j in range(5):
                H[0, i, j] = H[1, i, j]
    return chi2, fall < NOISE


@part
def valley(curvature, work, ridge):
    """Where the labels go along the bottom of chi2's valley as [Fe/H] does: the column of the covariance, into ridge.

    Returns the standard error of scaled [Fe/H]: ridge over it is one standard error along the valley.
    """
    H = work.H[1]
    for i in range(4):
        H[0, 1 + i] = -1.0 if i == 2 else 0.0
        for j in range(4):
            H[1 + i, 1 + j] = curvature[i, j]
        work.free[i] = True
    solved(H, work.free, 0.0, ridge, work.system)
    return np.float32(math.sqrt(max(ridge[2], 0.0)))


@part
def parabola(curvature, q, best):
    """How far chi2 would be above its minimum at `best` if it were a parabola."""
    total = 0.0
    for i in range(4):
        for j in range(4):
            total += (q[i] - best[i]) * (q[j] - best[j]) * curvature[i, j]
    return total


@part
def inside(limits, p):
    """Move p into the limits (2, 3)."""
    for k in range(3):
        p[k] = min(max(p[k], limits[0, k]), limits[1, k])


@part
def begin(labels, shift, p):
    """p (4,) of labels (3,) and a shift."""
    for k in range(3):
        p[k] = labels[k]
    p[3] = shift


@part
def looked(grid, box, single, start, errors, spread, work, p):
    """The first look: p (4,) from `start` (3,) without correlations; the model there is the star's reference model."""
    begin(start, np.float32(0.0), p)
    inside(box, p)
    reference(grid, p, np.float32(0.0), LEVEL, work)
    weighted(errors, p[0], work)
    descended(grid, box, p, single, spread, work, WEIGHTS, MOST_LOOKED, ENOUGH_LOOKED, ANEW)
    reference(grid, p, spread, STAY, work)


@part
def curved(work, curvature):
    """J^T C^-1 J + prior (4, 4) of the last descent."""
    for i in range(4):
        for j in range(4):
            curvature[i, j] = work.H[0, 1 + i, 1 + j]


@part
def lowest(grid, box, single, starts, spread, work, best, curvature):
    """The lowest minimum of chi2 from starts (K, 3) and along the valley: into best (4,), curvature (4, 4).

    best comes in as a first start. Where [Fe/H] is uncertain chi2 can have two minima along its valley, so the fit
    starts again on either side of the first. Returns chi2 and whether it has converged.
    """
    ridge, q = work.ridge, work.start
    least, converged = descended(grid, box, best, single, spread, work, FULL, MOST, ENOUGH, THERE)
    curved(work, curvature)
    for k in range(len(starts) + 2 * len(ALONG)):
        along = k - len(starts)
        if along < 0:
            begin(starts[k], np.float32(0.0), q)
        else:
            if along == 0:
                error = valley(curvature, work, ridge)
            if error < WIDE:
                break
            f = ALONG[along // 2] * (1.0 - 2.0 * (along % 2)) / error
            for i in range(4):
                q[i] = best[i] + f * ridge[i]
        inside(box, q)
        if along >= 0 and error < BLURRED:
            if height(grid, q, spread, work) > least + FLAT * parabola(curvature, q, best):
                continue
        found, done = descended(grid, box, q, single, spread, work, FULL, MOST, ENOUGH, ANEW)
        if found < least - ENOUGH:
            least, converged = found, done
            copied(q, best)
            curved(work, curvature)
    return least, converged


@kernel
def fit_stars(grid, box, y, gain, packed, diagonal, errors, spread, starts, look_only, ref, p, chi2, H, state):
    """Fit stars 0 ... N - 1: see `feh.fitted`. Writes ref, p (N, 4), chi2 (N,), H (N, 4, 4), state (N,).

    y, gain (N, n); packed (N, n (n + 1) / 2) or errors (N, n); spread (N,): 1 sigma of ln flux that the parallax
    leaves; starts (N, K, 3): the first leads to the star's reference model.
    """
    work, q, single = scratch(y.shape[1]), np.empty(4, np.float32), np.empty((0, 3), np.float32)
    for i in range(len(y)):
        s = np.float32(spread[i])
        gathered(y[i], gain[i], packed[i], diagonal, work)
        if work.known.sum() <= MISSING or not (work.y.sum() > 0.0 and math.isfinite(s)):
            state[i] |= EMPTY
            continue
        looked(grid, box, single, starts[i, 0], errors, s, work, q)
        for k in range(4):
            ref[i, k] = q[k]
        if look_only:
            continue
        if not prepared(gain[i], packed[i], packed[min(i + 1, len(y) - 1)], diagonal, errors, q[0], work):
            state[i] |= SINGULAR
            continue
        chi2[i], converged = lowest(grid, box, single, starts[i, 1:], s, work, q, H[i])
        if not converged:
            state[i] |= UNFINISHED
        for k in range(4):
            p[i, k] = q[k]


@kernel
def fit_pairs(grid, limits, pair, y, gain, packed, diagonal, errors, spread, ref, starts, p, chi2):
    """The best sum of two main-sequence stars: p (N, 4) M_G of both, the excess, [Fe/H] and shift, chi2 (N,).

    ref (N, 4) as `fit_stars` wrote it: C is the same, so chi2 compares. starts (N, K, 3): of each a few steps, then
    the lowest ones to their end; limits (2, 3) of p.
    """
    work, q, count = scratch(y.shape[1]), np.empty(4, np.float32), starts.shape[1]
    tries, heights = np.empty((count, 4), np.float32), np.empty(count)
    for i in range(len(y)):
        if not math.isfinite(ref[i, 0]):
            continue
        s = np.float32(spread[i])
        for k in range(4):
            q[k] = ref[i, k]
        gathered(y[i], gain[i], packed[i], diagonal, work)
        reference(grid, q, s, STAY, work)
        if not prepared(gain[i], packed[i], packed[min(i + 1, len(y) - 1)], diagonal, errors, q[0], work):
            continue
        for k in range(count):
            begin(starts[i, k], q[3], tries[k])
            inside(limits, tries[k])
            heights[k], _ = descended(grid, limits, tries[k], pair, s, work, FULL, GLANCE, ENOUGH, ANEW)
        chi2[i] = np.inf
        for _ in range(FOLLOWED):
            k = heights.argmin()
            heights[k] = np.inf
            found, _ = descended(grid, limits, tries[k], pair, s, work, FULL, MOST, ENOUGH, ANEW)
            if found < chi2[i]:
                chi2[i] = found
                for n in range(4):
                    p[i, n] = tries[k, n]
