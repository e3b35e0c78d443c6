"""HTTP with patience: time-outs, retries with jittered back-off, a polite number of requests, downloads that resume.

A server's silence, 429, 5xx and cut replies are met with another try; a web page where data was asked for is refused,
whatever its status. What no try mends is an error in one sentence: 75 run again later, 69 not there, 77 not let in.
"""

import random
import threading
from collections.abc import Callable
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests

from xptools import settings
from xptools.errors import PermissionFault, RemoteError, UnavailableError, UsageError
from xptools.io.spool import disk, spool

BUSY = {408, 425, 429, 500, 502, 503, 504}
LONGEST = 120.0  # s; longest wait between two tries, if the server names none
MOST_ASKED = 900.0  # s; a Retry-After beyond this is not waited for
PAUSE = 1.0  # s; the first wait of the back-off
PIECE = 1 << 16


class WebPage(RemoteError):
    """The server gave a web page (maintenance, firewall, login) instead of data."""


class Busy(RemoteError):
    """The server asks for patience: `wait` [s] is how long, None if it does not say."""

    def __init__(self, message: str, wait: float | None):
        super().__init__(message)
        self.wait = wait


class Unreached(RemoteError):
    """No connection could be made at all: another mirror may do."""


class Refused(UnavailableError):
    """The server refuses the request; `status` is HTTP's, `text` the beginning of its reply."""

    def __init__(self, message: str, status: int, text: str = ""):
        super().__init__(message)
        self.status, self.text = status, text


class Client:
    """One session for a whole fetch; threads may share it.

    `timeout` [s] is that of a connection and of a silence within a reply, `tries` how often one request is made at
    most, `parallel` how many run at once, `pause` [s] the first wait of the back-off, which doubles each time.
    """

    def __init__(
        self,
        timeout: float = 60.0,
        tries: int = 6,
        parallel: int = 4,
        pause: float | None = None,
        headers: dict | None = None,
    ):
        if settings.offline():
            raise UnavailableError("the network may not be used (--offline or XP_OFFLINE). TRY: XP_OFFLINE=0")
        self.timeout, self.tries = (min(10.0, timeout), timeout), max(1, tries)
        self.pause = PAUSE if pause is None else pause
        self.slots, self.stopping = threading.BoundedSemaphore(parallel), threading.Event()
        self.heard: Callable[[int], None] = lambda _: None  # of the bytes that come
        self.session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=parallel + 2)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, adapter)
        self.session.headers.update({"User-Agent": _agent(), "Accept-Encoding": "identity", **(headers or {})})

    def request(
        self,
        method: str,
        url: str,
        *,
        retry: bool = True,
        page: bool = False,
        accept: tuple[int, ...] = (200,),
        redirects: bool = True,
        **rest: Any,
    ) -> requests.Response:
        """A whole reply with one of the statuses `accept`; `page`: it may be HTML. `rest` goes to requests.

        Without `retry` a lost reply raises RemoteError at once: the caller finds out whether the request was heard.
        """

        def ask() -> requests.Response:
            with self.slots:
                reply = self.session.request(method, url, timeout=self.timeout, allow_redirects=redirects, **rest)
            judge(reply, accept)
            if reply.ok and not (page or reply.is_redirect):
                refuse_page(reply, reply.content[:1024])
            self.heard(len(reply.content))
            return reply

        return self.patiently(ask, url, self.tries if retry else 1)

    @contextmanager
    def streamed(self, url: str, *, accept: tuple[int, ...] = (200,), method: str = "GET", **rest: Any):
        """A reply whose body is still to be read (`reply.iter_content`); one try, the slot is held meanwhile."""
        with self.slots:
            reply = self.session.request(method, url, timeout=self.timeout, stream=True, **rest)
            try:
                judge(reply, accept)
                yield reply
            finally:
                reply.close()

    def text(self, url: str) -> str | None:
        """A small text, None where there is no such thing (404)."""
        try:
            return self.request("GET", url).text
        except Refused as fault:
            if fault.status != 404:
                raise
            return None

    def kept(self, url: str, **rest: Any) -> tuple[BinaryIO, requests.Response]:
        """A reply's body in a file without a name, at its beginning, and its head; one try, `rest` as for streamed."""
        body = spool()
        try:
            with self.streamed(url, **rest) as reply:
                for block in reply.iter_content(PIECE):
                    with disk():
                        body.write(block)
                    self.heard(len(block))
            with disk():
                body.seek(0)
            return body, reply
        except BaseException:
            body.close()
            raise

    def patiently(
        self, act: Callable[[], Any], url: str, tries: int | None = None, progress: Callable[[], int] = lambda: 0
    ) -> Any:
        """What `act()` returns, tried again after each fault that time may mend.

        A try that got further, that is, changed what `progress()` says, does not count.
        """
        attempt, tries = 0, tries or self.tries
        while True:
            before = progress()
            try:
                return act()
            except (requests.RequestException, RemoteError) as fault:
                attempt = 1 if progress() != before else attempt + 1
                error, asked = sentence(fault, url), getattr(fault, "wait", None)
                # A server that cannot be reached at all seldom comes back within the minute; a mirror may be up.
                most = min(3, tries) if isinstance(error, Unreached) else tries
                if not isinstance(error, RemoteError) or attempt >= most or (asked or 0) > MOST_ASKED:
                    raise error from fault
            self.rest(asked if asked is not None else min(LONGEST, self.pause * 2 ** (attempt - 1)))

    def rest(self, seconds: float) -> None:
        """Wait, and a little more; RemoteError if the fetch is being given up meanwhile."""
        if self.stopping.wait(seconds * random.uniform(1.0, 1.3)):
            raise RemoteError("given up because another request failed")


