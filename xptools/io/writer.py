"""`open_writer`: a table to a file or to stdout. A regular file appears whole or not at all."""

import contextlib
import math
import os
import stat
from pathlib import Path

import pyarrow as pa

from xptools import interrupt, metadata
from xptools.errors import DiskError, OutputError, PermissionFault, UsageError
from xptools.io import arrowstream
from xptools.io.spool import spool

SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".arrows": "arrows",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".ecsv": "ecsv",
    ".csv": "csv",
    ".json": "json",
}
FORMATS = ("arrows", "arrow", "parquet", "fits", "votable", "ecsv", "csv", "json")
SEEKING = {"fits"}


def format_of(target: str, named: str | None) -> str:
    """The output format: as named, else by suffix; stdout and devices get the Arrow stream."""
    if named:
        return named
    suffix = Path(target).suffix.lower()
    if target != "-" and Path(target).is_dir():
        raise OutputError(f"{target} is a folder. TRY: name a file in it")
    if target == "-" or in_place(target):
        return SUFFIXES.get(suffix, "arrows")
    if suffix not in SUFFIXES:
        raise UsageError(
            f"no format goes with {Path(target).name!r}. "
            "TRY: -O FORMAT, or a name ending in .parquet, .arrow, .fits, .vot, .ecsv or .csv"
        )
    return SUFFIXES[suffix]


def check(target: str, named: str | None, clobber: bool) -> None:
    """Raise what writing there would raise, before long work; nothing is left there."""
    format_of(target, named)
    if target != "-" and not in_place(target):
        Target(target, clobber).discard()


def in_place(target: str) -> bool:
    """Whether a target is a device, a FIFO or an open descriptor, which a rename would destroy."""
    if target.startswith(("/dev/", "/proc/")):
        return True
    with contextlib.suppress(OSError):
        return not stat.S_ISREG(os.stat(target).st_mode) and not Path(target).is_dir()
    return False


class Target:
    """Where bytes go: stdout, a device in place, or a temporary file renamed over the target on success."""

    def __init__(self, target: str, clobber: bool = True, stdout=None):
        self.target, self.clobber, self.temporary, self.stdout = target, clobber, None, stdout
        if target == "-":
            self.raw = stdout
        elif in_place(target):
            self.raw = _opened(target, lambda: open(target, "wb"))
        else:
            self.raw = self._beside()

    def _beside(self):
        path = Path(os.path.realpath(self.target))
        if path.is_dir():
            raise OutputError(f"{self.target} is a folder. TRY: name a file in it")
        if path.exists() and not self.clobber:
            raise OutputError(f"{self.target} exists and --no-clobber forbids to replace it. TRY: another name")
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
        interrupt.unfinished(self.temporary)
        return _opened(self.target, lambda: open(self.temporary, "xb"))

    def commit(self) -> None:
        """Make the file appear under its name, on disk before it is seen."""
        # Not every sink flushes, and what stdout still holds would be lost without a word.
        self.raw.flush()
        if self.temporary is None:
            if self.target != "-":
                self.raw.close()
            return
        os.fsync(self.raw.fileno())
        self.raw.close()
        if self.path.exists():
            os.chmod(self.temporary, stat.S_IMODE(os.stat(self.path).st_mode))
        if self.clobber:
            os.replace(self.temporary, self.path)
        else:
            self._link()
        interrupt.finished(self.temporary)
        self.temporary = None

    def _link(self) -> None:
        # link fails if another writer was first, which rename would not notice
        try:
            os.link(self.temporary, self.path)
        except FileExistsError as fault:
            self.discard()
            raise OutputError(
                f"{self.target} appeared meanwhile and --no-clobber forbids to replace it. TRY: another name"
            ) from fault
        os.unlink(self.temporary)

    def discard(self) -> None:
        """Leave nothing behind."""
        if self.temporary is not None:
            with contextlib.suppress(OSError, ValueError):
                self.raw.close()
            self.temporary.unlink(missing_ok=True)
            interrupt.finished(self.temporary)
            self.temporary = None


