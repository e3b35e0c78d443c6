"""`open_reader`: any table by path or on stdin, as a schema and record batches."""

import contextlib
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from xptools import metadata
from xptools.arrowcalls import cast
from xptools.errors import DataError, InputError, PermissionFault
from xptools.io import arrowstream, sniff
from xptools.io.batches import fitting
from xptools.io.spool import spool, spooled

BATCH_ROWS = 16384
# What parsers trip over in foreign bytes. Reading raises nothing else but XpErrors, memory and the user's signals.
DAMAGE = (pa.ArrowException, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError)
DAMAGE += (SyntaxError, RecursionError, struct.error, zlib.error)
KINDS = {"arrows": "Arrow stream", "arrow": "Arrow file", "parquet": "Parquet file", "fits": "FITS file"}
KINDS |= {"votable": "VOTable", "ecsv": "ECSV file", "csv": "CSV file"}


@dataclass
class Reader:
    """An open table: `schema`, `rows` (None if unknown), `format`, `name` for messages, and the batches once.

    `whole` is the schema of all columns where only some were asked for.
    """

    name: str
    format: str
    schema: pa.Schema
    rows: int | None
    batches: Iterator[pa.RecordBatch]
    whole: pa.Schema | None = None
    files: "Files | None" = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self.batches

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading to the end does so too."""
        if self.files is not None:
            self.files.close()


def open_reader(
    path: str = "-",
    columns: list[str] | None = None,
    batch_rows: int = BATCH_ROWS,
    groups: tuple[int, int] | None = None,
) -> Reader:
    """Open a table by path, or stdin for `-`; only `columns` (those that exist) and these row groups if given.

    Raises InputError (66) if it cannot be opened, DataError (65) if it is no table or is cut off.
    """
    files = Files()
    try:
        reader = _opened(files, path, columns, batch_rows, groups)
        with _damage(reader.name, KINDS[reader.format]):
            reader = _cleaned(reader, columns)
    except BaseException:
        files.close()
        raise
    reader.files, reader.batches = files, _holding(reader.batches, files)
    return reader


def _opened(files: "Files", path: str, columns: list[str] | None, batch_rows: int, groups) -> Reader:
    name = "standard input" if path == "-" else path
    raw = files.keep(_open(path))
    head = _head(raw)
    found = sniff.kind(head)
    if found in ("gzip", "zstd"):
        raw, found = _unpacked(files, raw, head, found, name)
        head = _head(raw)
    if found not in KINDS:
        raise sniff.refuse(found, name)
    if found == "arrows":
        with _damage(name, KINDS[found]):
            reader = _stream(raw, head, name)
    else:
        whole = raw if raw.seekable() else _spooled(files, raw, head)
        whole.seek(0)
        extra = () if groups is None else (groups,)
        with _damage(name, KINDS[found]):
            reader = _OPENERS[found](whole, name, columns, batch_rows, *extra)
    reader.batches = _sound(reader.batches, name, KINDS[found])
    return reader


def _sound(batches: Iterator[pa.RecordBatch], name: str, what: str) -> Iterator[pa.RecordBatch]:
    """The batches; what the parser trips over is said of the file."""
    while True:
        with _damage(name, what):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


class Files:
    """Open files that close together: after the last row, after an error, or when nobody holds them any more."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()

    def keep(self, file: BinaryIO) -> BinaryIO:
        """Take a file in."""
        return self.stack.enter_context(file)

    def close(self) -> None:
        """Close them all."""
        self.stack.close()

    def __del__(self) -> None:
        self.close()


def _open(path: str) -> BinaryIO:
    if path == "-":
        if stat.S_ISDIR(os.fstat(0).st_mode):
            raise InputError("standard input is a folder. TRY: name one file in it")
        return open(os.dup(0), "rb", buffering=0)
    try:
        if Path(path).is_dir():
            raise InputError(f"{path} is a folder. TRY: name one file in it")
        return open(path, "rb", buffering=0)
    except PermissionError as fault:
        raise PermissionFault(f"no permission to read {path}. TRY: ls -l {path}") from fault
    except OSError as fault:
        near = _nearest(path)
        raise InputError(f"cannot open {path}: {fault.strerror.lower()}.{near}") from fault


def _nearest(path: str) -> str:
    import difflib

    folder = Path(path).parent
    with contextlib.suppress(OSError):
        stems = {p.name.partition(".")[0]: p.name for p in folder.iterdir()}  # all names are alike in their suffixes
        if close := difflib.get_close_matches(Path(path).name.partition(".")[0], stems, 1):
            return f" TRY: {folder / stems[close[0]]}"
    return f" TRY: ls {folder}"


def _head(raw: BinaryIO) -> bytes:
    """The first bytes; a pipe's are kept in `raw.held` for whoever reads on."""
    parts, size = [], 0
    while size < sniff.HEAD and (block := raw.read(sniff.HEAD - size)):
        parts.append(block)
        size += len(block)
    if raw.seekable():
        raw.seek(0)
    return b"".join(parts)


def _spooled(files: Files, raw: BinaryIO, head: bytes) -> BinaryIO:
    # Parquet and FITS need seeking: a pipe is copied to a file that has no name and vanishes with us.
    return files.keep(spooled(raw, head))


def _unpacked(files: Files, raw: BinaryIO, head: bytes, packing: str, name: str) -> tuple[BinaryIO, str]:
    import gzip
    import shutil

    packed = raw if raw.seekable() else _spooled(files, raw, head)
    packed.seek(0)
    plain = files.keep(spool())
    try:
        if packing == "gzip":
            with gzip.open(packed) as unzipped:
                shutil.copyfileobj(unzipped, plain, 1 << 20)
        else:
            with pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd") as unzipped:
                shutil.copyfileobj(unzipped, plain, 1 << 20)
    except (EOFError, OSError, zlib.error) as fault:
        raise DataError(f"{name} is a damaged {packing} file ({fault}). TRY: download it again") from fault
    plain.seek(0)
    found = sniff.kind(_head(plain))
    return plain, found


