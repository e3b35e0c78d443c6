"""A server on loopback that fails on purpose, and files behind it."""

import hashlib
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body>back soon</body></html>"
BROKEN = "<html><head><title>SERVICE ERROR</title></head><body><h1>SERVICE ERROR - 500</h1><b>{}</b></body></html>"


class Site:
    """A server whose paths are functions `(request) -> None`; `faults` are served first, one a request, in order."""

    def __init__(self):
        self.paths, self.faults, self.seen = {}, [], []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _go(self):
                size = int(self.headers.get("Content-Length") or 0)
                self.form = dict(urllib.parse.parse_qsl(self.rfile.read(size).decode("utf-8", "replace")))
                address = urllib.parse.urlsplit(self.path)
                self.query = dict(urllib.parse.parse_qsl(address.query))
                site.seen.append((self.command, address.path))
                serve = next((f for p, f in site.paths.items() if address.path.startswith(p)), None)
                self.fault = site.faults.pop(0) if site.faults else ""
                if serve is None:
                    self.send(404, b"nothing here")
                elif self.fault in ("503", "429"):
                    self.send(int(self.fault), b"busy", headers={"Retry-After": "0"})
                elif self.fault == "500":
                    self.send(500, BROKEN.format("out of memory").encode(), "text/html")
                elif self.fault == "html":
                    self.send(200, PAGE, "text/html")
                elif self.fault == "202":
                    self.send(202, PAGE, "text/html")
                elif self.fault == "drop":
                    self.close_connection = True
                    self.connection.close()
                else:
                    serve(self)

            do_GET = do_POST = do_DELETE = do_HEAD = _go

            def send(self, status, body, kind="text/plain", headers=None):
                """A reply, spoilt where the fault says so."""
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.fault == "trunc":
                    body, self.close_connection = body[: len(body) // 2], True
                elif self.fault == "corrupt":
                    body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 0xFF]) + body[len(body) // 2 + 1 :]
                elif self.fault == "stall":
                    self.wfile.write(body[:100])
                    time.sleep(2.0)
                    self.close_connection = True
                    return
                try:
                    self.wfile.write(body)
                except ConnectionError:
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def site():
    """A running Site."""
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


class Files:
    """Files by name under a path, with ranges and a strong ETag."""

    def __init__(self, there: Site, path: str, files: dict[str, bytes]):
        self.path, self.files, self.ranges = path, files, []
        there.paths[path] = self.serve

    def serve(self, request):
        name = urllib.parse.unquote(urllib.parse.urlsplit(request.path).path.removeprefix(self.path).lstrip("/"))
        body = self.files.get(name)
        if body is None:
            request.send(404, b"no such file")
            return
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if wanted and request.headers.get("If-Range", tag) == tag:
            self.ranges.append(request.headers["Range"])
            start, stop = int(wanted[1] or 0), int(wanted[2] or len(body) - 1) + 1
            if not wanted[1]:  # the last bytes
                start, stop = max(0, len(body) - int(wanted[2])), len(body)
            headers = {"ETag": tag, "Content-Range": f"bytes {start}-{min(stop, len(body)) - 1}/{len(body)}"}
            request.send(206, body[start:stop], "application/octet-stream", headers)
            return
        kind = "text/html" if body.startswith(b"<") else "application/octet-stream"
        request.send(200, body, kind, {"ETag": tag, "Accept-Ranges": "bytes"})
