"""VOTable in: binary tables as a stream, others through astropy, whole and in memory.

A query that overflowed or failed on the server is refused."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import BinaryIO
from xml.parsers import expat

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.errors import DataError
from xptools.io import votablestream
from xptools.io.reader import DAMAGE, Reader

LISTED = {
    "boolean": pa.bool_(),
    "unsignedByte": pa.uint8(),
    "short": pa.int16(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
}


def read(whole: BinaryIO, name: str, batch_rows: int) -> Reader:
    """The first table of a VOTable document."""
    streamed = votablestream.read(whole, name)
    if streamed is not None:
        return streamed
    whole.seek(0)
    from astropy.io import votable
    from astropy.io.votable.exceptions import VOTableSpecError

    try:
        _self_contained(whole, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = votable.parse(whole, verify="ignore")
            infos = [(i.name or "", i.value or "", i.content or "") for r in document.resources for i in r.infos]
            votablestream.refuse_status(infos, name)
            table = document.get_first_table()
    except (*DAMAGE, VOTableSpecError, Warning, expat.ExpatError, UnboundLocalError) as fault:  # the last: no STREAM
        reason = str(fault).splitlines()[0][:120] if str(fault) else type(fault).__name__
        raise DataError(f"{name} is a damaged or cut-off VOTable ({reason}). TRY: download it again") from fault
    if table.array.dtype.names is None:
        raise DataError(f"{name} is a VOTable without columns. TRY: look at its INFO elements for the server's words")
    fields = [_field(f, table.array[n]) for f, n in zip(table.fields, table.array.dtype.names, strict=True)]
    fields = _own_units(whole, fields)
    schema = pa.schema(fields, _history(document))
    return Reader(name, "votable", schema, len(table.array), _rows(table.array, schema, batch_rows))


def _self_contained(whole: BinaryIO, name: str) -> None:
    """DataError if any data are elsewhere: astropy would get them, by the network or from any file of this machine."""

    def start(tag: str, attributes: dict[str, str]) -> None:
        href = next((value for key, value in attributes.items() if key.rpartition(":")[2] == "href"), None)
        if tag.rpartition(":")[2] == "STREAM" and href is not None:
            raise DataError(f"the data of {name} are not in it, but in {href[:80]}. TRY: save it with its data inside")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.ParseFile(whole)
    whole.seek(0)


def _history(document) -> dict[bytes, bytes] | None:
    infos = [i for r in document.resources for i in r.infos if i.name and i.name.startswith("xp.provenance.")]
    return {metadata.HISTORY: ("[" + ", ".join(i.value for i in infos) + "]").encode()} if infos else None


def _own_units(whole: BinaryIO, fields: list[pa.Field]) -> list[pa.Field]:
    """The fields with their units as the file spells them; astropy would order and name them its own way."""
    names = [f.name for f in fields]
    units: list[tuple[str, str]] = []
    whole.seek(0)
    for _, element in ET.iterparse(whole, ("start",)):
        tag = element.tag.rpartition("}")[2]
        if tag == "FIELD":
            units.append((element.get("name") or element.get("ID") or "", element.get("unit") or ""))
        elif tag in ("DATA", "RESOURCE", "TABLE"):
            if [n for n, _ in units] == names:
                break
            units = []
    if len(units) != len(fields):
        return fields
    return [
        f.with_metadata({**(f.metadata or {}), "unit": u}) if u else f for f, (_, u) in zip(fields, units, strict=True)
    ]


def _field(field, column: np.ma.MaskedArray) -> pa.Field:
    words = {"ucd": field.ucd, "description": " ".join(field.description.split()) if field.description else None}
    if field.datatype in ("char", "unicodeChar"):
        kind = pa.string()
    elif column.dtype.kind == "O":
        if field.datatype not in LISTED:
            raise DataError(f"VOTable column {field.name} has {field.datatype} arrays. TRY: save the table without it")
        kind = pa.list_(pa.field("item", LISTED[field.datatype], nullable=False))
    elif column.dtype.kind == "c":
        raise DataError(f"VOTable column {field.name} has complex numbers. TRY: save the table without it")
    else:
        kind = pa.from_numpy_dtype(column.dtype.base.newbyteorder("="))
        if column.ndim > 1:
            kind = pa.list_(pa.field("item", kind, nullable=False), int(np.prod(column.shape[1:])))
    return pa.field(field.name or field.ID, kind, metadata={k: str(v) for k, v in words.items() if v})


def _rows(array: np.ma.MaskedArray, schema: pa.Schema, batch_rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(array), batch_rows):
        block = array[start : start + batch_rows]
        columns = [_array(block[n], f) for n, f in zip(array.dtype.names, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _array(column: np.ma.MaskedArray, field: pa.Field) -> pa.Array:
    values, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    if pa.types.is_string(field.type):
        gaps = mask if mask.dtype == bool and mask.ndim == 1 else np.zeros(len(values), bool)
        return pa.array([None if gap else str(v) for v, gap in zip(values, gaps, strict=True)], pa.string())
    if pa.types.is_list(field.type):
        return pa.array([_listed(v, field.type.value_type) for v in values], field.type)
    values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    if pa.types.is_fixed_size_list(field.type):
        flat = np.where(mask, np.nan, values) if values.dtype.kind == "f" else values
        flat = np.ascontiguousarray(flat.astype(values.dtype)).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, field.type.value_type), type=field.type)
    return pa.array(values, field.type, mask=mask if mask.any() else None)


def _listed(value, kind: pa.DataType) -> list | None:
    if value is None or value is np.ma.masked:
        return None
    if pa.types.is_floating(kind):
        return np.ma.filled(np.ma.asarray(value, dtype=float), np.nan).ravel().tolist()
    return np.ma.getdata(np.ma.asarray(value)).ravel().tolist()
