"""CSV and ECSV out, batch by batch. Booleans are True and False, as in the archive's CSV and astropy's ECSV."""

import json

import pyarrow as pa
import pyarrow.csv as csv

from xptools import metadata
from xptools.arrowcalls import call
from xptools.errors import DataError


class TextSink:
    """A text table; missing values are empty cells, which every tool reads as missing."""

    def __init__(self, raw, schema: pa.Schema, ecsv: bool):
        arrays = [f.name for f in schema if pa.types.is_nested(f.type)]
        if arrays and not ecsv:
            raise DataError(
                f"CSV cannot hold the array column {arrays[0]}. TRY: --explode, or .ecsv, .fits or .parquet"
            )
        odd = next((f for f in schema if pa.types.is_nested(f.type) and not _numbers(f.type)), None)
        if odd is not None:
            raise DataError(f"ECSV cannot hold column {odd.name} of type {odd.type}. TRY: .parquet, or convert --drop")
        self.raw = raw
        if ecsv:
            lines = ["%ECSV 1.0", "---", "delimiter: ','", *metadata.ecsv_yaml(schema, texts=True).splitlines()]
            raw.write("".join(f"# {line}\n" for line in lines).encode())
        self.schema = pa.schema([(f.name, _written(f.type)) for f in schema])
        raw.write((",".join(_quoted(n) for n in schema.names) + "\n").encode())
        options = csv.WriteOptions(include_header=False, delimiter=",", quoting_style="needed")
        self.writer = csv.CSVWriter(pa.PythonFile(raw, mode="w"), self.schema, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        self.writer.write_batch(pa.RecordBatch.from_arrays([_texts(c) for c in batch.columns], schema=self.schema))

    def close(self) -> None:
        self.writer.close()
        self.raw.flush()

    def abort(self) -> None:
        """A text file has no end mark: the target is thrown away by whoever holds it."""


def _numbers(kind: pa.DataType) -> bool:
    item = getattr(kind, "value_type", None)
    return item is not None and (pa.types.is_primitive(item) or pa.types.is_boolean(item))


def _written(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_nested(kind) or pa.types.is_boolean(kind) else kind


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n\r') else name


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_boolean(column.type):
        return call("if_else", column, pa.scalar("True"), pa.scalar("False"))
    if pa.types.is_nested(column.type):
        return pa.array([None if v is None else json.dumps(v).replace("NaN", "null") for v in column.to_pylist()])
    if pa.types.is_floating(column.type):
        return call("if_else", call("is_nan", column), pa.scalar(None, column.type), column)
    return column