def _stream(raw: BinaryIO, head: bytes, name: str) -> Reader:
    source = arrowstream.FdSource(raw.fileno(), b"" if raw.seekable() else head)
    schema, batches = arrowstream.batches(source, name)
    hint = (schema.metadata or {}).get(metadata.ROWS_HINT)
    return Reader(name, "arrows", schema, int(hint) if hint and hint.isdigit() else None, batches)


def _holding(batches: Iterator[pa.RecordBatch], files: Files) -> Iterator[pa.RecordBatch]:
    with contextlib.closing(files):
        yield from batches


def _arrow_file(whole: BinaryIO, name: str, columns, batch_rows: int) -> Reader:
    whole.seek(-6, os.SEEK_END)
    if whole.read() != b"ARROW1":
        raise DataError(f"{name} is a cut-off Arrow file: its footer is missing. TRY: make it again")
    whole.seek(0)
    file = pa.ipc.open_file(pa.PythonFile(whole, mode="r"))
    return Reader(name, "arrow", file.schema, None, _arrow_batches(file))


def _arrow_batches(file) -> Iterator[pa.RecordBatch]:
    for i in range(file.num_record_batches):
        batch = file.get_batch(i)
        batch.validate(full=True)  # an offset that points elsewhere would be read from there
        yield batch


def _parquet(whole: BinaryIO, name: str, columns: list[str] | None, batch_rows: int, groups=None) -> Reader:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(whole, buffer_size=1 << 20, pre_buffer=False)
    words = {k: v for k, v in (file.metadata.metadata or {}).items() if k != b"ARROW:schema"}
    schema = file.schema_arrow.with_metadata({**words, **(file.schema_arrow.metadata or {})} or None)
    whole_schema = schema
    if columns is not None:
        schema = _chosen(schema, columns)
    chosen = range(*groups) if groups else range(file.num_row_groups)
    rows = sum(file.metadata.row_group(i).num_rows for i in chosen)
    return Reader(name, "parquet", whole_schema, rows, _parquet_batches(file, schema, batch_rows, chosen))


def _parquet_batches(file, schema: pa.Schema, batch_rows: int, groups: range) -> Iterator[pa.RecordBatch]:
    for batch in file.iter_batches(fitting(schema, batch_rows), row_groups=list(groups), columns=schema.names):
        batch.validate(full=True)  # Parquet's texts are any bytes
        yield batch.cast(schema) if batch.schema != schema else batch


def _chosen(schema: pa.Schema, columns: list[str]) -> pa.Schema:
    wanted = {c.lower() for c in columns}
    return pa.schema([f for f in schema if f.name.lower() in wanted], schema.metadata)


@contextlib.contextmanager
def _damage(name: str, what: str):
    try:
        yield
    except DAMAGE as fault:
        reason = str(fault).splitlines()[0].rstrip(". ")[:120] if str(fault) else type(fault).__name__
        raise DataError(f"{name} is a damaged or cut-off {what} ({reason}). TRY: make or download it again") from fault


def _fits(whole, name, columns, batch_rows):
    from xptools.io import fits

    return fits.read(whole, name, batch_rows)


def _votable(whole, name, columns, batch_rows):
    from xptools.io import votable

    return votable.read(whole, name, batch_rows)


def _ecsv(whole, name, columns, batch_rows):
    from xptools.io import text

    return text.read_ecsv(whole, name)


def _csv(whole, name, columns, batch_rows):
    from xptools.io import text

    return text.read_csv(whole, name)


_OPENERS = {
    "arrow": _arrow_file,
    "parquet": _parquet,
    "fits": _fits,
    "votable": _votable,
    "ecsv": _ecsv,
    "csv": _csv,
}


def _cleaned(reader: Reader, columns: list[str] | None) -> Reader:
    """Units from foreign headers onto the fields, file-only keys dropped, columns chosen, batches to match."""
    from xptools.io import foreign

    schema = metadata.without(foreign.described(reader.schema), metadata.FILE_KEYS)
    doubles = {n for n in schema.names if schema.names.count(n) > 1}
    if doubles:
        raise DataError(f"{reader.name} has two columns named {sorted(doubles)[0]}. TRY: rename one where it was made")
    reader.whole = schema = foreign.plain_types(schema)
    if columns is not None:
        schema = _chosen(schema, columns)
    reader.schema, reader.batches = schema, _as(reader.batches, schema, reader.name)
    return reader


def _as(batches: Iterator[pa.RecordBatch], schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        try:
            arrays = [_cast(batch.column(batch.schema.get_field_index(f.name)), f.type) for f in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except pa.ArrowInvalid as fault:
            raise DataError(
                f"{name}: {str(fault).splitlines()[0]}. TRY: make the column's type the same in every row"
            ) from fault


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else cast(array, kind)


def plain(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Batches from another library with the types that files have here: no views, dictionaries or large strings."""
    from xptools.io import foreign

    schema = foreign.plain_types(reader.schema)
    return pa.RecordBatchReader.from_batches(schema, _as(reader, schema, "the table"))


def digest(path: str) -> str | None:
    """The SHA-256 of an input, None for a pipe."""
    path = "/dev/stdin" if path == "-" else path
    return metadata.sha256(path) if Path(path).is_file() else None


def stdin_is_terminal() -> bool:
    """Whether nothing is piped in."""
    return sys.stdin is None or os.isatty(0)
