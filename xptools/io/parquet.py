"""Parquet out: row groups of even size, and the metadata that TOPCAT and astropy look for, in every file.

astropy takes a null float list or text for an error and a null integer for a float, so a missing float is NaN here, a
missing array a row of NaN, a missing text an empty one. A missing integer or boolean stays null, with a warning.

Columns are compressed (zstd), but for arrays of numbers that hardly shrink, as measured values do: zstd would take two
thirds of the time to write and read a spectrum's correlations and save a twelfth of their bytes.
"""

import base64

import pyarrow as pa
import pyarrow.parquet as pq

from xptools import metadata, progress
from xptools.arrays import to_arrow, to_numpy
from xptools.arrowcalls import call, filled
from xptools.io.batches import width

GROUP_ROWS = 1 << 17
GROUP_BYTES = 64 << 20
SAMPLE = 1 << 18  # numbers of a column that tell whether it shrinks
WORTH = 0.85  # of its size, at most, that compression must leave


class ParquetSink:
    """Row groups of 131,072 rows or 64 MB; nothing is readable before `close` has written the footer."""

    def __init__(self, raw, schema: pa.Schema):
        self.schema, self.held, self.count = _firm(schema), [], 0
        self.group = max(1024, min(GROUP_ROWS, GROUP_BYTES // width(schema)))
        self.lengths = {f.name: 0 for f in schema if pa.types.is_string(f.type)}
        self.gaps: dict[str, int] = {}
        self.gate = Gate(raw)
        self.writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [self._profiled(c, f) for c, f in zip(batch.columns, self.schema, strict=True)]
        self.held.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self.count += batch.num_rows
        while self.count >= self.group:
            table = pa.Table.from_batches(self.held)
            self._put(table.slice(0, self.group))
            self.held = table.slice(self.group).to_batches()
            self.count -= self.group

    def _put(self, table: pa.Table) -> None:
        """Write a row group; the first one decides what is compressed."""
        if self.writer is None:
            # Readers look for metadata in the Arrow schema kept in the footer, and some of it is known only at the end.
            self.writer = pq.ParquetWriter(
                self.gate,
                self.schema.remove_metadata(),
                compression=_packing(table),
                use_dictionary=list(self.lengths),
                write_statistics=[f.name for f in self.schema if not _numbers(f.type)],
                store_schema=False,
            )
        if table.num_rows:
            self.writer.write_table(table, self.group)

    def close(self) -> None:
        if self.count or self.writer is None:
            self._put(pa.Table.from_batches(self.held, self.schema))
        full = metadata.with_values(self.schema, metadata.file_values(self.schema, self.lengths))
        arrow = base64.b64encode(full.serialize().to_pybytes()).decode()
        texts = {k.decode(): v.decode() for k, v in full.metadata.items()}
        self.writer.add_key_value_metadata({**dict(sorted(texts.items())), "ARROW:schema": arrow})
        self.writer.close()
        if self.gaps:
            names = ", ".join(list(self.gaps)[:4]) + (f" and {len(self.gaps) - 4} more" if len(self.gaps) > 4 else "")
            progress.warn(f"missing integers or booleans in {names}: astropy reads such columns as floating point")

    def abort(self) -> None:
        """No footer is ever written: pyarrow would write one on deletion, so the gate is shut."""
        self.gate.shut = True
        self.held.clear()

    def _profiled(self, column: pa.Array, field: pa.Field) -> pa.Array:
        kind = column.type
        if pa.types.is_string(kind):
            column = filled(column, "")
            longest = call("max", call("utf8_length", column)).as_py() or 0
            self.lengths[field.name] = max(self.lengths[field.name], longest)
        elif _numbers(kind):
            return to_arrow(to_numpy(column, field.name), field, len(column), "convert")
        elif column.null_count == 0:
            return column
        elif pa.types.is_floating(kind):
            return filled(column, float("nan"))
        elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            self.gaps[field.name] = self.gaps.get(field.name, 0) + column.null_count
        return column


class Gate:
    """A file object that can be shut, after which writes go nowhere."""

    def __init__(self, raw):
        self.raw, self.shut, self.closed = raw, False, False

    def write(self, data) -> int:
        """Write, unless shut."""
        return len(data) if self.shut else self.raw.write(data)

    def flush(self) -> None:
        """Flush, unless shut."""
        if not self.shut:
            self.raw.flush()

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.raw.tell()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The file belongs to the one who opened it."""
        self.closed = True


def _numbers(kind: pa.DataType) -> bool:
    """Whether a type is arrays of floating-point numbers."""
    return pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)


def _firm(schema: pa.Schema) -> pa.Schema:
    """The schema with no nulls in place of or inside arrays of numbers, which take longer to read."""
    for at, field in enumerate(schema):
        if _numbers(field.type):
            item = field.type.value_field.with_nullable(False)
            firm = field.with_type(pa.list_(item, field.type.list_size)).with_nullable(False)
            schema = schema.set(at, firm)
    return schema


def _packing(table: pa.Table) -> dict[str, str]:
    """The compression of each column, by its path in the file, from its first rows."""
    out = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if not _numbers(field.type):
            out[field.name] = "zstd"
            continue
        plain = to_numpy(column.slice(0, max(1, SAMPLE // field.type.list_size)), field.name).tobytes()
        worth = len(pa.compress(plain, "zstd", asbytes=True)) <= WORTH * len(plain)
        out[f"{field.name}.list.element"] = "zstd" if worth else "none"
    return out
