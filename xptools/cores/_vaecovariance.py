"""The normal law with correlated noise, and its slopes, for many small matrices at once (numba, CPU).

    f = 1/2 [r^T C^-1 r + ln det C],   C = diag(sigma) rho diag(sigma) + diag(u)
    df/dr = C^-1 r = a,   df/du_j = 1/2 [(C^-1)_jj - a_j^2]

With C = L L^T and W = L^-1: y = W r, a = W^T y, (C^-1)_jj = sum_i W_ij^2. LANES stars lie side by side in each element
of the triangles, so every step is one of vectors, and all of it stays in the second cache.
"""

from __future__ import annotations

import numpy as np

from xptools.cores._numba import compiled

LANES, BLOCK = 64, 16
_compiled = compiled({"contract"})
F = np.float32
ZERO, ONE, HALF = F(0.0), F(1.0), F(0.5)


@_compiled
def law(rho, rows, sigma, extra, r, value, by_r, by_extra):
    """f of stars into value (N,), its slopes into by_r and by_extra (N, K).

    rho (., bands, P), packed below the diagonal, has theirs at `rows` (N,); sigma, extra and r (N, K) have bands side
    by side; an unknown coefficient has sigma 0, extra 1 and r 0.
    """
    n, (_, bands, packed) = len(rows), rho.shape
    k = sigma.shape[1] // bands
    L, W = np.zeros((k, k, LANES), F), np.zeros((k, k, LANES), F)
    s, x, y, a, d = np.zeros((5, k, LANES), F)
    f, turned = np.zeros(LANES, F), np.zeros((packed, LANES), F)
    for start in range(0, n, LANES):
        some = min(LANES, n - start)
        f[:] = ZERO
        for band in range(bands):
            first = band * k
            _load(rho[:, band], rows[start : start + some], sigma[start : start + some, first : first + k],
                  extra[start : start + some, first : first + k], turned, s, L)  # fmt: skip
            for l in range(LANES):
                star = start + min(l, some - 1)
                for j in range(k):
                    x[j, l] = r[star, first + j]
            _root(L, f)
            _inverse(L, W)
            _solved(W, x, y, a, d, f)
            for l in range(some):
                for j in range(k):
                    by_r[start + l, first + j] = a[j, l]
                    by_extra[start + l, first + j] = HALF * (d[j, l] - a[j, l] * a[j, l])
        for l in range(some):
            value[start + l] = f[l]


@_compiled
def _load(rho, rows, sigma, extra, turned, s, L):
    """The lower triangle of C; lanes beyond the stars repeat the last."""
    some, size = len(rows), rho.shape[1]
    for block in range(0, size, BLOCK):  # turned in blocks, for a line of the cache holds neighbours of one star
        for l in range(LANES):
            star = rho[rows[min(l, some - 1)]]
            for place in range(block, min(block + BLOCK, size)):
                turned[place, l] = star[place]
    place = 0
    for i in range(L.shape[0]):
        for l in range(LANES):
            star = min(l, some - 1)
            s[i, l] = sigma[star, i]
            L[i, i, l] = sigma[star, i] * sigma[star, i] + extra[star, i]
        for j in range(i):
            for l in range(LANES):
                L[i, j, l] = turned[place, l] * s[i, l] * s[j, l]
            place += 1


@_compiled
def _less(t, a, b, first, stop):
    """t (LANES,) less the products of a[m] and b[m], m from first to stop; four at a time, so that t stays at hand."""
    whole = first + (stop - first) // 4 * 4
    for m in range(first, whole, 4):
        for l in range(LANES):  # indices, not rows by name: the compiler sees three arrays, and makes vectors of it
            one, two = a[m, l] * b[m, l] + a[m + 1, l] * b[m + 1, l], a[m + 2, l] * b[m + 2, l]
            t[l] -= one + (two + a[m + 3, l] * b[m + 3, l])
    for m in range(whole, stop):
        for l in range(LANES):
            t[l] -= a[m, l] * b[m, l]


@_compiled
def _root(L, f):
    """C to its root in place, one over each pivot on the diagonal; ln det C / 2 is added to f."""
    for i in range(L.shape[0]):
        row = L[i]
        for j in range(i):
            t, over = row[j], L[j, j]
            _less(t, row, L[j], 0, j)
            for l in range(LANES):
                t[l] *= over[l]
        t = row[i]
        _less(t, row, row, 0, i)
        for l in range(LANES):
            pivot = np.sqrt(t[l])
            f[l] += np.log(pivot)
            t[l] = ONE / pivot


@_compiled
def _inverse(L, W):
    """W of a root whose diagonal is inverted; columns of W are rows here, W[j, i]."""
    k = L.shape[0]
    for j in range(k):
        column = W[j]
        column[j] = L[j, j]
        for i in range(j + 1, k):
            t, over = column[i], L[i, i]
            t[:] = ZERO
            _less(t, L[i], column, j, i)
            for l in range(LANES):
                t[l] *= over[l]


@_compiled
def _solved(W, r, y, a, d, f):
    """y = W r, a = W^T y and d = diag W^T W; y^T y / 2 is added to f."""
    k = W.shape[0]
    y[:], a[:], d[:] = ZERO, ZERO, ZERO
    for j in range(k):
        column, its = W[j], r[j]
        for i in range(j, k):
            for l in range(LANES):
                y[i, l] += column[i, l] * its[l]
    for i in range(k):
        for l in range(LANES):
            f[l] += HALF * y[i, l] * y[i, l]
    for j in range(k):
        column = W[j]
        for i in range(j, k):
            for l in range(LANES):
                a[j, l] += column[i, l] * y[i, l]
                d[j, l] += column[i, l] * column[i, l]
