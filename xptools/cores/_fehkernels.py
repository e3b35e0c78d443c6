"""Compiled pieces of the fits of `xp feh` (numba, CPU): table, exp, covariance, its whitening matrix.

Spectra are padded to WIDTH samples, matrices are flat, row by row. Importing this module imports numba.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from xptools.cores._fehsimd import LANES, add_block, covary, scale_row, subtract_block, subtract_row
from xptools.cores._numba import compiled

WIDTH = 64  # samples a spectrum is padded to: whole vector registers, and loops whose length the compiler knows
VALUE = 4 * WIDTH  # where values stand behind the slopes by four parameters
LARGE = np.float32(30.0)  # e^30: a model so far off that only its direction matters
GONE = 1e6  # variance, in units of the model's flux squared, of a sample that is not there
LEAST_PIVOT = {"float32": 1e-5, "float64": 1e-14}  # over the diagonal: below, rounding decides


@cache
def _sources() -> int:
    """A sum of all files of kernels: numba does not see that what one calls in another has changed."""
    names = ("simd", "kernels", "model", "fits")
    return crc32(b"".join(Path(__file__).with_name(f"_feh{n}.py").read_bytes() for n in names))


FREEDOMS, FOLDER = {"contract", "reassoc", "nsz", "arcp"}, f"numba-feh-{_sources():08x}"
kernel, part = compiled(FREEDOMS, FOLDER), compiled(FREEDOMS, FOLDER, inline=True)


class Grid(NamedTuple):
    """The network as a table: spline coefficients, flat, of nodes^3 x WIDTH; corners of its box; steps inverted."""

    flat: np.ndarray
    nodes: int
    low: np.ndarray
    high: np.ndarray
    per_step: np.ndarray


class Errors(NamedTuple):
    """What the model misses: relative covariances (K, WIDTH * WIDTH), their diagonals, at K scaled Teff."""

    cov: np.ndarray
    variance: np.ndarray
    teff: np.ndarray


@part
def spline_weights(x, cells, w, d):
    """First node of the four that a coordinate x [grid steps] touches; their weights and slopes go into w, d (4,)."""
    x = min(max(x, np.float32(0.0)), np.float32(cells))
    i = min(int(x), cells - 1)
    u = x - np.float32(i)
    v = np.float32(1.0) - u
    six, half = np.float32(1 / 6), np.float32(0.5)
    w[0], w[3] = v * v * v * six, u * u * u * six
    w[1] = (np.float32(3) * u * u * u - np.float32(6) * u * u + np.float32(4)) * six
    w[2] = (np.float32(3) * v * v * v - np.float32(6) * v * v + np.float32(4)) * six
    d[0], d[3] = -v * v * half, u * u * half
    d[1] = (np.float32(3) * u * u - np.float32(4) * u) * half
    d[2] = (np.float32(4) * v - np.float32(3) * v * v) * half
    return i


@part
def cell(grid, p, w):
    """Where the first of the 64 nodes of labels p (3,) stands; weights and slopes of each axis into w (6, 4)."""
    cells = grid.nodes - 3
    i = spline_weights((p[0] - grid.low[0]) * grid.per_step[0], cells, w[0], w[1])
    j = spline_weights((p[1] - grid.low[1]) * grid.per_step[1], cells, w[2], w[3])
    k = spline_weights((p[2] - grid.low[2]) * grid.per_step[2], cells, w[4], w[5])
    for axis in range(3):
        for a in range(4):
            w[2 * axis + 1, a] *= grid.per_step[axis]
    return ((i * grid.nodes + j) * grid.nodes + k) * WIDTH


@kernel
def look_up(grid, p, out, w):
    """Slopes by label (3 * WIDTH of out) and values (from VALUE on) at labels p (3,); w (6, 4) is scratch."""
    start = cell(grid, p, w)
    for c in range(5 * WIDTH):
        out[c] = np.float32(0.0)
    w0, w1, w2, w3 = w[4, 0], w[4, 1], w[4, 2], w[4, 3]
    d0, d1, d2, d3 = w[5, 0], w[5, 1], w[5, 2], w[5, 3]
    for a in range(4):
        for b in range(4):
            f0, f1, f2 = w[0, a] * w[2, b], w[1, a] * w[2, b], w[0, a] * w[3, b]
            at = start + (a * grid.nodes + b) * grid.nodes * WIDTH
            x = grid.flat[at : at + 4 * WIDTH]  # four nodes along the last axis
            for c in range(WIDTH):
                x0, x1, x2, x3 = x[c], x[WIDTH + c], x[2 * WIDTH + c], x[3 * WIDTH + c]
                along = (w0 * x0 + w1 * x1) + (w2 * x2 + w3 * x3)
                out[VALUE + c] += f0 * along
                out[c] += f1 * along
                out[WIDTH + c] += f2 * along
                out[2 * WIDTH + c] += f0 * ((d0 * x0 + d1 * x1) + (d2 * x2 + d3 * x3))


@kernel
def look_up_value(grid, p, value, w):
    """The values (WIDTH,) alone."""
    start = cell(grid, p, w)
    for c in range(WIDTH):
        value[c] = np.float32(0.0)
    for a in range(4):
        for b in range(4):
            f = w[0, a] * w[2, b]
            w0, w1, w2, w3 = f * w[4, 0], f * w[4, 1], f * w[4, 2], f * w[4, 3]
            at = start + (a * grid.nodes + b) * grid.nodes * WIDTH
            x = grid.flat[at : at + 4 * WIDTH]
            for c in range(WIDTH):
                value[c] += (w0 * x[c] + w1 * x[WIDTH + c]) + (w2 * x[2 * WIDTH + c] + w3 * x[3 * WIDTH + c])


@kernel
def exponentials(x, bits):
    """exp of x (WIDTH,) in place, float32 to 2e-7; `bits` (WIDTH,) int32 is scratch."""
    power = bits.view(np.float32)
    for c in range(WIDTH):
        y = min(max(x[c], -LARGE), LARGE)
        whole = math.floor(y * np.float32(1.4426950408889634) + np.float32(0.5))
        bits[c] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        r = (y - whole * np.float32(0.693359375)) + whole * np.float32(2.12194440e-4)
        q = np.float32(1.9875691500e-4)
        q = q * r + np.float32(1.3981999507e-3)
        q = q * r + np.float32(8.3334519073e-3)
        q = q * r + np.float32(4.1665795894e-2)
        q = q * r + np.float32(1.6666665459e-1)
        q = q * r + np.float32(5.0000001201e-1)
        x[c] = q * r * r + r + np.float32(1.0)
    for c in range(WIDTH):
        x[c] *= power[c]


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
def assembled(scale, packed, diagonal, errors, teff, there, a):
    """The lower triangle of the covariance, in units of the reference model squared, into a; above it anything.

    scale (WIDTH,) over the flux, 0 in the padding; packed: lower triangle of its covariance, or its errors if
    `diagonal`; `there` (n,): samples that are known.
    """
    n = len(there)
    k, fraction = place_among(errors.teff, teff)
    near, far, w = errors.cov[k], errors.cov[min(k + 1, len(errors.teff) - 1)], np.float32(fraction)
    for i in range(WIDTH):
        at, start = WIDTH * i, i * (i + 1) // 2
        whole = 0 if i >= n or diagonal else min(i // LANES + 1, (len(packed) - start) // LANES)
        for tile in range(0, LANES * whole, LANES):  # what is read too much stays above the diagonal
            covary(a, at + tile, near, far, w, scale, tile, scale[i], packed, start + tile)
        for c in range(LANES * whole, i + 1):
            a[at + c] = near[at + c] + w * (far[at + c] - near[at + c])
            if i < n and not diagonal:
                a[at + c] += scale[i] * scale[c] * packed[start + c]
        if i >= n:
            a[at + i] = 1.0
        elif diagonal:
            a[at + i] += (packed[i] * scale[i]) ** 2
    for i in range(n):
        if not there[i]:
            for c in range(n):
                a[WIDTH * max(i, c) + min(i, c)] = 0.0
            a[WIDTH * i + i] = GONE


@kernel
def factorised(a, inverse, least):
    """R of A = R^T R, R lower triangular, in place of the lower triangle of A; 1 / its diagonal into inverse (WIDTH,).

    From the last row to the first, so that all that is read is rows. False if a pivot is below `least` of its diagonal.
    """
    for c in range(WIDTH):
        inverse[c] = a[WIDTH * c + c]
    for block in range(WIDTH // 4 - 1, -1, -1):
        first, end = 4 * block, LANES * (block // 4 + 1)
        for i in range(first + 3, first - 1, -1):
            for below in range(first + 3, i, -1):
                f = a[WIDTH * below + i]
                for tile in range(0, end, LANES):
                    subtract_row(a, WIDTH * i + tile, WIDTH * below + tile, f)
            pivot = a[WIDTH * i + i]
            if not pivot > least * inverse[i]:
                return False
            inverse[i] = 1.0 / math.sqrt(pivot)
            for tile in range(0, end, LANES):
                scale_row(a, WIDTH * i + tile, inverse[i])
        for above in range(block):
            for tile in range(0, LANES * (above // 4 + 1), LANES):
                subtract_block(a, 4 * WIDTH * above + tile, WIDTH, a, WIDTH * first + tile, WIDTH,
                               a, WIDTH * first + 4 * above, 1, WIDTH)  # fmt: skip
    return True


@kernel
def inverted(R, inverse, V):
    """V = R^-1, lower triangular with zeros above; inverse (WIDTH,) is one over R's diagonal."""
    for c in range(WIDTH * WIDTH):
        V[c] = 0.0
    for block in range(WIDTH // 4):
        first, end = 4 * block, LANES * (block // 4 + 1)
        for left in range(block):
            for tile in range(0, LANES * (left // 4 + 1), LANES):
                subtract_block(V, WIDTH * first + tile, WIDTH, V, 4 * WIDTH * left + tile, WIDTH,
                               R, WIDTH * first + 4 * left, WIDTH, 1)  # fmt: skip
        for i in range(first, first + 4):
            V[WIDTH * i + i] = 1.0
            for above in range(first, i):
                f = R[WIDTH * i + above]
                for tile in range(0, end, LANES):
                    subtract_row(V, WIDTH * i + tile, WIDTH * above + tile, f)
            for tile in range(0, end, LANES):
                scale_row(V, WIDTH * i + tile, inverse[i])


@kernel
def whiten(V, x, z):
    """z (WIDTH,) = V^T x: z^T z = x^T C^-1 x."""
    for c in range(WIDTH):
        z[c] = 0.0
    for k in range(0, WIDTH, 4):
        v, x0, x1, x2, x3 = V[WIDTH * k : WIDTH * (k + 4)], x[k], x[k + 1], x[k + 2], x[k + 3]
        for c in range(WIDTH):
            z[c] += (x0 * v[c] + x1 * v[WIDTH + c]) + (x2 * v[2 * WIDTH + c] + x3 * v[3 * WIDTH + c])


@kernel
def whiten_four(V, x, z):
    """The same of four vectors x, z (4 * WIDTH,)."""
    for c in range(4 * WIDTH):
        z[c] = 0.0
    for block in range(WIDTH // 4):
        for tile in range(0, LANES * (block // 4 + 1), LANES):
            add_block(z, tile, WIDTH, V, 4 * WIDTH * block + tile, WIDTH, x, 4 * block, WIDTH, 1)
