"""FITS binary tables in, in pieces: a header that is not plain is read by astropy, rows stream past it.

Columns are laid out from TFORM itself. Unsigned columns (TZERO at half range) stay integers, TNULL becomes null,
scaled columns become float64, bit and variable-length arrays become lists.
"""

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.arrowcalls import wrapped
from xptools.errors import DataError
from xptools.io import fitscards
from xptools.io.reader import Reader

NUMPY = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
UNSIGNED = {("B", -128): pa.int8(), ("I", 1 << 15): pa.int32(), ("J", 1 << 31): pa.int64(), ("K", 1 << 63): pa.uint64()}
ARROW = {
    "L": pa.bool_(),
    "X": pa.bool_(),
    "B": pa.uint8(),
    "I": pa.int16(),
    "J": pa.int32(),
    "K": pa.int64(),
    "E": pa.float32(),
    "D": pa.float64(),
    "A": pa.string(),
}


@dataclass(frozen=True)
class Layout:
    """One column: its bytes within a row and what they mean."""

    name: str
    code: str
    repeat: int
    offset: int
    size: int
    heap_code: str
    scale: float
    zero: float
    null: int | None

    @property
    def unsigned(self) -> pa.DataType | None:
        """The integer type of a column that FITS stores with an offset, because it has no unsigned types."""
        return UNSIGNED.get((self.code, self.zero)) if self.scale == 1 else None

    def item(self) -> pa.DataType:
        """The Arrow type of one value."""
        code = self.heap_code or self.code
        if self.unsigned is not None:
            return self.unsigned
        integer = code in "BIJK"
        if (self.scale, self.zero) != (1, 0) or (integer and self.null is not None and self.array):
            return pa.float64()
        return ARROW[code]

    @property
    def array(self) -> bool:
        """Whether a row holds several values."""
        return bool(self.heap_code) or (self.repeat != 1 and self.code != "A")


def read(whole: BinaryIO, name: str, batch_rows: int) -> Reader:
    """The first binary table of a FITS file; raises DataError if there is none or the file is cut off."""
    size = whole.seek(0, 2)
    try:
        found = fitscards.first_table(whole)
        if found is None:
            return _by_astropy(whole, name, size, batch_rows)
        return _reader(whole, name, *found, size, batch_rows)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as fault:
        reason = str(fault).splitlines()[0][:120] if str(fault) else type(fault).__name__
        raise DataError(f"{name} is a damaged FITS file ({reason}). TRY: download it again") from fault


def _by_astropy(whole: BinaryIO, name: str, size: int, batch_rows: int) -> Reader:
    """The table of a file whose headers have anything but plain cards in them."""
    from astropy.io import fits

    whole.seek(0)
    # astropy refuses a spooled file, which is open for writing too, so it gets a handle of its own.
    with warnings.catch_warnings(), open(os.dup(whole.fileno()), "rb") as handle:
        warnings.simplefilter("ignore")
        try:
            hdus = fits.open(handle, memmap=False, lazy_load_hdus=False)
            table = next((h for h in hdus if isinstance(h, fits.BinTableHDU)), None)
            if table is None:
                raise DataError(
                    f"{name} is a FITS file without a binary table. TRY: xp info on the file that has the catalogue"
                )
            start = table.fileinfo()["datLoc"]
            return _reader(whole, name, hdus[0].header, table.header, start, size, batch_rows)
        except fits.VerifyError as fault:  # also on looking at a card
            raise ValueError(str(fault)) from fault


def _reader(whole: BinaryIO, name: str, primary, header, start: int, size: int, batch_rows: int) -> Reader:
    rows, width = int(header["NAXIS2"]), int(header["NAXIS1"])
    end = start + rows * width + header.get("PCOUNT", 0)
    if end > size:
        raise DataError(f"{name} is a cut-off FITS file: {size:,} of {end:,} bytes. TRY: download it again")
    layouts = _layouts(header, name)
    fields = [_field(one, header, i + 1) for i, one in enumerate(layouts)]
    kept = [i for i, one in enumerate(layouts) if one.size]
    schema = pa.schema([fields[i] for i in kept], _history(primary))
    heap = start + header.get("THEAP", rows * width)
    batches = _rows(whole, [layouts[i] for i in kept], schema, (start, rows, width, heap), batch_rows)
    return Reader(name, "fits", schema, rows, batches)


