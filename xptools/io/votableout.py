"""VOTable out: BINARY2, row by row. Every row is null flags, then big-endian values, in base64."""

import binascii

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.arrowcalls import call, cast, filled
from xptools.errors import DataError

LINE = 57 * 1024  # bytes in a line of base64
WIDER = {"int8": ">i2", "uint16": ">i4", "uint32": ">i8", "uint64": ">i8"}


class VotableSink:
    """A VOTable document that is written as the rows come."""

    def __init__(self, raw, schema: pa.Schema):
        self.raw, self.schema, self.rest = raw, schema, b""
        mark = "<!--rows-->"
        self.head, self.tail = metadata.votable_header(
            schema, {}, f"<DATA><BINARY2><STREAM encoding='base64'>\n{mark}</STREAM></BINARY2></DATA>\n"
        ).split(mark)
        raw.write(self.head.encode())

    def write(self, batch: pa.RecordBatch) -> None:
        data = self.rest + _binary2(batch)
        whole = len(data) - len(data) % LINE
        if whole:
            self.raw.write(_base64(data[:whole]))
        self.rest = data[whole:]

    def close(self) -> None:
        self.raw.write(_base64(self.rest) + self.tail.encode())
        self.raw.flush()

    def abort(self) -> None:
        """An XML document without its end is refused by every reader."""


def _base64(data: bytes) -> bytes:
    """In long lines: short ones take four times as long."""
    return b"".join(binascii.b2a_base64(data[i : i + LINE]) for i in range(0, len(data), LINE))


def _binary2(batch: pa.RecordBatch) -> bytes:
    fixed = [_column(c, f) for c, f in zip(batch.columns, batch.schema, strict=True)]
    flags = _flags(batch)
    if all(a.dtype != object for a in fixed):
        dtype = np.dtype(
            [("null", "u1", (flags.shape[1],)), *((f"c{i}", a.dtype, a.shape[1:]) for i, a in enumerate(fixed))]
        )
        rows = np.zeros(batch.num_rows, dtype)
        rows["null"] = flags
        for i, a in enumerate(fixed):
            rows[f"c{i}"] = a
        return rows.tobytes()
    # A numpy scalar's bytes are in native order whatever its array's, so every cell is taken as raw bytes first.
    cells = [_cells(flags), *(a if a.dtype == object else _cells(a) for a in fixed)]
    return b"".join(b"".join(row) for row in zip(*cells, strict=True))


def _flags(batch: pa.RecordBatch) -> np.ndarray:
    """One bit a column and row, set where a value is missing that NaN cannot say."""
    bits = np.zeros((batch.num_rows, batch.num_columns), bool)
    for i, (column, field) in enumerate(zip(batch.columns, batch.schema, strict=True)):
        if column.null_count and not _floats(field.type):
            bits[:, i] = call("is_null", column).to_numpy(zero_copy_only=False)
    return np.packbits(bits, axis=1)


def _floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind.value_type if pa.types.is_fixed_size_list(kind) else kind)


def _cells(a: np.ndarray) -> list[bytes]:
    width = a.itemsize * int(np.prod(a.shape[1:]))
    data = a.tobytes()
    return [data[i : i + width] for i in range(0, len(data), width)]


def _column(column: pa.Array, field: pa.Field) -> np.ndarray:
    """The column's big-endian values, or an object array of byte strings if they have no common width."""
    kind = field.type
    if pa.types.is_fixed_size_list(kind) and (pa.types.is_primitive(kind.value_type)):
        return _fixed_lists(column, field)
    if pa.types.is_list(kind) and pa.types.is_primitive(kind.value_type):
        return _objects([_sized(np.asarray(v or [], _code(kind.value_type))) for v in column.to_pylist()])
    if pa.types.is_integer(kind):
        values = filled(column, 0).to_numpy(zero_copy_only=False)
        if kind == pa.uint64() and (values >= 1 << 63).any():
            raise DataError(f"column {field.name} has values over 2^63, too large for VOTable. TRY: .parquet")
        return values.astype(_code(kind))
    if pa.types.is_boolean(kind):
        marks = np.where(filled(column, False).to_numpy(zero_copy_only=False), b"T", b"F")
        return np.where(call("is_null", column).to_numpy(zero_copy_only=False), b"?", marks)
    if pa.types.is_floating(kind):
        return column.to_numpy(zero_copy_only=False).astype(_code(kind))
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise DataError(f"VOTable cannot hold column {field.name} of type {kind}. TRY: .parquet, or convert --drop")
    texts = filled(cast(column, pa.string()), "").to_pylist()
    return _objects([np.array(len(t) // 2, ">i4").tobytes() + t for t in (v.encode("utf-16-be") for v in texts)])


def _fixed_lists(column: pa.Array, field: pa.Field) -> np.ndarray:
    from xptools.protocol import to_numpy

    if column.null_count and not _floats(field.type):
        raise DataError(f"VOTable cannot hold a missing row of the array column {field.name}. TRY: .parquet")
    values = to_numpy(column, field.name)
    return np.where(values, b"T", b"F") if values.dtype == bool else values.astype(_code(field.type.value_type))


def _code(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "S1"
    return WIDER.get(str(kind)) or np.dtype(kind.to_pandas_dtype()).newbyteorder(">").str


def _sized(values: np.ndarray) -> bytes:
    return np.array(len(values), ">i4").tobytes() + values.tobytes()


def _objects(cells: list[bytes]) -> np.ndarray:
    out = np.empty(len(cells), object)
    out[:] = cells
    return out
