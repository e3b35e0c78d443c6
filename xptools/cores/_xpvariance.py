"""Variances of fluxes as one matrix product over packed correlations, compiled (numba, CPU).

    V_p = sum_q w_q M_qp,   w = (sigma_i sigma_j rho_ij for j < i, then sigma_i^2),   M = (2 D_i D_j, then D_i^2)

numba keeps no tile of a product in registers, so the innermost loop is written out as vector code: GROUP stars by WIDE
wavelengths at once, a quarter of a core's peak otherwise. Each star has lanes of its own and its sums their own order,
so neither its neighbours nor batches nor threads change a bit of it. Importing this module imports numba.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

from xptools.cores._numba import compiled

LANES = 16  # float32 of a vector
WIDE = 2 * LANES
GROUP = 8 if binding.get_host_cpu_features().get("avx512f") else 3  # what the registers hold; no result depends on it
BLOCK = 24  # stars whose weights stay in the cache
DEPTH = 32  # terms summed in float32 before they go into a float64 sum: within 3e-7 of float64 throughout
LEAST = 1e-30  # a product below this is nothing, and slow to multiply

_compiled = compiled({"contract"})
_FLOAT, _DOUBLE, _INT = ir.FloatType(), ir.DoubleType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def products(D: np.ndarray) -> tuple[np.ndarray, float]:
    """M of a matrix D (K, P), float32, and its unit: columns in tiles one after the other, the last padded with zeros.

    The unit is a power of two that brings D to about 1, as float32 holds no square of 1e-20.
    """
    K, P = D.shape
    unit = 4.0 ** np.ceil(np.log2(np.abs(D).max()))
    i, j = np.tril_indices(K, -1)
    M = np.zeros((K * (K + 1) // 2, -(-P // LANES) * LANES))
    M[: len(i), :P] = 2 / unit * D[i] * D[j]
    M[len(i) :, :P] = D * D / unit
    M[np.abs(M) < LEAST] = 0.0
    tiles = (M[:, p : p + WIDE].ravel() for p in range(0, M.shape[1], WIDE))
    return np.concatenate(list(tiles)).astype(np.float32), unit


def variance_band(sigma, rho, count, kind, both, alone, at, total, correlated):
    """Add a band's variance to total (N, n) at columns `at`; both and alone are `products`.

    kind (N,): 0 the star lacks the band, 1 it has both bands, 2 it has this band alone. correlated (N,) becomes false
    for a star whose correlations are not all finite: its coefficients are independent.
    """
    sigma, known = sigma.astype(np.float32), np.ones(len(sigma), np.bool_)
    for code, matrix in ((1, both), (2, alone)):
        rows = np.flatnonzero(kind == code)
        variances(rows, sigma, rho, count, *matrix, at, total, known)
        rows = rows[~known[rows]]
        variances(rows, sigma, rho[:, :0], count, *matrix, at, total, known)
    correlated &= (known & (rho.shape[1] > 0)) | (kind == 0)


@_compiled
def variances(rows, sigma, rho, count, M, unit, at, total, known):
    """Add a band's variance to total (N, n) at columns `at`, for the stars `rows`; M and unit are `products`.

    sigma (N, K) float32, the first `count` (N,) of which are used. rho (N, K (K - 1) / 2) float32, packed strictly
    below the diagonal row by row, or (N, 0) for independent coefficients. A star whose correlations are not all finite
    gets nothing and known[n] = False.
    """
    K = sigma.shape[1]
    Q = K * (K + 1) // 2
    weights, sums = np.zeros((BLOCK, Q + 2 * LANES), np.float32), np.empty((BLOCK, WIDE))
    for start in range(0, len(rows), BLOCK):
        stars = rows[start : start + BLOCK]
        _weigh(stars, sigma, rho, count, weights)
        for p in range(0, len(at), WIDE):
            columns = at[p : p + WIDE]
            _multiply(weights, 0 if rho.shape[1] else Q - K, Q, M[p * Q :], len(columns) > LANES, len(stars), sums)
            for b in range(len(stars)):
                if not np.isfinite(sums[b, 0]):  # one unknown correlation makes every wavelength unknown
                    known[stars[b]] = False
                    continue
                for k in range(len(columns)):
                    total[stars[b], columns[k]] += unit * sums[b, k]


@_compiled
def _weigh(stars, sigma, rho, count, weights):
    """Weights of some stars, a row each."""
    K = sigma.shape[1]
    T = K * (K - 1) // 2
    padded = np.zeros(K + LANES, np.float32)
    for b in range(len(stars)):
        n = stars[b]
        for k in range(K):
            padded[k] = sigma[n, k] if k < count[n] else 0.0
        if rho.shape[1]:
            correlated(rho[n], padded, K, weights[b])
        for k in range(K):
            weights[b, T + k] = padded[k] * padded[k]


@_compiled
def _multiply(weights, first, Q, M, wide, count, sums):
    """sums = weights times one tile of M for `count` stars, terms from `first` on."""
    width = WIDE if wide else LANES
    sums[:] = 0.0
    for q in range(first, Q, DEPTH):
        depth, tile = min(DEPTH, Q - q), M[q * width :].ctypes.data
        for b in range(0, count, GROUP):
            w, out = weights[b:, q:].ctypes.data, sums[b:].ctypes.data
            if wide:
                _tile_wide(w, weights.shape[1], tile, depth, out)
            else:
                _tile(w, weights.shape[1], tile, depth, out)


@_compiled
def correlated(rho, sigma, K, out):
    """out = sigma_i sigma_j rho_ij in rho's order; sigma has LANES zeros after its K values.

    Whole vectors run over the end of a row of the triangle: the next row mends what they spill.
    """
    T = K * (K - 1) // 2
    start = 0
    for i in range(1, K):
        s = sigma[i]
        j = 0
        while j < i and start + j + LANES <= T:
            _scale(rho[start + j :].ctypes.data, sigma[j:].ctypes.data, s, out[start + j :].ctypes.data)
            j += LANES
        for k in range(j, i):
            out[start + k] = rho[start + k] * (s * sigma[k])
        start += i


def _vector(builder, address):
    """The vector at an address that need not be aligned."""
    loaded = builder.load(builder.bitcast(address, _VECTOR.as_pointer()))
    loaded.align = 4
    return loaded


def _spread(builder, number):
    """A number in all lanes."""
    nothing, zero = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(nothing, number, zero), nothing, lanes)


@intrinsic
def _scale(_context, rho, sigma, s, out):
    """out = rho * (s sigma), LANES numbers at three addresses."""

    def code(_target, builder, _signature, args):
        rho, sigma, out = (builder.inttoptr(a, _FLOAT.as_pointer()) for a in (args[0], args[1], args[3]))
        scaled = builder.fmul(_spread(builder, args[2]), _vector(builder, sigma))
        place = builder.bitcast(out, _VECTOR.as_pointer())
        builder.store(builder.fmul(_vector(builder, rho), scaled), place).align = 4

    return types.void(types.intp, types.intp, types.float32, types.intp), code


def _product(vectors):
    """Code for sums (GROUP, WIDE) += weights (GROUP, stride) times tile (depth, vectors * LANES), at addresses."""

    def code(_target, builder, _signature, args):
        weights, stride, tile, depth, sums = args
        weights, tile = (builder.inttoptr(a, _FLOAT.as_pointer()) for a in (weights, tile))
        rows = [builder.gep(weights, [builder.mul(stride, _INT(s))]) for s in range(GROUP)]
        before, loop = builder.block, builder.append_basic_block("terms")
        after = builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        term = builder.phi(_INT)
        held = [[builder.phi(_VECTOR) for _ in range(vectors)] for _ in rows]
        line = builder.gep(tile, [builder.mul(term, _INT(vectors * LANES))])
        factors = [_vector(builder, builder.gep(line, [_INT(v * LANES)])) for v in range(vectors)]
        grown = []
        for row, own in zip(rows, held, strict=True):
            weight = builder.load(builder.gep(row, [term]))
            weight.align = 4
            weight = _spread(builder, weight)
            parts = [builder.fmul(weight, factor, flags=("contract",)) for factor in factors]
            grown.append([builder.fadd(o, part, flags=("contract",)) for o, part in zip(own, parts, strict=True)])
        following = builder.add(term, _INT(1))
        _ring(term, _INT(0), following, before, loop)
        for own, new in zip(held, grown, strict=True):
            for o, n in zip(own, new, strict=True):
                _ring(o, ir.Constant(_VECTOR, [0.0] * LANES), n, before, loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
        builder.position_at_end(after)
        _added(builder, sums, grown)

    return types.void(*[types.intp] * 5), code


def _ring(phi, first, following, before, loop):
    phi.add_incoming(first, before)
    phi.add_incoming(following, loop)


def _added(builder, sums, grown):
    """Add vectors of float32 to rows of WIDE float64."""
    double = ir.VectorType(_DOUBLE, LANES)
    sums = builder.inttoptr(sums, _DOUBLE.as_pointer())
    for s, row in enumerate(grown):
        for v, vector in enumerate(row):
            place = builder.bitcast(builder.gep(sums, [_INT(s * WIDE + v * LANES)]), double.as_pointer())
            old = builder.load(place)
            old.align = 8
            builder.store(builder.fadd(old, builder.fpext(vector, double)), place).align = 8


@intrinsic
def _tile_wide(_context, weights, stride, tile, depth, sums):
    """`_product` for two vectors of wavelengths."""
    return _product(2)


@intrinsic
def _tile(_context, weights, stride, tile, depth, sums):
    """`_product` for one vector of wavelengths."""
    return _product(1)
