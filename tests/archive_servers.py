"""Stand-ins on loopback for the services of `xp fetch`: what they answer, and how they fail, on purpose."""

import hashlib
import io
import json
import re
import threading
import time
import urllib.parse
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

PAGE = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body>back soon</body></html>"
BROKEN = "<html><head><title>SERVICE ERROR</title></head><body><h1>SERVICE ERROR - 500</h1><b>{}</b></body></html>"
SCALARS = {
    "basis_function_id": "int16", "degrees_of_freedom": "int16", "n_parameters": "int16", "n_measurements": "int16",
    "n_rejected_measurements": "int16", "standard_deviation": "float32", "chi_squared": "float32",
}  # fmt: skip
LISTS = {"coefficients": "float64", "coefficient_errors": "float32", "coefficient_correlations": "float32"}
TAIL = {"n_relevant_bases": "int16", "relative_shrinking": "float32"}
COLUMNS = {f"{b}_{k}": t for b in ("bp", "rp") for k, t in (SCALARS | LISTS | TAIL).items()}


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


# --- spectra -------------------------------------------------------------------------------------------------------


def star(source_id: int, bands: str = "bp rp", widths: tuple[int, int] = (55, 55)) -> dict:
    """All 24 columns of a star, made from its identifier."""
    rng = np.random.default_rng(source_id)
    row = {}
    for tag, n in zip(("bp", "rp"), widths, strict=True):
        values = {"coefficients": rng.normal(0, 900, n), "coefficient_errors": rng.gamma(2, 0.5, n)}
        values["coefficient_correlations"] = rng.normal(0, 0.2, n * (n - 1) // 2)
        whole = {"basis_function_id": 56, "degrees_of_freedom": 1687, "n_parameters": n, "n_measurements": 1742}
        whole |= {"n_rejected_measurements": 5, "standard_deviation": 1.05, "chi_squared": 1855.25}
        whole |= {"n_relevant_bases": 19, "relative_shrinking": 0.42}
        for key, kind in (SCALARS | LISTS | TAIL).items():
            value = values[key].astype(kind) if key in values else whole[key]
            row[f"{tag}_{key}"] = value if tag in bands else None
    return row


def cell(value, brackets: str, null: str) -> str:
    """A value as the archives write it."""
    if value is None:
        return null
    if isinstance(value, np.ndarray):
        return f'"{brackets[0]}{", ".join(map(str, value))}{brackets[1]}"'
    return str(value)


def csv(rows: dict[int, dict], names=None, brackets="()", null="", upper=False) -> str:
    """A CSV table of spectra."""
    names = names or ["source_id", "solution_id", *COLUMNS]
    lines = [",".join(n.upper() if upper else n for n in names)]
    for source_id, row in rows.items():
        whole = {"source_id": source_id, "solution_id": 4545469030156206081, **row}
        lines.append(",".join(cell(whole[n], brackets, null) for n in names))
    return "\n".join(lines) + "\n"


def ecsv(rows: dict[int, dict]) -> str:
    """An ECSV table of spectra as the CDN has it: lists are JSON, nothing is `null`."""
    head = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    for name, kind in {"solution_id": "int64", "source_id": "int64", **COLUMNS}.items():
        words = f"datatype: string, subtype: '{kind}[null]'" if name.endswith(tuple(LISTS)) else f"datatype: {kind}"
        head.append(f"# - {{name: {name}, {words}}}")
    return "\n".join(head) + "\n" + csv(rows, ["solution_id", "source_id", *COLUMNS], "[]", "null")


class DataLink:
    """ESA's DataLink: at most 5000 identifiers, ZIP of CSV; `without` have no spectrum, `forgets` rows per reply."""

    def __init__(self, there: Site, structures=("RAW", "INDIVIDUAL")):
        self.structures, self.without, self.single, self.forgets, self.widths = structures, set(), set(), [], (55, 55)
        self.asked, self.upper, self.doubles = [], False, False
        there.paths["/data-server/data"] = self.serve

    def serve(self, request):
        form = request.form
        ids = [int(i) for i in form["ID"].split(",")]
        if form["DATA_STRUCTURE"] not in self.structures:
            words = f"Invalid Data Structure parameter: '{form['DATA_STRUCTURE']}', valid ones are: "
            request.send(500, BROKEN.format(words + ", ".join(self.structures)).encode(), "text/html")
            return
        if len(ids) > 5000:
            words = f"Maximum number of Source Ids reached (max: 5000, found: {len(ids)})"
            request.send(500, BROKEN.format(words).encode(), "text/html")
            return
        assert form["RETRIEVAL_TYPE"] == "XP_CONTINUOUS" and form["RELEASE"] == "Gaia DR3"
        self.asked.append(ids)
        found = [i for i in ids if i not in self.without]
        found = found[: len(found) - (self.forgets.pop(0) if self.forgets else 0)]
        request.send(200, self.packed(found[::-1]), "application/zip")

    def packed(self, ids: list[int]) -> bytes:
        """The ZIP archive."""
        rows = {i: star(i, "rp" if i in self.single else "bp rp", self.widths) for i in ids}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if "RAW" in self.structures or "DATAMODEL_GAIA" in self.structures:
                text = csv(rows, upper=self.upper)
                text += "\n".join(csv(rows).splitlines()[1:2]) + "\n" if self.doubles else ""
                if ids:
                    archive.writestr("XP_CONTINUOUS_RAW.csv", text)
            else:
                for i, row in rows.items():
                    archive.writestr(f"XP_CONTINUOUS-Gaia DR3 {i}.csv", csv({i: row}))
        return packed.getvalue()


class TapTable:
    """A TAP service with the spectra as a table: synchronous queries by identifier, CSV; a token if wanted."""

    def __init__(self, there: Site, token: str = ""):
        self.token, self.without, self.queries = token, set(), []
        there.paths["/tap/sync"] = self.serve
        there.paths["/tap/async"] = lambda r: self.allowed(r) and r.send(200, b"<uws:jobs/>", "text/xml")

    def allowed(self, request) -> bool:
        if self.token and request.headers.get("Authorization") != f"Token {self.token}":
            request.send(401, b"Invalid token.")
            return False
        return True

    def serve(self, request):
        if not self.allowed(request):
            return
        query = request.form["QUERY"]
        self.queries.append(query)
        names = re.search(r"SELECT (.*) FROM gaiadr3.xp_continuous_mean_spectrum", query)[1].split(", ")
        ids = [int(i) for i in re.search(r"IN \((.*)\)", query)[1].split(", ")]
        found = {i: star(i) for i in ids if i not in self.without}
        request.send(200, csv(found, names, "{}").encode(), "text/csv")


class Login:
    """TAP with a login: a job knows its owner by the session's cookie."""

    def __init__(self, there, works=True):
        self.works, self.jobs, self.logins = works, 0, []
        there.paths |= {
            "/tap-server/login": self.login,
            "/data-server/login": self.login,
            "/tap-server/tap/async/7": self.job,
            "/tap-server/tap/async": lambda r: self.make(r, there),
        }

    def login(self, request):
        self.logins.append(request.path)
        if request.form != {"username": "ann", "password": "word"}:
            request.send(401, b"wrong")
            return
        request.send(200, b"OK", headers={"Set-Cookie": "JSESSIONID=5; Path=/"} if self.works != "cookieless" else {})

    def make(self, request, there):
        self.jobs += 1
        request.send(303, b"", headers={"Location": f"{there.url}/tap-server/tap/async/7"})

    def job(self, request):
        if request.command == "DELETE":
            self.jobs -= 1
            request.send(200, b"")
            return
        known = self.works is True and "JSESSIONID=5" in request.headers.get("Cookie", "")
        owner = "<uws:ownerId>ann</uws:ownerId>" if known else '<uws:ownerId xsi:nil="true"></uws:ownerId>'
        request.send(200, f"<uws:job>{owner}</uws:job>".encode(), "text/xml")


# --- files ---------------------------------------------------------------------------------------------------------


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


def zenodo(there: Site, record: str, files: dict[str, bytes], sums: bool = True) -> str:
    """A record of Zenodo and its files; returns the address of its interface."""
    Files(there, f"/zenodo/{record}/files", files)
    listed = [
        {
            "key": name,
            "size": len(body),
            "checksum": f"md5:{hashlib.md5(body).hexdigest()}" if sums else "",
            "links": {"self": f"{there.url}/zenodo/{record}/files/{name}"},
        }
        for name, body in files.items()
    ]
    told = json.dumps({"metadata": {"license": {"id": "cc-by-4.0"}}, "files": listed}).encode()
    there.paths[f"/zenodo/{record}"] = lambda r: r.send(200, told, "application/json")
    return f"{there.url}/zenodo/{record}"


def dataverse(there: Site, files: dict[str, bytes]) -> str:
    """A dataset of Dataverse."""
    Files(there, "/api/access/datafile", {str(k): body for k, body in enumerate(files.values())})
    listed = [
        {"dataFile": {"id": k, "filename": n, "filesize": len(b), "md5": hashlib.md5(b).hexdigest()}}
        for k, (n, b) in enumerate(files.items())
    ]
    told = json.dumps({"data": {"latestVersion": {"files": listed}}}).encode()
    there.paths["/api/datasets"] = lambda r: r.send(200, told, "application/json")
    return f"{there.url}/api/datasets/:persistentId/?persistentId=doi:10.1/X"


class CmdForm:
    """PARSEC's web form: a page with a link to a table, made of a real main sequence's shape."""

    def __init__(self, there: Site):
        self.there, self.asked, self.tables, self.poorest, self.cut = there, [], {}, -2.19, []
        there.paths["/cgi-bin/cmd"] = self.form
        there.paths["/tmp/"] = self.table

    def form(self, request):
        f = request.form
        assert f["photsys_file"].endswith("gaiaEDR3.dat") and float(f["extinction_av"]) == 0
        low, high, step = (float(f[f"isoc_{k}"]) for k in ("lagelow", "lageupp", "dlage"))
        mh = max(float(f["isoc_metlow"]), self.poorest)
        self.asked.append(mh)
        if mh > 0.6:
            request.send(200, b"<html><body><p>Error: metallicity out of range</p></body></html>", "text/html")
            return
        ages = [round(low + i * step, 5) for i in range(round((high - low) / step) + 1 if step else 1)]
        name = f"/tmp/output{len(self.tables)}.dat"
        self.tables[name] = isochrone_text(mh, ages)
        request.send(200, f'<html><a href="..{name}">output</a></html>'.encode(), "text/html")

    def table(self, request):
        text = self.tables[urllib.parse.urlsplit(request.path).path]
        cut = self.cut.pop(0) if self.cut else 0
        lines = text.splitlines(keepends=True)
        request.send(200, "".join(lines[: len(lines) - cut]).encode(), "text/plain")


def isochrone_text(mh: float, ages: list[float]) -> str:
    """A table as CMD writes it, with a made-up main sequence and one giant per age."""
    lines = ["# File generated by CMD 3.9", "# Photometric system: Gaia EDR3 (all Vegamags)", "# Using YBC version"]
    for age in ages:
        lines.append("# Zini MH logAge Mini int_IMF Mass logL logTe logg label mbolmag Gmag G_BPmag G_RPmag")
        for mass in np.linspace(0.1, 0.9, 40):
            G = 12 - 9 * mass
            row = [0.01, mh, age, mass, 1, mass, -1, 3.6, 4.5, 1, G, G, G + 0.4, G - 0.9]
            lines.append(" ".join(f"{x:.5f}" if i != 9 else "1" for i, x in enumerate(row)))
        lines.append(" ".join(map(str, [0.01, mh, age, 1.0, 1, 1.0, 2, 3.6, 2.0, 3, 0.0, 0.0, 0.6, -0.7])))
    return "\n".join([*lines, "#isochrone terminated"]) + "\n"
