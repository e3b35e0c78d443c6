"""Sixteen lanes at a time for compiled kernels: loads, sums and stores of flat arrays, written out as instructions.

numba's own loops ask before each whether arrays overlap and indices are negative, which costs short loops more than
their work, and keep no tile of a product in registers; here the caller knows places to be inside. LLVM cuts the 16
lanes into what the processor has. Importing this module imports numba.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.errors import TypingError
from numba.np.arrayobj import make_array

LANES = 16
CONTRACT = ("contract",)
I32, FLOAT = ir.IntType(32), ir.FloatType()


class Lanes:
    """Loads, stores and sums of 16 lanes of flat arrays, while one call is compiled."""

    def __init__(self, context, builder, signature, values):
        self.context, self.builder, self.kinds, self.values = context, builder, signature.args, values

    def array(self, k: int):
        """The data of argument k, and its element's type."""
        kind = self.kinds[k]
        if not (isinstance(kind, types.Array) and kind.ndim == 1 and kind.layout == "C"):
            raise TypingError("lanes are of flat arrays")
        return make_array(kind)(self.context, self.builder, self.values[k]).data, self.context.get_data_type(kind.dtype)

    def place(self, start, step, k: int):
        """start + k step; the step may be known now."""
        if not k:
            return start
        if isinstance(step, int):
            return self.builder.add(start, ir.Constant(start.type, k * step))
        return self.builder.add(start, self.builder.mul(step, ir.Constant(step.type, k)))

    def _at(self, array, start):
        data, element = array
        return self.builder.bitcast(self.builder.gep(data, [start]), ir.VectorType(element, LANES).as_pointer())

    def load(self, array, start):
        value = self.builder.load(self._at(array, start))
        value.align = self.context.get_abi_alignment(array[1])
        return value

    def store(self, value, array, start):
        self.builder.store(value, self._at(array, start)).align = self.context.get_abi_alignment(array[1])

    def number(self, array, start):
        """One element in all lanes."""
        return self.spread(self.one(array, start), array[1])

    def constant(self, value, element=FLOAT):
        """A number known now, or 16 of them, in the lanes."""
        values = value if isinstance(value, list) else [value] * LANES
        return ir.Constant(ir.VectorType(element, LANES), values)

    def call(self, name, *values):
        """LLVM's own function of that name, of lanes."""
        kinds = [v.type for v in values]
        function = get_or_insert_function(self.builder.module, ir.FunctionType(kinds[0], kinds), f"{name}.v16f32")
        return self.builder.call(function, values)

    def add_product(self, total, a, b):
        """total + a b, or a b where there is no total yet."""
        return self.times(a, b) if total is None else self.plus(total, self.times(a, b))

    def one(self, array, start):
        return self.builder.load(self.builder.gep(array[0], [start]))

    def spread(self, value, element):
        """A number in all lanes, as `element`."""
        nothing = ir.Constant(ir.VectorType(element, LANES), ir.Undefined)
        one = self.builder.insert_element(nothing, self.cast(value, element), ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))

    def cast(self, value, element):
        """A number or lanes of them as `element`."""
        lanes = isinstance(value.type, ir.VectorType)
        here, there = value.type.element if lanes else value.type, ir.VectorType(element, LANES) if lanes else element
        if here == element:
            return value
        return (self.builder.fpext if isinstance(here, ir.FloatType) else self.builder.fptrunc)(value, there)

    def times(self, a, b):
        return self.builder.fmul(a, b, flags=CONTRACT)

    def plus(self, a, b):
        return self.builder.fadd(a, b, flags=CONTRACT)

    def minus(self, a, b):
        return self.builder.fsub(a, b, flags=CONTRACT)


def instructions(build):
    """A function for kernels from what builds its instructions."""

    def typed(_context, *kinds):
        def code(context, builder, signature, values):
            build(Lanes(context, builder, signature, values), *values)
            return context.get_dummy_value()

        return types.void(*kinds), code

    return typed
