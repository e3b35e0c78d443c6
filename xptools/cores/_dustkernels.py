"""Compiled per-star kernels of the dust maps (numba, CPU); `dustcube` and `dustpixels` hold the same in array form.

Measured several times faster than XLA on a CPU, since a star touches only a few cells of a memory-mapped file.
Every star is computed by itself, so neither batches nor threads can change a bit of it. Importing this module imports
numba; the cores do so inside the functions that need it.
"""

from __future__ import annotations

import math

import numpy as np

from xptools.cores._numba import compiled

INSIDE, BELOW, BEYOND, OUTSIDE = 0, 1, 2, 3
BLOCK = 128  # stars whose cells are fetched together


@compiled()
def ring_above(z, theta, nside):
    """The last ring (1 ... 4 nside - 1) north of a colatitude theta [rad] with cosine z; 0 above the first."""
    if abs(z) <= 2.0 / 3.0:
        return int(nside * (2.0 - 1.5 * z))
    # 1 - |z| by the half angle keeps its digits at the poles.
    half = 0.5 * theta if z > 0 else 0.5 * (math.pi - theta)
    polar = int(nside * math.sqrt(6.0) * math.sin(half))
    return polar if z > 0 else 4 * nside - polar - 1


@compiled()
def _on_ring(turn, first, count, shift):
    u = turn * count - shift
    low = math.floor(u)
    west = int(low)
    if west < 0:
        west += count
    elif west >= count:  # a turn that was rounded up to 1
        west -= count
    east = west + 1 if west + 1 < count else 0
    return first + west, first + east, u - low


