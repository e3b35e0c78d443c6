"""CSV and ECSV in, streamed; array columns are texts, "[a, b]" in ECSV, "(a, b)" too in the archive's CSV.

A CSV file does not say its types. Gaia's own columns have theirs; the others are guessed from the first 8 MB, and a
longer file is looked through once, so that neither a gap at its beginning nor a late decimal point spoils the guess.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from xptools import metadata
from xptools.arrays import listed
from xptools.arrowcalls import call, cast
from xptools.columns import KNOWN
from xptools.errors import DataError
from xptools.io.native import native
from xptools.io.reader import Reader

BLOCK = 8 << 20
NULLS = ["", "null", "NULL", "None", "--", "nan", "NaN", "NAN", "masked"]
TRUE, FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")


@dataclass
class Plan:
    """How to read one text table: what pyarrow must know, and what becomes of the texts that it leaves."""

    name: str
    delimiter: str
    skip: int
    types: dict[str, pa.DataType]
    arrays: dict[str, pa.DataType] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    words: dict[str, dict[str, str]] = field(default_factory=dict)
    history: dict[bytes, bytes] | None = None
    columns: list[str] = field(default_factory=list)

    def open(
        self, whole: BinaryIO, columns: list[str] | None = None, names: list[str] | None = None
    ) -> csv.CSVStreamingReader:
        """A pyarrow reader from the beginning, of these columns; ArrowInvalid for a bad row.

        With `names` the text has no header.
        """
        return csv.open_csv(
            native(whole),
            csv.ReadOptions(block_size=BLOCK, skip_rows=self.skip, column_names=names),
            csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=False),
            csv.ConvertOptions(
                null_values=NULLS, strings_can_be_null=True, column_types=self.types, include_columns=columns
            ),
        )


def read_csv(whole: BinaryIO, name: str) -> Reader:
    """A CSV file with a header line, after any lines that begin with #."""
    skip, first = 0, b""
    for first in iter(whole.readline, b""):
        if not first.startswith(b"#"):
            break
        skip += 1
    line = first.decode("utf-8-sig", "replace").strip()
    delimiter = max((",", "\t", ";", "|"), key=line.count)
    columns = [c.strip('"') for c in line.split(delimiter)]
    if len(columns) < 2 and not re.fullmatch(r"[A-Za-z_]\w*", columns[0]):
        raise DataError(
            f"{name} is text, but its first line is no CSV header: {line[:60]!r}. TRY: name the columns there"
        )
    known = {c: KNOWN[c.strip().lower()] for c in columns if c.strip().lower() in KNOWN}
    # A wrong int16 guess of ours must not refuse a file: small integers are read wide.
    types = {c: metadata.arrow_type(k.type) for c, k in known.items()}
    types = {
        c: pa.string() if pa.types.is_boolean(t) else pa.int64() if pa.types.is_integer(t) else t
        for c, t in types.items()
    }
    plan = Plan(name, delimiter, skip, types, flags={c for c, k in known.items() if k.type == "bool"}, columns=columns)
    plan.words = {c: {"unit": k.unit or "", "ucd": k.ucd, "description": k.text} for c, k in known.items()}
    try:
        _guess(plan, whole)
    except pa.ArrowInvalid as fault:
        raise _bad(plan, fault) from fault
    return _read(plan, whole)


def read_ecsv(whole: BinaryIO, name: str) -> Reader:
    """An ECSV file: types, units and shapes from its YAML header."""
    lines: list[str] = []
    for line in iter(whole.readline, b""):
        if not line.startswith(b"#"):
            break
        lines.append(line.decode("utf-8", "replace").removeprefix("#").removeprefix(" "))
    header = _ecsv_header("".join(lines), name)
    declared = header["datatype"]
    plan = Plan(name, header.get("delimiter", " "), len(lines), {d["name"]: _ecsv_type(d) for d in declared})
    plan.arrays = {d["name"]: _ecsv_array(d) for d in declared if _shaped(d)}
    plan.flags = {d["name"] for d in declared if d["datatype"] == "bool"}
    plan.columns = [d["name"] for d in declared]
    for d in declared:
        words = {**(d.get("meta") or {}), "unit": d.get("unit"), "description": d.get("description")}
        plan.words[d["name"]] = {k: str(words[k]) for k in ("unit", "ucd", "description") if words.get(k)}
    records = (header.get("meta") or {}).get("xp_provenance")
    plan.history = {metadata.HISTORY: records.encode()} if isinstance(records, str) else None
    reader = _read(plan, whole)
    reader.format = "ecsv"
    return reader


