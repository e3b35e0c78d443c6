"""What a command is: RowOp (a row in, a row out), Cut (rows dropped or marked), Fold (rows to one table), Source.

A step is a frozen dataclass of plain values, so it pickles, compares, hashes and prints as its own history line. It
sees arrays, never tables; `arrays` carries them to Arrow and back. This module knows no file and no option.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from xptools.arrays import text_lists, to_arrow, to_numpy
from xptools.arrowcalls import filtered
from xptools.columns import KNOWN, Column, flag_column
from xptools.errors import DataError, MissingColumns, some

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Step:
    """What all four kinds share: the columns they read and write, and what goes into the history."""

    name: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    wants: ClassVar[tuple[str, ...]] = ()
    adds: ClassVar[dict[str, Column]] = {}
    flags: ClassVar[dict[int, str]] = {}
    cites: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()

    @property
    def drops(self) -> bool:
        """Whether rows may be left out."""
        return False

    @property
    def records(self) -> bool:
        """Whether the step stands in the history."""
        return True

    def params(self) -> dict[str, Any]:
        """The resolved parameters, as they stand in the history."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def files(self) -> dict[str, str]:
        """External files whose content decides the result: role -> path."""
        return {}

    def unread(self, schema: "pa.Schema") -> set[str]:
        """Columns that neither the step nor its output needs: a file's reader need not touch them."""
        return set()

    def meta_out(self, schema: "pa.Schema") -> dict[str, Any]:
        """Schema metadata this step adds: key -> a value that JSON can hold."""
        return {}

    def added(self) -> dict[str, Column]:
        """Every column this step writes, its flag column last."""
        flag = {f"{self.name}_flag": flag_column(self.name, self.flags)} if self.flags else {}
        return {**self.adds, **flag}

    def reads(self, schema: "pa.Schema") -> dict[str, str]:
        """Needed and wanted columns found in the schema: our name -> its spelling there. Case does not matter.

        Raises MissingColumns naming what is not there, DataError for a wrong unit.
        """
        found = {name: spelling for name in (*self.needs, *self.wants) if (spelling := spelled(schema, name))}
        missing = tuple(name for name in self.needs if name not in found)
        if missing:
            raise MissingColumns(self.name, missing, tuple(schema.names))
        for name, spelling in found.items():
            check_unit(name, schema.field(spelling))
        return found

    def schema(self, schema: "pa.Schema", replace: bool = False) -> "pa.Schema":
        """The output schema for an input schema, history included; raises before any row is read."""
        raise NotImplementedError(f"{type(self).__name__} is abstract")


class RowOp(Step):
    """One row in, one row out: `compute` takes arrays (first axis = star) and returns the added columns."""

    def compute(self, **columns: "np.ndarray | None") -> dict[str, "np.ndarray"]:
        """Arrays in, arrays out; NaN is unknown; never called without rows."""
        raise NotImplementedError

    def schema(self, schema: "pa.Schema", replace: bool = False) -> "pa.Schema":
        self.reads(schema)
        return _appended(self, schema, self.added(), replace)

    def __call__(self, batch: "pa.RecordBatch", replace: bool = False) -> "pa.RecordBatch":
        """The batch with this step's columns; batches are independent of one another."""
        out, reads = bound(self, batch.schema, replace)
        return self.append(batch, out, self.evaluate(batch, reads))

    def evaluate(self, batch: "pa.RecordBatch", reads: dict[str, str]) -> dict[str, "np.ndarray"]:
        """`compute` on the batch's columns; empty batches never reach it."""
        if batch.num_rows == 0:
            return {}
        return self.compute(**arguments(self, batch, reads))

    def append(self, batch, out: "pa.Schema", values: dict[str, "np.ndarray"]) -> "pa.RecordBatch":
        """Put computed columns into the batch as the schema `out` has them."""
        import pyarrow as pa

        added = self.added()
        columns = []
        for field in out:
            if field.name in added:
                columns.append(to_arrow(values.get(field.name), field, batch.num_rows, self.name))
            else:
                columns.append(batch.column(batch.schema.get_field_index(field.name)))
        return pa.RecordBatch.from_arrays(columns, schema=out)


