"""The services of a fetch in the order in which they are tried: asked for no rows first, then for all."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from xptools import progress
from xptools.archive import parts
from xptools.archive.http import Client
from xptools.archive.manifest import Manifest
from xptools.archive.query import Query
from xptools.archive.services import TRUTHS, Service
from xptools.archive.tap import Overflow, Slow, Tap
from xptools.errors import DataError, RemoteError, UnavailableError, XpError


@dataclass
class Mirrors:
    """Services for one query; the columns that the first one gives are those of the fetch, whoever gives the rows."""

    manifest: Manifest
    query: Query
    services: tuple[Service, ...]
    client: Client
    sign_in: Callable[[Client, str], Any] | None = None
    taps: dict[str, Tap] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    truths: dict[str, str] = field(default_factory=dict)
    guard: threading.RLock = field(default_factory=threading.RLock)

    def ask(self, act: Callable[[Service, Tap], Any]) -> Any:
        """`act(service, tap)` at the first service that is up; one that fails for good is left out from then on."""
        last: XpError | None = None
        for service in self.services:
            if service.name in self.down:
                continue
            try:
                return act(service, self.tap(service))
            except Slow:
                raise
            except (RemoteError, UnavailableError) as fault:
                if self.client.stopping.is_set():
                    raise
                last = fault
                self._leave(service, fault)
        raise last or RemoteError("no service is left. TRY: the same command later")

    def _leave(self, service: Service, fault: XpError) -> None:
        with self.guard:
            new = service.name not in self.down
            self.down.add(service.name)
        if new and len(self.down) < len(self.services):
            progress.warn(f"{str(fault).partition(' TRY:')[0]} Going on with the next service.")

    def tap(self, service: Service) -> Tap:
        """The service; signed in to, and asked for the columns, when it is first used."""
        with self.guard:
            if service.name not in self.taps:
                tap = Tap(self.client, service.url)
                if self.sign_in is not None:
                    self.sign_in(self.client, service.url)
                reply = self._probe(service, tap)
                if self.manifest.word("schema") is None:
                    self.manifest.note(schema=parts.schema_of(reply.schema).serialize().to_pybytes().hex())
                parts.conformed(reply, self.schema(), tap.host)
                self.taps[service.name] = tap
            return self.taps[service.name]

    def _probe(self, service: Service, tap: Tap) -> pa.Table:
        """The query's answer for no source_id: its columns, or the server's words against it.

        A truth is written in the first way that the service does not refuse.
        """
        first: XpError | None = None
        for truth in TRUTHS if "{true}" in self.query.tail else TRUTHS[:1]:
            self.truths[service.name] = truth
            try:
                stars = self.query.stars
                return tap.sync(self.query.rows(0, 0, truth), 1, None if stars is None else stars[:1])
            except Overflow as fault:
                if fault.table is None:
                    raise
                return fault.table
            except DataError as fault:
                first = first or fault
        raise first

    def schema(self) -> pa.Schema:
        """The columns of the fetch."""
        kept = self.manifest.word("schema")
        if kept is None:
            self.ask(lambda *_: None)
            kept = self.manifest.word("schema")
        return pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(kept)))

    def rows(self, service: Service, lo: int, hi: int) -> str:
        """The ADQL of a range, as the service wants it."""
        return self.query.rows(lo, hi, self.truths[service.name])

    def bins(self, service: Service, lo: int, hi: int, width: int) -> str:
        """The ADQL that counts a range."""
        return self.query.bins(lo, hi, width, self.truths[service.name])

    def total(self, service: Service) -> str:
        """The ADQL that counts a query which is not cut."""
        return self.query.total(self.truths[service.name])

    @property
    def most(self) -> int | None:
        """Rows that every service in use gives at once, None if none says."""
        return min((tap.most for tap in list(self.taps.values()) if tap.most), default=None)
