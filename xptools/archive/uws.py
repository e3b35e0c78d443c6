"""A job on a TAP service (UWS 1.1): made, started, waited for, its result in a file, removed.

A job's address is known before it is started, so that it can be written down first; it is started only after a look at
its phase, because a second start kills it on some servers.
"""

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import requests

from xptools.archive.download import download
from xptools.archive.http import Refused
from xptools.archive.tap import Died, Tap, local, message
from xptools.errors import RemoteError, XpError

WAITING = {"PENDING", "QUEUED", "EXECUTING", "SUSPENDED", "HELD", "UNKNOWN"}
OVER = {"COMPLETED", "ERROR", "ABORTED", "ARCHIVED"}
FIRST_LOOK, LONGEST_LOOK = 0.3, 20.0  # s between two looks at a phase


class Gone(Died):
    """The job is no more (its time ran out, or somebody removed it)."""


def create(tap: Tap, adql: str, maxrec: int, runid: str, stars: np.ndarray | None = None) -> str:
    """Make a job, with a table of stars if there is one, and return its address; it does not run yet."""
    form = tap.form(tap.words(adql, maxrec, RUNID=runid), stars)
    reply = tap.client.request(
        "POST", f"{tap.url}/async", accept=(200, 201, 302, 303, 400), page=True, redirects=False, **form
    )
    if place := reply.headers.get("Location"):
        return urljoin(reply.url, place)
    if found := _own_address(reply.content, tap):
        return found
    raise tap.refused(message(reply.content) or "no job was made")


def _own_address(body: bytes, tap: Tap) -> str:
    """The address of the job in a job document, where a server answers with that instead of a redirect."""
    with contextlib.suppress(ET.ParseError):
        identity = next((e.text for e in ET.fromstring(body).iter() if local(e) == "jobId"), None)
        return f"{tap.url}/async/{identity}" if identity else ""
    return ""


class Job:
    """A job at `url`."""

    def __init__(self, tap: Tap, url: str):
        self.tap, self.url, self.client = tap, url, tap.client

    def phase(self) -> str:
        """PENDING, QUEUED, EXECUTING, COMPLETED, ERROR, ABORTED ...; Gone if the job is no more."""
        return self._ask("GET", "/phase").text.strip().upper()

    def _ask(self, method: str, path: str, **rest) -> requests.Response:
        try:
            reply = self.client.request(method, f"{self.url}{path}", **rest)
        except Refused as fault:
            if fault.status in (404, 410):
                raise Gone(
                    f"a job has vanished from {self.tap.host}. {self.url}. TRY: the same command again"
                ) from fault
            raise
        return reply

    def run(self) -> None:
        """Start it, unless it has been started."""
        for attempt in range(self.client.tries):
            if self.phase() != "PENDING":
                return
            try:
                self._ask("POST", "/phase", data={"PHASE": "RUN"}, retry=False, page=True, redirects=False,
                          accept=(200, 302, 303))  # fmt: skip
                return
            except (RemoteError, requests.RequestException):
                if attempt + 1 == self.client.tries:
                    raise
                self.client.rest(self.client.pause * 2**attempt)

    def wait(self) -> None:
        """Until it is over; Died, Slow or DataError with the server's words unless it went well."""
        pause = FIRST_LOOK
        while (phase := self.phase()) not in OVER:
            if phase not in WAITING:
                raise RemoteError(
                    f"{self.tap.host} says {phase[:40]!r} of a job. {self.url}. TRY: the same command later"
                )
            if phase == "PENDING":
                self.run()
            self.client.rest(pause)
            pause = min(1.3 * pause, LONGEST_LOOK)
        if phase == "ABORTED":
            raise Died(f"a job was stopped at {self.tap.host}. {self.url}. TRY: the same command again")
        if phase != "COMPLETED":
            raise self.tap.refused(self._reason())

    def _reason(self) -> str:
        for path in ("/error", ""):
            with contextlib.suppress(Refused):
                if words := message(self._ask("GET", path, page=True).content):
                    return words
        return "no reason given"

    def result(self, target: Path, hook: Callable[[int], None] = lambda _: None) -> Path:
        """The result as a file."""
        url = f"{self.url}/results/result"
        try:
            return download(self.client, url, target, hook=hook, version=url)
        except Refused as fault:
            if fault.status in (404, 410):
                raise Gone(f"a job's result has vanished from {self.tap.host}. {self.url}. TRY: again") from fault
            raise

    def delete(self) -> bool:
        """Remove it from the server; whether that worked (a server that does not answer is no failure of the fetch)."""
        try:
            self._ask("DELETE", "", page=True, redirects=False, accept=(200, 202, 204, 302, 303))
        except Gone:
            return True
        except (XpError, requests.RequestException):
            return False
        return True


def orphans(tap: Tap, runid: str) -> Iterator[str]:
    """Jobs of ours that never started: made, but the server's answer was lost. As far as the server lists jobs."""
    try:
        listed = tap.client.request("GET", f"{tap.url}/async", params={"PHASE": "PENDING"}, retry=False)
        root = ET.fromstring(listed.content)
    except (XpError, requests.RequestException, ET.ParseError):
        return
    for job in (e for e in root.iter() if local(e) == "jobref"):
        told = {local(e): (e.text or "").strip() for e in job}
        if told.get("runId") == runid and told.get("phase") == "PENDING" and job.get("id"):
            yield f"{tap.url}/async/{job.get('id')}"
