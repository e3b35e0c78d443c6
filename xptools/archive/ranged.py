"""A file behind HTTP that is read in pieces, as Parquet wants it: the end first, then the columns."""

import io
import re

from xptools.archive.http import Client
from xptools.errors import RemoteError, UnavailableError

TAIL = 1 << 16  # bytes of the end that come with the first request: a footer, mostly


class Ranged(io.RawIOBase):
    """Random access by ranges; RemoteError if the file changes meanwhile, UnavailableError without ranges."""

    def __init__(self, client: Client, url: str):
        self.client, self.url, self.place, self.fetched = client, url, 0, 0
        reply = self._got(f"bytes=-{TAIL}")
        whole = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", reply.headers.get("Content-Range", ""))
        if whole is None:
            raise UnavailableError(f"the server gives no parts of a file. {url}. TRY: another mirror, or download it")
        self.tag = reply.headers.get("ETag")
        self.tail, self.start, self.size = reply.content, int(whole[1]), int(whole[2])

    def _got(self, wanted: str):
        reply = self.client.request("GET", self.url, accept=(200, 206), headers={"Range": wanted})
        if reply.status_code != 206:
            raise UnavailableError(f"the server gives no parts of a file. {self.url}. TRY: another mirror")
        self.fetched += len(reply.content)
        return reply

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
        if self.place >= self.start:
            block = self.tail[self.place - self.start : stop - self.start]
        else:
            reply = self._got(f"bytes={self.place}-{stop - 1}")
            block = reply.content
            if reply.headers.get("ETag") != self.tag or len(block) != stop - self.place:
                raise RemoteError(f"{self.url} changed while it was read. TRY: the same command again")
        self.place = stop
        return block
