"""VOTable's TABLEDATA: cells of text to Arrow columns (VOTable 1.4, sections 5.1 and 6)."""

import re

import numpy as np
import pyarrow as pa

from xptools.arrowcalls import call, cast
from xptools.errors import DataError

TRUTHS = {"T": True, "t": True, "1": True, "true": True, "F": False, "f": False, "0": False, "false": False}


def column(cells: list[str], known, first: int, name: str) -> pa.Array:
    """One column's cells as its Arrow type; an empty cell, or its null value, is null.

    `known` is the votablestream.Column, `first` the number of the first row, for messages. Raises DataError naming row
    and column where a cell is no value of the type.
    """
    field = known.arrow()
    if known.datatype in ("char", "unicodeChar"):
        return pa.array([c or None for c in cells], pa.string())
    if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
        return _arrays(cells, known, field.type, first, name)
    return _numbers([c.strip() for c in cells], field.type, known.null, (known.name, first, name))


def _numbers(texts: list[str], kind: pa.DataType, null: int | None, where: tuple) -> pa.Array:
    if pa.types.is_boolean(kind):
        truths = [TRUTHS.get(t) for t in texts]
        if bad := [i for i, (v, t) in enumerate(zip(truths, texts, strict=True)) if v is None and t not in ("", "?")]:
            raise _damage(where, bad[0], texts)
        return pa.array(truths, kind)
    array = pa.array([t or None for t in texts], pa.string())
    try:
        values = cast(array, kind)
    except pa.ArrowInvalid:
        values = pa.array(_slowly(texts, kind, where), kind)
    if null is not None and pa.types.is_integer(kind):
        values = call("if_else", call("equal", values, pa.scalar(null, kind)), pa.scalar(None, kind), values)
    return values


def _slowly(texts: list[str], kind: pa.DataType, where: tuple) -> list:
    """One by one: hexadecimal integers and other spellings that Arrow does not take."""
    out = []
    for i, text in enumerate(texts):
        try:
            out.append(None if not text else float(text) if pa.types.is_floating(kind) else int(text, 0))
            pa.scalar(out[-1], kind)  # within the type's range
        except (ValueError, pa.ArrowInvalid, OverflowError) as fault:
            raise _damage(where, i, texts) from fault
    return out


def _arrays(cells: list[str], known, kind: pa.DataType, first: int, name: str) -> pa.Array:
    parts = [cell.split() for cell in cells]
    counts = np.array([len(p) for p in parts], np.int64)
    where = (known.name, first, name)
    if known.count is not None and (bad := np.flatnonzero((counts != known.count) & (counts > 0))).size:
        raise _damage(where, int(bad[0]), cells)
    if known.count is not None:
        floats = pa.types.is_floating(kind.value_type)
        if not floats and (counts == 0).any():
            raise _damage(where, int(np.argmin(counts)), cells)
        parts = [p or ["NaN"] * known.count for p in parts]
    rows = np.repeat(np.arange(len(cells)), [len(p) for p in parts])
    flat = _numbers([t for p in parts for t in p], kind.value_type, None, (*where, rows))
    if known.count is not None:
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    gaps = pa.array([not c.strip() for c in cells]) if (counts == 0).any() else None
    return pa.ListArray.from_arrays(offsets, flat, kind, mask=gaps)


def _damage(where: tuple, at: int, texts: list[str]) -> DataError:
    """`where` is column, first row, file and, for the items of arrays, the row of each."""
    column, first, name, *rows = where
    row = first + int(rows[0][at] if rows else at) + 1
    text = re.sub(r"\s+", " ", texts[at])[:40]
    return DataError(f"{name}, row {row:,}, column {column}: {text!r} is no such value. TRY: mend the cell")
