"""The kernels of `sightlines.py`: sums along lines of sight up to where a star of M_G is as faint as the limit."""

import math

import numba
import numpy as np

from xptools.cores._numba import compiled


@compiled()
def modulus(ln_d):
    """Distance modulus [mag] at ln(d / kpc)."""
    return 5.0 / math.log(10.0) * (ln_d + math.log(100.0))  # d in kpc


@compiled()
def edge_of(i, M_G, k, g_limit, ln_d, E):
    """ln d where G = g_limit inside step i, at most the step's end, and G there."""
    G0 = M_G + modulus(ln_d[i]) + k * E[i]
    G1 = M_G + modulus(ln_d[i + 1]) + k * E[i + 1]
    t = 1.0 if G1 <= g_limit else (g_limit - G0) / (G1 - G0)
    return ln_d[i] + t * (ln_d[i + 1] - ln_d[i]), G0, G0 + t * (G1 - G0)


@compiled()
def steps(M_G, k, g_limit, ln_d, E):
    """Number of steps that begin brighter than g_limit (G grows along the line)."""
    low, high = 0, len(ln_d) - 1
    while low < high:
        i = (low + high) // 2
        if M_G + modulus(ln_d[i]) + k * E[i] < g_limit:
            low = i + 1
        else:
            high = i
    return low


@compiled(parallel=True)
def edges(M_G, k, g_limit, ln_d, cube, n, E, sums):
    """Sum over lines of int n d^2 dd up to each line's edge, for P stars; always in one order."""
    out = np.zeros(len(M_G))
    for p in numba.prange(len(M_G)):
        total = 0.0
        for j in range(len(n)):
            i = steps(M_G[p], k[p], g_limit, ln_d, E[j]) - 1
            if i >= 0:
                edge, _, _ = edge_of(i, M_G[p], k[p], g_limit, ln_d, E[j])
                total += sums[j, i] + n[j, i] * (math.exp(3.0 * edge) / 3.0 - cube[i])
        out[p] = total
    return out


@compiled(parallel=True)
def weighted(M_G, k, g_limit, ln_d, cube, n, E, column, rows, G, table, sigma, sn):
    """The same with the probability of a place in the catalogue and of parallax S/N > sn at each step's middle."""
    out = np.zeros(len(M_G))
    per_mag = (len(G) - 1) / (G[-1] - G[0])
    for p in numba.prange(len(M_G)):
        total = 0.0
        for j in range(len(n)):
            for i in range(steps(M_G[p], k[p], g_limit, ln_d, E[j])):
                edge, G0, G1 = edge_of(i, M_G[p], k[p], g_limit, ln_d, E[j])
                at = min(max((0.5 * (G0 + G1) - G[0]) * per_mag, 0.0), len(G) - 1.001)
                low = int(at)
                t = at - low
                probability = table[rows[j], column[p], low] * (1 - t) + table[rows[j], column[p], low + 1] * t
                if sn > 0.0:
                    d = math.exp(0.5 * (ln_d[i] + edge))
                    error = sigma[low] * (1 - t) + sigma[low + 1] * t
                    probability *= 0.5 * math.erfc((sn - 1.0 / (d * error)) / math.sqrt(2.0))
                total += probability * n[j, i] * (math.exp(3.0 * edge) / 3.0 - cube[i])
        out[p] = total
    return out
