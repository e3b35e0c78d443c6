"""Archives of isochrone tables: every member read before any of them is in place, then all of them."""

import fnmatch
import gzip
import io
import json
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO

from xptools import manifest
from xptools.cores import _isochrone_files
from xptools.errors import DataError

LARGEST, MOST, ALL = 1 << 28, 10_000, 1 << 32  # bytes of a table, tables, bytes of an archive: far above what there is


def isochrones(archives: list[Path], folder: Path, pattern: str) -> list[Path]:
    """The tables of these archives in a folder, by their names; DataError for an archive or table that is damaged.

    Who is killed meanwhile leaves a record that names more than is there, and the archives: the next run goes on.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as name:
        half = Path(name)
        for archive in archives:
            _members(archive, half, pattern)
        names = sorted(p.name for p in half.iterdir())
        for each in names:
            readable(half / each)
        (folder / manifest.WHOLE).write_text(json.dumps(names))
        for each in names:
            (half / each).replace(folder / each)
    for archive in archives:
        archive.unlink()
        archive.with_name(archive.name + manifest.OWN_SUM).unlink(missing_ok=True)
    return [folder / each for each in names]


class Bounded(io.RawIOBase):
    """A stream that raises DataError past a number of bytes: a small archive can be packed from any number of them."""

    def __init__(self, stream: BinaryIO, left: int, name: str):
        self.stream, self.left, self.name = stream, left, name

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(min(size if size >= 0 else self.left + 1, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.name} unpacks to more than tables of isochrones are. TRY: look into it: tar -tzf")
        return data


def _members(archive: Path, half: Path, pattern: str) -> None:
    """Tables of an archive, by the last part of their names, so that none gets anywhere but into `half`."""
    try:
        found, left = 0, ALL  # of a sparse member the holes are written, too
        with gzip.open(archive) as unpacked:
            whole = Bounded(unpacked, ALL, archive.name)
            with tarfile.open(fileobj=whole, mode="r|") as packed:
                for member in packed:
                    name = Path(member.name).name
                    if member.isfile() and fnmatch.fnmatch(name, pattern):
                        found += 1
                        most = min(LARGEST, left) if found <= MOST else -1
                        with (half / name).open("wb") as out:
                            shutil.copyfileobj(Bounded(packed.extractfile(member), most, archive.name), out)
                            left -= out.tell()
            while whole.read(1 << 20):  # to its end, where its sum is compared
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as fault:
        archive.unlink()
        raise DataError(f"{archive.name} is no whole archive ({fault}). TRY: the same command again") from fault
    if not found:
        raise DataError(f"{archive.name} holds no {pattern}. TRY: look into it: tar -tzf {archive}")


def readable(path: Path) -> None:
    """DataError unless xp can read a table, with the magnitudes that it needs."""
    _isochrone_files.read_file(path)
