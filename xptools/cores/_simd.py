"""Sixteen float32 numbers at a time in numba's kernels, in registers where the processor's are that wide.

LLVM makes loops into vectors of half the width that the processor has, and keeps sums in memory; here a kernel says
what is one vector. Arrays are flat: float32, or uint16 that holds bfloat16, which is widened and rounded on the way.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
FLOAT, WORD, HALF, CARRY = ir.FloatType(), ir.IntType(32), ir.IntType(16), 0x7FFF
FLOATS, WORDS, HALVES = (ir.VectorType(t, LANES) for t in (FLOAT, WORD, HALF))


class Vector(types.Type):
    """The type of sixteen numbers."""

    def __init__(self):
        super().__init__("float32x16")


VECTOR = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """Kept as LLVM's own vector."""

    def __init__(self, manager, kind):
        super().__init__(manager, kind, FLOATS)


def _place(context, builder, kind, array, index, wide):
    """The address of a vector in an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), wide.as_pointer())


def _all(number: int) -> ir.Constant:
    return ir.Constant(WORDS, [number] * LANES)


def _filled(builder, number):
    """The number in all lanes."""
    none = ir.Constant(FLOATS, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(none, number, WORD(0)), none, ir.Constant(WORDS, [0] * LANES))


def _called(builder, name: str, *args):
    """LLVM's function of vectors."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(args))
    return builder.call(builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f32", fnty=kind), args)


@intrinsic
def load(_, array, index):
    """Vector at array[index : index + LANES]."""
    half = array.dtype == types.uint16

    def made(context, builder, signature, args):
        where = _place(context, builder, signature.args[0], *args, HALVES if half else FLOATS)
        if not half:
            return builder.load(where, align=4)
        return builder.bitcast(builder.shl(builder.zext(builder.load(where, align=2), WORDS), _all(16)), FLOATS)

    return VECTOR(array, types.intp), made


@intrinsic
def store(_, array, index, vector):
    """The vector to array[index : index + LANES], to the nearest bfloat16 if that holds such."""
    half = array.dtype == types.uint16

    def made(context, builder, signature, args):
        where = _place(context, builder, signature.args[0], *args[:2], HALVES if half else FLOATS)
        if not half:
            builder.store(args[2], where, align=4)
            return context.get_dummy_value()
        bits = builder.bitcast(args[2], WORDS)
        even = builder.and_(builder.lshr(bits, _all(16)), _all(1))
        bits = builder.lshr(builder.add(builder.add(bits, _all(CARRY)), even), _all(16))
        builder.store(builder.trunc(bits, HALVES), where, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), made


@intrinsic
def repeated(_, array, index):
    """The float32 number array[index] in all lanes."""

    def made(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return _filled(builder, builder.load(builder.gep(data, [args[1]])))

    return VECTOR(array, types.intp), made


@intrinsic
def spread(_, number):
    """The number in all lanes."""

    return VECTOR(types.float32), lambda context, builder, signature, args: _filled(builder, args[0])


@intrinsic
def fused(_, a, b, c):
    """a b + c."""
    return VECTOR(a, b, c), lambda context, builder, signature, args: _called(builder, "fmuladd", *args)


@intrinsic
def larger(_, a, b):
    """The larger of each pair."""
    return VECTOR(a, b), lambda context, builder, signature, args: _called(builder, "maxnum", *args)


@intrinsic
def inverse(_, a):
    """1 / a."""
    ones = ir.Constant(FLOATS, [1.0] * LANES)
    return VECTOR(a), lambda context, builder, signature, args: builder.fdiv(ones, args[0])


@intrinsic
def total(_, a):
    """Sum of the lanes, pair by pair."""

    def made(context, builder, signature, args):
        (x,) = args
        step = LANES // 2
        while step:
            swap = ir.Constant(WORDS, [i ^ step for i in range(LANES)])
            x, step = builder.fadd(x, builder.shuffle_vector(x, x, swap)), step // 2
        return builder.extract_element(x, WORD(0))

    return types.float32(a), made


@intrinsic
def power(_, whole):
    """2 ** whole, of whole numbers from -126 to 127."""

    def made(context, builder, signature, args):
        bits = builder.shl(builder.add(builder.fptosi(args[0], WORDS), _all(127)), _all(23))
        return builder.bitcast(bits, FLOATS)

    return VECTOR(whole), made


def _operation(sign, name: str) -> None:
    """Vectors added, subtracted or multiplied by a sign."""

    @intrinsic
    def apply(_, a, b):
        return VECTOR(a, b), lambda context, builder, signature, args: getattr(builder, name)(*args)

    @overload(sign)
    def chosen(a, b):
        return (lambda a, b: apply(a, b)) if a is VECTOR and b is VECTOR else None


for _sign, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _operation(_sign, _name)
