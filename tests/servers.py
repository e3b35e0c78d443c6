"""Small web servers on loopback for tests: files with ranges and validators, stand-ins by path, and faults by plan."""

import hashlib
import re
import threading
import time
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

HTML = b"<!DOCTYPE html><html><head><title>Just a moment</title></head><body>maintenance</body></html>"
BROKEN = "<html><head><title>SERVICE ERROR</title></head><body><h1>SERVICE ERROR - 500</h1><b>{}</b></body></html>"


class Server(ThreadingHTTPServer):
    """A threaded server on a free port; `routes(request) -> (status, headers, body)`, `faults` come first.

    Without `routes`, `paths` has such a function for every beginning of a path. A fault is (method, pattern of the
    path, which matching requests, what): 503, 429, 500, 403, 404 ...; "broken" (500, a web page), "drop", "dropafter"
    (acted on, answer lost), "cut" (half the body, length known), "cuteof" (half, no length), "corrupt" (a byte is
    another), "stall" (silence), "choke" (silence after 100 bytes), "html" (200), "html202". `queue` holds faults for
    the next requests, one each, whatever they are for. `log` holds every (method, path, headers, fault).
    """

    daemon_threads = True

    def __init__(self, routes=None, delay: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths, self.queue = {}, []
        self.routes, self.faults, self.log, self.delay = routes or self.by_path, [], [], delay
        self.counts, self.lock, self.stall = {}, threading.Lock(), 3.0

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def seen(self) -> list[str]:
        """The paths that were asked for."""
        return [urlsplit(path).path for _, path, *_ in self.log]

    def by_path(self, request):
        """The answer of the first stand-in whose path the request's begins with."""
        found = next((answer for path, answer in self.paths.items() if request.path.startswith(path)), None)
        return found(request) if found else (404, {}, b"nothing here")

    def serve(self, at: str, files: dict[str, bytes]) -> "Files":
        """Serve files by name under a path."""
        self.paths[at] = Files(files, at)
        return self.paths[at]

    def plan(self, *faults) -> None:
        with self.lock:
            self.faults, self.counts, self.log = list(faults), {}, []

    def fault(self, method: str, path: str):
        with self.lock:
            if self.queue:
                return self.queue.pop(0) or None
            for i, (verb, pattern, which, what) in enumerate(self.faults):
                if verb in ("*", method) and re.search(pattern, path):
                    self.counts[i] = self.counts.get(i, 0) + 1
                    if which == "*" or self.counts[i] in which:
                        return what
        return None


class Request:
    """What a route sees: `form` has the query and the form by names in lower case, `uploads` the files of a form."""

    def __init__(self, handler):
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        self.method, self.path, self.headers = handler.command, unquote(parts.path), handler.headers
        self.body = handler.rfile.read(length) if length else b""
        self.cut = len(self.body) < length
        self.uploads, text = {}, self.body.decode("utf-8", "replace")
        if "multipart" in self.headers.get("Content-Type", ""):
            text = self._multipart()
        self.form = {k.lower(): v[0] for k, v in parse_qs(parts.query + "&" + text, keep_blank_values=True).items()}

    def _multipart(self) -> str:
        whole = message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + self.body)
        words = {}
        for part in whole.get_payload():
            name, held = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
            (self.uploads if part.get_filename() else words)[name] = held
        return urlencode({k: v.decode() for k, v in words.items()})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every reply waits 40 ms for the client's acknowledgement

    def log_message(self, *_):
        pass

    def answer(self):
        request = Request(self)
        if request.cut:  # whoever asked was killed while it did: nobody acts on half a request
            self.close_connection = True
            return
        fault = self.server.fault(request.method, self.path)
        self.server.log.append((request.method, self.path, dict(self.headers), fault))
        if self.server.delay:
            time.sleep(self.server.delay)
        if isinstance(fault, int):
            return self.send(fault, {"Retry-After": "0"} if fault in (429, 503) else {}, b"busy")
        if fault in ("html", "html202", "broken"):
            page = BROKEN.format("out of memory").encode() if fault == "broken" else HTML
            return self.send({"html": 200, "html202": 202, "broken": 500}[fault], {"Content-Type": "text/html"}, page)
        if fault == "drop":
            return self.hang_up()
        if fault == "stall":
            time.sleep(self.server.stall)
            return self.hang_up()
        status, headers, body = self.server.routes(request)
        if fault == "dropafter":
            return self.hang_up()
        self.send(status, headers, body, fault)

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(2)

    def send(self, status, headers, body, fault=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault == "cuteof":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        if fault in ("cut", "cuteof", "choke"):
            self.close_connection, body = True, body[: 100 if fault == "choke" else half]
        elif fault == "corrupt":
            body = body[:half] + bytes([body[half] ^ 0xFF]) + body[half + 1 :]
        self.wfile.write(body)
        if fault == "choke":
            self.wfile.flush()
            time.sleep(self.server.stall)

    do_GET = do_POST = do_DELETE = do_HEAD = answer


@contextmanager
def serving(routes=None, **settings):
    """A Server that runs while the block does."""
    server = Server(routes, **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Files:
    """Routes that serve bytes by name under the path `at`, with ranges and (`tag`) a strong ETag; notes the ranges."""

    def __init__(self, files: dict[str, bytes], at: str = "", tag: bool = True):
        self.files, self.at, self.tag, self.ranges = files, at, tag, []

    def __call__(self, request):
        body = self.files.get(request.path.removeprefix(self.at).lstrip("/"))
        if body is None:
            return 404, {}, b"nothing here"
        version = f'"{hashlib.md5(body).hexdigest()}"'
        kind = "text/html" if body.startswith(b"<") else "application/octet-stream"
        headers = {"Content-Type": kind, **({"ETag": version} if self.tag else {})}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if not asked or request.headers.get("If-Range", version) != version:
            return 200, headers, body
        self.ranges.append(asked[0])
        start, stop = int(asked[1] or 0), min(int(asked[2] or len(body) - 1) + 1, len(body))
        if not asked[1]:  # the last bytes
            start, stop = max(0, len(body) - int(asked[2])), len(body)
        if start >= len(body):
            return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
        return 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}, body[start:stop]