def _opened(target: str, opener):
    try:
        return opener()
    except PermissionError as fault:
        raise PermissionFault(f"no permission to write {target}. TRY: ls -ld {Path(target).parent}") from fault
    except OSError as fault:
        if arrowstream.is_disk_full(fault):
            raise DiskError(
                f"cannot write {target}: {os.strerror(fault.errno)}. TRY: df -h {Path(target).parent}"
            ) from fault
        raise OutputError(
            f"cannot write {target}: {fault.strerror.lower()}. TRY: mkdir -p {Path(target).parent}"
        ) from fault


class Writer:
    """An open output: `write(batch)`, then `close()`; or `abort()`, after which nothing looks whole."""

    def __init__(self, target: Target, sink, held=None):
        self.target, self.sink, self.held, self.rows = target, sink, held, 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch; DiskError (74) if the device is full, BrokenPipeError if the reader has gone."""
        with _disk(self.target.target):
            self.sink.write(batch)
        self.rows += batch.num_rows

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, _fault, _trace) -> None:
        """Close what went well; abort what did not, even if it is the closing that fails."""
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise

    def close(self) -> None:
        """Finish the table and let it appear."""
        with _disk(self.target.target):
            self.sink.close()
            if self.held is not None:
                import shutil

                self.held.seek(0)
                shutil.copyfileobj(self.held, self.target.raw, 1 << 20)
                self.target.raw.flush()
                self.held.close()
            self.target.commit()

    def abort(self) -> None:
        """Give up: the stream is poisoned, the file never appears."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self.sink.abort()
        if self.held is not None:
            self.held.close()
        self.target.discard()


@contextlib.contextmanager
def _disk(target: str):
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as fault:
        where = "standard output" if target == "-" else target
        words = os.strerror(fault.errno) if fault.errno else str(fault)
        raise DiskError(f"cannot write {where}: {words}. TRY: df -h, or write to another disk") from fault


def open_writer(target: str, schema: pa.Schema, format: str | None = None, clobber: bool = True, stdout=None) -> Writer:
    """A writer for a path, or for `stdout` (a binary file object) if the target is `-`."""
    named = format_of(target, format)
    place = Target(target, clobber, stdout)
    held = None
    try:
        raw = place.raw
        if named in SEEKING and (place.temporary is None):
            raw = held = spool()
        with _disk(target):
            return Writer(place, _sink(named, raw, schema), held)
    except BaseException:
        place.discard()
        raise


def _sink(named: str, raw, schema: pa.Schema):
    if named != "arrows":
        schema = metadata.without(schema, (metadata.ROWS_HINT,))
    if named == "arrows":
        return arrowstream.StreamSink(raw, schema)
    if named == "arrow":
        return ArrowFileSink(raw, schema)
    if named == "parquet":
        from xptools.io.parquet import ParquetSink

        return ParquetSink(raw, schema)
    if named == "fits":
        from xptools.io.fitsout import FitsSink

        return FitsSink(raw, schema)
    if named == "votable":
        from xptools.io.votableout import VotableSink

        return VotableSink(raw, schema)
    if named == "json":
        return JsonSink(raw, schema)
    from xptools.io.textout import TextSink

    return TextSink(raw, schema, named == "ecsv")


class ArrowFileSink:
    """An Arrow IPC file (Feather 2); whole only once its footer is written."""

    def __init__(self, raw, schema: pa.Schema):
        self.raw, self.writer = raw, pa.ipc.new_file(raw, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self.writer.write_batch(batch)

    def close(self) -> None:
        self.writer.close()
        self.raw.flush()

    def abort(self) -> None:
        """No footer, no table."""


class JsonSink:
    """One JSON object a line; NaN is null. For small tables and for `jq`."""

    def __init__(self, raw, schema: pa.Schema):
        self.raw = raw

    def write(self, batch: pa.RecordBatch) -> None:
        import json

        for row in batch.to_pylist():
            self.raw.write(json.dumps(_finite(row), default=str).encode() + b"\n")

    def close(self) -> None:
        self.raw.flush()

    def abort(self) -> None:
        """A line is whole or missing: the exit status tells."""


def _finite(value):
    """The value with what JSON has no word for as null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
