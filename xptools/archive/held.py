"""The right to write somewhere, which one process at a time has."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xptools.errors import OutputError


@contextmanager
def held(lock: Path, what: str, cure: str = "", keep: bool = True) -> Iterator[None]:
    """Hold the lock file `lock` of `what`; OutputError if another process does, or if it cannot be made.

    Without `keep` the file goes away afterwards.
    """
    try:
        file = open(lock, "w")
    except OSError as fault:
        where = lock.parent
        raise OutputError(f"cannot write in {where}: {fault.strerror}. TRY: ls -ld {where}{cure}") from fault
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(file.fileno()), os.stat(lock))  # else it has just been removed
        except OSError:
            mine = False
        if not mine:
            raise OutputError(f"another xp fetch works in {what}. TRY: wait for it{cure}")
        try:
            yield
        finally:
            if not keep:
                lock.unlink(missing_ok=True)
