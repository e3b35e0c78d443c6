"""Files of the manifest onto this machine: found, or downloaded, compared, and put where the other commands look."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xptools import manifest, progress, settings
from xptools.errors import DataError, DiskError, UnavailableError, UsageError
from xptools.manifest import External

if TYPE_CHECKING:  # what is here is listed without what talks to servers: requests alone takes 0.05 s
    from xptools.archive import records
    from xptools.archive.http import Client


class State(NamedTuple):
    """Whether a file is here: `path` and `fault` as the manifest finds them."""

    file: External
    path: Path | None
    fault: str


def named(names: tuple[str, ...], other: str = "") -> list[External]:
    """Entries by their keys or file names; UsageError with the nearest for a name that nobody has."""
    known = {e.key: e for e in manifest.external(other)} | {e.name: e for e in manifest.external(other)}
    for name in names:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            raise UsageError(f"there are no data {name!r}. TRY: {near[0] if near else 'xp fetch data --list'}")
    return list(dict.fromkeys(known[name] for name in names))


def every(other: str = "") -> tuple[External, ...]:
    """All entries."""
    return manifest.external(other)


def states(files: list[External], whole: bool = False, to: Path | None = None) -> list[State]:
    """Which of the files are here, `to` being one more place; sums are compared only with `whole`."""
    roots = [*([to] if to else []), *settings.map_roots()]
    found = [(f, f.find(roots)) for f in files]
    return [State(f, path, f.fault(path, whole) or _unread(f, path, whole) if path else "") for f, path in found]


def _unread(file: External, path: Path, whole: bool) -> str:
    """What is wrong with tables that somebody has put there, "" if nothing; those of an archive have been read."""
    if not (whole and file.packed) or (path.parent / manifest.WHOLE).exists():
        return ""
    from xptools.archive import unpack

    for table in sorted(path.parent.glob(file.name)):
        try:
            unpack.readable(table)
        except DataError as fault:
            return str(fault).partition(" TRY:")[0]
    return ""


def size(file: External) -> str:
    """How large a file is, as far as anybody says."""
    if file.bytes is not None:
        return readable(file.bytes)
    return f"about {file.about}" if file.about else "size not known here"


def readable(n: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} GB"


def table(found: list[State]) -> str:
    """The files as text: key, size, whether here, what, licence and DOI."""
    lines = []
    for state in found:
        file = state.file
        here = "absent" if state.path is None else state.fault or f"here: {state.path}"
        known = "md5" if file.md5 else "sha256" if file.sha256 else "none published"
        known = "of the record" if file.zenodo or file.dataverse else known
        check = f"checksum: {known}"
        record = ", ".join(w for w in (f"doi:{file.doi}" if file.doi else file.url, file.licence, file.cite) if w)
        lines.append(f"{file.key:<24} {size(file):<20} {here}\n    {file.what}\n    {record}; {check}")
    return "\n".join(lines)


def missing(found: list[State]) -> None:
    """UnavailableError (69) listing all that is not here: what offline means."""
    absent = [s for s in found if s.path is None or s.fault]
    if absent:
        names = ", ".join(f"{s.file.key} ({size(s.file)}{', ' + s.fault if s.fault else ''})" for s in absent)
        raise UnavailableError(f"not on this machine, and the network may not be used: {names}. TRY: without --offline")


class Fetcher:
    """Downloads with one client; `say` hears a line per file."""

    def __init__(self, client: Client, to: Path | None, draw: bool, say: Callable[[str], None]):
        self.client, self.to, self.draw, self.say = client, to, draw, say

    def get(self, file: External) -> list[Path]:
        """Download what an entry stands for; UnavailableError for what only a person can get."""
        from xptools.archive import records, unpack

        folder = self.to / file.folder if self.to else manifest.home(file)
        if folder is None:
            raise UsageError(f"there is no place for {file.key} (--cache off). TRY: --to DIR")
        try:
            found = records.files(self.client, file)
        except UnavailableError as fault:
            if not file.by_hand:
                raise
            words, again = str(fault).partition(" TRY:")[0], f"xp fetch data {file.key}"
            raise UnavailableError(f"{words} By hand: {file.by_hand} {folder}. TRY: that, then {again}") from fault
        known = [r.bytes for r in found if r.bytes is not None]
        self._room(folder, sum(known))
        host = found[0].url.split("/")[2]
        total = readable(sum(known)) if known else size(file)
        self.say(f"xp fetch data: {file.key}, {len(found)} file(s), {total}, from {host} into {folder}")
        paths = [self._one(file, r, folder / Path(r.name).name) for r in found]
        if file.packed:
            return unpack.isochrones(paths, folder, file.name)
        if "*" in file.name:
            (folder / manifest.WHOLE).write_text(json.dumps([p.name for p in paths]))
        return paths

    def _one(self, file: External, remote: records.Remote, target: Path) -> Path:
        if target.is_file() and not _differs(target, remote):
            return target
        from xptools.archive.download import download

        before = manifest.own_sum(target)
        sums = remote.sums or ({"sha256": before} if before else {})
        bar = progress.Bar(f"fetch {target.name}", remote.bytes, self.draw, "B")
        try:
            download(self.client, remote.url, target, size=remote.bytes, sums=sums, hook=bar.add)
        finally:
            bar.close()
        if remote.licence:
            self.say(f"xp fetch data: {target.name} is under {remote.licence}")
        if not remote.sums:
            noted = before or manifest.note_sum(target)
            compared = "is that of the first download" if before else "is noted for the next"
            self.say(f"xp fetch data: {target.name} has no published checksum; its sha256 {compared}: {noted}")
        return target

    def _room(self, folder: Path, wanted: int) -> None:
        there = next(p for p in (folder, *folder.parents) if p.exists())
        free = shutil.disk_usage(there).free
        if wanted > free:
            raise DiskError(f"{readable(wanted)} are needed in {folder}, {readable(free)} are free. TRY: --to DIR")


def _differs(path: Path, remote: records.Remote) -> bool:
    """Whether a file is not what the record has: no sum, no certainty, so it is downloaded again."""
    if remote.bytes is not None and path.stat().st_size != remote.bytes:
        return True
    sums = remote.sums or {"sha256": manifest.own_sum(path)}
    return any(value is None or manifest.digest(path, kind) != value for kind, value in sums.items())


def fetch(found: list[State], fetcher: Callable[[], Fetcher], again: bool) -> list[Path]:
    """Have all these files here and whole; `fetcher` is called when there is something to download."""
    paths, made = [], None
    for state in found:
        if state.path is not None and not state.fault and not again:
            paths.append(state.path)
            continue
        made = made or fetcher()
        if state.fault:
            made.say(f"xp fetch data: {state.path}: {state.fault}")
        paths += made.get(state.file)
    return paths
