"""Files converted once into memory-mapped arrays, kept in the cache folder under a fingerprint of their source.

The first process builds, others wait for it or find it made; a half-made folder is never seen. Arrays are .npy files.
"""

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from xptools import settings
from xptools.errors import DiskError

ABOUT = "about.json"
HELD = 1 << 29  # bytes of file pages this process may hold before a map's pages are given back
ROWS = 50_000  # rows of work between two such times, if the work comes in the order of the sky
_temporary: list[tempfile.TemporaryDirectory] = []


def known(source: Path, kind: str) -> tuple[Path, dict] | None:
    """The folder with `source` converted and what was said about it, if that has been done: then source is whole."""
    base = settings.cache_dir()
    folder = base / "maps" / f"{kind}-{fingerprint(source, kind)}" if base else None
    if folder is None or not (folder / ABOUT).is_file():
        return None
    return folder, json.loads((folder / ABOUT).read_text())


def converted(source: Path, kind: str, size: int, build: Callable[[Path], dict]) -> tuple[Path, dict]:
    """The folder with `source` converted to `kind`, and what `build(folder)` said about it.

    `kind` names the format and its version; `size` is about how many bytes the result takes.
    """
    base = settings.cache_dir()
    if base is None:  # caching is off: convert for this process alone
        _temporary.append(tempfile.TemporaryDirectory(prefix="xp-map-"))
        folder = Path(_temporary[-1].name)
        return folder, _built(folder, size, source, build)
    folder = base / "maps" / f"{kind}-{fingerprint(source, kind)}"
    if not (folder / ABOUT).is_file():
        _build_once(folder, size, source, build)
    return folder, json.loads((folder / ABOUT).read_text())


def forget() -> None:
    """Take away what was converted for this process alone."""
    while _temporary:
        _temporary.pop().cleanup()


def fingerprint(path: Path, salt: str = "") -> str:
    """A digest of a file's size, time and 33 blocks spread over it: a 3 GB map is recognised in milliseconds."""
    stat = path.stat()
    digest = hashlib.sha256(f"{salt} {stat.st_size} {stat.st_mtime_ns}".encode())
    with path.open("rb") as f:
        for i in range(33):
            f.seek(max(0, stat.st_size - 65536) * i // 32)
            digest.update(f.read(65536))
    return digest.hexdigest()[:24]


def create(path: Path, shape: tuple[int, ...], dtype=np.float32) -> tuple[np.ndarray, Callable[[], None]]:
    """A new array on disk, writable, and a function that hands its written pages over to the system."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(shape)}
    with path.open("w+b") as f:
        np.lib.format.write_array_header_1_0(f, header)
        start = f.tell()
        size = start + int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            f.truncate(size)
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a SIGBUS later
                os.posix_fallocate(f.fileno(), 0, size)
        except OSError as fault:
            raise DiskError(f"cannot write the converted map, {fault.strerror}. {path}. TRY: --cache DIR") from fault
        mapped = mmap.mmap(f.fileno(), size)
    array = np.frombuffer(mapped, dtype, offset=start).reshape(shape)
    return array, lambda: mapped.madvise(mmap.MADV_DONTNEED)


def opened(path: Path) -> tuple[np.ndarray, Callable[[int], None]]:
    """An array on disk, read-only, and a function told how many rows of work were done, which keeps memory small.

    It gives the array's pages back to the system once this process holds HELD bytes of file pages. If they fill up
    within ROWS rows, the work comes in no order: all pages are needed all the time, and they stay (they are shared, and
    the system can take them back at need; giving them back again and again would cost ten times the work itself).
    """
    with path.open("rb") as f:
        np.lib.format.read_magic(f)
        shape, _, dtype = np.lib.format.read_array_header_1_0(f)
        mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        array = np.frombuffer(mapped, dtype, offset=f.tell()).reshape(shape)
    since, ordered = 0, array.nbytes > HELD

    def release(rows: int) -> None:
        nonlocal since, ordered
        since += rows
        if ordered and _file_pages() > HELD:
            ordered = since > ROWS
            since = 0
            if ordered:
                mapped.madvise(mmap.MADV_DONTNEED)

    return array, release


def _file_pages() -> int:
    """Bytes of file-backed pages this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE
    except OSError:
        return HELD + 1  # cannot tell: give them back


def _build_once(folder: Path, size: int, source: Path, build: Callable[[Path], dict]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock")):
            if (folder / ABOUT).is_file():
                return
            half = Path(tempfile.mkdtemp(prefix=folder.name, suffix=".half", dir=folder.parent))
            try:
                _built(half, size, source, build)
                half.rename(folder)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    except OSError as fault:
        raise DiskError(
            f"cannot keep the converted map, {fault.strerror}. {folder.parent}. TRY: --cache DIR, or --cache off"
        ) from fault


def _built(folder: Path, size: int, source: Path, build: Callable[[Path], dict]) -> dict:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskError(
            f"{source.name} takes {size / 1e9:.1f} GB when converted, {free / 1e9:.1f} GB are free. {folder.parent}. "
            "TRY: --cache DIR on a larger disk"
        )
    about = build(folder)
    (folder / ABOUT).write_text(json.dumps(about, sort_keys=True))
    return about


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield
