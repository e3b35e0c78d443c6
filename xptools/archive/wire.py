"""The bytes of a large file as they come, each looked at once: never on disc, their checksum compared at the end.

What was made of them counts only if the last piece has come: a wrong sum raises there.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import requests
from isal import isal_zlib

from xptools.archive.http import PIECE, Client, Refused, refuse_page
from xptools.errors import DataError, InputError, RemoteError, XpError

BLOCK = 8 << 20


class Damaged(DataError):
    """What came is cut or spoilt; another try may bring it whole."""


class WrongSum(Damaged):
    """All bytes have come, but they are not those whose checksum is published."""


class Broken(XpError):
    """The file cannot be gone on with in its middle (it changed, or the server gives no parts): begin again."""

    code = RemoteError.code


def near(path: Path, md5: str | None = None) -> Iterator[bytes]:
    """A file on this machine in pieces; InputError if it cannot be opened, WrongSum after the last piece."""
    try:
        with open(path, "rb", buffering=0) as file:
            yield from _summed(iter(lambda: file.read(1 << 20), b""), str(path), md5)
    except OSError as fault:
        raise InputError(f"cannot read {path}: {fault.strerror}. TRY: ls -l {path}") from fault


def far(client: Client, url: str, md5: str | None = None) -> Iterator[bytes]:
    """A file behind HTTP in pieces; what breaks off is taken up where it was.

    RemoteError where the server stays away, Broken where it goes on with something else, WrongSum after the last piece.
    """
    stream = _Stream(client, url, trusting=md5 is not None)
    try:
        yield from _summed(iter(stream.next, b""), url, md5)
    finally:
        stream.leave()


def _summed(pieces: Iterable[bytes], name: str, md5: str | None) -> Iterator[bytes]:
    found = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        if md5:
            found.update(piece)
        yield piece
    if md5 and found.hexdigest() != md5.lower():
        raise WrongSum(f"{name} has the md5 {found.hexdigest()}, not {md5}. TRY: download that file again")


class _Stream:
    """A reply that goes on after a fault; `trusting`: a sum at the end tells whether the parts belong together."""

    def __init__(self, client: Client, url: str, trusting: bool):
        self.client, self.url, self.trusting = client, url, trusting
        self.at, self.total, self.version = 0, None, ""
        self.open, self.pieces = ExitStack(), None

    def next(self) -> bytes:
        """The next piece, b"" after the last."""
        return self.client.patiently(self._next, self.url)

    def leave(self) -> None:
        """Let the connection go."""
        self.open.close()
        self.pieces = None

    def _next(self) -> bytes:
        try:
            if self.pieces is None:
                self._connect()
            piece = next(self.pieces, b"")
            if not piece and self.total is not None and self.at < self.total:
                raise RemoteError(f"{self.url} was cut off. TRY: the same command later")
        except (requests.RequestException, RemoteError):
            self.leave()
            raise
        if self.at == 0:
            refuse_page(self.reply, piece[:1024])
        self.at += len(piece)
        self.client.heard(len(piece))
        return piece

    def _connect(self) -> None:
        if self.at and not (self.version or self.trusting):
            raise Broken(f"{self.url} was cut off, and its server cannot go on. TRY: the same command later")
        asked = (
            {"Range": f"bytes={self.at}-", **({"If-Range": self.version} if self.version else {})} if self.at else {}
        )
        try:
            self.reply = self.open.enter_context(self.client.streamed(self.url, accept=(200, 206), headers=asked))
        except Refused as fault:
            if fault.status != 416:
                raise
            raise Broken(f"{self.url} has become another file. TRY: the same command again") from fault
        if self.at:
            start, _, whole = self.reply.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if self.reply.status_code != 206 or not start.startswith(f"{self.at}-"):
                raise Broken(f"{self.url} has changed, or its server gives no parts. TRY: the same command again")
        else:
            whole, tag = self.reply.headers.get("Content-Length", ""), self.reply.headers.get("ETag", "")
            self.version = tag if tag and not tag.startswith("W/") else self.reply.headers.get("Last-Modified", "")
        self.total = int(whole) if whole.isdigit() else None
        self.pieces = self.reply.iter_content(PIECE)


def plain(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Pieces of a file, unpacked if it is gzipped (any number of members); Damaged if it is cut or damaged.

    isal inflates more than twice as fast as zlib, and each member's sum and length are compared as zlib does it.
    """
    unpack, begun = None, False
    for piece in pieces:
        if not begun:
            begun, unpack = True, isal_zlib.decompressobj(31) if piece.startswith(b"\x1f\x8b") else None
        if unpack is None:
            yield piece
            continue
        try:
            while piece:
                if unpack.eof:
                    unpack = isal_zlib.decompressobj(31)
                yield unpack.decompress(piece)
                piece = unpack.unused_data
        except isal_zlib.error as fault:
            raise Damaged(f"{name} is damaged ({fault}). TRY: fetch it again") from fault
    if unpack is not None and not unpack.eof:
        raise Damaged(f"{name} is cut off. TRY: fetch it again")


def blocks(pieces: Iterable[bytes], size: int = BLOCK) -> Iterator[bytes]:
    """Whole lines, in blocks of about `size` bytes."""
    held: list[bytes] = []
    have = 0
    for piece in pieces:
        held.append(piece)
        have += len(piece)
        if have >= size and (end := piece.rfind(b"\n") + 1):
            yield b"".join([*held[:-1], piece[:end]])
            held = [piece[end:]]
            have = len(held[0])
    if have:
        yield b"".join(held)
