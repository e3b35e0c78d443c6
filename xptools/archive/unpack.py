"""Archives of isochrone tables: every member read before any of them is in place, then all of them."""

import fnmatch
import gzip
import json
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from xptools import manifest
from xptools.cores import _isochrone_files
from xptools.errors import DataError


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


def _members(archive: Path, half: Path, pattern: str) -> None:
    try:
        found = 0
        with gzip.open(archive) as whole:
            with tarfile.open(fileobj=whole, mode="r|") as packed:
                for member in packed:
                    name = Path(member.name).name
                    if member.isfile() and fnmatch.fnmatch(name, pattern):
                        found += 1
                        with (half / name).open("wb") as out:
                            shutil.copyfileobj(packed.extractfile(member), out)
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
