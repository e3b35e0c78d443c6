"""VOTable: read through astropy (whole, in memory), written as BINARY2 row by row."""

import base64
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.errors import DataError
from xptools.io.reader import Reader

LINE = 57 * 1024


def read(whole: BinaryIO, name: str, batch_rows: int) -> Reader:
    """The first table of a VOTable document; a query that overflowed or failed on the server is refused."""
    from astropy.io import votable
    from astropy.io.votable.exceptions import VOTableSpecError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = votable.parse(whole, verify="ignore")
            table = document.get_first_table()
    except (VOTableSpecError, ValueError, IndexError, OSError, TypeError, EOFError) as fault:
        reason = str(fault).splitlines()[0][:120]
        raise DataError(f"{name} is a damaged or cut-off VOTable ({reason}). TRY: download it again") from fault
    _status(document, name)
    fields = [_field(f, table.array[f.ID if f.ID in table.array.dtype.names else f.name]) for f in table.fields]
    schema = pa.schema(fields, _history(document))
    return Reader(name, "votable", schema, len(table.array), _rows(table.array, schema, batch_rows))


def _status(document, name: str) -> None:
    for info in (i for r in document.resources for i in r.infos):
        if info.name == "QUERY_STATUS" and info.value in ("ERROR", "OVERFLOW"):
            words = (info.content or "").strip() or info.value
            raise DataError(
                f"{name} is the archive's {info.value.lower()} reply ({words[:120]}). TRY: ask for fewer rows"
            )


def _history(document) -> dict[bytes, bytes] | None:
    infos = [i for r in document.resources for i in r.infos if i.name and i.name.startswith("xp.provenance.")]
    return {metadata.HISTORY: ("[" + ", ".join(i.value for i in infos) + "]").encode()} if infos else None


def _field(field, column: np.ndarray) -> pa.Field:
    words = {"unit": field.unit and str(field.unit), "ucd": field.ucd, "description": field.description}
    if column.dtype.kind == "O" or column.dtype.kind in "US":
        text = field.datatype in ("char", "unicodeChar")
        kind = (
            pa.string()
            if text
            else pa.list_(metadata.ARROW_TYPES[{"float": "float32", "double": "float64"}.get(field.datatype, "int64")])
        )
    else:
        kind = pa.from_numpy_dtype(column.dtype.base.newbyteorder("="))
        if column.ndim > 1:
            kind = pa.list_(pa.field("item", kind, nullable=False), int(np.prod(column.shape[1:])))
    return pa.field(field.name, kind, metadata={k: str(v) for k, v in words.items() if v})


def _rows(array: np.ma.MaskedArray, schema: pa.Schema, batch_rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(array), batch_rows):
        block = array[start : start + batch_rows]
        columns = [_array(block[n], f) for n, f in zip(array.dtype.names, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _array(column: np.ma.MaskedArray, field: pa.Field) -> pa.Array:
    values, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    if pa.types.is_string(field.type):
        return pa.array([str(v) for v in values], pa.string())
    if pa.types.is_list(field.type):
        return pa.array(
            [np.ma.filled(v.astype(float) if v is not None else np.array([]), np.nan).tolist() for v in values],
            field.type,
        )
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    if pa.types.is_fixed_size_list(field.type):
        flat = np.where(mask, np.nan, values) if values.dtype.kind == "f" else values
        return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1), field.type.value_type), type=field.type)
    return pa.array(values, field.type, mask=mask if mask.any() else None)


class VotableSink:
    """A VOTable document with a BINARY2 stream; every row is null flags and big-endian values in base64."""

    def __init__(self, raw, schema: pa.Schema):
        self.raw, self.schema, self.rest = raw, schema, b""
        mark = "<!--rows-->"
        self.head, self.tail = metadata.votable_header(
            schema, {}, f"<DATA><BINARY2><STREAM encoding='base64'>\n{mark}</STREAM></BINARY2></DATA>\n"
        ).split(mark)
        self.flags = (len(schema) + 7) // 8
        raw.write(self.head.encode())

    def write(self, batch: pa.RecordBatch) -> None:
        self._encode(_binary2(batch, self.flags))

    def close(self) -> None:
        self.raw.write(base64.encodebytes(self.rest) + self.tail.encode())
        self.raw.flush()

    def abort(self) -> None:
        """An XML document without its end is refused by every reader."""

    def _encode(self, data: bytes) -> None:
        data = self.rest + data
        whole = len(data) - len(data) % LINE
        if whole:
            self.raw.write(base64.encodebytes(data[:whole]))
        self.rest = data[whole:]


def _binary2(batch: pa.RecordBatch, flags: int) -> bytes:
    fixed = [_fixed(c, f) for c, f in zip(batch.columns, batch.schema, strict=True)]
    if all(a.dtype != object for a in fixed):
        dtype = np.dtype([("null", "u1", (flags,)), *((f"c{i}", a.dtype, a.shape[1:]) for i, a in enumerate(fixed))])
        rows = np.zeros(batch.num_rows, dtype)
        for i, a in enumerate(fixed):
            rows[f"c{i}"] = a
        return rows.tobytes()
    # A numpy scalar's bytes are in native order whatever its array's, so every cell is taken as raw bytes first.
    cells = [a if a.dtype == object else _cells(a) for a in fixed]
    return b"".join(b"\0" * flags + b"".join(row) for row in zip(*cells, strict=True))


def _cells(a: np.ndarray) -> list[bytes]:
    width = a.itemsize * int(np.prod(a.shape[1:]))
    data = a.tobytes()
    return [data[i : i + width] for i in range(0, len(data), width)]


def _fixed(column: pa.Array, field: pa.Field) -> np.ndarray:
    from xptools.protocol import to_numpy

    kind = field.type.value_type if hasattr(field.type, "value_type") else field.type
    if pa.types.is_string(kind):
        texts = [v.encode("utf-16-be") for v in column.fill_null("").to_pylist()]
        out = np.empty(len(texts), object)
        out[:] = [np.array(len(t) // 2, ">i4").tobytes() + t for t in texts]
        return out
    if pa.types.is_list(field.type):
        out = np.empty(len(column), object)
        code = ">f4" if kind == pa.float32() else ">f8" if kind == pa.float64() else ">i8"
        out[:] = [
            np.array(len(v or []), ">i4").tobytes() + np.array(v or [], code).tobytes() for v in column.to_pylist()
        ]
        return out
    values = to_numpy(column)
    if pa.types.is_boolean(kind):
        return np.where(np.nan_to_num(values).astype(bool), b"T", b"F")
    wide = {"int8": ">i2", "uint16": ">i4", "uint32": ">i8", "uint64": ">i8"}.get(str(kind))
    return values.astype(wide or values.dtype.newbyteorder(">"))
