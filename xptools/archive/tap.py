"""A TAP service: synchronous queries, what it says it can do, its replies as tables.

VOTable BINARY2 where the service has it; a reply is accepted only whole (its end tag is there) and if it does not say
of itself that it is an error or a part.
"""

import gzip
import io
import re
import xml.etree.ElementTree as ET
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.archive.http import Client, Refused, plain
from xptools.columns import GAIA
from xptools.errors import DataError, RemoteError, XpError
from xptools.io import votable, votablestream
from xptools.io.votableout import VotableSink
from xptools.io.votablestream import ServerSays

KEY = "source_id"
UPLOAD = "stars"  # the name of a table that goes along with a query
JOIN = f"JOIN TAP_UPLOAD.{UPLOAD} AS u ON u.{KEY} ="

# What a server says of itself, not of the query; and what it says when the query took too long.
SLOW = r"time[d ]?\s?-?out|time limit|statement timeout|took too long|execution duration"
PASSING = r"silently died|killed|aborted|deadlock|too many|shutting down|restart|connection|terminating|unavailable"


class Overflow(DataError):
    """The service gave only the first rows; `table` holds them (None if they were not read)."""

    def __init__(self, message: str, table: pa.Table | None = None):
        super().__init__(message)
        self.table = table


class Slow(RemoteError):
    """The service gave up on a query because it took too long: ask for less."""


class Died(RemoteError):
    """The service lost a job: make it again."""


class Tap:
    """A TAP service at `url`."""

    def __init__(self, client: Client, url: str):
        self.client, self.url = client, url
        self.host = urlsplit(url).netloc

    @cached_property
    def _capabilities(self) -> list[ET.Element]:
        """The TAP part of the service's own description; empty where it gives none that can be read."""
        try:
            root = ET.fromstring(self.client.request("GET", f"{self.url}/capabilities").content)
        except (Refused, ET.ParseError):
            return []
        return [e for e in root.iter() if local(e) == "capability" and "std/TAP" in e.get("standardID", "")]

    @cached_property
    def format(self) -> str:
        """How the service spells VOTable BINARY2, else plain `votable`."""
        for capability in self._capabilities:
            for form in (e for e in capability.iter() if local(e) == "outputFormat"):
                texts = [(local(e), (e.text or "").strip()) for e in form]
                if any(tag == "mime" and "binary2" in text.lower() for tag, text in texts):
                    return next((text for tag, text in texts if tag == "alias"), texts[0][1])
        return "votable"

    @cached_property
    def most(self) -> int | None:
        """Rows the service gives at most in one reply, None if it does not say."""
        for capability in self._capabilities:
            for limit in (e for e in capability.iter() if local(e) == "outputLimit"):
                for e in limit:
                    if local(e) == "hard" and e.get("unit", "row") == "row" and (e.text or "").strip().isdigit():
                        return int(e.text)
        return None

    @cached_property
    def uploads(self) -> bool:
        """Whether the service says that it takes tables along with a query."""
        methods = (e.get("ivo-id", "") for c in self._capabilities for e in c.iter() if local(e) == "uploadMethod")
        return any(name.lower().endswith("#upload-inline") for name in methods)

    def words(self, adql: str, maxrec: int, **more: str) -> dict[str, str]:
        """The form that a query is sent as."""
        form = {"REQUEST": "doQuery", "LANG": "ADQL", "FORMAT": self.format, "MAXREC": str(maxrec), "QUERY": adql}
        return form | more

    def form(self, words: dict[str, str], stars: np.ndarray | None) -> dict[str, Any]:
        """What requests sends: a form, and with it the identifiers `stars` as the table TAP_UPLOAD.stars, if any."""
        if stars is None:
            return {"data": words}
        batch = pa.record_batch([pa.array(stars)], schema=pa.schema([metadata.field_of(KEY, GAIA[KEY])]))
        out = io.BytesIO()
        sink = VotableSink(out, batch.schema)
        sink.write(batch)
        sink.close()
        file = (f"{UPLOAD}.vot", out.getvalue(), "application/x-votable+xml")
        return {"data": words | {"UPLOAD": f"{UPLOAD},param:{UPLOAD}"}, "files": {UPLOAD: file}}

    def sync(self, adql: str, maxrec: int, stars: np.ndarray | None = None) -> pa.Table:
        """The table of a query, at once; DataError with the server's words, Overflow if there is more."""
        form = self.form(self.words(adql, maxrec), stars)
        reply = self.client.request("POST", f"{self.url}/sync", accept=(200, 400), **form)
        if reply.status_code >= 400:
            raise self.refused(message(reply.content))
        return self.table(io.BytesIO(reply.content))

    def table(self, body: BinaryIO | Path) -> pa.Table:
        """The table in a reply: a file object, or the path of a file."""
        name = f"the reply of {self.host}"
        if isinstance(body, Path):
            with body.open("rb") as f:
                return self.table(f)
        held: list[pa.RecordBatch] = []
        schema = None
        try:
            plain_body = _unpacked(body)
            streamed = votablestream.read(plain_body, name, partial=True)
            with streamed or votable.read(plain_body, name, 1 << 16) as reader:
                schema = reader.schema
                held.extend(reader)
        except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
            raise DataError(f"{name} is cut off or damaged ({fault}). TRY: again") from fault
        except ServerSays as fault:
            if fault.status != "OVERFLOW":
                raise self.refused(fault.words) from fault
            table = pa.Table.from_batches(held, schema) if schema is not None else None
            words = f"{self.host} gave only the first {table.num_rows if table else 0:,} rows (OVERFLOW)"
            raise Overflow(f"{words}. TRY: fewer rows at once", table) from fault
        return pa.Table.from_batches(held, schema)

    def refused(self, words: str) -> XpError:
        """What the server says against a query, as an error of ours: is it the query, or will it pass?"""
        text = re.sub(r"^(Field query|Query failed|Error)\s*:\s*", "", plain(words)).rstrip(". ")
        if re.search(SLOW, text, re.I):
            return Slow(
                f"{self.host} gave up on a query that took too long ({text}). TRY: again, or a smaller --job-rows"
            )
        if re.search(PASSING, text, re.I):
            return Died(f"{self.host} lost a job ({text}). TRY: the same command later")
        return DataError(f"{self.host} does not accept the query: {text}. TRY: mend the ADQL")


def _unpacked(body: BinaryIO) -> BinaryIO:
    """A body without its gzip, which some services put round it whatever was asked for."""
    packed = body.read(2) == b"\x1f\x8b"
    body.seek(0)
    return gzip.GzipFile(fileobj=body) if packed else body


def local(element: ET.Element) -> str:
    """An element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def message(body: bytes) -> str:
    """The sentence in an error document: VOTable's QUERY_STATUS, UWS's errorSummary, or its bare text."""
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        return plain(body.decode("utf-8", "replace"))
    for e in root.iter():
        if local(e) == "INFO" and e.get("name") == "QUERY_STATUS" and e.get("value") == "ERROR":
            return " ".join("".join(e.itertext()).split()) or "no reason given"
    for e in root.iter():
        if local(e) == "errorSummary":
            return " ".join(" ".join(e.itertext()).split()) or "no reason given"
    return ""
