"""Compiled per-star kernels of XP spectra (numba, CPU); `xpbasis` holds the same in array form.

Flux is c^T D, computed where its band counts (errors: `_xpcovariance`, `_xpvariance`). Every star is computed by
itself, so neither batches nor threads can change a bit of it. Importing this module imports numba.
"""

from __future__ import annotations

import numpy as np

from xptools.cores._numba import compiled

# Contracting a * b + c to one rounding is the only freedom given: the order of sums stays as written.
_compiled = compiled({"contract"})


@_compiled
def combined(c, count, D, out):
    """out (P,) = sum over the first `count` coefficients of c_i D_i; D (K, P)."""
    P = D.shape[1]
    for p in range(P):
        out[p] = 0.0
    full = count // 4 * 4
    for i in range(0, full, 4):
        a0, a1, a2, a3 = c[i], c[i + 1], c[i + 2], c[i + 3]
        for p in range(P):
            out[p] += (a0 * D[i, p] + a1 * D[i + 1, p]) + (a2 * D[i + 2, p] + a3 * D[i + 3, p])
    for i in range(full, count):
        a0 = c[i]
        for p in range(P):
            out[p] += a0 * D[i, p]


@_compiled
def finite_rows(block, found):
    """found (N,): whether a row of block (N, K) has neither NaN nor infinity."""
    for n in range(len(block)):
        total = 0.0
        for k in range(block.shape[1]):
            total += 0.0 * block[n, k]  # 0, or NaN from then on
        found[n] = total == 0.0


@_compiled
def flux_band(c, count, kind, D, D_alone, at, merged, flux):
    """Add a band's flux to flux (N, n) at columns `at` (P' <= P); `merged` (N, n) gets the band's part alone if it is.

    kind (N,): 0 the star lacks the band, 1 it has both bands (D), 2 it has this band only (D_alone).
    """
    out = np.empty(D.shape[1])
    for n in range(len(c)):
        if kind[n] == 0:
            continue
        combined(c[n], count[n], D if kind[n] == 1 else D_alone, out)
        for p in range(len(at)):
            flux[n, at[p]] += out[p]
        if len(merged):
            for p in range(len(at)):
                merged[n, at[p]] = out[p]


@_compiled
def positive(cov, least, found):
    """found (N,): whether cov (N, n, n) - least (N,) I is positive definite, by Cholesky's factorisation."""
    N, n = len(cov), cov.shape[1]
    L = np.empty((n, n))
    for m in range(N):
        found[m] = True
        for i in range(n):
            for j in range(i + 1):
                total = cov[m, i, j]
                if i == j:
                    total -= least[m]
                for k in range(j):
                    total -= L[i, k] * L[j, k]
                if i == j:
                    if not total > 0.0:
                        found[m] = False
                        break
                    L[i, i] = np.sqrt(total)
                else:
                    L[i, j] = total / L[j, j]
            if not found[m]:
                break


@_compiled
def product(rows, D, out):
    """out (N, P) = rows (N, K) times D (K, P), each row by itself, so that its bits do not depend on its place."""
    for n in range(len(rows)):
        combined(rows[n], rows.shape[1], D, out[n])