def _ecsv_header(text: str, name: str) -> dict:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def omap(loader, node):
        return {k: v for part in loader.construct_sequence(node, deep=True) for k, v in part.items()}

    Loader.add_constructor("tag:yaml.org,2002:omap", omap)
    Loader.add_multi_constructor("!", lambda loader, tag, node: None)
    body = text.split("---\n", 1)[-1]
    try:
        header = yaml.load(body, Loader)
        if all(isinstance(d["datatype"], str) and isinstance(d["name"], str) for d in header["datatype"]):
            return header
        fault = TypeError()
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        fault = error
    raise DataError(
        f"{name} has a broken ECSV header ({type(fault).__name__}). TRY: write it again with astropy"
    ) from fault


def _ecsv_type(declared: dict) -> pa.DataType:
    kind = {"float16": "float32", "float128": "float64"}.get(declared["datatype"], declared["datatype"])
    if kind == "bool" or _shaped(declared):
        return pa.string()
    return pa.type_for_alias(kind) if re.fullmatch(r"u?int\d+|float\d+", kind) else pa.string()


def _shaped(declared: dict) -> bool:
    return re.fullmatch(r"\w+\[[\d, null]+\]", str(declared.get("subtype"))) is not None


def _ecsv_array(declared: dict) -> pa.DataType:
    item, shape = declared["subtype"].rstrip("]").split("[")
    kind = pa.type_for_alias({"bool": "bool", "float16": "float32"}.get(item, item))
    value = pa.field("item", kind, nullable=False)
    sizes = shape.split(",")
    if any("null" in s for s in sizes):
        return pa.list_(value)
    return pa.list_(value, int(np.prod([int(s) for s in sizes])))


def _guess(plan: Plan, whole: BinaryIO) -> None:
    """Types of the columns that nobody knows, into `plan.types`; the whole file is looked at."""
    first = _first(plan, whole)
    if first is None:
        return
    guesses = {f.name: f.type for f in first.schema if f.name not in plan.types}
    for name, kind in guesses.items():
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            # Dates stay as they are written; a column without a value yet may become anything.
            guesses[name] = pa.int64() if pa.types.is_null(kind) else pa.string()
    plan.types |= guesses
    if whole.seek(0, 2) > BLOCK:
        empty = _looked_through(plan, whole, list(guesses))
    else:
        empty = {n for n in guesses if first[n].null_count == first.num_rows}
    plan.types |= dict.fromkeys(empty, pa.float64())
    for i, f in enumerate(first.schema):
        if (
            plan.types.get(f.name) == pa.string()
            and f.name not in plan.flags
            and (kind := _array_type(first.column(i)))
        ):
            plan.arrays[f.name] = kind


def _first(plan: Plan, whole: BinaryIO) -> pa.RecordBatch | None:
    """The first block. A column that only shares its name with one of Gaia's loses that one's type and unit."""
    while True:
        try:
            return plan.open(whole).read_next_batch()
        except StopIteration:
            return None
        except pa.ArrowInvalid as fault:
            name = _column_in(fault, plan)
            if name not in plan.types or name.strip().lower() == "source_id":
                raise
            for known in (plan.types, plan.words):
                known.pop(name, None)


def _looked_through(plan: Plan, whole: BinaryIO, columns: list[str]) -> set[str]:
    """Mend the guesses against every row; returns the columns that have no value at all."""
    while True:
        empty = set(columns)
        try:
            for batch in plan.open(whole, columns) if columns else ():
                empty -= {n for n in list(empty) if batch[n].null_count < batch.num_rows}
            return empty
        except pa.ArrowInvalid as fault:
            name = _column_in(fault, plan)
            wider = {pa.int64(): pa.float64(), pa.float64(): pa.string(), pa.bool_(): pa.string()}
            if name is None or plan.types[name] not in wider:
                raise
            plan.types[name] = wider[plan.types[name]]


