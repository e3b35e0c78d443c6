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
        "min": Column("float64", None, "stat.min", "Smallest value"),
        "max": Column("float64", None, "stat.max", "Largest value"),
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

        lines = [(*key, moments.answer()) for key, moments in state.items()]
        out = {"column": [name for name, _, _ in lines], "element": np.array([k for _, k, _ in lines], np.int32)}
        for figure in ("count", "unknown", "min", "max", "mean", "sd"):
            values = [told.get(figure) for _, _, told in lines]
            out[figure] = np.array(values, np.int64 if figure in ("count", "unknown") else np.float64)
        return out


def _numbers(batch: pa.RecordBatch) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """(column, element) and its values (N,)."""
    from xptools.inspection import numeric, values_of

    for field, column in zip(batch.schema, batch.columns, strict=True):
        if not numeric(field.type):
            continue
        values = values_of(column)
        if values.ndim == 1:
            yield (field.name, -1), values
        else:
            for k, element in enumerate(values.T):
                yield (field.name, k), element
