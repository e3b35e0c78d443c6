"""A reply as a part of the table: columns as xp knows them, rows in source_id order, in a file of its own."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from xptools import io, metadata
from xptools.archive.manifest import Range
from xptools.columns import KNOWN
from xptools.errors import DataError

BATCH = 1 << 16


def named(lo: int, kind: str) -> str:
    """The file of the range that begins at `lo`, of a kind (parquet, arrow): names ascend as the ranges do."""
    return f"part-{lo:019d}.{kind}"


def schema_of(reply: pa.Schema) -> pa.Schema:
    """The columns of a fetch from those of a reply: names in lower case, what xp knows as xp has it."""
    fields = []
    for field in reply:
        name = field.name.lower()
        known = KNOWN.get(name)
        if known is not None:
            fields.append(metadata.field_of(name, known).with_nullable(True))
        else:
            fields.append(field.with_name(name).with_nullable(True))
    names = [f.name for f in fields]
    if double := next((n for n in names if names.count(n) > 1), None):
        raise DataError(f"the query gives two columns {double}. TRY: name one of them with AS")
    return pa.schema(fields)


def conformed(table: pa.Table, schema: pa.Schema, host: str) -> pa.Table:
    """The table with these columns and types, in source_id order if there is one; values are never changed."""
    there = {n.lower(): n for n in table.schema.names}
    arrays = []
    for field in schema:
        if field.name not in there:
            raise DataError(f"{host} gives no column {field.name}. TRY: --columns without it, or another --service")
        column = table.column(there[field.name])
        try:
            if pa.types.is_integer(field.type) and pa.types.is_floating(column.type):
                raise pa.ArrowInvalid("it is floating point, so digits are lost")
            arrays.append(column if column.type == field.type else pc.cast(column, field.type, safe=_exact(field.type)))
        except pa.ArrowException as fault:
            words = f"{host} gives the column {field.name} as {column.type}, not {field.type} ({fault})"
            raise DataError(f"{words}. TRY: another --service") from fault
    out = pa.Table.from_arrays(arrays, schema=schema)
    return out.sort_by("source_id") if "source_id" in schema.names else out


def _exact(kind: pa.DataType) -> bool:
    # A float32 that a service sends as float64 is cut back to what it was.
    return not pa.types.is_floating(kind)


def doubles(table: pa.Table) -> int:
    """Rows whose source_id came before (the table is sorted by it)."""
    if "source_id" not in table.schema.names or table.num_rows < 2:
        return 0
    ids = table["source_id"].combine_chunks()
    return int(pc.sum(pc.equal(ids[1:], ids[:-1])).as_py() or 0)


def outside(table: pa.Table, lo: int, hi: int) -> int:
    """Rows whose source_id is not within the range, or null."""
    if "source_id" not in table.schema.names or not table.num_rows:
        return 0
    ids = table["source_id"]
    inside = pc.and_(pc.greater_equal(ids, lo), pc.less_equal(ids, hi))
    return table.num_rows - int(pc.sum(inside).as_py() or 0)


def write(path: Path, table: pa.Table) -> str:
    """Write a part, which appears whole or not at all; returns its sha256."""
    with io.open_writer(str(path), table.schema) as writer:
        for batch in table.to_batches(BATCH):
            writer.write(batch)
    return digest(path)


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a part."""
    with io.open_reader(str(path)) as reader:
        yield from reader


def fault(path: Path, r: Range, unique: bool, ranged: bool) -> str:
    """What is wrong with the part of a range, "" if nothing."""
    if not path.is_file():
        return "it is not there"
    if digest(path) != r.sha256:
        return "its bytes are not those that were written"
    with io.open_reader(str(path)) as reader:
        table = pa.Table.from_batches(list(reader), reader.schema)
    if table.num_rows != r.rows:
        return f"it has {table.num_rows:,} rows, not {r.rows:,}"
    if (unique and doubles(table)) or (ranged and outside(table, r.lo, r.hi)):
        return "it has a source twice, or one from elsewhere"
    return ""
