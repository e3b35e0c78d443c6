"""Compiled kernels of `xp vae` (numba, CPU): layers over tiles of stars; `vae` holds the same in array form.

A tile is (features, LANES): stars lie side by side, and every star goes through the same operations in the same order,
wherever it lies. So neither batches nor threads can change a bit of it. Importing this module imports numba.
"""

from __future__ import annotations

import numpy as np

from xptools.cores._numba import compiled

LANES = 64
# Contracting a * b + c to one rounding is the only freedom given: the order of sums stays as written.
_compiled = compiled({"contract"})

PLAIN, GELU, SIGMOID = 0, 1, 2
F = np.float32
ONE, HALF, ROOT_HALF = F(1.0), F(0.5), F(np.sqrt(0.5))
# erf(x) = x P(x^2) / Q(x^2) for |x| < REACH, by least squares on the error of x P / Q; beyond it erf is +-1 in float32.
REACH = F(3.92)
P = np.array([1.128379225730896, 0.18462468683719635, 0.05430081859230995, 0.003833482274785638, 0.0003817303804680705,
              4.755878762807697e-06, -1.3527344577823897e-08], F)  # fmt: skip
Q = np.array([1.0, 0.49695292115211487, 0.11377283930778503, 0.01543792150914669, 0.0013070793356746435,
              6.377969839377329e-05], F)  # fmt: skip
P0, P1, P2, P3, P4, P5, P6 = P
Q1, Q2, Q3, Q4, Q5 = Q[1:]
# e^x = 2^k e^r with |r| < ln 2 / 2, ln 2 in two parts; the polynomial is Taylor's.
LOG2_E, LN2_HIGH, LN2_LOW = F(1.4426950408889634), F(0.693359375), F(-2.12194440e-4)
E2, E3, E4, E5, E6, E7 = (F(1.0 / k) for k in (2, 6, 24, 120, 720, 5040))
BIAS, MANTISSA, LOWEST, HIGHEST = np.int32(127), np.int32(23), F(-80.0), F(80.0)


@_compiled
def gelu(x):
    """x/2 (1 + erf(x / sqrt 2)) of each element of x (n, LANES), in place."""
    for j in range(x.shape[0]):
        row = x[j]
        for l in range(LANES):
            u = min(max(row[l] * ROOT_HALF, -REACH), REACH)
            t = u * u
            top = P0 + t * (P1 + t * (P2 + t * (P3 + t * (P4 + t * (P5 + t * P6)))))
            low = ONE + t * (Q1 + t * (Q2 + t * (Q3 + t * (Q4 + t * Q5))))
            row[l] = HALF * row[l] * (ONE + min(max(u * top / low, -ONE), ONE))


@_compiled
def sigmoid(x):
    """1 / (1 + e^-x) of each element of x (n, LANES), in place."""
    for j in range(x.shape[0]):
        row = x[j]
        for l in range(LANES):
            u = min(max(-row[l], LOWEST), HIGHEST)
            k = np.floor(u * LOG2_E + HALF)
            r = (u - k * LN2_HIGH) - k * LN2_LOW
            e = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * (E6 + r * E7))))))
            two = np.int32((np.int32(k) + BIAS) << MANTISSA).view(np.float32)
            row[l] = ONE / (ONE + e * two)