def _column_in(fault: Exception, plan: Plan) -> str | None:
    number = re.search(r"In CSV column #(\d+)", str(fault))
    return plan.columns[int(number[1])] if number and int(number[1]) < len(plan.columns) else None


def _array_type(column: pa.Array) -> pa.DataType | None:
    texts = call("drop_null", column)
    if len(texts) == 0 or not pa.types.is_string(column.type):
        return None
    import pyarrow.compute as pc

    if not pc.all(pc.match_substring_regex(texts, r"^[(\[].*[)\]]$")).as_py():
        return None
    sizes = pc.unique(pc.count_substring(texts, ",")).to_pylist()
    value = pa.field("item", pa.float64(), nullable=False)
    return pa.list_(value, sizes[0] + 1) if len(sizes) == 1 else pa.list_(value)


def _read(plan: Plan, whole: BinaryIO) -> Reader:
    try:
        reader = plan.open(whole)
    except pa.ArrowInvalid as fault:
        raise _bad(plan, fault) from fault
    fields = [_field(plan, f) for f in reader.schema]
    schema = pa.schema(fields, plan.history)
    return Reader(plan.name, "csv", schema, None, _batches(plan, reader, schema))


def _field(plan: Plan, f: pa.Field) -> pa.Field:
    kind = plan.arrays.get(f.name) or (pa.bool_() if f.name in plan.flags else f.type)
    if pa.types.is_null(kind):
        kind = pa.float64()
    return pa.field(f.name.strip(), kind, metadata={k: v for k, v in plan.words.get(f.name, {}).items() if v})


def _batches(plan: Plan, reader: csv.CSVStreamingReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
            columns = [_converted(c, f) for c, f in zip(batch.columns, schema, strict=True)]
        except StopIteration:
            return
        except pa.ArrowInvalid as fault:
            raise _bad(plan, fault) from fault
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _converted(column: pa.Array, field: pa.Field) -> pa.Array:
    if pa.types.is_nested(field.type):
        return _arrays(column, field)
    if pa.types.is_boolean(field.type) and pa.types.is_string(column.type):
        import pyarrow.compute as pc

        lower = pc.utf8_lower(column)
        true, false = (pc.is_in(lower, pa.array(v)) for v in (TRUE, FALSE))
        bad = lower.filter(pc.invert(pc.or_(pc.or_(true, false), pc.is_null(lower))))
        if len(bad):
            raise pa.ArrowInvalid(f"column {field.name} has {bad[0].as_py()!r}, which is neither true nor false")
        return pc.if_else(pc.is_null(lower), pa.scalar(None, pa.bool_()), true)
    return column if column.type == field.type else cast(column, field.type)


def _arrays(column: pa.Array, field: pa.Field) -> pa.Array:
    import pyarrow.compute as pc

    item = field.type.value_type
    rows, cells = listed(column)
    values = cells.cast(item) if item != pa.bool_() else pc.equal(pc.utf8_lower(cells), "true")
    if not pa.types.is_fixed_size_list(field.type):
        return pa.ListArray.from_arrays(rows.offsets, values, field.type, mask=rows.is_null())
    width = field.type.list_size
    sizes = pc.list_value_length(rows)
    if (wrong := sizes.filter(pc.not_equal(sizes, width))) and len(wrong):
        raise pa.ArrowInvalid(f"column {field.name} has {wrong[0]} values in one row, {width} in others")
    block = np.full((len(column), width), np.nan if pa.types.is_floating(item) else 0, item.to_pandas_dtype())
    block[rows.is_valid().to_numpy(zero_copy_only=False)] = values.to_numpy(zero_copy_only=False).reshape(-1, width)
    return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), type=field.type)


def _bad(plan: Plan, fault: Exception) -> DataError:
    rounded = re.search(r"to u?int64: invalid value '([-+]?\d*\.?\d*(?:[eE][-+]?\d+)?)'", str(fault))
    if rounded and re.search("[.eE]", rounded[1]) and (name := _column_in(fault, plan)):
        words = f"{name} has {rounded[1]}, which is no integer: written so, large ones lose their last digits"
        return DataError(f"{plan.name}: {words}. TRY: save the table again with {name} as an integer of 64 bits")
    reason = str(fault).splitlines()[0].rstrip(".")
    return DataError(f"{plan.name}: {reason}. TRY: mend that row, or save the table as FITS, VOTable or Parquet")
