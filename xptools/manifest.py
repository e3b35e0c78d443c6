"""The files from outside that xp can use (data/manifest.toml): their records, and whether they are here whole."""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xptools import settings
from xptools.errors import InputError, UsageError

MANIFEST = Path(__file__).parent / "data" / "manifest.toml"
OWN_SUM = ".sha256"  # beside a file without a published checksum: the sum of what came first, as sha256sum writes it
NOT_DATA = (OWN_SUM, ".part", ".json")
WHOLE = "record.json"  # in a folder with all files of a record: their names


@dataclass(frozen=True)
class External:
    """A file of the manifest: name, what it is, the command that uses it, its record; unknown fields are None."""

    name: str
    what: str
    use: str
    url: str
    folder: str = ""
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    licence: str | None = None
    doi: str | None = None
    cite: str | None = None
    key: str = ""
    get: str = ""
    zenodo: str = ""
    dataverse: str = ""
    about: str = ""
    home: str = ""
    by_hand: str = ""
    listing: str = ""
    packed: str = ""

    def find(self, roots: Iterable[Path]) -> Path | None:
        """The file under one of these folders, or None; of several the first."""
        folders = (("dustmaps", self.folder), (self.folder,), ())
        if "*" not in self.name:
            paths = (root.joinpath(*place, self.name) for root in roots for place in folders)
            return next((path for path in paths if path.is_file()), None)
        places = (root.joinpath(*place) for root in roots for place in folders[:2])
        return next((path for place in places if (path := self._first(place))), None)

    def _first(self, place: Path) -> Path | None:
        """The first of several files in a folder; of a record only once all of its files are there."""
        note = place / WHOLE
        if self.zenodo or self.dataverse or note.is_file():
            names = json.loads(note.read_text()) if note.is_file() else []
            paths = [place / name for name in names]
            return paths[0] if paths and all(p.is_file() for p in paths) else None
        found = (p for p in sorted(place.glob(self.name)) if p.is_file() and not p.name.endswith(NOT_DATA))
        return next(found, None)

    def fault(self, path: Path, whole: bool = True) -> str:
        """What is wrong with the file at `path`, "" if nothing: its size or, with `whole`, the sum of all its bytes."""
        size = path.stat().st_size
        if self.bytes is not None and size != self.bytes:
            return f"bad size: {size:,} bytes, not {self.bytes:,}"
        with path.open("rb") as f:
            if f.read(64).lstrip()[:1] == b"<":
                return "not the file but a web page, saved under its name"
        kind, wanted = ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)
        if wanted is None:
            kind, wanted = "sha256", own_sum(path)
        if whole and wanted and digest(path, kind) != wanted:
            return f"bad sum: its {kind} is not {wanted}"
        return ""


def external(other: str = "") -> tuple[External, ...]:
    """Every file of the manifest; those of another manifest (its path) stand in for ours of the same key, or add."""
    found = {e.key or e.name: e for e in _own()}
    if other:
        path = Path(other).expanduser()
        try:
            found |= {e.key or e.name: e for e in _read(path)}
        except OSError as fault:
            raise InputError(f"cannot open the manifest {path}: {fault.strerror.lower()}. TRY: ls {path}") from fault
        except (tomllib.TOMLDecodeError, TypeError, KeyError) as fault:
            words = str(fault).rpartition("__init__() ")[2]
            raise UsageError(f"{path} is no manifest: {words}. TRY: [[file]] with name, what, use, url") from fault
    return tuple(found.values())


@cache
def _own() -> list[External]:
    return _read(MANIFEST)


def _read(path: Path) -> list[External]:
    return [External(**entry) for entry in tomllib.loads(path.read_text())["file"]]


def home(file: External) -> Path | None:
    """The folder that a file is downloaded to: where dustmaps looks for a map, else a place in the cache, if any."""
    cache_dir = settings.cache_dir()
    if file.home == "dustmaps":
        return settings.dustmaps_folder() / file.folder
    return cache_dir / file.folder if cache_dir else None


def own_sum(path: Path) -> str | None:
    """The sha256 noted beside a file when it was first downloaded."""
    note = path.with_name(path.name + OWN_SUM)
    return note.read_text().split()[0] if note.is_file() and note.read_text().strip() else None


def note_sum(path: Path) -> str:
    """Note a file's sha256 beside it; returns it."""
    found = digest(path, "sha256")
    path.with_name(path.name + OWN_SUM).write_text(f"{found}  {path.name}\n")
    return found


def digest(path: Path, kind: str) -> str:
    """The checksum of a file, md5 or sha256."""
    with path.open("rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL) if hasattr(os, "posix_fadvise") else None
        return hashlib.file_digest(f, kind).hexdigest()


__all__ = ["External", "digest", "external", "home", "note_sum", "own_sum"]
