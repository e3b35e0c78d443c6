"""`info --stats` at the end of a pipe of `xp run`: figures of every column over all rows of all files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from xptools.columns import Column
from xptools.protocol import Fold

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.inspection import Moments

    State = dict[tuple[str, int], Moments]


@dataclass(frozen=True)
class Statistics(Fold):
    """Count, extremes, mean and standard deviation of numbers, of arrays element by element: what normalises them."""

    name: ClassVar[str] = "info"
    adds: ClassVar[dict[str, Column]] = {
        "column": Column("string", None, "meta.id", "The column"),
        "element": Column("int32", None, "meta.number", "Place in the array from 0; -1 where the column has none"),
        "count": Column("int64", None, "meta.number", "Rows where it is known"),
        "unknown": Column("int64", None, "meta.number", "Rows where it is null, NaN or infinite"),
        "min": Column("float64", None, "stat.min", "Smallest value, of whole numbers beyond 2^53 to 16 digits"),
        "max": Column("float64", None, "stat.max", "Largest value, likewise"),
        "mean": Column("float64", None, "stat.mean", "Mean"),
        "sd": Column("float64", None, "stat.stdev", "Standard deviation"),
    }

    def zero(self) -> State:
        """No column yet."""
        return {}

    def feed(self, state: State, batch: pa.RecordBatch) -> State:
        """The figures after these rows; every numeric column is read, whatever its name."""
        from xptools.inspection import Moments

        for key, values in _numbers(batch):
            state.setdefault(key, Moments()).add(values)
        return state

    def merge(self, one: State, other: State) -> State:
        """The figures of both."""
        from xptools.inspection import Moments

        for key, moments in other.items():
            one.setdefault(key, Moments()).merge(moments)
        return one

    def finish(self, state: State, schema: pa.Schema) -> dict[str, Any]:
        """One row a column, or an element of it."""
        import numpy as np

        state = _without_rows(schema) | state
        arrays = {name for name, k in state if k >= 0}
        blank = {name: m.unknown for (name, k), m in state.items() if k < 0 and name in arrays}
        told = {key: m.answer() for key, m in state.items() if key[0] not in blank or key[1] >= 0}
        lines = [(n, k, line | {"unknown": line["unknown"] + blank.get(n, 0)}) for (n, k), line in told.items()]
        out = {"column": [name for name, _, _ in lines], "element": np.array([k for _, k, _ in lines], np.int32)}
        for figure in ("count", "unknown", "min", "max", "mean", "sd"):
            values = [told.get(figure) for _, _, told in lines]
            out[figure] = np.array(values, np.int64 if figure in ("count", "unknown") else np.float64)
        return out


def _without_rows(schema: pa.Schema) -> State:
    """No star of any numeric column, or element of it."""
    from xptools.inspection import Moments, numeric

    out: State = {}
    for field in filter(lambda f: numeric(f.type), schema):
        many = range(getattr(field.type, "list_size", 0)) if hasattr(field.type, "value_type") else ()
        out |= {(field.name, k): Moments() for k in many or (-1,)}
    return out


def _numbers(batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """(column, element) and its values (N,)."""
    import numpy as np

    from xptools.inspection import numeric, values_of

    for field, column in zip(batch.schema, batch.columns, strict=True):
        if not numeric(field.type):
            continue
        values = values_of(column, field.name)
        if values.ndim == 1:
            yield (field.name, -1), values
        elif not values.shape[1]:  # arrays without a row that has one: how long they are others must tell
            yield (field.name, -1), np.full(len(values), np.nan)
        else:
            for k, element in enumerate(values.T):
                yield (field.name, k), element