class Tally:
    """The cut-flow of a Cut: int64 (cuts + 1, 3), rows left, rows rejected as unknown, rows that pass it alone.

    The first line counts the input. Tallies of different rows add.
    """

    def __init__(self, cuts: Iterable[str]):
        import numpy as np

        self.cuts = tuple(cuts)
        self.counts = np.zeros((len(self.cuts) + 1, 3), np.int64)

    def add(self, verdicts: "dict[str, tuple[np.ndarray, np.ndarray]]", rows: int) -> "np.ndarray":
        """Count some rows by their (passes, unknown) per cut; returns which pass all, bool (rows,)."""
        import numpy as np

        keep = np.ones(rows, bool)
        new = [(rows, 0, rows)]
        for passes, unknown in verdicts.values():
            lost = int((keep & unknown).sum())
            keep = keep & passes
            new.append((int(keep.sum()), lost, int(passes.sum())))
        if rows:
            self.counts += np.array(new, np.int64)
        return keep

    def __str__(self) -> str:
        left = [f"{cut} {int(n):,}" for cut, n in zip(self.cuts, self.counts[1:, 0], strict=True)]
        lost = int(self.counts[1:, 1].sum())
        words = f"; {lost:,} rejected because a value is unknown" if lost else ""
        return f"{int(self.counts[0, 0]):,} rows in; left after {', '.join(left)}{words}"


class Cut(Step):
    """Rows dropped or marked: `judge` tells, for each cut in the order of the cut-flow, who passes, who is unknown.

    A row that fails an earlier cut is not counted by a later one. With `flag` all rows stay, with one boolean column
    `in_<cut>` each, a bit in `<name>_flag` for each cut that failed, and what `measured` gives.
    """

    flag: bool = False

    @property
    def drops(self) -> bool:
        return not self.flag

    def judge(self, **columns: "np.ndarray | None") -> "dict[str, tuple[np.ndarray, np.ndarray]]":
        """Arrays in; per cut two boolean arrays out: passes, and unknown (which never passes)."""
        raise NotImplementedError

    def cuts(self) -> dict[str, str]:
        """The cuts this step makes, in order: name -> description. Known before the first row."""
        raise NotImplementedError

    def measures(self) -> dict[str, Column]:
        """Columns that `measured` computes, appended with `flag`."""
        return {}

    def measured(self, **columns: "np.ndarray | None") -> "dict[str, np.ndarray]":
        """What the cuts looked at, where it is no column of the input."""
        return {}

    def closed(self, tally: Tally, schema: "pa.Schema") -> None:
        """Called once, after the output is whole, with the counts of all rows and the output's schema."""

    def added(self) -> dict[str, Column]:
        if not self.flag:
            return {}
        marks = {f"in_{cut}": Column("bool", None, "meta.code", f"Passes: {text}") for cut, text in self.cuts().items()}
        bits = {1 << i: f"fails {text}" for i, text in enumerate(self.cuts().values())}
        return {**self.measures(), **marks, f"{self.name}_flag": flag_column(self.name, bits)}

    def schema(self, schema: "pa.Schema", replace: bool = False) -> "pa.Schema":
        self.reads(schema)
        return _appended(self, schema, self.added(), replace)

    def __call__(self, batch: "pa.RecordBatch", replace: bool = False, tally: Tally | None = None) -> "pa.RecordBatch":
        """The rows that pass, or all rows with marks; counted in `tally` if given."""
        import numpy as np
        import pyarrow as pa

        out, reads = bound(self, batch.schema, replace)
        n = batch.num_rows
        columns = arguments(self, batch, reads)
        nothing = np.zeros(0, bool)
        verdicts = self.judge(**columns) if n else dict.fromkeys(self.cuts(), (nothing, nothing))
        keep = (tally or Tally(verdicts)).add(verdicts, n)
        if not self.flag:
            return filtered(pa.RecordBatch.from_arrays(batch.columns, schema=out), keep)
        bits = np.zeros(n, np.int16)
        for i, (passes, _) in enumerate(verdicts.values()):
            bits |= np.where(passes, 0, 1 << i).astype(np.int16)
        marks = {f"in_{cut}": passes for cut, (passes, _) in verdicts.items()}
        values = {**(self.measured(**columns) if n else {}), **marks, f"{self.name}_flag": bits}
        own = self.added()
        arrays = [to_arrow(values.get(f.name), f, n, self.name) if f.name in own else batch.column(f.name) for f in out]
        return pa.RecordBatch.from_arrays(arrays, schema=out)


