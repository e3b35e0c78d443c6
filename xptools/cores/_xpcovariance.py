"""Covariances of fluxes from packed correlations, compiled (numba, CPU); `xpbasis` holds the same in array form.

    Cov = sum_i Y_i H_i^T + H_i Y_i^T,   Y_i = sigma_i D_i,   H_i = Y_i / 2 + sum_{j<i} rho_ij Y_j

Packed correlations are read once and never unpacked, only the lower triangle is computed, and no wavelength where the
band does not count. numba keeps no tile of a product in registers, so both sums are written out as vector code, GROUP
rows by LANES columns at once. Every star is computed by itself, so neither batches nor threads can change a bit of it.
Importing this module imports numba.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from xptools.cores._lanes import LANES, instructions
from xptools.cores._numba import compiled

GROUP = 8  # rows of a tile

# Contracting a * b + c to one rounding is the only freedom given: the order of sums stays as written.
FREEDOMS = {"contract"}
kernel, part = compiled(FREEDOMS), compiled(FREEDOMS, inline=True)


@kernel
def covariance_band(sigma, rho, count, kind, D, D_alone, at, total, correlated):
    """Add a band's covariance to total (N, n (n + 1) / 2), lower triangles row by row, at wavelengths `at`, rising.

    sigma (N, K), the first `count` (N,) of which are used; rho (N, K (K - 1) / 2) strictly below the diagonal row by
    row, or (N, 0). kind (N,): 0 the star lacks the band, 1 it has both bands (D), 2 it has this band only (D_alone);
    both (K, P). correlated (N,) becomes false for a star whose correlations are not all finite: its coefficients are
    independent.
    """
    K, width = len(D), -(-len(at) // LANES) * LANES
    rows = -(-K // GROUP) * GROUP
    Y, H, M = np.zeros(rows * width), np.zeros(rows * width), np.empty(width * width)
    below = np.zeros(rows * (rows - 1) // 2)
    for n in range(len(sigma)):
        if kind[n] == 0:
            continue
        used = count[n]
        _scaled(sigma[n], used, D if kind[n] == 1 else D_alone, len(at), width, Y)
        if not _known(rho[n], used, below):
            correlated[n] = False
        for i in range(0, used, GROUP):
            for q in range(0, width, LANES):
                _carried(H, Y, below, i, q, width)
        for p in range(0, len(at), GROUP):
            for q in range(0, p + GROUP, LANES):
                _crossed(M, Y, H, p, q, width, used)
        for p in range(len(at)):
            start = at[p] * (at[p] + 1) // 2
            for q in range(p + 1):
                total[n, start + at[q]] += M[p * width + q]


@part
def _scaled(sigma, used, D, P, width, Y):
    """Rows of Y: sigma_i D_i, 0 from `used` on."""
    for i in range(len(Y) // width):
        for p in range(P):
            Y[i * width + p] = sigma[i] * D[i, p] if i < used else 0.0


@part
def _known(rho, used, below):
    """Correlations of the first `used` coefficients into `below`, all else 0; False, and only 0, if any is not finite.

    Any: also one that truncation leaves out, as `_xpvariance` has it.
    """
    size = used * (used - 1) // 2 if len(rho) else 0
    wrong = 0.0
    for k in range(len(rho)):
        wrong += 0.0 * rho[k]  # 0, or NaN from then on
    for k in range(size):
        below[k] = rho[k]
    known = len(rho) > 0 and wrong == 0.0
    for k in range(size if known else 0, len(below)):
        below[k] = 0.0
    return known


def _summed(lanes, count, totals, term):
    """The totals after `term(k, totals)` for k = 0 ... count - 1: a loop that keeps them in registers."""
    b, one = lanes.builder, ir.Constant(count.type, 1)
    before, loop, after = b.block, b.append_basic_block("terms"), b.append_basic_block("sums")
    b.cbranch(b.icmp_signed(">=", count, one), loop, after)
    b.position_at_end(loop)
    k, held = b.phi(count.type), [b.phi(t.type) for t in totals]
    grown = term(k, held)
    following = b.add(k, one)
    for phi, first, last in zip((k, *held), (ir.Constant(count.type, 0), *totals), (following, *grown), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, loop)
    b.cbranch(b.icmp_signed("<", following, count), loop, after)
    b.position_at_end(after)
    out = [b.phi(t.type) for t in totals]
    for phi, first, last in zip(out, totals, grown, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, loop)
    return out


@intrinsic
def _carried(context, H, Y, below, i, q, width):
    """H[i + r, q + c] = Y[i + r, q + c] / 2 + sum_{j < i + r} rho[i + r, j] Y[j, q + c], r < GROUP, c < LANES.

    H, Y are flat with rows of `width`; `below` holds rho, row i from i (i - 1) / 2 on.
    """

    def build(lanes, _H, _Y, _below, i, q, width):
        b, target, source, rho = lanes.builder, lanes.array(0), lanes.array(1), lanes.array(2)

        def number(k):
            return ir.Constant(i.type, k)

        first = b.sdiv(b.mul(i, b.sub(i, number(1))), number(2))
        starts = [b.add(b.add(first, b.mul(i, number(r))), number(r * (r - 1) // 2)) for r in range(GROUP)]
        at = b.add(b.mul(i, width), q)
        own = [lanes.load(source, lanes.place(at, width, r)) for r in range(GROUP)]
        half = lanes.constant(0.5, source[1])

        def term(j, totals):
            row = lanes.load(source, b.add(b.mul(j, width), q))
            factors = [lanes.number(rho, b.add(s, j)) for s in starts]
            return [lanes.add_product(t, f, row) for t, f in zip(totals, factors, strict=True)]

        totals = _summed(lanes, i, [lanes.times(half, row) for row in own], term)
        for r in range(GROUP):
            for s in range(r):
                rest = b.add(starts[r], b.add(i, number(s)))
                totals[r] = lanes.add_product(totals[r], lanes.number(rho, rest), own[s])
            lanes.store(totals[r], target, lanes.place(at, width, r))

    return instructions(build)(context, H, Y, below, i, q, width)


@intrinsic
def _crossed(context, M, Y, H, p, q, width, count):
    """M[p + r, q + c] = sum_{k < count} Y[k, p + r] H[k, q + c] + H[k, p + r] Y[k, q + c], r < GROUP, c < LANES."""

    def build(lanes, _M, _Y, _H, p, q, width, count):
        b, target, left, right = lanes.builder, lanes.array(0), lanes.array(1), lanes.array(2)

        def term(k, totals):
            row, grown = b.mul(k, width), []
            of_left, of_right = (lanes.load(a, b.add(row, q)) for a in (left, right))
            for r, total in enumerate(totals):
                place = lanes.place(b.add(row, p), 1, r)
                total = lanes.add_product(total, lanes.number(left, place), of_right)
                grown.append(lanes.add_product(total, lanes.number(right, place), of_left))
            return grown

        nothing = lanes.constant(0.0, target[1])
        totals = _summed(lanes, count, [nothing] * GROUP, term)
        at = b.add(b.mul(p, width), q)
        for r in range(GROUP):
            lanes.store(totals[r], target, lanes.place(at, width, r))

    return instructions(build)(context, M, Y, H, p, q, width, count)
