"""What the generalist's inference on a processor does between matrix products: attention, normalisation, GELU.

A star's bits depend on its own numbers only. Numbers are float32 or bfloat16, sums float32 in any case.
"""

from __future__ import annotations

import math
from functools import cache

from xptools.cores._simd import LANES, Array, Kernel, Value, Variable

STEP = 8  # channels that are kept in registers at a time; a head has a multiple of them
ROUND = 1.5 * 2.0**23  # added and taken away, it leaves a whole number
LOWEST = -126.0  # exponent below which 2 ** x is not told from nothing
# 2 ** r = sum of these times r ** k from the highest down, |r| <= 1/2, within 3e-7
SERIES = (0.0013333558, 0.0096181291, 0.055504109, 0.24022651, 0.69314718, 1.0)
# (Phi(x) - 1/2) / x, Phi the normal distribution, as a series of u = 2 (x / edge)^2 - 1 up to an edge, beyond which Phi
# stays: GELU within 1e-6, or where it is rounded to eight bits within 4e-5
NORMAL = {
    "float": (5.5, (-9.14251083e-4, 2.59529124e-3, -2.51261774e-3, 2.46809167e-3, -6.29709288e-3, 1.14316531e-2,
                    -1.53718824e-2, 2.00270265e-2, -2.59420164e-2, 3.21140289e-2, -3.88047062e-2, 4.77355793e-2,
                    -6.41719773e-2, 1.28551945e-1)),
    "bfloat16": (4.5, (3.36273108e-3, -9.3389675e-3, 1.21988216e-2, -1.67315472e-2, 2.76317075e-2, -4.05597836e-2,
                       5.48185967e-2, -7.71716684e-2, 1.56902105e-1)),
}  # fmt: skip


def scratch(dim: int, most: int) -> int:
    """Numbers that `attention` needs for itself, of stars with at most so many tokens."""
    return 2 * (most + 1) * dim + (most + 1) * LANES + 2 * dim * LANES


def factor(width: int) -> float:
    """What queries are multiplied with, so that powers of two make the softmax."""
    return math.log2(math.e) / math.sqrt(width)


@cache
def attention(dim: int, kind: str) -> Kernel:
    """softmax(Q K^T / sqrt(width)) V of every star, with a learned key and value (dim,) beside those of its tokens.

    Arguments: stars; queries with query_step numbers from row to row, rows (S + 1,) where those of each star begin;
    memory likewise, a row's key and then its value, tokens (S + 1,); the most tokens of a star; key, value; width, the
    channels of a head; its `factor`; `scratch`; out (rows, dim).
    """
    k = Kernel(
        "attention", "int", f"{kind}*", "int", "int*", f"{kind}*", "int", "int*", "int", "float*", "float*", "int",
        "float", "float*", f"{kind}*",
    )  # fmt: skip
    with k:
        stars, queries, query_step, rows, memory, step, tokens, most, key, value, width, times, own, out = k.args
        size = (most + 1) * dim
        keys, values, q, mixed, p = (own.beyond(n) for n in (0, size, 2 * size, 2 * size + dim * LANES,
                                                             2 * size + 2 * dim * LANES))  # fmt: skip
        with k.loop(0, stars) as s:
            first, length = tokens.number(s), tokens.number(s + 1) - tokens.number(s)
            with k.loop(0, dim, LANES) as c:
                with k.loop(0, length) as j:
                    for to, at in ((keys, 0), (values, dim)):
                        to.store(j * dim + c, memory.load((first + j) * step + c + at))
                keys.store(length * dim + c, key.load(c))
                values.store(length * dim + c, value.load(c))
            end = rows.number(s + 1)
            with k.loop(rows.number(s), end, LANES) as row:
                # lanes without a query of their own repeat the last one
                places = [k.smaller(row + i, end - 1) for i in range(LANES)]
                with k.loop(0, dim, LANES) as c:
                    read = [queries.load(n * query_step + c) * k.vector(times) for n in places]
                    for i, x in enumerate(k.transposed(read)):
                        q.store((c + i) * LANES, x)
                with k.loop(0, dim, width) as h:
                    _head(k, dim, (h, h + width), length + 1, (q, keys, values, p, mixed))
                with k.loop(0, dim, LANES) as c:
                    turned = k.transposed([mixed.load((c + i) * LANES) for i in range(LANES)])
                    for n, x in zip(places, turned, strict=True):
                        out.store(n * dim + c, x)
    return k


