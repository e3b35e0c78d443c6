"""FITS binary tables out: rows in pieces, the row count filled in at the end, so the target must seek."""

import json

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.arrowcalls import call, filled
from xptools.errors import DataError
from xptools.io import fitscards
from xptools.io.spool import spool

CODES = {
    "bool": ("L", "u1"),
    "uint8": ("B", "u1"),
    "int8": ("I", ">i2"),
    "int16": ("I", ">i2"),
    "uint16": ("J", ">i4"),
    "int32": ("J", ">i4"),
    "uint32": ("K", ">i8"),
    "int64": ("K", ">i8"),
    "uint64": ("K", ">i8"),
    "float": ("E", ">f4"),
    "double": ("D", ">f8"),
}
NULLS = {"I": -(1 << 15), "J": -(1 << 31), "K": -(1 << 63)}
BLOCK, MOST = 2880, 999


class FitsSink:
    """A FITS file of one table. Texts have a fixed width in FITS, so a table with texts is held back until its end."""

    def __init__(self, raw, schema: pa.Schema):
        self.raw, self.schema, self.rows = raw, schema, 0
        self.lengths = {f.name: 1 for f in schema if pa.types.is_string(f.type)}
        for f in schema:
            _layout(f, self.lengths)
        if len(schema) > MOST:
            raise DataError(f"FITS holds {MOST} columns, not {len(schema)}. TRY: .parquet, or convert --drop")
        self.held = self.spool = None
        if self.lengths:
            self.spool = spool()
            self.held = pa.ipc.new_stream(self.spool, schema)
        else:
            self._begin()

    def write(self, batch: pa.RecordBatch) -> None:
        if self.held is None:
            self._put(batch)
            return
        for name in self.lengths:
            longest = call("max", call("binary_length", batch.column(name))).as_py() or 0
            self.lengths[name] = max(self.lengths[name], longest)
        self.held.write_batch(batch)

    def close(self) -> None:
        if self.held is not None:
            self.held.close()
            self.spool.seek(0)
            self._begin()
            for batch in pa.ipc.open_stream(self.spool):
                self._put(batch)
            self.spool.close()
        self.raw.write(b"\0" * (-(self.rows * self.dtype.itemsize) % BLOCK))
        self.raw.seek(self.start)
        self.raw.write(self._headers(self.rows))
        self.raw.seek(0, 2)
        self.raw.flush()

    def abort(self) -> None:
        """The header says no rows, and the file is thrown away."""
        if self.spool is not None:
            self.spool.close()

    def _begin(self) -> None:
        self.parts = [_layout(f, self.lengths) for f in self.schema]
        self.dtype = np.dtype([(f"c{i}", *p[1:]) for i, p in enumerate(self.parts)])
        self.start = self.raw.tell()
        self.raw.write(self._headers(0))

    def _put(self, batch: pa.RecordBatch) -> None:
        block = np.zeros(batch.num_rows, self.dtype)
        for i, (column, field) in enumerate(zip(batch.columns, self.schema, strict=True)):
            block[f"c{i}"] = _values(column, field, self.dtype[i])
        self.raw.write(block.tobytes())
        self.rows += batch.num_rows

    def _headers(self, rows: int) -> bytes:
        primary: list[tuple] = [("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)]
        if records := metadata.history(self.schema):
            primary.append(("XPHIST", _ascii(json.dumps(records))))
        return fitscards.written(primary) + fitscards.written(self._table_cards(rows))

    def _table_cards(self, rows: int) -> list[tuple]:
        header: list[tuple] = [("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", self.dtype.itemsize)]
        header += [("NAXIS2", rows), ("PCOUNT", 0), ("GCOUNT", 1), ("TFIELDS", len(self.schema))]
        for i, (f, part) in enumerate(zip(self.schema, self.parts, strict=True), 1):
            words = metadata.words_of(f)
            cards = {"TTYPE": f.name, "TFORM": part[0], "TUNIT": words.get("unit"), "TUCD": words.get("ucd")}
            cards["TCOMM"] = words.get("description")
            if part[0][-1] in NULLS and _null_value(f) is not None:
                cards["TNULL"] = _null_value(f)
            if f.type == pa.uint64():
                cards["TZERO"] = 1 << 63
            for key, value in cards.items():
                if value not in (None, ""):
                    header.append((f"{key}{i}", _ascii(value) if isinstance(value, str) else value))
        return header


def _ascii(text: str) -> str:
    clean = " ".join(text.split())
    return clean.encode("ascii", "replace").decode()


def _code(field: pa.Field, kind: pa.DataType) -> tuple[str, str]:
    # A byte has no value to spare for "missing", so a column that may lack some is written wider.
    return CODES["int16" if kind == pa.uint8() and field.nullable else str(kind)]


def _null_value(field: pa.Field) -> int | None:
    """The integer that means missing, for scalar integer columns that may have nulls."""
    if not field.nullable or not pa.types.is_integer(field.type) or field.type == pa.uint64():
        return None
    return NULLS[_code(field, field.type)[0]]


def _layout(field: pa.Field, lengths: dict[str, int]) -> tuple:
    kind, width = field.type, 1
    if pa.types.is_string(kind):
        n = max(lengths[field.name], 1)
        return f"{n}A", f"S{n}"
    if pa.types.is_fixed_size_list(kind):
        kind, width = kind.value_type, kind.list_size
    if str(kind) not in CODES:
        raise DataError(f"FITS cannot hold column {field.name} of type {field.type}. TRY: .parquet, or convert --drop")
    if pa.types.is_fixed_size_list(field.type):
        code, item = CODES[str(kind)]
        return f"{width}{code}", item, (width,)
    return _code(field, kind)


def _values(column: pa.Array, field: pa.Field, dtype: np.dtype) -> np.ndarray:
    from xptools.protocol import to_numpy

    if pa.types.is_string(column.type):
        return np.array([v.encode() for v in filled(column, "").to_pylist()], dtype)
    if pa.types.is_boolean(column.type):
        marks = np.where(filled(column, False).to_numpy(zero_copy_only=False), ord("T"), ord("F"))
        return np.where(call("is_null", column).to_numpy(zero_copy_only=False), 0, marks)
    if pa.types.is_integer(column.type):
        return _integers(column, field)
    values = to_numpy(column, field.name)
    if column.null_count and dtype.base.kind != "f":
        raise DataError(f"FITS cannot hold a missing row of the array column {field.name}. TRY: .parquet")
    return np.where(values, ord("T"), ord("F")) if values.dtype == bool else values


def _integers(column: pa.Array, field: pa.Field) -> np.ndarray:
    mark = _null_value(field)
    if column.null_count and mark is None:
        raise DataError(f"FITS cannot hold missing values in column {field.name}. TRY: .parquet")
    values = filled(column, 0).to_numpy(zero_copy_only=False)
    if column.type == pa.uint64():
        return (values ^ np.uint64(1 << 63)).view(np.int64)
    values = values.astype(np.int64)
    if mark is not None and (values == mark).any():
        raise DataError(f"column {field.name} has the value {mark}, which FITS takes for missing. TRY: .parquet")
    if not column.null_count:
        return values
    return np.where(call("is_null", column).to_numpy(zero_copy_only=False), mark, values)
