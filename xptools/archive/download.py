"""Files from the network to disc: resumed where they broke off, their size and checksum compared, in place only whole.

Beside the file a `.part` grows, with a `.part.json` that says which version of which address it is the beginning of.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from xptools.archive.held import held
from xptools.archive.http import PIECE, Client, Refused, refuse_page
from xptools.errors import DataError, OutputError, RemoteError
from xptools.io.spool import disk


def download(
    client: Client,
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sums: dict[str, str] | None = None,
    hook: Callable[[int], None] = lambda _: None,
    page: bool = False,
    version: str = "",
    headers: dict[str, str] | None = None,
    **rest: Any,
) -> Path:
    """Get `url` into the file `target`: not there before it is whole, of `size` bytes, and of the checksums `sums`.

    `sums` is {"md5": "...", "sha256": "..."}; `hook(n)` hears of n new bytes (negative when a part is thrown away);
    `page` allows HTML; `version` names the content of an address whose content never changes (a finished job's
    result), so that it is resumed though the server states no ETag and no date; `headers` and `rest` (method, params,
    data ...) go to requests.
    """
    part = Part(Path(target), url, version)
    with held(part.lock, str(target), keep=False):
        for last in (False, True):
            client.patiently(lambda: part.go_on(client, page, hook, headers or {}, rest), url, progress=part.size)
            fault = part.fault(size, sums or {})
            if not fault:
                return part.finish()
            # One more from the beginning: a proxy may have served a stale or damaged copy.
            part.drop(hook)
            if last:
                raise DataError(f"{fault}. {url}. TRY: again later; what the server has is not the file that is known")
    raise AssertionError("a download is tried at least once")


class Part:
    """The beginning of a file that is on its way."""

    def __init__(self, target: Path, url: str, version: str):
        self.target, self.url, self.version = target, url, version
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.lock = target.with_name(target.name + ".part.lock")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            words = f"cannot make the folder {target.parent}: {fault.strerror}"
            raise OutputError(f"{words}. TRY: another folder") from fault
        self.total: int | None = None

    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def go_on(self, client: Client, page: bool, hook: Callable[[int], None], headers: dict, rest: dict) -> None:
        """Ask for what is missing and write it; RemoteError or a fault of requests if it breaks off again."""
        held, version = self._held()
        asked = {**headers, **({"Range": f"bytes={held}-"} if held else {})}
        if held and version != self.version:
            asked["If-Range"] = version
        try:
            with client.streamed(self.url, accept=(200, 206), headers=asked, **rest) as reply:
                self._write(reply, held, page, hook)
        except Refused as fault:
            if fault.status != 416 or not held:
                raise
            self.drop(hook)
            raise RemoteError(f"{self.url} has become another file") from fault

    def _held(self) -> tuple[int, str]:
        """Bytes that are here of the same version of the same address, and that version; (0, "") if none."""
        try:
            note = json.loads(self.note.read_text())
            if note["url"] == self.url and note["version"]:
                return self.size(), note["version"]
        except (OSError, ValueError, KeyError):
            pass
        return 0, ""

    def _write(self, reply: requests.Response, held: int, page: bool, hook: Callable[[int], None]) -> None:
        begins = reply.status_code == 200
        if not begins:
            start, _, whole = reply.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if not start.startswith(f"{held}-"):
                self.drop(hook)
                raise RemoteError(f"{self.url}: the server gave other bytes than those asked for")
            self.total = int(whole) if whole.isdigit() else None
        else:
            if held:
                hook(-held)
            length = reply.headers.get("Content-Length", "")
            encoded = reply.headers.get("Content-Encoding", "identity") != "identity"
            self.total = int(length) if length.isdigit() and not encoded else None
        pieces = reply.iter_content(PIECE)
        first = next(pieces, b"")
        if begins and not page:
            refuse_page(reply, first[:1024])
        with open(self.path, "wb" if begins else "ab") as f:
            if begins:
                self._sign(reply)
            while first:
                with disk(self.target.parent):
                    f.write(first)
                hook(len(first))
                first = next(pieces, b"")
        if self.total is not None and self.size() < self.total:
            raise RemoteError(f"{self.url} was cut off. TRY: the same command later")

    def _sign(self, reply: requests.Response) -> None:
        """Note what the part is the beginning of: a weak ETag does not promise the same bytes."""
        tag = reply.headers.get("ETag", "")
        version = tag if tag and not tag.startswith("W/") else reply.headers.get("Last-Modified", "")
        version = self.version or version
        self.note.write_text(json.dumps({"url": self.url, "version": version}))

    def fault(self, size: int | None, sums: dict[str, str]) -> str:
        """What is wrong with the file that came, "" if nothing."""
        there, known = self.size(), size if size is not None else self.total
        if known is not None and there != known:
            return f"{self.target.name} has {there:,} bytes, not {known:,}"
        for kind, wanted in sums.items():
            with open(self.path, "rb") as f:
                found = hashlib.file_digest(f, kind).hexdigest()
            if found != wanted.lower():
                return f"{self.target.name} has the {kind} {found}, not {wanted}"
        return ""

    def finish(self) -> Path:
        """Put the whole file in place."""
        with open(self.path, "rb") as f:
            os.fsync(f.fileno())
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)
        return self.target

    def drop(self, hook: Callable[[int], None]) -> None:
        """Throw the part away."""
        hook(-self.size())
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
