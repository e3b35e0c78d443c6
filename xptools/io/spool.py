"""Files without a name, gone with the process whatever ends it."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from xptools.errors import DiskError


class _Spool(io.BufferedRandom):
    def close(self) -> None:
        # Nobody will read it: what a full disc has not taken must not hide the words about that.
        with suppress(OSError):
            super().close()


def spool() -> BinaryIO:
    """A temporary file in XP_TMPDIR (else TMPDIR); it is unlinked from the start."""
    import tempfile

    folder = os.environ.get("XP_TMPDIR")
    try:
        return _Spool(tempfile.TemporaryFile(dir=folder, buffering=0))
    except OSError as fault:
        raise _failed(folder, fault) from fault


def spooled(raw: BinaryIO, head: bytes = b"") -> BinaryIO:
    """A copy of what is left of a stream, after `head`, that can be read anywhere; at its end."""
    import shutil

    whole = spool()
    try:
        with disk():
            whole.write(head)
            shutil.copyfileobj(raw, whole, 1 << 20)
            whole.flush()
        return whole
    except BaseException:  # also what was read may have failed
        whole.close()
        raise


@contextmanager
def disk(folder: object = "") -> Iterator[None]:
    """Turns a failure of writing, to a file of `spool` or in a folder, into DiskError."""
    try:
        yield
    except OSError as fault:
        if folder:
            raise DiskError(
                f"cannot write in {folder}: {os.strerror(fault.errno or 0)}. TRY: df -h {folder}"
            ) from fault
        raise _failed(os.environ.get("XP_TMPDIR"), fault) from fault


def _failed(folder: str | None, fault: OSError) -> DiskError:
    import tempfile

    where = folder or tempfile.gettempdir()
    words = os.strerror(fault.errno) if fault.errno else str(fault)
    return DiskError(f"cannot keep a temporary copy in {where}: {words}. TRY: XP_TMPDIR=/another/disk")
