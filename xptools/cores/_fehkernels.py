"""Compiled pieces of the fits of `xp feh` (numba, CPU): table, exp, covariance, its factor, whitening.

Spectra are padded to WIDTH samples, matrices are flat, row by row. Importing this module imports numba.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from xptools.cores._fehsimd import (
    WIDTH,
    ahead,
    carry_block,
    covary,
    eliminate_block,
    invert_block,
    put_five,
    put_one,
    scale_row,
    subtract_eight,
    subtract_five,
    subtract_one,
)
from xptools.cores._fehtiles import exponential_tile, look_up_tile, value_tile
from xptools.cores._lanes import LANES
from xptools.cores._numba import compiled

LINE = 8  # float64 numbers that memory gives at once
GONE = 1e6  # variance, in units of the model's flux squared, of a sample that is not there
LEAST_PIVOT = {"float32": 1e-5, "float64": 1e-14}  # over the diagonal: below, rounding decides


@cache
def _sources() -> int:
    """A sum of all files of kernels: numba does not see that what one calls in another has changed."""
    names = ("lanes", "fehsimd", "fehtiles", "fehkernels", "fehguess", "fehmodel", "fehfits")
    return crc32(b"".join(Path(__file__).with_name(f"_{n}.py").read_bytes() for n in names))


# Only what Python calls is a kernel, all else a part: else the process that compiles computes other last digits.
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
def spline_weights(x, cells, scale, w, at):
    """First node of the four that a coordinate x [grid steps] touches; weights and slopes, times scale, from w[at]."""
    x = min(max(x, np.float32(0.0)), np.float32(cells))
    i = min(int(x), cells - 1)
    u = x - np.float32(i)
    v = np.float32(1.0) - u
    six, half = np.float32(1 / 6), np.float32(0.5) * scale
    w[at], w[at + 3] = v * v * v * six, u * u * u * six
    w[at + 1] = (np.float32(3) * u * u * u - np.float32(6) * u * u + np.float32(4)) * six
    w[at + 2] = (np.float32(3) * v * v * v - np.float32(6) * v * v + np.float32(4)) * six
    w[at + 4], w[at + 7] = -v * v * half, u * u * half
    w[at + 5] = (np.float32(3) * u * u - np.float32(4) * u) * half
    w[at + 6] = (np.float32(4) * v - np.float32(3) * v * v) * half
    return i


@part
def cell(grid, p, w):
    """Where the first of the 64 nodes of labels p (3,) stands; weights and slopes of each axis into w (24,)."""
    cells, low, per_step = grid.nodes - 3, grid.low, grid.per_step
    i = spline_weights((p[0] - low[0]) * per_step[0], cells, per_step[0], w, 0)
    j = spline_weights((p[1] - low[1]) * per_step[1], cells, per_step[1], w, 8)
    k = spline_weights((p[2] - low[2]) * per_step[2], cells, per_step[2], w, 16)
    return ((i * grid.nodes + j) * grid.nodes + k) * WIDTH


@part
def look_up(grid, p, out, w):
    """Slopes by label (3 * WIDTH of out) and values (from VALUE on) at labels p (3,); w (24,) is scratch."""
    start, row = cell(grid, p, w), grid.nodes * WIDTH
    for tile in range(0, WIDTH, LANES):
        look_up_tile(out, tile, grid.flat, start + tile, row, row * grid.nodes, w)


@part
def look_up_value(grid, p, value, w):
    """The values (WIDTH,) alone."""
    start, row = cell(grid, p, w), grid.nodes * WIDTH
    for tile in range(0, WIDTH, LANES):
        value_tile(value, tile, grid.flat, start + tile, row, row * grid.nodes, w)


@part
def exponentials(x, width):
    """exp of x (width,) in place, float32 to 2e-7; in steps of LANES."""
    for tile in range(0, width, LANES):
        exponential_tile(x, tile)


@part
def place_among(nodes, x):
    """Cell and fraction of it of x among rising nodes (K,), held at the ends."""
    last = len(nodes) - 1
    if last == 0 or not x > nodes[0]:
        return 0, 0.0
    for k in range(last):
        if x < nodes[k + 1]:
            return k, (x - nodes[k]) / (nodes[k + 1] - nodes[k])
    return last - 1, 1.0


@part
def assembled(scale, packed, following, diagonal, errors, teff, there, a):
    """The lower triangle of the covariance, in units of the reference model squared, into a; above it anything.

    scale (WIDTH,) over the flux, 0 in the padding; packed: lower triangle of its covariance, or its errors if
    `diagonal`; `there` (n,): samples that are known. `following`: the next star's, fetched for later.
    """
    n = len(there)
    k, fraction = place_among(errors.teff, teff)
    near, far, w = errors.cov[k], errors.cov[min(k + 1, len(errors.teff) - 1)], np.float32(fraction)
    for i in range(WIDTH):
        at, start = WIDTH * i, i * (i + 1) // 2
        for later in range(start, min(start + i, len(following)), LINE):
            ahead(following, later)
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


@part
def factorised(a, inverse, V, least):
    """R of A = R^T R, R lower triangular, in place of the lower triangle of A; above it stands anything.

    1 / R's diagonal into inverse (WIDTH,), the inverses of its 16 x 16 blocks on the diagonal into V (4, 16, 16), flat.
    From the last row to the first, so that all that is read is rows. False if a pivot is below `least` of its diagonal.
    """
    for c in range(WIDTH):
        inverse[c] = a[WIDTH * c + c] * least
    for block in range(WIDTH - LANES, -1, -LANES):
        first = WIDTH * block
        for below in range(WIDTH * (block + LANES), WIDTH * WIDTH, WIDTH * LANES):
            for tile in range(0, block + 1, LANES):
                for r in range(0, LANES, 8):
                    subtract_eight(a, first + WIDTH * r + tile, a, below + tile, below + block + r)
        eliminate_block(a, first + block, V, LANES * block)  # V holds the pivots for a moment
        for r in range(LANES):
            pivot = V[LANES * block + r]
            if not pivot > inverse[block + r]:
                return False
            inverse[block + r] = inverse.dtype.type(1.0) / math.sqrt(pivot)
        for r in range(LANES):
            scale_row(a, first + WIDTH * r + block, inverse[block + r])
        invert_block(a, first + block, inverse, block, V, LANES * block)
        for tile in range(0, block, LANES):
            carry_block(a, first + tile, V, LANES * block)
    return True


@part
def whiten(R, V, x, z):
    """z (WIDTH,) = R^-T x: z^T z = x^T C^-1 x. From the last block to the first; x is used up."""
    for block in range(WIDTH - LANES, -1, -LANES):
        put_one(z, block, V, LANES * block, LANES, x, block)
        for tile in range(0, block, LANES):
            subtract_one(x, tile, R, WIDTH * block + tile, WIDTH, z, block)


@part
def whiten_five(R, V, x, z):
    """The same of five vectors x, z (5 * WIDTH,)."""
    for block in range(WIDTH - LANES, -1, -LANES):
        put_five(z, block, V, LANES * block, LANES, x, block)
        for tile in range(0, block, LANES):
            subtract_five(x, tile, R, WIDTH * block + tile, WIDTH, z, block)
