"""The products that covariance, Cholesky and inverse of `xp feh` are made of, sixteen lanes at a time.

Arrays are flat, matrices of rows of WIDTH. Importing this module imports numba.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from xptools.cores._lanes import I32, LANES, instructions

WIDTH = 64  # samples a spectrum is padded to: whole vector registers, and loops whose length the compiler knows
VALUE = 4 * WIDTH  # where values stand behind the slopes by four parameters


@intrinsic
def subtract_eight(context, out, o, source, s, f):
    """out[o + 64 r + c] -= sum_k source[f + 64 k + r] source[s + 64 k + c], r < 8, k, c < 16."""

    def build(lanes, _out, o, _source, s, f):
        target, rows = lanes.array(0), lanes.array(2)
        totals = [lanes.load(target, lanes.place(o, WIDTH, r)) for r in range(8)]
        for k in range(LANES):
            row, begin = lanes.load(rows, lanes.place(s, WIDTH, k)), lanes.place(f, WIDTH, k)
            for r in range(8):
                totals[r] = lanes.minus(totals[r], lanes.times(lanes.number(rows, lanes.place(begin, 1, r)), row))
        for r in range(8):
            lanes.store(totals[r], target, lanes.place(o, WIDTH, r))

    return instructions(build)(context, out, o, source, s, f)


@intrinsic
def eliminate_block(context, a, o, pivots, i):
    """Rows a[o + 64 r + c], r, c < 16, less what those below hold of them, from the last to the first; pivots[i + r].

    The rows are those of R times the roots of the pivots; above the diagonal stands anything.
    """

    def build(lanes, _a, o, _pivots, i):
        b, matrix, (pivots, kind) = lanes.builder, lanes.array(0), lanes.array(2)
        rows = [lanes.load(matrix, lanes.place(o, WIDTH, r)) for r in range(LANES)]
        for r in range(LANES - 1, -1, -1):
            pivot = b.extract_element(rows[r], ir.Constant(I32, r))
            b.store(pivot, b.gep(pivots, [lanes.place(i, 1, r)]))
            over = lanes.times(rows[r], lanes.spread(b.fdiv(ir.Constant(kind, 1.0), pivot), kind))
            for above in range(r):
                f = b.shuffle_vector(over, over, lanes.constant(above, I32))
                rows[above] = lanes.minus(rows[above], lanes.times(f, rows[r]))
            lanes.store(rows[r], matrix, lanes.place(o, WIDTH, r))

    return instructions(build)(context, a, o, pivots, i)


@intrinsic
def carry_block(context, a, o, V, v):
    """Rows a[o + 64 r + c] become sum_k V[v + 16 k + r] a[o + 64 k + c], k >= r, for a lower triangle V; r, c < 16."""

    def build(lanes, _a, o, _V, v):
        matrix, factors = lanes.array(0), lanes.array(2)
        rows = [lanes.load(matrix, lanes.place(o, WIDTH, r)) for r in range(LANES)]
        for r in range(LANES):
            total = None
            for k in range(r, LANES):
                total = lanes.add_product(total, lanes.number(factors, lanes.place(v, 1, LANES * k + r)), rows[k])
            lanes.store(total, matrix, lanes.place(o, WIDTH, r))

    return instructions(build)(context, a, o, V, v)


@intrinsic
def scale_row(context, out, o, f):
    """out[o + c] *= f, c < 16."""

    def build(lanes, _out, o, f):
        a = lanes.array(0)
        lanes.store(lanes.times(lanes.load(a, o), lanes.spread(f, a[1])), a, o)

    return instructions(build)(context, out, o, f)


@intrinsic
def covary(context, out, o, near, far, w, scale, c, f, packed, s):
    """out[o + i] = near[o + i] + w (far[o + i] - near[o + i]) + f scale[c + i] packed[s + i], i < 16."""

    def build(lanes, _out, o, _near, _far, w, _scale, c, f, _packed, s):
        target, a, b, scale, packed = (lanes.array(k) for k in (0, 2, 3, 5, 8))
        double = packed[1]
        own = lanes.times(lanes.times(lanes.spread(f, double), lanes.load(scale, c)), lanes.load(packed, s))
        low = lanes.load(a, o)
        miss = lanes.plus(low, lanes.times(lanes.spread(w, a[1]), lanes.minus(lanes.load(b, o), low)))
        lanes.store(lanes.plus(lanes.cast(own, target[1]), lanes.cast(miss, target[1])), target, o)

    return instructions(build)(context, out, o, near, far, w, scale, c, f, packed, s)


@intrinsic
def add_rows(context, out, o, source, s, s_row, factors, f):
    """out[o + c] += sum_k factors[f + k] source[s + k s_row + c], k < 4, c < 16."""

    def build(lanes, _out, o, _source, s, s_row, _factors, f):
        target, rows, numbers = lanes.array(0), lanes.array(2), lanes.array(5)
        total = lanes.load(target, o)
        for k in range(4):
            row = lanes.load(rows, lanes.place(s, s_row, k))
            total = lanes.add_product(total, lanes.number(numbers, lanes.place(f, 1, k)), row)
        lanes.store(total, target, o)

    return instructions(build)(context, out, o, source, s, s_row, factors, f)


@intrinsic
def ahead(context, array, i):
    """Fetch the memory of array[i] into the cache, for later."""

    def build(lanes, _array, i):
        data, _ = lanes.array(0)
        place = lanes.builder.gep(data, [i])
        kinds = [place.type, I32, I32, I32]
        name = "llvm.prefetch.p0"
        function = get_or_insert_function(lanes.builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
        lanes.builder.call(function, [place, *(ir.Constant(I32, k) for k in (0, 2, 1))])

    return instructions(build)(context, array, i)


@intrinsic
def invert_block(context, R, o, inverse, i, V, v):
    """V[v + 16 r + c] = inverse of the lower triangle R[o + 64 r + c], r, c < 16; inverse[i + r]: 1 / its diagonal."""

    def build(lanes, _R, o, _inverse, i, _V, v):
        matrix, diagonal, target = lanes.array(0), lanes.array(2), lanes.array(4)
        rows = []
        for r in range(LANES):
            row = lanes.constant([1.0 if c == r else 0.0 for c in range(LANES)], matrix[1])
            for k in range(r):
                f = lanes.number(matrix, lanes.place(lanes.place(o, WIDTH, r), 1, k))
                row = lanes.minus(row, lanes.times(f, rows[k]))
            rows.append(lanes.times(row, lanes.number(diagonal, lanes.place(i, 1, r))))
            lanes.store(rows[r], target, lanes.place(v, LANES, r))

    return instructions(build)(context, R, o, inverse, i, V, v)


def _sweep(count: int, subtract: bool):
    """out[o + 64 r + c] (-)= sum_k factors[f + 64 r + k] source[s + k s_row + c], r < count, k, c < 16."""

    def sweep(context, out, o, source, s, s_row, factors, f):
        def build(lanes, _out, o, _source, s, s_row, _factors, f):
            target, rows, numbers = lanes.array(0), lanes.array(2), lanes.array(5)
            totals = [[None, None] for _ in range(count)]  # two chains each: sums wait for one another
            for k in range(LANES):
                row = lanes.load(rows, lanes.place(s, s_row, k))
                for r in range(count):
                    factor = lanes.number(numbers, lanes.place(f, 1, WIDTH * r + k))
                    totals[r][k % 2] = lanes.add_product(totals[r][k % 2], factor, row)
            for r in range(count):
                at, total = lanes.place(o, WIDTH, r), lanes.plus(*totals[r])
                lanes.store(lanes.minus(lanes.load(target, at), total) if subtract else total, target, at)

        return instructions(build)(context, out, o, source, s, s_row, factors, f)

    return intrinsic(sweep)


put_one, subtract_one = _sweep(1, False), _sweep(1, True)
put_five, subtract_five = _sweep(5, False), _sweep(5, True)
