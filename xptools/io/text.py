"""CSV and ECSV, in and out, streamed; array columns are texts, "[a, b]" in ECSV, "(a, b)" too in the archive's CSV."""

import json
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from xptools import metadata
from xptools.columns import KNOWN, Column
from xptools.errors import DataError, OutputError
from xptools.io.reader import Reader

BLOCK = 8 << 20
NULLS = ["", "null", "NULL", "None", "--", "nan", "NaN", "NAN", "masked"]


def read_csv(whole: BinaryIO, name: str) -> Reader:
    """A CSV file with a header line; Gaia's own columns get their types, others are inferred from the first 8 MB."""
    first = whole.readline().decode("utf-8-sig", "replace").strip()
    whole.seek(0)
    delimiter = max((",", "\t", ";", "|"), key=first.count)
    columns = [c.strip().strip('"') for c in first.split(delimiter)]
    if len(columns) < 2 and delimiter not in first and not re.fullmatch(r'"?[A-Za-z_]\w*"?', first):
        raise DataError(
            f"{name} is text, but its first line is no CSV header: {first[:60]!r}. TRY: name the columns in line 1"
        )
    types = {c: metadata.arrow_type(KNOWN[c.lower()].type) for c in columns if c.lower() in KNOWN}
    # A wrong int16 guess of ours must not refuse a file: small integers are read wide.
    types = {
        c: pa.int64() if pa.types.is_integer(t) else pa.string() if pa.types.is_boolean(t) else t
        for c, t in types.items()
    }
    return _read(whole, name, types, delimiter, 0, {})


def read_ecsv(whole: BinaryIO, name: str) -> Reader:
    """An ECSV file: types, units and shapes from its YAML header."""
    header: list[str] = []
    for line in iter(whole.readline, b""):
        if not line.startswith(b"#"):
            break
        header.append(line.decode().removeprefix("#").removeprefix(" "))
    whole.seek(0)
    declared, delimiter = _ecsv_header("".join(header), name)
    types = {d["name"]: _ecsv_type(d) for d in declared}
    words = {d["name"]: {k: str(d[k]) for k in ("unit", "description") if d.get(k)} for d in declared}
    shaped = {d["name"] for d in declared if "subtype" in d}
    types = {n: pa.string() if n in shaped else t for n, t in types.items()}
    return _read(whole, name, types, delimiter, len(header), words)


def _ecsv_header(text: str, name: str) -> tuple[list[dict], str]:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:omap", lambda loader, tag, node: None)
    Loader.add_multi_constructor("!", lambda loader, tag, node: None)
    body = text.split("---\n", 1)[-1]
    try:
        header = yaml.load(body, Loader)
        return header["datatype"], header.get("delimiter", " ")
    except (yaml.YAMLError, KeyError, TypeError) as fault:
        raise DataError(
            f"{name} has a broken ECSV header ({type(fault).__name__}). TRY: write it again with astropy"
        ) from fault


def _ecsv_type(declared: dict) -> pa.DataType:
    kind = {"float16": "float32", "float128": "float64", "complex128": "string"}.get(
        declared["datatype"], declared["datatype"]
    )
    if kind.startswith("uint"):
        return pa.int64()
    return pa.string() if kind == "bool" else metadata.ARROW_TYPES.get(kind, pa.string())


def _read(whole, name: str, types: dict, delimiter: str, skip: int, words: dict[str, dict[str, str]]) -> Reader:
    try:
        reader = pc.open_csv(
            pa.PythonFile(whole, mode="r"),
            pc.ReadOptions(block_size=BLOCK, skip_rows=skip),
            pc.ParseOptions(delimiter=delimiter, newlines_in_values=False),
            pc.ConvertOptions(null_values=NULLS, strings_can_be_null=True, column_types=types),
        )
        first = reader.read_next_batch()
    except StopIteration:
        first = pa.RecordBatch.from_pylist([], schema=reader.schema)
    except pa.ArrowInvalid as fault:
        raise _bad(name, fault) from fault
    shapes = {f.name: s for i, f in enumerate(first.schema) if (s := _shape(first.column(i)))}
    flags = {f.name for i, f in enumerate(first.schema) if pa.types.is_string(f.type) and _boolean(first.column(i))}
    fields = [_field(f, shapes, flags, words) for f in first.schema]
    schema = pa.schema(fields)
    return Reader(name, "csv", schema, None, _rest(first, reader, schema, name))


