"""The Arrow IPC stream on pipes: aligned reads, the end mark checked, a failed writer that can never look whole.

pyarrow takes a stream cut at a batch boundary for a complete one, and its writers close cleanly when an exception
passes through them. So the reader here asks for the 8-byte end mark, and the writer is closed only on success;
on failure it leaves bytes that no reader accepts.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

import pyarrow as pa

from xptools.errors import DataError

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
POISON = b"\xff\xff\xff\xff\xf0\xff\xff\x7f"
PIPE_BYTES = 1 << 20
GROWTH = 64 << 20


class FdSource:
    """A file descriptor as pyarrow's input: whole reads into aligned memory, remembering the last eight bytes."""

    def __init__(self, fd: int, head: bytes = b""):
        self.fd, self.head, self.last, self.closed = fd, head, b"", False
        _widen(fd)

    def read_buffer(self, n: int) -> pa.Buffer:
        """Up to n bytes, fewer only at the end."""
        # A damaged length may ask for gigabytes: memory grows with what really comes.
        room = min(n, GROWTH)
        buffer = pa.allocate_buffer(room, resizable=True)
        got = 0
        while True:
            got = self._fill(buffer, got)
            if got < room or room == n:
                break
            room = min(n, 2 * room)
            buffer.resize(room)
        if got < room:
            buffer.resize(got)
        self.last = (self.last + bytes(memoryview(buffer).cast("B")[max(0, got - 8) : got]))[-8:]
        return buffer

    def _fill(self, buffer: pa.Buffer, got: int) -> int:
        view = memoryview(buffer).cast("B")
        while got < len(view):
            count = len(self.head[: len(view) - got])
            if count:
                view[got : got + count] = self.head[:count]
                self.head = self.head[count:]
            else:
                count = os.readv(self.fd, [view[got:]])
            if count == 0:
                break
            got += count
        return got

    def read(self, n: int = -1) -> bytes:
        """Bytes, for pyarrow's small reads."""
        if n is None or n < 0:
            parts = []
            while block := self.read(PIPE_BYTES):
                parts.append(block)
            return b"".join(parts)
        return self.read_buffer(n).to_pybytes()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing to flush."""

    def close(self) -> None:
        self.closed = True


def batches(source: FdSource, name: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the batches of a stream; a cut anywhere raises DataError with the number of rows read."""
    try:
        reader = pa.ipc.open_stream(pa.PythonFile(source, mode="r"))
    except (pa.ArrowException, OSError, EOFError, ValueError) as fault:
        raise _cut(name, 0) from fault
    return reader.schema, _checked(reader, source, name)


def _checked(reader, source: FdSource, name: str) -> Iterator[pa.RecordBatch]:
    rows = 0
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        except (pa.ArrowException, OSError, ValueError) as fault:
            raise _cut(name, rows) from fault
        batch.validate(full=True)  # an offset that points elsewhere would be read from there
        rows += batch.num_rows
        yield batch
    if source.last != END:
        raise _cut(name, rows)
    if source.read(1):
        raise DataError(
            f"{name} goes on after its end mark (two streams one after the other?); {rows:,} rows were read. "
            "TRY: give each stream to its own xp command"
        )


def _cut(name: str, rows: int) -> DataError:
    return DataError(
        f"{name} is cut off: its end mark is missing after {rows:,} rows. "
        "TRY: look at the message of the command before, or make the file again"
    )


class StreamSink:
    """A stream writer on a file object that ends well only through `close`."""

    def __init__(self, raw, schema: pa.Schema):
        self.raw = raw
        with contextlib.suppress(OSError, AttributeError, ValueError):
            _widen(raw.fileno())
        self.writer = pa.ipc.new_stream(raw, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch and pass it on."""
        self.writer.write_batch(batch)
        self.raw.flush()

    def close(self) -> None:
        """Write the end mark: the only way to a stream that readers accept."""
        self.writer.close()
        self.raw.flush()

    def abort(self) -> None:
        """Leave a message header that nothing can satisfy, so that the next command fails too."""
        with contextlib.suppress(OSError, ValueError):
            self.raw.write(POISON)
            self.raw.flush()


def _widen(fd: int) -> None:
    import fcntl

    # A 64 KiB pipe halves the throughput; not a pipe, or not allowed: no matter.
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def is_disk_full(fault: OSError) -> bool:
    """Whether an OS error says that the device is full or broken."""
    return fault.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