class Fold(Step):
    """Rows of any number to one small table; states merge in any order, so a stream and a tree give the same."""

    def zero(self) -> Any:
        """The state before any row."""
        raise NotImplementedError

    def add(self, state: Any, **columns: "np.ndarray | None") -> Any:
        """The state after these rows."""
        raise NotImplementedError

    def merge(self, one: Any, other: Any) -> Any:
        """The state of both."""
        raise NotImplementedError

    def finish(self, state: Any, schema: "pa.Schema") -> dict[str, "np.ndarray"]:
        """The columns of the result; `schema` is the input's. A key `meta` holds schema metadata, not a column."""
        raise NotImplementedError

    def schema(self, schema: "pa.Schema", replace: bool = False) -> "pa.Schema":
        """The result's schema without what only `finish` knows."""
        import pyarrow as pa

        self.reads(schema)
        empty = pa.schema([], metadata=schema.metadata)
        return _appended(self, empty, self.added(), True)

    def feed(self, state: Any, batch: "pa.RecordBatch") -> Any:
        """`add` on the batch's columns."""
        if batch.num_rows == 0:
            return state
        return self.add(state, **arguments(self, batch, self.reads(batch.schema)))

    def table(self, state: Any, schema: "pa.Schema") -> "pa.Table":
        """The result as a table, with its metadata."""
        import pyarrow as pa

        from xptools import metadata

        values = dict(self.finish(state, schema))
        extra = values.pop("meta", {})
        out = metadata.with_values(self.schema(schema), extra)
        n = len(next(iter(values.values())))
        return pa.Table.from_arrays([to_arrow(values[f.name], f, n, self.name) for f in out], schema=out)

    def __call__(self, batch: "pa.RecordBatch") -> "pa.Table":
        """Fold one batch: what `xp run` gives for a whole table in memory."""
        return self.table(self.feed(self.zero(), batch), batch.schema)


class Source(Step):
    """Rows from nothing: `batches(rows)` yields columns, equal whatever the batch size."""

    def rows(self) -> int | None:
        """How many rows will come, None if not known."""
        return None

    def batches(self, rows: int) -> Iterator[dict[str, "np.ndarray"]]:
        """Columns, at most `rows` long each time."""
        raise NotImplementedError

    def schema(self, schema: "pa.Schema | None" = None, replace: bool = False) -> "pa.Schema":
        import pyarrow as pa

        return _appended(self, schema if schema is not None else pa.schema([]), self.added(), replace)

    def record_batches(self, rows: int) -> Iterator["pa.RecordBatch"]:
        """`batches` as Arrow."""
        import pyarrow as pa

        out = self.schema()
        for columns in self.batches(rows):
            n = len(next(iter(columns.values())))
            arrays = [to_arrow(columns.get(f.name), f, n, self.name) for f in out]
            yield pa.RecordBatch.from_arrays(arrays, schema=out)


def spelled(schema: "pa.Schema", name: str) -> str | None:
    """How the schema spells a column's name (the archive has changed case before), or None."""
    if name in schema.names:
        return name
    same = [n for n in schema.names if n.lower() == name.lower()]
    return same[0] if len(same) == 1 else None