def _layouts(header, name: str) -> list[Layout]:
    layouts, offset = [], 0
    for i in range(1, header["TFIELDS"] + 1):
        form = str(header.get(f"TFORM{i}", "")).strip()
        label = str(header.get(f"TTYPE{i}", f"col{i}")).strip()
        parts = re.match(r"(\d*)([LXBIJKAEDPQCM])([A-Z]?)", form)
        if parts is None or parts[2] in "CM":
            what = "complex numbers" if parts else f"the unknown format {form!r}"
            raise DataError(f"{name}: FITS column {label} has {what}. TRY: save the table without it")
        repeat, code = int(parts[1] or 1), parts[2]
        size = {"X": -(-repeat // 8), "A": repeat, "P": 8 * repeat, "Q": 16 * repeat}.get(code)
        if size is None:
            size = repeat * np.dtype(NUMPY[code]).itemsize
        heap = parts[3] if code in "PQ" else ""
        scale, zero = header.get(f"TSCAL{i}", 1), header.get(f"TZERO{i}", 0)
        layouts.append(Layout(label, code, repeat, offset, size, heap, scale, zero, header.get(f"TNULL{i}")))
        offset += size
    if offset != header["NAXIS1"]:
        raise DataError(
            f"{name} is a damaged FITS file: its columns take {offset} bytes a row, its header says "
            f"{header['NAXIS1']}. TRY: download it again"
        )
    return layouts


def _field(one: Layout, header, i: int) -> pa.Field:
    kind = one.item()
    if one.heap_code and one.heap_code != "A":
        kind = pa.list_(pa.field("item", kind, nullable=False))
    elif one.array and not one.heap_code:
        kind = pa.list_(pa.field("item", kind, nullable=False), one.repeat)
    note = header.comments[f"TTYPE{i}"] if f"TTYPE{i}" in header else ""
    words = {
        "unit": header.get(f"TUNIT{i}"),
        "ucd": header.get(f"TUCD{i}"),
        "description": header.get(f"TCOMM{i}") or ("" if note.startswith("label for") else note),
    }
    certain = pa.types.is_integer(kind) and one.null is None
    return pa.field(one.name, kind, not certain, {k: str(v).strip() for k, v in words.items() if v})


def _history(header) -> dict[bytes, bytes] | None:
    text = header.get("XPHIST")
    return {metadata.HISTORY: text.encode()} if text else None


def _rows(whole: BinaryIO, layouts: list[Layout], schema: pa.Schema, where: tuple, batch_rows: int) -> Iterator:
    start, total, width, heap = where
    for first in range(0, total, batch_rows):
        n = min(batch_rows, total - first)
        whole.seek(start + first * width)
        block = np.frombuffer(_exactly(whole, n * width), "u1").reshape(n, width)
        columns = []
        for one, field in zip(layouts, schema, strict=True):
            part = block[:, one.offset : one.offset + one.size]
            columns.append(_variable(part, one, field, whole, heap) if one.heap_code else _fixed(part, one, field))
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _exactly(whole: BinaryIO, size: int) -> bytes:
    # An unbuffered file may give less than asked for.
    parts = []
    while size and (block := whole.read(size)):
        parts.append(block)
        size -= len(block)
    if size:
        raise DataError("the FITS file became shorter while it was read. TRY: run again")
    return b"".join(parts)


def _fixed(part: np.ndarray, one: Layout, field: pa.Field) -> pa.Array:
    raw = np.ascontiguousarray(part)
    if one.code == "A":
        texts = np.char.decode(raw.view(f"S{one.size}")[:, 0], "utf-8", "replace").tolist()
        return pa.array([t.partition("\0")[0].rstrip(" ") for t in texts], pa.string())
    if one.code == "X":
        bits = np.unpackbits(raw, axis=1)[:, : one.repeat].astype(bool)
        return _wrapped(bits, None, field)
    values, missing = _decoded(raw.view(NUMPY[one.code]), one, field)
    return _wrapped(values, missing, field)


def _decoded(raw: np.ndarray, one: Layout, field: pa.Field) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and, for scalar integers and logicals, which are missing."""
    code = one.heap_code or one.code
    if code == "L":
        return raw == ord("T"), (raw != ord("T")) & (raw != ord("F"))
    missing = raw == one.null if one.null is not None and code in "BIJK" else None
    if one.unsigned is not None:
        wide = raw.astype(np.int64)
        shifted = wide.view(np.uint64) ^ np.uint64(1 << 63) if code == "K" else wide + int(one.zero)
        return shifted.astype(one.unsigned.to_pandas_dtype()), missing
    kind = (field.type.value_type if hasattr(field.type, "value_type") else field.type).to_pandas_dtype()
    values = raw.astype(kind)
    if (one.scale, one.zero) != (1, 0):
        values = values * float(one.scale) + float(one.zero)
    if missing is not None and np.issubdtype(kind, np.floating):
        return np.where(missing, np.nan, values), None
    return values, missing


def _wrapped(values: np.ndarray, missing: np.ndarray | None, field: pa.Field) -> pa.Array:
    if pa.types.is_fixed_size_list(field.type):
        flat = wrapped(np.ascontiguousarray(values).reshape(-1), field.type.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
    mask = missing[:, 0] if missing is not None and missing.any() else None
    return wrapped(values[:, 0], field.type, mask)


def _variable(part: np.ndarray, one: Layout, field: pa.Field, whole: BinaryIO, heap: int) -> pa.Array:
    """Arrays of variable length: each row points into the heap behind the table."""
    descriptors = np.ascontiguousarray(part).view(">i4" if one.code == "P" else ">i8").reshape(len(part), -1)
    dtype = np.dtype("S1" if one.heap_code == "A" else NUMPY[one.heap_code])
    out = []
    for count, offset in descriptors[:, :2].tolist():
        whole.seek(heap + offset)
        raw = np.frombuffer(_exactly(whole, count * dtype.itemsize), dtype)
        if one.heap_code == "A":
            out.append(raw.tobytes().decode("utf-8", "replace").rstrip(" \0"))
        else:
            out.append(_decoded(raw, one, field)[0])
    return pa.array(out, field.type)
