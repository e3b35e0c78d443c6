"""Kernels of sixteen float32 numbers at a time, in registers where the processor's are that wide, for LLVM to compile.

What _lanes.py is inside numba's kernels, this is without numba, which takes longer to load than such a kernel to
compile: some hundredths of a second, nothing is kept on disk. Python's operators write down what a kernel does; a loop
of Python unrolls, Kernel.loop loops.

    with Kernel("double", "float*", "int") as k:
        x, count = k.args
        with k.loop(0, count, LANES) as i:
            x.store(i, x.load(i) * 2.0)
    k(address, 64)
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import llvmlite.binding as llvm
from llvmlite import ir

LANES = 16
FLOAT, WORD, HALF, INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(16), ir.IntType(64)
FLOATS, WORDS, HALVES = (ir.VectorType(t, LANES) for t in (FLOAT, WORD, HALF))
KINDS = {"int": INDEX, "float": FLOAT, "int*": INDEX, "float*": FLOAT, "bfloat16*": HALF}
SIGNS = {True: ("add", "sub", "mul"), False: ("fadd", "fsub", "fmul")}


class Value:
    """A whole number, a number or a vector in a kernel."""

    def __init__(self, kernel: Kernel, value: ir.Value):
        self.kernel, self.value = kernel, value

    def _with(self, sign: int, a, b) -> Value:
        kind = self.value.type
        a, b = (self.kernel.of(x, kind).value for x in (a, b))
        name = SIGNS[kind in (INDEX, WORDS)][sign]
        return Value(self.kernel, getattr(self.kernel.code, name)(a, b))

    def __add__(self, other) -> Value:
        return self._with(0, self, other)

    def __sub__(self, other) -> Value:
        return self._with(1, self, other)

    def __mul__(self, other) -> Value:
        return self._with(2, self, other)

    __radd__, __rmul__ = __add__, __mul__

    def cast(self, how: str, kind: ir.Type) -> Value:
        """LLVM's conversion of that name."""
        return Value(self.kernel, getattr(self.kernel.code, how)(self.value, kind))

    def moved(self, lanes: list[int], other: Value | None = None) -> Value:
        """Lanes by number; LANES and more are those of the other vector."""
        mask = ir.Constant(WORDS, lanes)
        return Value(self.kernel, self.kernel.code.shuffle_vector(self.value, (other or self).value, mask))


class Array:
    """Numbers at an address: float32, whole numbers, or bfloat16, widened when loaded and rounded when stored."""

    def __init__(self, kernel: Kernel, address: ir.Value, kind: ir.Type):
        self.kernel, self.address, self.kind = kernel, address, kind

    def _at(self, index, kind: ir.Type) -> ir.Value:
        code = self.kernel.code
        return code.bitcast(code.gep(self.address, [self.kernel.of(index, INDEX).value]), kind.as_pointer())

    def number(self, index) -> Value:
        """One number, in all lanes if it is a float32."""
        one = Value(self.kernel, self.kernel.code.load(self._at(index, self.kind)))
        return one if self.kind is INDEX else self.kernel.of(one, FLOATS)

    def load(self, index) -> Value:
        """LANES numbers."""
        wide, size = (HALVES, 2) if self.kind is HALF else (FLOATS, 4)
        got = Value(self.kernel, self.kernel.code.load(self._at(index, wide), align=size))
        return (got.cast("zext", WORDS) * 65536).cast("bitcast", FLOATS) if self.kind is HALF else got

    def store(self, index, vector: Value) -> None:
        """LANES numbers, to the nearest, of two the even one."""
        if self.kind is FLOAT:
            self.kernel.code.store(vector.value, self._at(index, FLOATS), align=4)
            return
        bits, code = vector.cast("bitcast", WORDS), self.kernel.code
        sixteen, one = (self.kernel.of(n, WORDS).value for n in (16, 1))
        odd = Value(self.kernel, code.and_(code.lshr(bits.value, sixteen), one))
        bits = code.trunc(code.lshr((bits + odd + 0x7FFF).value, sixteen), HALVES)
        code.store(bits, self._at(index, HALVES), align=2)

    def beyond(self, index) -> Array:
        """The same from there on."""
        return Array(self.kernel, self.kernel.code.gep(self.address, [self.kernel.of(index, INDEX).value]), self.kind)


class Variable:
    """A vector that changes; it stays in a register."""

    def __init__(self, kernel: Kernel, first: Value):
        self.kernel = kernel
        with kernel.code.goto_block(kernel.entry):
            self.place = kernel.code.alloca(first.value.type)
        self.set(first)

    def get(self) -> Value:
        return Value(self.kernel, self.kernel.code.load(self.place))

    def set(self, value: Value) -> None:
        self.kernel.code.store(value.value, self.place)