@compiled()
def corners(z, theta, turn, ring_theta, ring_first, ring_count, ring_shift):
    """The four pixels (ring order) about a place and their bilinear weights; tables as `dustcube.rings` makes them."""
    last = len(ring_theta) - 1
    north = ring_above(z, theta, last // 4)
    south = north + 1
    i, j = max(north, 1), min(south, last - 1)
    a, b, u = _on_ring(turn, ring_first[i], ring_count[i], ring_shift[i])
    c, d, v = _on_ring(turn, ring_first[j], ring_count[j], ring_shift[j])
    t = (theta - ring_theta[north]) / (ring_theta[south] - ring_theta[north])
    wb, wd = (1.0 - t) * u, t * v
    wa, wc = 1.0 - t - wb, t - wd
    # Beyond the first and the last ring the pole is the mean of that ring's four pixels.
    if north == 0:
        q = 0.25 * (1.0 - t)
        base = ring_first[1]
        a, b = base + (c - base + 2) % 4, base + (d - base + 2) % 4
        wa, wb, wc, wd = q, q, wc + q, wd + q
    elif south == last:
        q = 0.25 * t
        base = ring_first[last - 1]
        c, d = base + (a - base + 2) % 4, base + (b - base + 2) % 4
        wa, wb, wc, wd = wa + q, wb + q, q, q
    return a, b, c, d, wa, wb, wc, wd


@compiled()
def node_right(d, radii, guide, steps):
    """Index of the first node at or beyond d; guide holds it for equal steps from the first to the last node."""
    k = guide[int((d - radii[0]) * steps)]
    while radii[k] < d:
        k += 1
    return k


@compiled()
def between(r, radii, guide, steps):
    """Nodes before and behind distance r, the weight of the second, the factor of E and the place code."""
    last = len(radii) - 1
    if r <= radii[0]:
        return 0, 0, 0.0, r / radii[0], BELOW
    if r > radii[last]:
        return last, last, 0.0, 1.0, BEYOND
    m = node_right(r, radii, guide, steps)
    return m - 1, m, (r - radii[m - 1]) / (radii[m] - radii[m - 1]), 1.0, INSIDE


@compiled()
def interpolate(theta, phi, z, d, lnE, radii, guide, steps, tables, x, factor, place):
    """ln E of stars in every sample, x (stars, samples), and the factor (stars,) that E has before the first node.

    lnE (pixels in ring order, samples, nodes); bilinear over the sky at colatitude theta (cosine z) and longitude phi
    [rad], linear in distance between nodes.
    """
    ring_theta, ring_first, ring_count, ring_shift = tables
    samples, nodes = lnE.shape[1], lnE.shape[2]
    flat = lnE.reshape(-1)
    cell, weight = np.empty((BLOCK, 4), np.int64), np.empty((BLOCK, 4))  # first cells looked at, their weights
    step, share = np.empty(BLOCK, np.int64), np.empty(BLOCK)  # from them to those behind the star, and their share
    for start in range(0, len(d), BLOCK):
        stop = min(start + BLOCK, len(d))
        # Where to look, for a block of stars, and then the looking: so the processor has many loads under way at once.
        for i in range(start, stop):
            n = i - start
            step[n], share[n], factor[i], place[i] = 0, 0.0, np.nan, OUTSIDE
            for q in range(4):
                cell[n, q], weight[n, q] = 0, 0.0
            if theta[i] == theta[i] and d[i] > 0.0:
                turn = phi[i] * (0.5 / math.pi)
                p0, p1, p2, p3, w0, w1, w2, w3 = corners(
                    z[i], theta[i], turn - math.floor(turn), ring_theta, ring_first, ring_count, ring_shift
                )
                k, m, share[n], factor[i], place[i] = between(d[i], radii, guide, steps)
                row, step[n] = samples * nodes, m - k
                cell[n, 0], cell[n, 1], cell[n, 2], cell[n, 3] = p0 * row + k, p1 * row + k, p2 * row + k, p3 * row + k
                weight[n, 0], weight[n, 1], weight[n, 2], weight[n, 3] = w0, w1, w2, w3
        for s in range(samples):
            for n in range(stop - start):
                near, far, u = 0.0, 0.0, share[n]
                for q in range(4):
                    at = cell[n, q] + s * nodes
                    near += weight[n, q] * flat[at]
                    far += weight[n, q] * flat[at + step[n]]
                # Plain near + u (far - near) would make NaN of two nodes without any dust (ln 0).
                x[start + n, s] = near if u == 0.0 else (1.0 - u) * near + u * far


@compiled()
def _spread_bits(v):
    v = (v | (v << 16)) & 0x0000FFFF0000FFFF
    v = (v | (v << 8)) & 0x00FF00FF00FF00FF
    v = (v | (v << 4)) & 0x0F0F0F0F0F0F0F0F
    v = (v | (v << 2)) & 0x3333333333333333
    return (v | (v << 1)) & 0x5555555555555555


@compiled()
def nested_pixel(theta, phi, nside):
    """The nested pixel that holds a place (Gorski et al. 2005, Sec. 5)."""
    z = math.cos(theta)
    quarter = (phi / (0.5 * math.pi)) % 4.0
    if abs(z) <= 2.0 / 3.0:
        t1, t2 = nside * (0.5 + quarter), nside * 0.75 * z
        up, down = int(t1 - t2), int(t1 + t2)
        fu, fd = up // nside, down // nside
        face = (fu | 4) if fu == fd else (fu if fu < fd else fd + 8)
        x, y = down % nside, nside - (up % nside) - 1
    else:
        face = min(int(quarter), 3)
        t = quarter - face
        half = 0.5 * theta if z > 0 else 0.5 * (math.pi - theta)
        s = nside * math.sqrt(6.0) * math.sin(half)
        up, down = min(int(t * s), nside - 1), min(int((1.0 - t) * s), nside - 1)
        if z >= 0:
            x, y = nside - down - 1, nside - up - 1
        else:
            face, x, y = face + 8, up, down
    return face * nside * nside + _spread_bits(np.int64(x)) + 2 * _spread_bits(np.int64(y))


@compiled()
def rows_of(theta, phi, start, row, width, top, coarse, shift, found):
    """The map's row for each place, -1 where it has none: `start` is the first finest pixel of each (sorted) map pixel.

    width counts its finest pixels; coarse[c] .. coarse[c + 1] are the map pixels that begin in coarse pixel c.
    """
    for i in range(len(theta)):
        found[i] = -1
        if theta[i] != theta[i]:
            continue
        pixel = nested_pixel(theta[i], phi[i], top)
        low, high = coarse[pixel >> shift], coarse[(pixel >> shift) + 1]
        while low < high:  # the last map pixel that starts at or before this one
            middle = (low + high) // 2
            if start[middle] <= pixel:
                low = middle + 1
            else:
                high = middle
        low -= 1
        if low >= 0 and pixel < start[low] + width[low]:
            found[i] = row[low]


@compiled()
def median(values):
    """Median of values[1:], which are sorted in place: there are few of them."""
    last = len(values) - 1
    for s in range(2, last + 1):
        v, t = values[s], s
        while t > 1 and values[t - 1] > v:
            values[t] = values[t - 1]
            t -= 1
        values[t] = v
    return 0.5 * (values[1 + (last - 1) // 2] + values[1 + last // 2])


@compiled()
def along_sight(found, d, profiles, modulus, statistic, E, spread, place):
    """Reddening of stars from profiles (rows, 1 + samples, moduli), linear in distance modulus.

    Profile 0 is the best fit, the others are samples; statistic 0: mean of the samples, 1: median, 2: best fit; spread
    is over the samples. Proportional to d below the first modulus, the last value beyond the last one.
    """
    count, bins = profiles.shape[1] - 1, profiles.shape[2]
    values = np.empty(count + 1)
    for i in range(len(d)):
        if found[i] < 0 or not d[i] > 0.0:
            E[i], spread[i], place[i] = np.nan, np.nan, OUTSIDE
            continue
        m = 5.0 * (math.log10(d[i] / 1000.0) + 2.0)
        high = np.searchsorted(modulus, m)
        low, a, factor = high - 1, 0.0, 1.0
        place[i] = INSIDE
        if high == 0:
            low, factor = 0, 10.0 ** (0.2 * (m - modulus[0]))
            place[i] = BELOW
        elif high == bins:
            high = low
            place[i] = BEYOND
        else:
            a = (modulus[high] - m) / (modulus[high] - modulus[low])
        for s in range(count + 1):
            near, far = profiles[found[i], s, low], profiles[found[i], s, high]
            values[s] = factor * ((1.0 - a) * far + a * near)
        mean, variance = 0.0, 0.0
        for s in range(1, count + 1):
            mean += values[s] / count
        for s in range(1, count + 1):
            variance += (values[s] - mean) ** 2 / count
        spread[i] = math.sqrt(variance) if count > 1 else np.nan
        E[i] = values[0] if statistic == 2 else (median(values) if statistic == 1 else mean)


@compiled()
def _three(x, first, last, nodes):
    t = (min(max(x, first), last) - first) * ((nodes - 1) / (last - first))
    centre = min(max(math.floor(t + 0.5), 1), nodes - 2)
    u = t - centre
    return int(centre) - 1, 0.5 * u * (u - 1.0), 1.0 - u * u, 0.5 * u * (u + 1.0)


@compiled()
def intrinsic(BP_RP, E, table, colour, reddening, stretch, rounds, out):
    """out (4, stars): A_G / E, A_BP / E, A_RP / E, (BP-RP)_0, as `deredden.intrinsic` from a table (3, colours, E)."""
    bands, colours, reddenings = table.shape
    k = np.empty(bands)
    for n in range(len(E)):
        bp_rp0 = BP_RP[n]
        if not (bp_rp0 == bp_rp0 and E[n] == E[n]):
            for m in range(bands + 1):
                out[m, n] = np.nan
            continue
        j, v0, v1, v2 = _three(stretch * E[n], reddening[0], reddening[1], reddenings)
        for _ in range(rounds):
            i, w0, w1, w2 = _three(bp_rp0, colour[0], colour[1], colours)
            for m in range(bands):
                a = v0 * table[m, i, j] + v1 * table[m, i, j + 1] + v2 * table[m, i, j + 2]
                b = v0 * table[m, i + 1, j] + v1 * table[m, i + 1, j + 1] + v2 * table[m, i + 1, j + 2]
                c = v0 * table[m, i + 2, j] + v1 * table[m, i + 2, j + 1] + v2 * table[m, i + 2, j + 2]
                k[m] = stretch * (w0 * a + w1 * b + w2 * c)
            bp_rp0 = BP_RP[n] - E[n] * (k[1] - k[2])
        for m in range(bands):
            out[m, n] = k[m]
        out[bands, n] = bp_rp0