def _head(k: Kernel, dim: int, channels: tuple[Value, Value], tokens: Value, arrays: tuple[Array, ...]) -> None:
    """One head of LANES queries: products with the keys, softmax, sums of the values."""
    q, keys, values, p, mixed = arrays
    begin, end = channels
    _products(k, dim, begin, tokens, (q, keys, p), False)
    with k.loop(begin + STEP, end, STEP) as c:
        _products(k, dim, c, tokens, (q, keys, p), True)
    top = Variable(k, k.vector(-3e38))
    with k.loop(0, tokens) as j:
        top.set(k.larger(top.get(), p.load(j * LANES)))
    whole = Variable(k, k.vector(0.0))
    with k.loop(0, tokens) as j:
        x = k.larger(p.load(j * LANES) - top.get(), k.vector(LOWEST))
        near = x + ROUND - ROUND
        e = _series(k, SERIES, x - near) * k.power(near)
        p.store(j * LANES, e)
        whole.set(whole.get() + e)
    scale = k.inverse(whole.get())
    with k.loop(begin, end, STEP) as c:
        sums = [Variable(k, k.vector(0.0)) for _ in range(STEP)]
        with k.loop(0, tokens) as j:
            w = p.load(j * LANES)
            for i, each in enumerate(sums):
                each.set(k.fused(values.number(j * dim + c + i), w, each.get()))
        for i, each in enumerate(sums):
            mixed.store((c + i) * LANES, each.get() * scale)


def _products(k: Kernel, dim: int, c: Value, tokens: Value, arrays: tuple[Array, ...], more: bool) -> None:
    """p <- q keys over STEP channels from c, added to what is there if there is `more`."""
    q, keys, p = arrays
    part = [q.load((c + i) * LANES) for i in range(STEP)]
    with k.loop(0, tokens) as j:
        s = p.load(j * LANES) if more else k.vector(0.0)
        for i, x in enumerate(part):
            s = k.fused(keys.number(j * dim + c + i), x, s)
        p.store(j * LANES, s)


def _series(k: Kernel, terms: tuple[float, ...], x: Value) -> Value:
    """A polynomial, highest power first."""
    out = k.vector(terms[0])
    for term in terms[1:]:
        out = k.fused(out, x, k.vector(term))
    return out


def _gelu(k: Kernel, x: Value, kind: str) -> Value:
    """x Phi(x)."""
    edge, terms = NORMAL[kind]
    y = k.smaller(k.larger(x, k.vector(-edge)), k.vector(edge))
    u = k.fused(y * y, k.vector(2 / edge**2), k.vector(-1.0))
    return x * k.fused(y, _series(k, terms, u), k.vector(0.5))


@cache
def activation(kind: str) -> Kernel:
    """GELU in place. Arguments: how many numbers, a multiple of LANES; x."""
    with Kernel("activation", "int", f"{kind}*") as k:
        count, x = k.args
        with k.loop(0, count, LANES) as i:
            x.store(i, _gelu(k, x.load(i), kind))
    return k


@cache
def embedding(dim: int, kind: str) -> Kernel:
    """GELU(E[id] v + b[id]). Arguments: tokens; id, v; E, b; out (tokens, dim)."""
    with Kernel("embedding", "int", "int*", "float*", "float*", "float*", f"{kind}*") as k:
        tokens, ids, values, table, offset, out = k.args
        with k.loop(0, tokens) as t:
            row, v = ids.number(t) * dim, values.number(t)
            with k.loop(0, dim, LANES) as c:
                x = k.fused(table.load(row + c), v, offset.load(row + c))
                out.store(t * dim + c, _gelu(k, x, kind))
    return k


@cache
def normalisation(dim: int, kind: str, epsilon: float) -> Kernel:
    """LN(x + y), rows of dim numbers. Arguments: how many rows; x, y; weight, bias; out, which may be x or y."""
    k = Kernel("normalisation", "int", f"{kind}*", f"{kind}*", "float*", "float*", f"{kind}*")
    with k:
        rows, x, y, weight, bias, out = k.args
        places = range(0, dim, LANES)
        with k.loop(0, rows) as row:
            both = [x.load(row * dim + c) + y.load(row * dim + c) for c in places]
            mean = k.total(sum(both[1:], both[0])) * (1.0 / dim)
            off = [b - mean for b in both]
            square = k.vector(0.0)
            for o in off:
                square = k.fused(o, o, square)
            scale = k.inverse(k.called("sqrt", k.total(square) * (1.0 / dim) + epsilon))
            for c, o in zip(places, off, strict=True):
                out.store(row * dim + c, k.fused(o * scale, weight.load(c), bias.load(c)))
    return k

