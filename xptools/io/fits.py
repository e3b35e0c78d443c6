"""FITS binary tables, in and out, in pieces: astropy makes and reads the header, rows stream past it."""

import json
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.errors import DataError
from xptools.io.reader import Reader

CODES = {"bool": "L", "int16": "I", "int32": "J", "int64": "K", "float": "E", "double": "D", "int8": "I", "uint8": "B"}
BLOCK = 2880


def read(whole: BinaryIO, name: str, batch_rows: int) -> Reader:
    """The first binary table of a FITS file; raises DataError if there is none or the file is cut off."""
    from astropy.io import fits

    size = whole.seek(0, 2)
    whole.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hdus = fits.open(whole, memmap=False, lazy_load_hdus=False)
    except (OSError, ValueError, TypeError) as fault:
        raise DataError(f"{name} is a damaged FITS file ({fault}). TRY: download it again") from fault
    table = next((h for h in hdus if isinstance(h, fits.BinTableHDU)), None)
    if table is None:
        raise DataError(
            f"{name} is a FITS file without a binary table. TRY: xp info on the file that has the catalogue"
        )
    start, length = table._data_offset, table.header["NAXIS1"] * table.header["NAXIS2"]
    if start + length > size:
        raise DataError(f"{name} is a cut-off FITS file: {size:,} of {start + length:,} bytes. TRY: download it again")
    schema = pa.schema([_field(table, i) for i in range(len(table.columns))], _history(hdus))
    reader = Reader(name, "fits", schema, table.header["NAXIS2"], iter(()))
    reader.batches = _rows(whole, table, schema, start, batch_rows)
    return reader


def _field(table, i: int) -> pa.Field:
    column = table.columns[i]
    base, shape = column.dtype.base, column.dtype.shape
    scaled = column.bscale not in (None, "", 1) or column.bzero not in (None, "", 0)
    if base.kind in "SU":
        kind = pa.string()
    elif column.format.format == "L":
        kind = pa.bool_()
    else:
        kind = pa.float64() if scaled else pa.from_numpy_dtype(base.newbyteorder("="))
    if shape and kind != pa.string():
        kind = pa.list_(pa.field("item", kind, nullable=False), int(np.prod(shape)))
    header = table.header
    words = {
        "unit": column.unit,
        "ucd": header.get(f"TUCD{i + 1}"),
        "description": header.get(f"TCOMM{i + 1}") or header.comments[f"TTYPE{i + 1}"],
    }
    unsupported = column.format.format in "PQ"
    if unsupported:
        raise DataError(
            f"FITS column {column.name} has arrays of variable length. TRY: save the table as Parquet or VOTable"
        )
    return pa.field(column.name, kind, metadata={k: str(v) for k, v in words.items() if v})


def _history(hdus) -> dict[bytes, bytes] | None:
    text = hdus[0].header.get("XPHIST")
    return {metadata.HISTORY: text.encode()} if text else None


def _rows(whole: BinaryIO, table, schema: pa.Schema, start: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    dtype = table.columns.dtype.newbyteorder(">")
    total = table.header["NAXIS2"]
    for first in range(0, total, batch_rows):
        n = min(batch_rows, total - first)
        whole.seek(start + first * dtype.itemsize)
        block = np.frombuffer(whole.read(n * dtype.itemsize), dtype, n)
        yield pa.RecordBatch.from_arrays([_array(block, table, i, f) for i, f in enumerate(schema)], schema=schema)


def _array(block: np.ndarray, table, i: int, field: pa.Field) -> pa.Array:
    column, raw = table.columns[i], block[block.dtype.names[i]]
    if pa.types.is_string(field.type):
        return pa.array(np.char.decode(raw, "utf-8", "replace").tolist(), pa.string())
    fixed = pa.types.is_fixed_size_list(field.type)
    item = field.type.value_type if fixed else field.type
    if pa.types.is_boolean(item):
        values = raw == ord("T") if raw.dtype.kind != "S" else raw == b"T"
        missing = raw == 0
    else:
        missing = raw == column.null if column.null not in (None, "") and raw.dtype.kind in "iu" else None
        values = raw.astype(raw.dtype.newbyteorder("="))
        if pa.types.is_float64(item) and (column.bscale or column.bzero):
            values = values * float(column.bscale or 1) + float(column.bzero or 0)
    if fixed:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), item), type=field.type)
    return pa.array(values, item, mask=missing if missing is not None and np.any(missing) else None)