def _field(f: pa.Field, shapes: dict[str, int], flags: set[str], words: dict) -> pa.Field:
    kind = f.type
    if f.name in shapes:
        kind = pa.list_(pa.field("item", pa.float64(), nullable=False), shapes[f.name])
    elif f.name in flags:
        kind = pa.bool_()
    elif pa.types.is_null(kind):
        kind = pa.float64()
    known: Column | None = KNOWN.get(f.name.lower())
    own = {"unit": known.unit, "ucd": known.ucd, "description": known.text} if known else {}
    own |= words.get(f.name, {})
    return pa.field(f.name, kind, metadata={k: v for k, v in own.items() if v})


def _rest(first: pa.RecordBatch, reader, schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
    batch: pa.RecordBatch | None = first
    while batch is not None:
        yield pa.RecordBatch.from_arrays(
            [_converted(batch.column(i), f, name) for i, f in enumerate(schema)], schema=schema
        )
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            batch = None
        except pa.ArrowInvalid as fault:
            raise _bad(name, fault) from fault


def _converted(column: pa.Array, field: pa.Field, name: str) -> pa.Array:
    if pa.types.is_fixed_size_list(field.type):
        return _arrays(column, field, name)
    if pa.types.is_boolean(field.type) and pa.types.is_string(column.type):
        return pa.array([None if v is None else v.lower() in _TRUE for v in column.to_pylist()], pa.bool_())
    return column if column.type == field.type else column.cast(field.type)


_TRUE = {"true", "t", "1", "yes"}
_FALSE = {"false", "f", "0", "no"}


def _boolean(column: pa.Array) -> bool:
    seen = {v.lower() for v in column.unique().to_pylist() if v is not None} if column.type == pa.string() else set()
    return bool(seen) and seen <= _TRUE | _FALSE


def _shape(column: pa.Array) -> int | None:
    if not pa.types.is_string(column.type):
        return None
    for value in column[:1000].to_pylist():
        if value:
            return value.count(",") + 1 if value[0] in "([" and value[-1] in ")]" else None
    return None


def _arrays(column: pa.Array, field: pa.Field, name: str) -> pa.Array:
    width = field.type.list_size
    block = np.full((len(column), width), np.nan)
    for i, value in enumerate(column.to_pylist()):
        if value:
            numbers = value.strip("()[] ").replace("null", "nan").split(",")
            if len(numbers) != width:
                raise DataError(f"{name}: column {field.name} has {len(numbers)} values in one row, {width} in others")
            block[i] = [float(x) for x in numbers]
    return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), type=field.type)


def _bad(name: str, fault: Exception) -> DataError:
    reason = str(fault).splitlines()[0]
    return DataError(f"{name}: {reason}. TRY: mend that row, or save the table as FITS, VOTable or Parquet")


class TextSink:
    """CSV or ECSV, written batch by batch."""

    def __init__(self, raw, schema: pa.Schema, ecsv: bool):
        arrays = [f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)]
        if arrays and not ecsv:
            raise OutputError(
                f"CSV cannot hold the array column {arrays[0]}. TRY: --explode, or .ecsv, .fits or .parquet"
            )
        self.raw, self.ecsv = raw, ecsv
        if ecsv:
            raw.write(_ecsv_lines(schema).encode())
        flat = pa.schema([f.with_type(pa.string()) if f.name in arrays else f for f in schema])
        self.schema, self.arrays = flat, set(arrays)
        options = pc.WriteOptions(delimiter=",", quoting_style="needed")
        self.writer = pc.CSVWriter(pa.PythonFile(raw, mode="w"), flat, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            _texts(c) if n in self.arrays else _known(c) for n, c in zip(batch.schema.names, batch.columns, strict=True)
        ]
        self.writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))

    def close(self) -> None:
        self.writer.close()
        self.raw.flush()

    def abort(self) -> None:
        """A text file has no end mark: the target is thrown away by whoever holds it."""


def _known(column: pa.Array) -> pa.Array:
    # nan in text would read back as a string in some tools; an empty cell is the missing value everywhere.
    if pa.types.is_floating(column.type):
        import pyarrow.compute as compute

        return compute.if_else(compute.is_nan(column), None, column)
    return column


def _texts(column: pa.Array) -> pa.Array:
    rows = [None if v is None else json.dumps(v).replace("NaN", "null") for v in column.to_pylist()]
    return pa.array(rows, pa.string())


def _ecsv_lines(schema: pa.Schema) -> str:
    lines = ["%ECSV 1.0", "---", "delimiter: ','"]
    body = metadata.ecsv_yaml(schema).splitlines()
    for i, f in enumerate(schema):
        if pa.types.is_fixed_size_list(f.type):
            item = {"float": "float32", "double": "float64"}.get(str(f.type.value_type), str(f.type.value_type))
            body[i + 1] = re.sub(
                r'datatype: "\w+"', f'datatype: "string", subtype: "{item}[{f.type.list_size}]"', body[i + 1]
            )
    return "".join(f"# {line}\n" for line in [*lines, *body])