def judge(reply: requests.Response, accept: tuple[int, ...]) -> None:
    """Raise unless the reply's status is accepted: Busy (try again), PermissionFault or Refused."""
    status = reply.status_code
    if status in accept or (status == 500 and 400 in accept and b"QUERY_STATUS" in reply.content):
        return  # some services put their words against a query into an error of their own
    text = " ".join(reply.content[:4096].decode("utf-8", "replace").split())
    host = urlsplit(reply.url).netloc
    if 200 <= status < 300:
        refuse_page(reply, reply.content[:1024])
    if status in (401, 403):
        raise PermissionFault(f"{host} does not let you in (HTTP {status}). {reply.url}. TRY: --credentials FILE")
    if status in BUSY or 200 <= status < 300:
        words = f"{host} is busy or failing (HTTP {status}). {reply.url}. TRY: the same command later"
        raise Busy(words, retry_after(reply.headers))
    raise Refused(f"{host} refuses (HTTP {status}): {plain(text)}. {reply.url}. TRY: check the address", status, text)


def sentence(fault: Exception, url: str) -> Exception:
    """A fault of requests as an error of xp; errors of xp pass."""
    if not isinstance(fault, requests.RequestException):
        return fault
    host = urlsplit(url).netloc or url
    errors = requests.exceptions
    if isinstance(fault, errors.MissingSchema | errors.InvalidSchema | errors.InvalidURL):
        return UsageError(f"{url!r} is no web address. TRY: http://HOST/PATH")
    if isinstance(fault, errors.SSLError):
        return UnavailableError(f"{host} does not prove who it is (TLS). {url}. TRY: check the clock and the address")
    if isinstance(fault, errors.TooManyRedirects):
        return UnavailableError(f"{host} sends us round in a circle (redirects). {url}. TRY: another service")
    if isinstance(fault, errors.ConnectTimeout):
        return Unreached(f"{host} does not answer. {url}. TRY: the same command later, or another service")
    if isinstance(fault, errors.ReadTimeout) or "timed out" in str(fault).lower():
        return RemoteError(f"{host} fell silent. {url}. TRY: the same command later")
    if "Failed to establish" in str(fault) or "Name or service" in str(fault) or "NameResolution" in str(fault):
        return Unreached(f"{host} cannot be reached. {url}. TRY: the same command later, or another service")
    return RemoteError(f"{host} broke the connection. {url}. TRY: the same command later")


def retry_after(headers: Any) -> float | None:
    """The seconds a server asks to wait; a date is read against the server's own clock, not ours."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None


def is_page(kind: str, start: bytes) -> bool:
    """Whether a reply is a web page, by its first bytes and what it says it is."""
    head = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return b"<!doctype html" in head or b"<html" in head[:512] or ("text/html" in kind.lower() and head[:1] == b"<")


def refuse_page(reply: requests.Response, start: bytes) -> None:
    """Raise WebPage if a reply that begins with `start` is one."""
    if is_page(reply.headers.get("Content-Type", ""), start):
        words = f"{urlsplit(reply.url).netloc} gave an HTML page (HTTP {reply.status_code}), not data. {reply.url}."
        raise WebPage(f"{words} TRY: open the address in a browser, and the same command later")


def plain(text: str, most: int = 200) -> str:
    """Text of a reply for one line of a message: without tags, cut."""
    import re

    words = " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", text, flags=re.S | re.I).split())
    return (words[:most] + " ..." if len(words) > most else words) or "no reason given"


def _agent() -> str:
    import xptools

    return f"xptools/{xptools.__version__} python-requests/{requests.__version__}"
