"""Column expressions such as `bp_rp0 > 1.2 and isfinite(feh)`: read once, checked, evaluated on arrays.

The text is parsed by `ast` and only the nodes listed here are accepted, so an expression can do arithmetic
and comparisons on columns and nothing else: no attribute, no index, no call outside FUNCTIONS.

Unknown values follow SQL (Kleene) logic: a comparison with NaN is neither true nor false, `not` of it is
still unknown, `false and unknown` is false, `true or unknown` is true. `isfinite(x)` is always known.
A condition is met where it is true; the caller is told where it is unknown.
"""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

FUNCTIONS = {
    "log10": np.log10, "sqrt": np.sqrt, "abs": np.abs, "sin": np.sin, "cos": np.cos, "radians": np.radians,
    "min": np.minimum, "max": np.maximum, "isfinite": np.isfinite, "where": np.where,
}  # fmt: skip
ARITY = {"min": (2, 9), "max": (2, 9), "where": (3, 3)}
CONSTANTS = {"pi": float(np.pi), "nan": float("nan"), "inf": float("inf")}
COMPARE: dict[type, Callable] = {
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal,
    ast.Eq: np.equal, ast.NotEq: np.not_equal,
}  # fmt: skip
ARITHMETIC: dict[type, Callable] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide, ast.Mod: np.mod, ast.Pow: np.float_power,
}  # fmt: skip
LONGEST = 4000
DEEPEST = 100
INT64 = 2**63
LARGEST = 10**308


class ExpressionError(ValueError):
    """What is wrong with an expression, as one sentence for its writer."""


@dataclass(frozen=True)
class Truth:
    """A condition on every row: `value` where `known`."""

    value: Any
    known: Any

    def __invert__(self) -> Truth:
        return Truth(~np.asarray(self.value) & self.known, self.known)

    def __and__(self, other: Truth) -> Truth:
        false = (self.known & ~np.asarray(self.value)) | (other.known & ~np.asarray(other.value))
        return Truth(self.value & other.value & self.known & other.known, (self.known & other.known) | false)

    def __or__(self, other: Truth) -> Truth:
        return ~(~self & ~other)


