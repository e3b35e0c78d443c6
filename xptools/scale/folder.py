"""The folder that parts are written to: whose it is, who works in it, which parts are there.

`.xp-run/run.json` says by which steps the parts are made, `.xp-run/parts/<part>.json` of which input each one is. A
part is done when its record is there, for it is written last. Parts themselves hold nothing of this: they are the bytes
that xp run gives for that file alone.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from xptools import atomic, progress
from xptools.errors import BusyError, DataError, OutputError, PermissionFault
from xptools.scale.units import Unit

OWN = ".xp-run"
TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.tmp")


@dataclass
class Record:
    """What is known of a part: of which input it is, rows in and out, its size, what was counted on the way."""

    name: str
    size: int
    mtime_ns: int
    sha256: str
    groups: list[int] | None
    read: int
    written: int
    bytes: int
    flagged: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, list] = field(default_factory=dict)

    def of(self, unit: Unit) -> bool:
        """Whether the part is of this input as it is now; the same bytes under a new date are the same input."""
        if (self.name, self.size, self.groups) != (unit.name, unit.size, list(unit.groups) if unit.groups else None):
            return False
        if self.mtime_ns == unit.mtime_ns:
            return True
        from xptools.io import digest

        # The digest of a big file is of its ends only, which is not enough here.
        return not self.sha256.startswith("ends:") and self.sha256 == digest(unit.source)


class Folder:
    """The output of one run: parts and their records."""

    def __init__(self, path: str, sparse: bool = False):
        self.path, self.own, self.sparse = Path(path).absolute(), Path(path).absolute() / OWN, sparse

    def begin(self) -> None:
        """Make the folder; OutputError (73) if it is there and holds what no xp run has made."""
        try:
            if self.path.is_dir() and not self.own.is_dir() and any(self.path.iterdir()):
                raise OutputError(f"{self.path} holds other files. TRY: a new folder")
            (self.own / "parts").mkdir(parents=True, exist_ok=True)
        except PermissionError as fault:
            raise PermissionFault(f"no permission to write {self.path}. TRY: ls -ld {self.path.parent}") from fault
        except OSError as fault:
            raise OutputError(f"cannot make the folder {self.path}: {fault.strerror}. TRY: another folder") from fault

    @contextlib.contextmanager
    def held(self, shard: tuple[int, int] | None) -> Iterator[None]:
        """The right to work here: alone, or with the other shards. BusyError (75) if another process has it."""
        locks = [("lock", fcntl.LOCK_SH if shard else fcntl.LOCK_EX)]
        locks += [(f"lock-{shard[0]}-of-{shard[1]}", fcntl.LOCK_EX)] if shard else []
        with contextlib.ExitStack() as stack:
            for name, kind in locks:
                file = stack.enter_context(open(self.own / name, "w"))
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                except BlockingIOError as fault:
                    words = f"another xp run works in {self.path}. TRY: wait for it, or another folder"
                    raise BusyError(words) from fault
                except OSError as fault:
                    progress.warn(f"{self.path} cannot be locked ({fault.strerror}): start only one xp run in it")
            yield

    @contextlib.contextmanager
    def completing(self) -> Iterator[bool]:
        """Whether no other shard is about to complete the folder at the same moment."""
        with open(self.own / "lock-complete", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:  # no locks here, which `held` has said
                pass
            yield True

    def agree(self, about: dict[str, Any]) -> dict[str, Any]:
        """What the folder says of its run: `about`, if it is new; OutputError if it belongs to other steps."""
        path = self.own / "run.json"
        if not path.is_file():
            new = path.with_name(f".run.json.{os.getpid()}")
            atomic.write(new, json.dumps(about, sort_keys=True, indent=1).encode(), "what the folder holds")
            with contextlib.suppress(FileExistsError):
                os.link(new, path)  # of two shards that begin at once the first one wins
            new.unlink()
        there = _json(path)
        if there.get("steps") != json.loads(json.dumps(about["steps"])):
            was = " | ".join(s.get("cmd", "?") for s in there.get("steps", []))
            words = "other parameters, models or versions" if was == about["pipe"] else f"other steps ({was})"
            raise OutputError(f"{self.path} holds parts made by {words}. TRY: another folder, or remove this one")
        return there

    def records(self) -> dict[str, Record]:
        """The records there are: part -> record."""
        return {unquote(p.stem): _record(p) for p in sorted((self.own / "parts").glob("*.json"))}

    def record(self, part: str) -> Path:
        """The file of a part's record; all in one folder, or a catalogue's readers would take them for partitions."""
        return self.own / "parts" / f"{quote(part, safe='')}.json"

    def there(self, part: str, record: Record) -> bool:
        """Whether the part of a record is in the folder; a catalogue has no partitions without rows."""
        if self.sparse and record.written == 0:
            return True
        with contextlib.suppress(OSError):
            return (self.path / part).stat().st_size == record.bytes
        return False

    def target(self, unit: Unit) -> Path:
        """Where a part goes; its folder is made."""
        path = self.path / unit.part
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def note(self, unit: Unit, record: Record) -> None:
        """Write a part's record: from now on it is done."""
        atomic.write(
            self.record(unit.part), json.dumps(asdict(record), sort_keys=True).encode(), "the record of a part"
        )

    def sweep(self, units: Iterable[Unit] | None = None) -> None:
        """Remove what killed workers left half-written: everywhere, or of these units only."""
        found = [*(self.path.rglob(".*.tmp") if units is None else _of(self.path, units))]
        halves = [p for p in found if TEMPORARY.fullmatch(p.name)]
        halves += self.own.rglob(".*.json.*") if units is None else ()
        for path in halves:
            path.unlink(missing_ok=True)


def _of(root: Path, units: Iterable[Unit]) -> Iterator[Path]:
    for unit in units:
        part = root / unit.part
        yield from part.parent.glob(f".{part.name}.*.tmp") if part.parent.is_dir() else ()


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as fault:
        raise DataError(f"{path} is damaged. TRY: remove the folder, and run again") from fault


def _record(path: Path) -> Record:
    try:
        return Record(**_json(path))
    except TypeError as fault:
        raise DataError(f"{path} is of another version of xp. TRY: remove the folder, and run again") from fault