@_compiled
def dense(W, b, X, Y):
    """Y (m, LANES) = W^T X + b for W (n, m), b (m,), X (n, LANES); m is a multiple of four.

    Four outputs and four inputs at a time: each value loaded serves four products, and sums stay in registers longer.
    """
    n, m = W.shape
    full = n // 4 * 4
    for j in range(0, m, 4):
        y0, y1, y2, y3 = Y[j], Y[j + 1], Y[j + 2], Y[j + 3]
        for l in range(LANES):
            y0[l], y1[l], y2[l], y3[l] = b[j], b[j + 1], b[j + 2], b[j + 3]
        for i in range(0, full, 4):
            a0, a1, a2, a3 = W[i, j], W[i + 1, j], W[i + 2, j], W[i + 3, j]
            b0, b1, b2, b3 = W[i, j + 1], W[i + 1, j + 1], W[i + 2, j + 1], W[i + 3, j + 1]
            c0, c1, c2, c3 = W[i, j + 2], W[i + 1, j + 2], W[i + 2, j + 2], W[i + 3, j + 2]
            d0, d1, d2, d3 = W[i, j + 3], W[i + 1, j + 3], W[i + 2, j + 3], W[i + 3, j + 3]
            for l in range(LANES):
                x0, x1, x2, x3 = X[i, l], X[i + 1, l], X[i + 2, l], X[i + 3, l]
                y0[l] = y0[l] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                y1[l] = y1[l] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                y2[l] = y2[l] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                y3[l] = y3[l] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3
        for i in range(full, n):
            a0, b0, c0, d0 = W[i, j], W[i, j + 1], W[i, j + 2], W[i, j + 3]
            for l in range(LANES):
                x0 = X[i, l]
                y0[l] += a0 * x0
                y1[l] += b0 * x0
                y2[l] += c0 * x0
                y3[l] += d0 * x0


@_compiled
def network(weights, sizes, kinds, rows, out):
    """out (N, m) of rows (N, n) through layers packed one after the other: W (n, m') row by row, then b (m').

    sizes (layers, 2) the n and the m' (m rounded up to a multiple of four) of each layer, kinds (layers,) what follows.
    """
    widest = max(sizes.max(), 4)
    one, other = np.zeros((widest, LANES), np.float32), np.zeros((widest, LANES), np.float32)
    N, m = out.shape
    for start in range(0, N, LANES):
        count = min(LANES, N - start)
        for l in range(count):
            for i in range(rows.shape[1]):
                one[i, l] = rows[start + l, i]
        place = 0
        for k in range(len(sizes)):
            n, width = sizes[k]
            W = weights[place : place + n * width].reshape(n, width)
            b = weights[place + n * width : place + (n + 1) * width]
            place += (n + 1) * width
            dense(W, b, one, other)
            if kinds[k] == GELU:
                gelu(other[:width])
            elif kinds[k] == SIGMOID:
                sigmoid(other[:width])
            one, other = other, one
        for l in range(count):
            for j in range(m):
                out[start + l, j] = one[j, l]


@_compiled
def judge(x, sigma, fit, scatter, low, out):
    """out (N, 5): chi2, coefficients known, share of noise in the variance, sum of R^2 over `low` (K,), how many of it.

    x NaN and sigma inf where unknown; R = (x - fit) / sigma; chi2 and the share take sigma^2 + scatter^2.
    """
    for i in range(len(x)):
        chi2, share, square, known, few = 0.0, 0.0, 0.0, 0, 0
        for j in range(x.shape[1]):
            if not np.isfinite(sigma[i, j]):
                continue
            v = np.float64(sigma[i, j]) ** 2
            r = (np.float64(x[i, j]) - np.float64(fit[i, j])) ** 2
            whole = v + np.float64(scatter[i, j]) ** 2
            chi2 += r / whole
            share += v / whole
            known += 1
            if low[j]:
                square += r / v
                few += 1
        out[i, 0], out[i, 1], out[i, 2] = chi2, known, share / known if known else np.nan
        out[i, 3], out[i, 4] = square, few


@_compiled
def standardise(values, errors, flux, mean, scale, x, sigma):
    """x = (values / flux - mean) / scale and sigma = errors / (flux scale) (N, K); NaN and inf where not both known."""
    for i in range(len(flux)):
        F = flux[i]
        for j in range(len(mean)):
            unit = F * scale[j]
            a, s = np.float32((values[i, j] - F * mean[j]) / unit), np.float32(errors[i, j] / unit)
            known = np.isfinite(a) and np.isfinite(s) and s > 0
            x[i, j] = a if known else np.float32(np.nan)
            sigma[i, j] = s if known else np.float32(np.inf)
