"""Small web servers on loopback for tests: files with ranges and validators, and faults by plan."""

import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HTML = b"<!DOCTYPE html><html><head><title>Just a moment</title></head><body>maintenance</body></html>"


class Server(ThreadingHTTPServer):
    """A threaded server on a free port; `routes(request) -> (status, headers, body)`, `faults` come first.

    A fault is (method, pattern of the path, which matching requests, what): 503, 429, 500, 403, 404 ...; "drop",
    "dropafter" (acted on, answer lost), "cut" (half the body, length known), "cuteof" (half, no length), "stall",
    "html" (200), "html202". `log` holds every (method, path, headers, fault).
    """

    daemon_threads = True

    def __init__(self, routes, delay: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes, self.faults, self.log, self.delay = routes, [], [], delay
        self.counts, self.lock, self.stall = {}, threading.Lock(), 3.0

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def plan(self, *faults) -> None:
        with self.lock:
            self.faults, self.counts, self.log = list(faults), {}, []

    def fault(self, method: str, path: str):
        with self.lock:
            for i, (verb, pattern, which, what) in enumerate(self.faults):
                if verb in ("*", method) and re.search(pattern, path):
                    self.counts[i] = self.counts.get(i, 0) + 1
                    if which == "*" or self.counts[i] in which:
                        return what
        return None


class Request:
    """What a route sees."""

    def __init__(self, handler):
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        self.method, self.path, self.headers = handler.command, parts.path, handler.headers
        self.body = handler.rfile.read(length) if length else b""
        text = self.body.decode("utf-8", "replace")
        self.form = {k.lower(): v[0] for k, v in parse_qs(parts.query + "&" + text, keep_blank_values=True).items()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every reply waits 40 ms for the client's acknowledgement

    def log_message(self, *_):
        pass

    def answer(self):
        request = Request(self)
        fault = self.server.fault(request.method, self.path)
        self.server.log.append((request.method, self.path, dict(self.headers), fault))
        if self.server.delay:
            time.sleep(self.server.delay)
        if isinstance(fault, int):
            return self.send(fault, {"Retry-After": "0"} if fault in (429, 503) else {}, b"busy")
        if fault in ("html", "html202"):
            return self.send(202 if fault == "html202" else 200, {"Content-Type": "text/html"}, HTML)
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
        cut = str(fault).startswith("cut")
        self.close_connection |= cut
        self.wfile.write(body[: len(body) // 2] if cut else body)

    do_GET = do_POST = do_DELETE = do_HEAD = answer


@contextmanager
def serving(routes, **settings):
    """A Server that runs while the block does."""
    server = Server(routes, **settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def files(there: dict[str, bytes], tag: bool = True):
    """Routes that serve bytes by path, with ranges and (`tag`) an ETag."""

    def routes(request):
        body = there.get(request.path)
        if body is None:
            return 404, {}, b"nothing here"
        version = f'"{hash(body)}"'
        headers = {"Content-Type": "application/octet-stream", **({"ETag": version} if tag else {})}
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if not asked or request.headers.get("If-Range", version) != version:
            return 200, headers, body
        start = int(asked[1])
        if start >= len(body):
            return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
        return 206, {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, body[start:]

    return routes
