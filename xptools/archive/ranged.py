"""A file behind HTTP that is read in pieces, as Parquet and HDF5 want it: the end first, then what is asked for."""

import io
import re
from collections import OrderedDict

import numpy as np
import requests

from xptools.archive.http import Client, refuse_page
from xptools.errors import RemoteError, UnavailableError

TAIL = 1 << 16  # bytes of the end that come with the first request: a footer, mostly
BLOCK = 1 << 16  # bytes that Blocks fetches and keeps as one
KEPT = 1024  # blocks
MOST = 64  # blocks of one request


class NoParts(UnavailableError):
    """The server gives whole files only."""


class Ranged(io.RawIOBase):
    """Random access by ranges; RemoteError if the file changes meanwhile, NoParts without ranges."""

    def __init__(self, client: Client, url: str):
        self.client, self.url, self.place, self.fetched = client, url, 0, 0
        reply = self._got(f"bytes=-{TAIL}")
        whole = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", reply.headers.get("Content-Range", ""))
        if whole is None:
            raise self._no_parts()
        self.version = _version(reply)
        self.tail, self.start, self.size = reply.content, int(whole[1]), int(whole[2])

    def _got(self, wanted: str) -> requests.Response:
        def ask() -> requests.Response:
            with self.client.streamed(self.url, accept=(200, 206), headers={"Range": wanted}) as reply:
                if reply.status_code != 206:  # all of it is on its way: not to be waited for
                    refuse_page(reply, next(reply.iter_content(1024), b""))
                    raise self._no_parts()
                self.client.heard(len(reply.content))
                return reply

        reply = self.client.patiently(ask, self.url)
        self.fetched += len(reply.content)
        return reply

    def _no_parts(self) -> NoParts:
        return NoParts(f"the server gives no parts of a file. {self.url}. TRY: another mirror, or download it")

    def part(self, start: int, stop: int) -> bytes:
        """The bytes from start to before stop."""
        if start >= self.start:
            return self.tail[start - self.start : stop - self.start]
        reply = self._got(f"bytes={start}-{stop - 1}")
        if _version(reply) != self.version or len(reply.content) != stop - start:
            raise RemoteError(f"{self.url} changed while it was read. TRY: the same command again")
        return reply.content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def read(self, size: int = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self.place + size, self.size)
        if stop <= self.place:
            return b""
        start, self.place = self.place, stop
        return self.part(start, stop)

    def readinto(self, buffer) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


class Blocks(Ranged):
    """Random access for many small reads: whole blocks are fetched, and the last of them kept.

    One request at a time, in the thread that reads: h5py holds a lock of the whole process meanwhile, for which any
    other thread may come to wait in its garbage collection.
    """

    def __init__(self, client: Client, url: str):
        self.blocks: OrderedDict[int, bytes] = OrderedDict()
        super().__init__(client, url)

    def ahead(self, numbers: np.ndarray) -> None:
        """Fetch the blocks of these numbers (ascending) that are not here; they are the last to be forgotten."""
        here = np.array([n in self.blocks for n in numbers.tolist()], bool)
        for n in numbers[here].tolist():
            self.blocks.move_to_end(n)
        for run in runs(numbers[~here]):
            start = int(run[0]) * BLOCK
            body = super().part(start, min(start + len(run) * BLOCK, self.size))
            self.blocks.update((n, body[i * BLOCK : (i + 1) * BLOCK]) for i, n in enumerate(run.tolist()))
        while len(self.blocks) > max(KEPT, len(numbers)):
            self.blocks.popitem(last=False)

    def part(self, start: int, stop: int) -> bytes:
        first, last = start // BLOCK, (stop - 1) // BLOCK
        self.ahead(np.arange(first, last + 1))
        whole = b"".join(self.blocks[n] for n in range(first, last + 1))
        return whole[start - first * BLOCK : stop - first * BLOCK]


def runs(numbers: np.ndarray) -> list[np.ndarray]:
    """Blocks (ascending) in runs of neighbours, each for one request."""
    if not len(numbers):
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [run[i : i + MOST] for run in np.split(numbers, cuts) for i in range(0, len(run), MOST)]


def _version(reply: requests.Response) -> tuple[str, str]:
    """What must stay the same of a file while it is read."""
    size = reply.headers.get("Content-Range", "").rpartition("/")[2]
    return reply.headers.get("ETag") or reply.headers.get("Last-Modified", ""), size