@dataclass(frozen=True)
class Expression:
    """A checked expression: its text and the columns it names, in order of first use."""

    text: str
    columns: tuple[str, ...]

    def condition(self, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(met, unknown), two bool arrays (N,); `arrays` holds the named columns, each (N,)."""
        truth = _truth(self._run(arrays), self.text)
        rows = len(next(iter(arrays.values())))
        known = np.broadcast_to(truth.known, (rows,))
        return np.broadcast_to(truth.value, (rows,)) & known, ~known

    def number(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The value on every row, float64 (N,); a condition gives 1 or 0, NaN where unknown."""
        value = self._run(arrays)
        rows = len(next(iter(arrays.values())))
        if isinstance(value, Truth):
            value = np.where(value.known, np.asarray(value.value, dtype=np.float64), np.nan)
        return np.array(np.broadcast_to(_numeric(value, self.text), (rows,)), dtype=np.float64)

    def _run(self, arrays: Mapping[str, np.ndarray]) -> Any:
        missing = [name for name in self.columns if name not in arrays]
        if missing:
            raise ExpressionError(unknown_name(missing[0], arrays))
        with np.errstate(all="ignore"):
            return _evaluate(_tree(self.text), arrays)


def parse(text: str) -> Expression:
    """The checked expression of `text`; ExpressionError says what is not allowed and where."""
    tree = _tree(text)
    columns: dict[str, None] = {}
    _check(tree, columns)
    if not columns:
        raise ExpressionError(f"'{text}' names no column")
    return Expression(text, tuple(columns))


def unknown_name(name: str, known: Any) -> str:
    """Sentence for a column that is not there, with the nearest one that is."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"there is no column '{name}'" + (f"; the nearest is '{near[0]}'" if near else "")


@lru_cache(maxsize=256)
def _tree(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ExpressionError(f"an expression of {len(text)} characters; the longest allowed has {LONGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as `1or x`, which the parser accepts with a warning
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        column = getattr(error, "offset", None)
        at = f" at character {column}" if column else ""
        raise ExpressionError(f"'{_short(text)}' is not an expression: {reason}{at}") from None


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


# Checking: every node of the tree, before any row is seen.


def _check(node: ast.AST, columns: dict[str, None]) -> None:
    """Refuse every node that is not in the language; collect the columns in `columns`."""
    pending = [(node, 1)]
    while pending:
        node, depth = pending.pop()
        if depth > DEEPEST:
            raise ExpressionError(f"an expression nested deeper than {DEEPEST} levels")
        rule = CHECKS.get(type(node))
        if rule is None:
            raise ExpressionError(f"'{_source(node)}' is not allowed in an expression ({_kind(node)})")
        pending.extend((child, depth + 1) for child in reversed(rule(node, columns)))


def _kind(node: ast.AST) -> str:
    return {"Attribute": "attributes", "Subscript": "indices", "Lambda": "lambdas", "JoinedStr": "f-strings"}.get(
        type(node).__name__, type(node).__name__
    )


def _source(node: ast.AST) -> str:
    try:
        return _short(ast.unparse(node))
    except (RecursionError, ValueError):
        return _kind(node)


def _check_name(node: ast.Name, columns: dict[str, None]) -> list:
    if node.id in FUNCTIONS:
        raise ExpressionError(f"'{node.id}' is a function; write {node.id}(...)")
    if node.id not in CONSTANTS:
        columns[node.id] = None
    return []


def _check_constant(node: ast.Constant, columns: dict[str, None]) -> list:
    if not isinstance(node.value, bool | int | float | str):
        raise ExpressionError(f"the constant {_source(node)} is neither a number, a truth value nor a word")
    return []


def _check_binary(node: ast.BinOp, columns: dict[str, None]) -> list:
    if isinstance(node.op, ast.BitAnd | ast.BitOr):
        if isinstance(node.left, ast.Constant) and not isinstance(node.left.value, bool):
            sign = "&" if isinstance(node.op, ast.BitAnd) else "|"
            raise ExpressionError(
                f"'{_source(node)}': {sign} binds tighter than a comparison; "
                f"write (a > 1) {sign} (b < 2), or use the words and, or"
            )
    elif type(node.op) not in ARITHMETIC:
        raise ExpressionError(f"the operator in '{_source(node)}' is not allowed; there are + - * / // % ** & |")
    return [node.left, node.right]


def _check_unary(node: ast.UnaryOp, columns: dict[str, None]) -> list:
    return [node.operand]


def _check_compare(node: ast.Compare, columns: dict[str, None]) -> list:
    rest = []
    for op, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
                raise ExpressionError(f"'{_source(node)}': the right of 'in' is a list of constants, (1, 2, 3)")
            rest.extend(right.elts)
        elif type(op) not in COMPARE:
            raise ExpressionError(f"'{_source(node)}': there are < <= > >= == != in, not 'is'")
        else:
            rest.append(right)
    return [node.left, *rest]


def _check_call(node: ast.Call, columns: dict[str, None]) -> list:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    if name not in FUNCTIONS:
        called = name or _source(node.func)
        raise ExpressionError(f"there is no function '{called}'; there are {' '.join(FUNCTIONS)}")
    if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
        raise ExpressionError(f"{name}(...) takes plain arguments")
    low, high = ARITY.get(name, (1, 1))
    if not low <= len(node.args) <= high:
        raise ExpressionError(f"{name}(...) takes {low} argument{'s' * (low > 1)}, not {len(node.args)}")
    return list(node.args)


CHECKS: dict[type, Callable] = {
    ast.Name: _check_name, ast.Constant: _check_constant, ast.BinOp: _check_binary, ast.UnaryOp: _check_unary,
    ast.Compare: _check_compare, ast.Call: _check_call, ast.BoolOp: lambda node, columns: list(node.values),
}  # fmt: skip


# Evaluation: a node is a number (array or scalar), a word, or a Truth.


def _evaluate(node: ast.AST, arrays: Mapping[str, np.ndarray]) -> Any:
    return EVALUATE[type(node)](node, arrays)


def _evaluate_name(node: ast.Name, arrays: Mapping[str, np.ndarray]) -> Any:
    if node.id in CONSTANTS:
        return CONSTANTS[node.id]
    column = np.asarray(arrays[node.id])
    if column.ndim != 1:
        raise ExpressionError(f"the column '{node.id}' holds arrays, an expression takes one number a row")
    if column.dtype.kind == "b":
        return Truth(column, True)
    return column.astype(np.int64) if column.dtype.kind == "i" else column


def _evaluate_constant(node: ast.Constant, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(node.value, bool):
        return Truth(np.bool_(node.value), True)
    if isinstance(node.value, int) and abs(node.value) >= INT64:
        return np.inf if node.value > LARGEST else float(node.value)
    return node.value


def _evaluate_binary(node: ast.BinOp, arrays: Mapping[str, np.ndarray]) -> Any:
    left, right = _evaluate(node.left, arrays), _evaluate(node.right, arrays)
    if isinstance(node.op, ast.BitAnd | ast.BitOr):
        return _bits(node, left, right)
    a, b = _numeric(left, _source(node.left)), _numeric(right, _source(node.right))
    if isinstance(node.op, ast.FloorDiv | ast.Mod) and (np.ndim(b) or b == 0):
        a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)  # x // 0 is unknown, not numpy's 0
    try:
        return ARITHMETIC[type(node.op)](a, b)
    except OverflowError:
        return ARITHMETIC[type(node.op)](np.asarray(a, dtype=np.float64), float(b))


def _bits(node: ast.BinOp, left: Any, right: Any) -> Any:
    if not isinstance(left, Truth) and not isinstance(right, Truth) and _integer(left) and _integer(right):
        return left & right if isinstance(node.op, ast.BitAnd) else left | right
    a, b = _truth(left, _source(node.left)), _truth(right, _source(node.right))
    return a & b if isinstance(node.op, ast.BitAnd) else a | b


def _integer(value: Any) -> bool:
    return np.asarray(value).dtype.kind == "i"


def _evaluate_unary(node: ast.UnaryOp, arrays: Mapping[str, np.ndarray]) -> Any:
    value = _evaluate(node.operand, arrays)
    if isinstance(node.op, ast.Not):
        return ~_truth(value, _source(node.operand))
    if isinstance(node.op, ast.Invert):
        return ~_truth(value, _source(node.operand))
    number = _numeric(value, _source(node.operand))
    return -number if isinstance(node.op, ast.USub) else number


def _evaluate_bool(node: ast.BoolOp, arrays: Mapping[str, np.ndarray]) -> Truth:
    out = _truth(_evaluate(node.values[0], arrays), _source(node.values[0]))
    for value in node.values[1:]:
        term = _truth(_evaluate(value, arrays), _source(value))
        out = out & term if isinstance(node.op, ast.And) else out | term
    return out


def _evaluate_compare(node: ast.Compare, arrays: Mapping[str, np.ndarray]) -> Truth:
    left, out = _evaluate(node.left, arrays), Truth(np.bool_(True), True)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            choices = [_evaluate(item, arrays) for item in comparator.elts]
            term = _compare(np.equal, left, choices[0], node)
            for choice in choices[1:]:
                term = term | _compare(np.equal, left, choice, node)
            out = out & (~term if isinstance(op, ast.NotIn) else term)
            continue
        right = _evaluate(comparator, arrays)
        out = out & _compare(COMPARE[type(op)], left, right, node)
        left = right
    return out


def _compare(function: Callable, left: Any, right: Any, node: ast.AST) -> Truth:
    known = _known(left) & _known(right)
    a, b = (side.value if isinstance(side, Truth) else side for side in (left, right))
    if _word(a) != _word(b):
        raise ExpressionError(f"'{_source(node)}' compares a word with a number")
    if _word(a):
        a, b = (side if isinstance(side, str) else np.asarray(side, dtype=np.str_) for side in (a, b))
    return Truth(function(a, b) & known, known)


def _evaluate_call(node: ast.Call, arrays: Mapping[str, np.ndarray]) -> Any:
    name = node.func.id
    values = [_evaluate(argument, arrays) for argument in node.args]
    sources = [_source(argument) for argument in node.args]
    if name == "where":
        condition = _truth(values[0], sources[0])
        chosen = np.where(condition.value, _numeric(values[1], sources[1]), _numeric(values[2], sources[2]))
        return chosen if np.all(condition.known) else np.where(condition.known, chosen, np.nan)
    numbers = [_numeric(value, source) for value, source in zip(values, sources, strict=True)]
    if name == "isfinite":
        return Truth(np.isfinite(numbers[0]), True)
    out = FUNCTIONS[name](*numbers[:2]) if name in ARITY else FUNCTIONS[name](numbers[0])
    for number in numbers[2:]:
        out = FUNCTIONS[name](out, number)
    return out


EVALUATE: dict[type, Callable] = {
    ast.Name: _evaluate_name, ast.Constant: _evaluate_constant, ast.BinOp: _evaluate_binary,
    ast.UnaryOp: _evaluate_unary, ast.BoolOp: _evaluate_bool, ast.Compare: _evaluate_compare,
    ast.Call: _evaluate_call,
}  # fmt: skip


def _word(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "UO"


def _known(value: Any) -> Any:
    if isinstance(value, Truth):
        return np.asarray(value.known)
    array = np.asarray(value)
    if array.dtype.kind == "O":
        return np.array([isinstance(item, str) for item in array.ravel()]).reshape(array.shape)
    return ~np.isnan(array) if array.dtype.kind == "f" else np.ones(array.shape, dtype=bool)


def _numeric(value: Any, source: str) -> Any:
    if isinstance(value, Truth):
        value = np.where(value.known, np.asarray(value.value, dtype=np.float64), np.nan)
    if _word(value):
        raise ExpressionError(f"'{source}' is a word, a number is needed")
    return value


def _truth(value: Any, source: str) -> Truth:
    """A condition, or a 0/1 column with NaN for unknown (a bool column that has nulls)."""
    if isinstance(value, Truth):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "if" or not np.all((array == 0) | (array == 1) | np.isnan(array)):
        raise ExpressionError(f"'{source}' is not a condition; write for example ({source}) > 0, each in brackets")
    known = ~np.isnan(array)
    return Truth((array == 1) & known, known)
