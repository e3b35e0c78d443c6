"""Sixteen samples at a time of a star's model, for the kernels of `xp feh`: splines, exp, residuals, products.

All of a step happens in registers: what a table gives is never written before it is a residual. Arrays of slopes and
values are five rows of WIDTH: slopes by four parameters, then values. Importing this module imports numba.
"""

from __future__ import annotations

import math

from llvmlite import ir
from numba.extending import intrinsic

from xptools.cores._fehsimd import VALUE, WIDTH
from xptools.cores._lanes import FLOAT, I32, LANES, instructions

LARGE = 30.0  # e^30: a model so far off that only its direction matters
# Cephes' expf: of |r| < ln 2 / 2, highest power first
EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)

# Cephes' logf: of r = m - 1, highest power first
LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
       2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
HALF_ROOT = 0x3F3504F3  # sqrt(1/2) as float32


def _exponential(lanes, x):
    """exp of lanes of float32 to 2e-7, held at LARGE."""
    b = lanes.builder
    for sign, limit in ((">", -LARGE), ("<", LARGE)):
        x = b.select(b.fcmp_ordered(sign, x, lanes.constant(limit)), x, lanes.constant(limit))
    whole = lanes.call("llvm.floor", lanes.add_product(lanes.constant(0.5), x, lanes.constant(1 / math.log(2))))
    r = lanes.minus(x, lanes.times(whole, lanes.constant(0.693359375)))
    r = lanes.add_product(r, whole, lanes.constant(2.12194440e-4))
    q = lanes.constant(EXP[0])
    for c in EXP[1:]:
        q = lanes.add_product(lanes.constant(c), q, r)
    q = lanes.plus(lanes.add_product(r, lanes.times(q, r), r), lanes.constant(1.0))
    integers = ir.VectorType(I32, LANES)
    bits = b.add(b.fptosi(whole, integers), lanes.constant(127, I32))
    return lanes.times(q, b.bitcast(b.shl(bits, lanes.constant(23, I32)), ir.VectorType(FLOAT, LANES)))


def _logarithm(lanes, x):
    """ln of lanes of positive float32 to 2e-7: m 2^e with sqrt(1/2) <= m < sqrt 2."""
    b, integers = lanes.builder, ir.VectorType(I32, LANES)
    # The bits of sqrt(1/2) as an integer: what is above them by whole exponents is e, the rest stays m.
    bits = b.sub(b.bitcast(x, integers), lanes.constant(HALF_ROOT, I32))
    whole = b.ashr(bits, lanes.constant(23, I32))
    m = b.add(b.and_(bits, lanes.constant(0x7FFFFF, I32)), lanes.constant(HALF_ROOT, I32))
    r = lanes.minus(b.bitcast(m, x.type), lanes.constant(1.0))
    e, square = b.sitofp(whole, x.type), lanes.times(r, r)
    q = lanes.constant(LOG[0])
    for c in LOG[1:]:
        q = lanes.add_product(lanes.constant(c), q, r)
    tail = lanes.add_product(lanes.times(lanes.times(q, r), square), e, lanes.constant(-2.12194440e-4))
    tail = lanes.add_product(tail, square, lanes.constant(-0.5))
    return lanes.add_product(lanes.plus(r, tail), e, lanes.constant(0.693359375))


def _splines(lanes, table, start, row, plane, numbers, slopes: bool = True):
    """Values of a table, behind its slopes by three labels if wanted: see `look_up_tile`."""
    zero = ir.Constant(start.type, 0)
    w = [[lanes.number(numbers, lanes.place(zero, 1, 4 * k + a)) for a in range(4)] for k in range(6)]
    value, by = None, [None, None, None]
    for i in range(4):
        flat, up, across = None, None, None
        for j in range(4):
            at = lanes.place(lanes.place(start, plane, i), row, j)
            along, rising = None, None
            for k in range(4):
                node = lanes.load(table, lanes.place(at, WIDTH, k))
                along = lanes.add_product(along, w[4][k], node)
                rising = lanes.add_product(rising, w[5][k], node) if slopes else None
            flat = lanes.add_product(flat, w[2][j], along)
            if slopes:
                up, across = lanes.add_product(up, w[3][j], along), lanes.add_product(across, w[2][j], rising)
        value = lanes.add_product(value, w[0][i], flat)
        if slopes:
            factors = ((w[1][i], flat), (w[0][i], up), (w[0][i], across))
            by = [lanes.add_product(total, *f) for total, f in zip(by, factors, strict=True)]
    return [*by, value] if slopes else [value]


@intrinsic
def look_up_tile(context, out, o, flat, start, row, plane, w):
    """Slopes by three labels and values of a table into rows 0, 1, 2 and 4 of out, c = o ... o + 15.

    Node (i, j, k) of the 64 that the splines touch stands at start + i plane + j row + 64 k; w (24,): of each axis four
    weights, then four slopes.
    """

    def build(lanes, _out, o, _flat, start, row, plane, _w):
        found = _splines(lanes, lanes.array(2), start, row, plane, lanes.array(6))
        for k, value in zip((0, WIDTH, 2 * WIDTH, VALUE), found, strict=True):
            lanes.store(value, lanes.array(0), lanes.place(o, 1, k))

    return instructions(build)(context, out, o, flat, start, row, plane, w)


