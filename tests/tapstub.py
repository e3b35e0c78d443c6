"""A TAP service in this process, with jobs: answers the queries that xp makes from a table in memory, slowly or badly.

It knows rows of a range or of all, the first of them, counts of a range by bin or of all, and the row-less probe; the
table has every column asked for by name. The real thing is tests/tap.
"""

import gzip
import io
import re
import threading
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.table import Table
from servers import serving

from xptools.io.votableout import VotableSink

STATUS = '<INFO name="QUERY_STATUS" value="{}">{}</INFO>'
TOTAL = "SELECT COUNT(*) AS n FROM"
ERROR = '<?xml version="1.0"?><VOTABLE><RESOURCE type="results">{}</RESOURCE></VOTABLE>'


class Stub:
    """The service's state: its table, its limits, its jobs.

    `most` rows a reply; `looks` at a phase before a job ends; `kill` jobs are aborted on the server; `forget` jobs are
    no more when they are looked at; `slow` ranges of more rows time out; `truth` is the only word for a truth it takes;
    `twice` replies have a row twice in place of another, `lose` replies lack one; `packed`: results are gzipped;
    `uncounted`: counting all is refused; a job whose query has `refused` in it is; `broken` is what it says against
    every query, in the manner of `style`: DaCHS (200), ESA (500), or bare text (400).
    """

    def __init__(self, table: pa.Table):
        self.table, self.most, self.looks, self.truth, self.upper = table, 10_000_000, 0, "'true'", False
        self.kill, self.forget, self.twice, self.lose, self.slow = 0, 0, 0, 0, 1 << 60
        self.jobs, self.made, self.lock = {}, 0, threading.Lock()
        self.uploaded = []
        self.broken, self.style, self.packed, self.uncounted, self.refused = "", 200, False, False, ""

    def routes(self, request):
        if sent := request.uploads.get("stars"):
            self.uploaded.append(Table.read(io.BytesIO(sent), format="votable")["source_id"].tolist())
            request.form["stars"] = self.uploaded[-1]
        if request.path == "/tap/sync":
            if self.broken and self.style == 400:
                return 400, {"Content-Type": "text/plain"}, self.broken.encode()
            status = self.style if self.broken else 200
            return status, {"Content-Type": "application/x-votable+xml"}, self.answer(request.form)
        if request.path == "/tap/async" and request.method == "POST":
            with self.lock:
                self.made += 1
                name = f"j{self.made}"
                self.jobs[name] = {"form": request.form, "phase": "PENDING", "looks": self.looks}
            return 303, {"Location": f"/tap/async/{name}"}, b""
        if request.path == "/tap/async":
            refs = "".join(
                f'<jobref id="{n}"><phase>{j["phase"]}</phase><runId>{j["form"].get("runid", "")}</runId></jobref>'
                for n, j in self.jobs.items()
            )
            return 200, {}, f"<jobs>{refs}</jobs>".encode()
        if found := re.fullmatch(r"/tap/async/(\w+)(/.*)?", request.path):
            return self.job(found[1], found[2] or "", request)
        return 404, {}, b"no such place"

    def job(self, name: str, place: str, request):
        with self.lock:
            job = self.jobs.get(name)
            if job is None:
                return 404, {}, b"no such job"
            if request.method == "DELETE":
                del self.jobs[name]
                return 303, {"Location": "/tap/async"}, b""
            if place == "/phase" and request.method == "POST":
                # as DaCHS does: a second start is the end
                job["phase"] = "EXECUTING" if job["phase"] == "PENDING" else "ERROR"
                return 303, {"Location": f"/tap/async/{name}"}, b""
            if place == "/phase":
                return 200, {"Content-Type": "text/plain"}, self.phase(name, job).encode()
            if place == "/error":
                return 200, {}, ERROR.format(STATUS.format("ERROR", job.get("words", "killed"))).encode()
        if place == "/results/result":
            body = self.answer(job["form"])
            return 200, {"Content-Type": "application/x-votable+xml"}, gzip.compress(body, 1) if self.packed else body
        return 200, {}, b"<job/>"

    def phase(self, name: str, job: dict) -> str:
        if job["phase"] != "EXECUTING":
            return job["phase"]
        if self.forget:
            self.forget -= 1
            del self.jobs[name]
            return "ABORTED"
        if self.kill:
            self.kill -= 1
            job["phase"] = "ABORTED"
        elif job["looks"]:
            job["looks"] -= 1
        elif len(self.chosen(job["form"])) > self.slow:
            job["phase"], job["words"] = "ERROR", "Query timed out (time limit of 1 s)"
        elif self.uncounted and job["form"]["query"].startswith(TOTAL):
            job["phase"], job["words"] = "ERROR", "COUNT is not for you"
        elif self.refused and self.refused in job["form"]["query"]:
            job["phase"], job["words"] = "ERROR", f"{self.refused} may not be asked"
        else:
            job["phase"] = "COMPLETED"
        return job["phase"]

    def chosen(self, form: dict) -> pa.Table:
        query = form["query"]
        found = re.search(r"source_id BETWEEN (\d+) AND (\d+)", query)
        lo, hi = map(int, found.groups()) if found else (0, (1 << 63) - 1)
        ids = self.table["source_id"]
        keep = pc.and_(pc.greater_equal(ids, lo), pc.less_equal(ids, hi))
        if "JOIN TAP_UPLOAD.stars AS u" in query:
            keep = pc.and_(keep, pc.is_in(ids, pa.array(form["stars"])))
        return self.table.filter(keep)

    def answer(self, form: dict) -> bytes:
        query = form["query"]
        if self.broken:
            return ERROR.format(STATUS.format("ERROR", self.broken)).encode()
        if (said := re.search(r"has_xp_continuous = (\S+)", query)) and said[1].rstrip(")") != self.truth:
            return ERROR.format(STATUS.format("ERROR", "operator does not exist: boolean = other")).encode()
        table = self.chosen(form)
        if counting := re.search(r"source_id / (\d+) AS p", query):
            p, n = np.unique(table["source_id"].to_numpy() // int(counting[1]), return_counts=True)
            table = pa.table({"p": pa.array(p, pa.int64()), "n": pa.array(n, pa.int64())})
        elif query.startswith(TOTAL):
            table = pa.table({"n": pa.array([len(table)], pa.int64())})
        else:
            if top := re.match(r"SELECT TOP (\d+) ", query):
                table, query = table.slice(0, int(top[1])), "SELECT " + query[top.end() :]
            names = [c.strip().partition(".")[2] or c.strip() for c in query[7 : query.index(" FROM ")].split(",")]
            table = table if names == ["*"] else table.select(names)
            table = table.take(np.random.default_rng(len(table)).permutation(len(table)))
            table = self.spoilt(table)
        most = min(self.most, int(form.get("maxrec", 2000)))
        over = table.num_rows > most
        if self.upper:
            table = table.rename_columns([n.upper() for n in table.schema.names])
        return document(table.slice(0, most), over)

    def spoilt(self, table: pa.Table) -> pa.Table:
        if self.lose and len(table) > 1:
            self.lose -= 1
            return table.slice(1)
        if self.twice and len(table) > 1:
            self.twice -= 1
            return pa.concat_tables([table.slice(1), table.slice(1, 1)])
        return table


def document(table: pa.Table, over: bool) -> bytes:
    """A reply: DaCHS says OK before the table, and OVERFLOW after it."""
    out = io.BytesIO()
    sink = VotableSink(out, table.schema)
    for batch in table.combine_chunks().to_batches():
        sink.write(batch)
    sink.close()
    text = out.getvalue().decode().replace("<TABLE>", STATUS.format("OK", "") + "<TABLE>", 1)
    return text.replace("</TABLE>", "</TABLE>" + (STATUS.format("OVERFLOW", "") if over else ""), 1).encode()


@contextmanager
def tap(table: pa.Table):
    """A running service: its Server, with the Stub as `stub` and its TAP address as `tap`."""
    stub = Stub(table)
    with serving(stub.routes) as server:
        server.stub, server.tap = stub, f"{server.url}/tap"
        yield server