class FitsSink:
    """A FITS file written row block by row block; the row count is filled in at the end, so the target must seek."""

    def __init__(self, raw, schema: pa.Schema, lengths: dict[str, int]):
        self.raw, self.schema, self.rows, self.lengths = raw, schema, 0, lengths
        self.parts = [_layout(f, lengths) for f in schema]
        self.dtype = np.dtype([(f"c{i}", *p[1:]) for i, p in enumerate(self.parts)])
        self.start = raw.tell()
        raw.write(self._headers(0))

    def write(self, batch: pa.RecordBatch) -> None:
        block = np.zeros(batch.num_rows, self.dtype)
        for i, column in enumerate(batch.columns):
            block[f"c{i}"] = _values(column, self.dtype[i])
        self.raw.write(block.tobytes())
        self.rows += batch.num_rows

    def close(self) -> None:
        end = self.rows * self.dtype.itemsize
        self.raw.write(b"\0" * (-end % BLOCK))
        self.raw.seek(self.start)
        self.raw.write(self._headers(self.rows))
        self.raw.seek(0, 2)
        self.raw.flush()

    def abort(self) -> None:
        """Nothing: the header says no rows, and the file is thrown away."""

    def _headers(self, rows: int) -> bytes:
        from astropy.io import fits

        primary = fits.PrimaryHDU()
        records = metadata.history(self.schema)
        if records:
            primary.header["XPHIST"] = json.dumps(records)
        columns = [
            fits.Column(f.name, p[0], unit=metadata.unit_of(f) or None, array=np.zeros((0, *self.dtype[i].shape), p[1]))
            for i, (f, p) in enumerate(zip(self.schema, self.parts, strict=True))
        ]
        table = fits.BinTableHDU.from_columns(columns, nrows=0)
        for i, f in enumerate(self.schema):
            words = metadata.words_of(f)
            if "ucd" in words:
                table.header[f"TUCD{i + 1}"] = words["ucd"]
            if "description" in words:
                table.header[f"TCOMM{i + 1}"] = words["description"]
        table.header["NAXIS2"] = rows
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return primary.header.tostring().encode("ascii", "replace") + table.header.tostring().encode(
                "ascii", "replace"
            )


def _layout(field: pa.Field, lengths: dict[str, int]) -> tuple:
    kind, width = field.type, 1
    if pa.types.is_fixed_size_list(kind):
        kind, width = kind.value_type, kind.list_size
    if pa.types.is_string(kind):
        n = max(lengths.get(field.name, 1), 1)
        return f"{n}A", f"S{n}"
    code = CODES.get(str(kind))
    if code is None:
        raise DataError(f"FITS cannot hold column {field.name} of type {field.type}. TRY: .parquet")
    item = {"L": "S1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "B": "u1"}[code]
    return (f"{width}{code}", item, (width,)) if pa.types.is_fixed_size_list(field.type) else (code, item)


def _values(column: pa.Array, dtype: np.dtype) -> np.ndarray:
    from xptools.protocol import to_numpy

    if pa.types.is_string(column.type):
        texts = [v.encode() for v in column.fill_null("").to_pylist()]
        longest = max(map(len, texts), default=0)
        if longest > dtype.itemsize:
            raise DataError(
                f"a text of {longest} bytes does not fit FITS's fixed width of {dtype.itemsize}. TRY: .parquet or .vot"
            )
        return np.array(texts, dtype)
    values = to_numpy(column)
    if pa.types.is_boolean(column.type):
        return np.where(np.nan_to_num(values).astype(bool), b"T", b"F")
    return values