def arguments(step: Step, batch: "pa.RecordBatch", reads: dict[str, str]) -> dict[str, Any]:
    """A step's columns of a batch as arrays under our names; a wanted column that is absent is None."""
    arrays = {name: numeric(name, batch, spelling) for name, spelling in reads.items()}
    return {**dict.fromkeys(step.wants), **arrays}


def numeric(name: str, batch: "pa.RecordBatch", spelling: str) -> "np.ndarray":
    """A column of a batch under our name as numbers, null as NaN; DataError for text where we know none.

    Texts of arrays, which a table keeps that was a CSV file, become arrays.
    """
    column = batch.column(batch.schema.get_field_index(spelling))
    _check_items(column.type, spelling)
    array = to_numpy(column, spelling)
    known = KNOWN.get(name)
    if array.dtype == object and (known is None or known.type != "string"):
        array = text_lists(array, spelling)
    if array.dtype.kind in "mM":
        raise DataError(f"column {spelling} holds times, not numbers. TRY: xp convert --drop {spelling}")
    return array


def _check_items(kind: "pa.DataType", spelling: str) -> None:
    """DataError for arrays of anything but numbers."""
    from pyarrow import types as is_a

    item = kind.value_type if is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind) else None
    if item is not None and not (is_a.is_primitive(item) or is_a.is_null(item)):
        raise DataError(f"column {spelling} has arrays of {item}, not of numbers. TRY: xp convert --drop {spelling}")


def check_identifier(schema: "pa.Schema") -> None:
    """Refuse a source_id that went through float, even where a step does not read it: it would be passed on as true."""
    import pyarrow as pa

    spelling = spelled(schema, "source_id")
    if spelling and pa.types.is_floating(schema.field(spelling).type):
        raise DataError(
            f"column {spelling} is floating point, so its last digits are lost (19-digit integers). "
            "TRY: read it again from the source as int64, or xp convert --drop it"
        )


def check_unit(name: str, field: "pa.Field", needed: str | None = None) -> None:
    """DataError if a column says that its unit is another than `needed`, or than the known one of that name."""
    from xptools import metadata

    if needed is None:
        needed = KNOWN[name].unit if name in KNOWN else None
    if needed is None:
        return
    unit = metadata.unit_of(field)
    if unit and not metadata.same_unit(unit, needed):
        raise DataError(
            f"column {field.name} is in {unit}, but {needed} is needed. "
            f"TRY: xp convert --unit {field.name}={needed} if only the label is wrong, else rescale the values"
        )


def _appended(step: Step, schema: "pa.Schema", added: dict[str, Column], replace: bool) -> "pa.Schema":
    from xptools import metadata

    check_identifier(schema)
    taken = [name for name in added if name in schema.names]
    if taken and not replace:
        raise DataError(
            f"column{'s' * (len(taken) > 1)} {some(tuple(taken))} already there. "
            "TRY: --replace to compute again, or xp convert --drop"
        )
    for name, column in added.items():
        field = metadata.field_of(name, column)
        where = schema.get_field_index(name)
        schema = schema.set(where, field) if where >= 0 else schema.append(field)
    return metadata.with_values(metadata.with_record(schema, step), step.meta_out(schema))


@lru_cache(maxsize=64)
def _bound_cached(step: Step, packed: bytes, replace: bool):
    import pyarrow as pa

    schema = pa.ipc.read_schema(pa.py_buffer(packed))
    return step.schema(schema, replace), step.reads(schema)


def bound(step: Step, schema: "pa.Schema", replace: bool = False) -> tuple["pa.Schema", dict[str, str]]:
    """(`step.schema(schema)`, `step.reads(schema)`), worked out once for all batches of a table."""
    # Schemas compare equal whatever their metadata and units, so the key is every byte of them.
    return _bound_cached(step, schema.serialize().to_pybytes(), replace)