class Kernel:
    """A function without a result; kinds of its arguments as in KINDS. Calls take addresses for arrays."""

    def __init__(self, name: str, *kinds: str):
        types = [KINDS[k].as_pointer() if k.endswith("*") else KINDS[k] for k in kinds]
        self.module, self.kinds = ir.Module(name), kinds
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), name)
        self.entry = self.function.append_basic_block("entry")
        self.code = ir.IRBuilder(self.function.append_basic_block("body"))
        made = zip(self.function.args, kinds, strict=True)
        self.args = [Array(self, a, KINDS[k]) if k.endswith("*") else Value(self, a) for a, k in made]

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, fault, *_) -> None:
        if fault is None:
            self.code.ret_void()
            with self.code.goto_block(self.entry):
                self.code.branch(self.function.basic_blocks[1])
            self._compile()

    def of(self, value, kind: ir.Type) -> Value:
        """A number of Python, or a value, as that kind; one number goes to all lanes."""
        if not isinstance(value, Value):
            many = [value] * LANES if isinstance(kind, ir.VectorType) else value
            return Value(self, ir.Constant(kind, many))
        if kind is FLOATS and value.value.type is FLOAT:
            one = self.code.insert_element(ir.Constant(FLOATS, ir.Undefined), value.value, WORD(0))
            return Value(self, one).moved([0] * LANES)
        return value

    def vector(self, number) -> Value:
        """The number in all lanes."""
        return self.of(number, FLOATS)

    @contextmanager
    def loop(self, begin, end, step=1) -> Iterator[Value]:
        """For whole numbers from begin to below end."""
        begin, end, step = (self.of(x, INDEX) for x in (begin, end, step))
        before = self.code.block
        head, body, after = (self.function.append_basic_block() for _ in range(3))
        self.code.branch(head)
        self.code.position_at_end(head)
        index = self.code.phi(INDEX)
        index.add_incoming(begin.value, before)
        self.code.cbranch(self.code.icmp_signed("<", index, end.value), body, after)
        self.code.position_at_end(body)
        yield Value(self, index)
        following = (Value(self, index) + step).value
        index.add_incoming(following, self.code.block)
        self.code.branch(head)
        self.code.position_at_end(after)

    def called(self, name: str, *args: Value) -> Value:
        """LLVM's function of vectors."""
        kind = ir.FunctionType(FLOATS, [FLOATS] * len(args))
        function = self.module.declare_intrinsic(f"llvm.{name}.v{LANES}f32", fnty=kind)
        return Value(self, self.code.call(function, [a.value for a in args]))

    def fused(self, a: Value, b: Value, c: Value) -> Value:
        """a b + c."""
        return self.called("fmuladd", a, b, c)

    def larger(self, a: Value, b: Value) -> Value:
        """The larger of each pair."""
        return self.called("maxnum", a, b)

    def smaller(self, a: Value, b: Value) -> Value:
        """The smaller of each pair, or of two whole numbers."""
        if a.value.type is not INDEX:
            return self.called("minnum", a, b)
        return Value(self, self.code.select(self.code.icmp_signed("<", a.value, b.value), a.value, b.value))

    def inverse(self, a: Value) -> Value:
        """1 / a."""
        return Value(self, self.code.fdiv(self.vector(1.0).value, a.value))

    def total(self, a: Value) -> Value:
        """Sum of the lanes, in all of them."""
        for step in (8, 4, 2, 1):
            a = a + a.moved([i ^ step for i in range(LANES)])
        return a

    def power(self, whole: Value) -> Value:
        """2 ** whole, of whole numbers from -126 to 127."""
        return ((whole.cast("fptosi", WORDS) + 127) * (1 << 23)).cast("bitcast", FLOATS)

    def transposed(self, rows: list[Value]) -> list[Value]:
        """LANES columns of LANES rows."""
        for step in (8, 4, 2, 1):
            low = [i if not i & step else LANES + i - step for i in range(LANES)]
            high = [i + step if not i & step else LANES + i for i in range(LANES)]
            rows = [
                rows[i].moved(low, rows[i + step]) if not i & step else rows[i - step].moved(high, rows[i])
                for i in range(LANES)
            ]
        return rows

    def _compile(self) -> None:
        module, machine = llvm.parse_assembly(str(self.module)), _machine()
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(3))
        passes = llvm.create_new_function_pass_manager()
        # what is written down here is as it should be, but for variables and arithmetic of indices; more takes longer
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.run(module.get_function(self.function.name), builder)
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        kinds = {"int": ctypes.c_int64, "float": ctypes.c_float}
        types = [kinds.get(k, ctypes.c_void_p) for k in self.kinds]
        self._run = ctypes.CFUNCTYPE(None, *types)(self._engine.get_function_address(self.function.name))

    def __call__(self, *args) -> None:
        """Run it, without the interpreter's lock."""
        self._run(*args)


def _machine() -> llvm.TargetMachine:
    """This processor; a new one for each kernel, whose it becomes and with which it ends."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # LLVM cannot tell here: it takes what the name of the processor says
        features = ""
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)