@intrinsic
def value_tile(context, out, o, flat, start, row, plane, w):
    """The values alone, into out[o ... o + 15]."""

    def build(lanes, _out, o, _flat, start, row, plane, _w):
        (value,) = _splines(lanes, lanes.array(2), start, row, plane, lanes.array(6), slopes=False)
        lanes.store(value, lanes.array(0), o)

    return instructions(build)(context, out, o, flat, start, row, plane, w)


@intrinsic
def exponential_tile(context, out, o):
    """exp of out[o ... o + 15] in place."""

    def build(lanes, _out, o):
        target = lanes.array(0)
        lanes.store(_exponential(lanes, lanes.load(target, o)), target, o)

    return instructions(build)(context, out, o)


@intrinsic
def logarithm_tile(context, out, o):
    """ln of out[o ... o + 15] in place; all must be positive."""

    def build(lanes, _out, o):
        target = lanes.array(0)
        lanes.store(_logarithm(lanes, lanes.load(target, o)), target, o)

    return instructions(build)(context, out, o)


@intrinsic
def model_tile(context, out, o, flat, start, row, plane, w, ln, u, shift, spread):
    """Slopes by all four parameters and residual of one star: exp(value - ln - shift) - u, in samples o ... o + 15."""

    def build(lanes, _out, o, _flat, start, row, plane, _w, _ln, _u, shift, spread):
        target = lanes.array(0)
        *by, value = _splines(lanes, lanes.array(2), start, row, plane, lanes.array(6))
        value = lanes.minus(lanes.minus(value, lanes.load(lanes.array(7), o)), lanes.spread(shift, FLOAT))
        e = _exponential(lanes, value)
        by.append(lanes.minus(lanes.constant(0.0), lanes.spread(spread, FLOAT)))
        for k, slope in enumerate(by):
            lanes.store(lanes.times(slope, e), target, lanes.place(o, WIDTH, k))
        lanes.store(lanes.minus(e, lanes.load(lanes.array(8), o)), target, lanes.place(o, 1, VALUE))

    return instructions(build)(context, out, o, flat, start, row, plane, w, ln, u, shift, spread)


@intrinsic
def add_star_tile(context, out, o, flat, start, row, plane, w, ln, shift, moves, by_excess, by_mag, by_metals):
    """Add one star of a pair: its flux over the reference, slopes by M_G of both together, by their excess, by [Fe/H].

    moves: slope of this star's M_G by the first; by_excess: by the second, over that; by_mag, by_metals: slopes of
    scaled Teff along the main sequence.
    """

    def build(lanes, _out, o, _flat, start, row, plane, _w, _ln, shift, moves, by_excess, by_mag, by_metals):
        target = lanes.array(0)
        of_teff, of_mag, of_metals, value = _splines(lanes, lanes.array(2), start, row, plane, lanes.array(6))
        value = lanes.minus(lanes.minus(value, lanes.load(lanes.array(7), o)), lanes.spread(shift, FLOAT))
        e = _exponential(lanes, value)
        mag = lanes.add_product(of_mag, lanes.spread(by_mag, FLOAT), of_teff)
        mag = lanes.times(lanes.times(e, lanes.spread(moves, FLOAT)), mag)
        metals = lanes.times(e, lanes.add_product(of_metals, lanes.spread(by_metals, FLOAT), of_teff))
        added = ((0, mag), (WIDTH, lanes.times(lanes.spread(by_excess, FLOAT), mag)), (2 * WIDTH, metals), (VALUE, e))
        for k, more in added:
            at = lanes.place(o, 1, k)
            lanes.store(lanes.plus(lanes.load(target, at), more), target, at)

    more = (ln, shift, moves, by_excess, by_mag, by_metals)
    return instructions(build)(context, out, o, flat, start, row, plane, w, *more)


@intrinsic
def dot_products(context, z, out):
    """The 15 products of the five rows of z, row 4 first: out[k] for (4, 4), (4, 0) ... (4, 3), (0, 0), (0, 1) ..."""

    def build(lanes, z, _out):
        source, (data, _) = lanes.array(0), lanes.array(1)
        b, zero = lanes.builder, ir.Constant(ir.IntType(64), 0)
        tiles = [[lanes.load(source, lanes.place(zero, 1, WIDTH * r + t)) for t in range(0, WIDTH, LANES)]
                 for r in (4, 0, 1, 2, 3)]  # fmt: skip
        pairs = [(i, j) for i in range(5) for j in range(i, 5)]
        for n, (i, j) in enumerate(pairs):
            total = None
            for one, other in zip(tiles[i], tiles[j], strict=True):
                total = lanes.add_product(total, one, other)
            for half in (8, 4, 2, 1):
                order = [(c + half) % LANES for c in range(LANES)]
                total = lanes.plus(total, b.shuffle_vector(total, total, lanes.constant(order, I32)))
            b.store(b.extract_element(total, ir.Constant(I32, 0)), b.gep(data, [ir.Constant(I32, n)]))

    return instructions(build)(context, z, out)
