"""The manifest of a fetch in many jobs: an SQLite file of what is asked for, which range is where, and what came.

A job's address is in it before the job is started, so that whoever is killed finds his jobs again. The ranges cover the
whole of what is asked for and never overlap; `state` is one of

    open    it is not known how many rows the range holds
    todo    `expected` rows are to be fetched (an unknown number of a query that is not cut)
    done    they are in the file `file` (none for no rows)
    short   the archive gave another number of rows, again and again
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from xptools.archive.held import held
from xptools.errors import ConfigError, DataError, DiskError, InputError, OutputError

NAME, LOCK, INCOMING = "manifest.sqlite", "lock", "incoming"
FORMAT = 1
OPEN, TODO, DONE, SHORT = "open", "todo", "done", "short"
TABLES = """
CREATE TABLE IF NOT EXISTS words (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ranges (
  lo INTEGER PRIMARY KEY, hi INTEGER NOT NULL, state TEXT NOT NULL, expected INTEGER, rows INTEGER, bytes INTEGER,
  service TEXT, job TEXT, file TEXT, sha256 TEXT);
"""


class Range(NamedTuple):
    """A row of the manifest: source_id from lo to hi, both included."""

    lo: int
    hi: int
    state: str
    expected: int | None = None
    rows: int | None = None
    bytes: int | None = None
    service: str | None = None
    job: str | None = None
    file: str | None = None
    sha256: str | None = None


class Manifest:
    """The manifest in the folder `path`; threads may share it."""

    def __init__(self, path: Path, make: bool = True):
        self.folder, self.guard = path, threading.RLock()
        file = path / NAME
        if not make and not file.is_file():
            raise InputError(f"there is no fetch in {path}. TRY: xp fetch gaia -o {path}/")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.base = sqlite3.connect(file, check_same_thread=False, timeout=2)
        except (OSError, sqlite3.Error) as fault:
            raise OutputError(f"cannot make a manifest in {path}: {fault}. TRY: another folder") from fault
        with self._write() as base:
            self._prepare(base)

    def _prepare(self, base: sqlite3.Connection) -> None:
        version = base.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT):
            raise ConfigError(f"the manifest in {self.folder} is of another xp (format {version}). TRY: that version")
        if not version:  # else nothing is written: also what is on a full or another's disc can be looked at
            base.executescript(TABLES)
            base.execute(f"PRAGMA user_version = {FORMAT}")

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on disc afterwards, or nothing."""
        with self.guard:
            try:
                with self.base:
                    yield self.base
            except sqlite3.OperationalError as fault:
                if "locked" in str(fault):
                    raise OutputError(
                        f"another program holds the manifest in {self.folder}. TRY: wait for it"
                    ) from fault
                raise DiskError(
                    f"cannot write the manifest in {self.folder}: {fault}. TRY: df -h {self.folder}"
                ) from fault
            except sqlite3.DatabaseError as fault:
                raise DataError(f"the manifest in {self.folder} is damaged: {fault}. TRY: another folder") from fault

    @contextmanager
    def held(self) -> Iterator[None]:
        """The right to work on it; OutputError if another process has it."""
        with held(self.folder / LOCK, str(self.folder)):
            yield

    def word(self, key: str) -> Any:
        """A value of the fetch as a whole (query, columns ...), None if it is not there yet."""
        with self._write() as base:
            found = base.execute("SELECT value FROM words WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else None

    def note(self, **words: Any) -> None:
        """Set values of the fetch as a whole."""
        with self._write() as base:
            pairs = [(k, json.dumps(v, sort_keys=True)) for k, v in words.items()]
            base.executemany("INSERT OR REPLACE INTO words VALUES (?, ?)", pairs)

    def begin(self, ident: str, ranges: Iterable[tuple[int, int]], state: str, **words: Any) -> None:
        """Start the fetch called `ident`, or go on with it; ConfigError if the folder is another's."""
        there = self.word("ident")
        if there not in (None, ident):
            raise ConfigError(f"the folder {self.folder} holds another query's rows. TRY: another folder, or remove it")
        with self._write() as base:
            if there is None:
                base.executemany("INSERT INTO ranges (lo, hi, state) VALUES (?, ?, ?)", [(*r, state) for r in ranges])
            pairs = [(k, json.dumps(v, sort_keys=True)) for k, v in {"ident": ident, **words}.items()]
            base.executemany("INSERT OR REPLACE INTO words VALUES (?, ?)", pairs)

    @property
    def runid(self) -> str:
        """What the jobs of this fetch are called on the server."""
        return f"xp-{self.word('ident')[:16]}"

    def ranges(self, *states: str) -> list[Range]:
        """The ranges in these states (all without any), ascending."""
        marks = ",".join("?" * len(states))
        clause = f" WHERE state IN ({marks})" if states else ""
        with self._write() as base:
            rows = base.execute(f"SELECT * FROM ranges{clause} ORDER BY lo", states).fetchall()
        return [Range(*row) for row in rows]

    def at(self, lo: int) -> Range:
        """The range that begins at `lo`."""
        with self._write() as base:
            return Range(*base.execute("SELECT * FROM ranges WHERE lo = ?", (lo,)).fetchone())

    def set(self, lo: int, **values: Any) -> None:
        """Change columns of the range that begins at `lo`."""
        sets = ", ".join(f"{name} = ?" for name in values)
        with self._write() as base:
            base.execute(f"UPDATE ranges SET {sets} WHERE lo = ?", (*values.values(), lo))

    def split(self, lo: int, parts: Iterable[tuple[int, int, str, int | None]]) -> None:
        """Put (lo, hi, state, expected) in place of the range that begins at `lo`."""
        with self._write() as base:
            base.execute("DELETE FROM ranges WHERE lo = ?", (lo,))
            base.executemany("INSERT INTO ranges (lo, hi, state, expected) VALUES (?, ?, ?, ?)", list(parts))

    def discard(self) -> None:
        """Remove the file, and the folder if nothing else is in it."""
        self.close()
        for name in (NAME, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            if (self.folder / INCOMING).exists():
                (self.folder / INCOMING).rmdir()
            self.folder.rmdir()

    def close(self) -> None:
        """Close the file."""
        with self.guard:
            self.base.close()
