"""A small file that appears whole or not at all."""

import errno
import os
import tempfile
from pathlib import Path

from xptools import interrupt
from xptools.errors import DiskError, OutputError


def write(path: Path, raw: bytes, what: str) -> None:
    """These bytes as a file; a device or a pipe is written in place. DiskError (74) or OutputError (73) name `what`."""
    try:
        _write(path, raw)
    except OSError as error:
        kind = DiskError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG) else OutputError
        raise kind(f"cannot write {what}. {path}: {error.strerror}. TRY: df -h, or another place") from error


def _write(path: Path, raw: bytes) -> None:
    if path.exists() and not path.is_file():
        path.write_bytes(raw)
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    interrupt.unfinished(Path(name))
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(raw)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp makes private files
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        interrupt.finished(Path(name))
