"""Compiled per-star kernels of XP spectra (numba, CPU); `xpbasis` holds the same in array form.

Flux is c^T D; the covariance of fluxes is sum_i Y_i H_i^T and its transpose with Y_i = sigma_i D_i and H_i = Y_i / 2 +
sum_{j<i} rho_ij Y_j, so packed correlations are read once and never unpacked, and no wavelength is computed where its
band does not count (variances alone: `_xpvariance`). Every star is computed by itself, so neither batches nor threads
can change a bit of it. Importing this module imports numba.
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
def scaled(sigma, count, D, Y):
    """Y_i = sigma_i D_i for the first `count` coefficients."""
    P = D.shape[1]
    for i in range(count):
        s = sigma[i]
        for p in range(P):
            Y[i, p] = s * D[i, p]


@_compiled
def below(rho, i, Y, out):
    """out (P,) = sum_{j<i} rho_ij Y_j, rho packed strictly below the diagonal row by row."""
    P = Y.shape[1]
    start = i * (i - 1) // 2
    for p in range(P):
        out[p] = 0.0
    full = i // 8 * 8
    for j in range(0, full, 8):
        k = start + j
        r0, r1, r2, r3 = rho[k], rho[k + 1], rho[k + 2], rho[k + 3]
        r4, r5, r6, r7 = rho[k + 4], rho[k + 5], rho[k + 6], rho[k + 7]
        for p in range(P):
            out[p] += (
                ((r0 * Y[j, p] + r1 * Y[j + 1, p]) + (r2 * Y[j + 2, p] + r3 * Y[j + 3, p]))
                + ((r4 * Y[j + 4, p] + r5 * Y[j + 5, p]) + (r6 * Y[j + 6, p] + r7 * Y[j + 7, p]))
            )
    for j in range(full, i):
        r = rho[start + j]
        for p in range(P):
            out[p] += r * Y[j, p]


@_compiled
def covariance(rho, correlated, count, Y, H, M):
    """M (P, P): the covariance between wavelengths, exactly symmetric: sum_i Y_i H_i^T and its transpose."""
    P = Y.shape[1]
    for i in range(count):
        if correlated:
            below(rho, i, Y, H[i])
        else:
            for p in range(P):
                H[i, p] = 0.0
        for p in range(P):
            H[i, p] += 0.5 * Y[i, p]
    for p in range(P):
        for q in range(P):
            M[p, q] = 0.0
        full = count // 4 * 4
        for i in range(0, full, 4):
            y0, y1, y2, y3 = Y[i, p], Y[i + 1, p], Y[i + 2, p], Y[i + 3, p]
            for q in range(P):
                M[p, q] += (y0 * H[i, q] + y1 * H[i + 1, q]) + (y2 * H[i + 2, q] + y3 * H[i + 3, q])
        for i in range(full, count):
            y0 = Y[i, p]
            for q in range(P):
                M[p, q] += y0 * H[i, q]
    for p in range(P):
        for q in range(p + 1):
            both = M[p, q] + M[q, p]
            M[p, q] = both
            M[q, p] = both


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
def covariance_band(sigma, rho, count, kind, D, D_alone, at, total, correlated):
    """Add a band's covariance to total (N, n, n) at rows and columns `at`; kind as in `flux_band`.

    correlated (N,) becomes false for a star whose correlations are not all finite: its coefficients are independent.
    """
    K, P = D.shape
    Y, H, M = np.empty((K, P)), np.empty((K, P)), np.empty((P, P))
    for n in range(len(sigma)):
        if kind[n] == 0:
            continue
        scaled(sigma[n], count[n], D if kind[n] == 1 else D_alone, Y)
        covariance(rho[n], rho.shape[1] > 0, count[n], Y, H, M)
        if rho.shape[1] == 0 or not np.isfinite(M[0, 0]):
            correlated[n] = False
            covariance(rho[n], False, count[n], Y, H, M)
        for p in range(len(at)):
            for q in range(len(at)):
                total[n, at[p], at[q]] += M[p, q]


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
