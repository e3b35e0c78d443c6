"""A big query fetched in many jobs: counted first, cut into ranges, each range's rows compared with its count.

1. The query is asked for no rows: a wrong one is told at once, and its columns are known before any row.
2. One job counts its rows in bins of source_id; neighbouring bins become ranges of at most `job_rows` rows.
3. Several jobs at once fetch the ranges, in order. A reply is a part only if it is whole, says of itself that it is not
   cut, and has as many rows as were counted, no source twice. What overflows or takes too long is cut finer.
A service that fails for good is left for the next one; what is missing in the end is told, never dropped.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from xptools.archive import cuts, parts, uws
from xptools.archive.http import Client
from xptools.archive.manifest import DONE, INCOMING, OPEN, SHORT, TODO, Manifest, Range
from xptools.archive.meter import Meter
from xptools.archive.mirrors import Mirrors
from xptools.archive.services import Service
from xptools.archive.tap import Died, Overflow, Slow, Tap
from xptools.errors import DataError, IncompleteError, XpError

UNCOUNTED = 1_000_000_000  # MAXREC of a query whose rows are not counted
UPLOADED = 20_000  # stars that go along with a query at most
COUNTS_AGAIN = 3  # times a range is fetched whose rows are not those counted


@dataclass
class Fetch:
    """One fetch: its manifest, its services; `out` is the schema that parts are written with, `kind` their format.

    `unique`: a source_id may come once only. `tell` hears of what was mended on the way,
    `counted(rows, jobs)` of the whole once it is known, `ended()` when all rows are there.
    """

    manifest: Manifest
    mirrors: Mirrors
    meter: Meter
    out: pa.Schema
    job_rows: int = 200_000
    parallel: int = 3
    unique: bool = True
    kind: str = "parquet"
    tell: Callable[[str], None] = lambda _: None
    counted: Callable[[int, int], None] = lambda *_: None
    ended: Callable[[], None] = lambda: None

    def __post_init__(self):
        self.client: Client = self.mirrors.client
        self.query = self.mirrors.query
        self.cut = self.query.cut
        self.turn = threading.Condition()
        self.busy: set[int] = set()
        self.threads: list[threading.Thread] = []
        self.fault: BaseException | None = None
        self.incoming = self.manifest.folder / INCOMING
        self._prepare()

    def _prepare(self) -> None:
        """Put the folder in order after whatever ended the last run."""
        self.incoming.mkdir(exist_ok=True)
        for left in self.manifest.folder.glob(".part-*.tmp"):
            left.unlink()
        for r in self.manifest.ranges(DONE):
            if r.file and not (self.manifest.folder / r.file).is_file():
                self.manifest.set(r.lo, state=TODO, expected=r.rows, job=None, file=None)
            else:
                self.meter.add(rows=r.rows or 0, old=True)
        for r in self.manifest.ranges(SHORT):
            self.manifest.set(r.lo, state=OPEN, expected=None, rows=None, job=None)
        self._expect()

    # --- counting ----------------------------------------------------------------------------------------------------

    def survey(self, r: Range) -> None:
        """Count a range in bins, and put ranges of known size in its place; a query that is not cut as a whole."""
        if not self.cut:
            self.manifest.set(r.lo, state=TODO, expected=self._total(r))
            return
        stars = self.query.along(r.lo, r.hi)
        if stars is not None and len(stars) > min(self.most(), UPLOADED):
            self.manifest.split(r.lo, cuts.shares(r.lo, r.hi, stars, min(self.most(), UPLOADED)))
            return
        width = cuts.width(r.lo, r.hi)
        try:
            counts = self._counts(r, width)
        except (Slow, Overflow):
            self._quarter(r)
        else:
            self.manifest.split(r.lo, cuts.leaves(r.lo, r.hi, width, counts, self.most()))

    def _total(self, r: Range) -> int | None:
        """Rows of a query that is not cut, None (and that is told) if they cannot be counted."""
        counting, why = self.query.counting, "of its form"
        if counting is not None:
            try:
                table = self.mirrors.ask(
                    lambda service, tap: self._small(service, tap, r, self.mirrors.total(service), 2)
                )
                return counting.rows(int(table.column(0)[0].as_py()))
            except (Slow, DataError) as fault:
                why = str(fault).partition(" TRY:")[0].rstrip(".")
        self.tell(
            f"the rows cannot be counted beforehand ({why}); only a reply that says that it is cut would be noticed"
        )
        return None

    def _counts(self, r: Range, width: int) -> dict[int, int]:
        """Rows of a range by bin."""

        def counted(service: Service, tap: Tap) -> pa.Table:
            return self._small(service, tap, r, self.mirrors.bins(service, r.lo, r.hi, width), 4 * cuts.BINS)

        table = self.mirrors.ask(counted)
        table = table.rename_columns([n.lower() for n in table.schema.names])
        return {int(p): int(n) for p, n in zip(table["p"].to_pylist(), table["n"].to_pylist(), strict=True)}

    def _small(self, service: Service, tap: Tap, r: Range, adql: str, most: int) -> pa.Table:
        """The answer to a question about a range: a job of its own."""

        def once() -> pa.Table:
            self._drop_job(r.lo)
            url = uws.create(tap, adql, most, self.manifest.runid, self.query.along(r.lo, r.hi))
            self.manifest.set(r.lo, job=url, service=service.name)
            try:
                return self._answer(uws.Job(tap, url), f"count-{r.lo:019d}")
            finally:
                self._drop_job(r.lo)

        return self._again(once)

    def _again(self, act: Callable[[], pa.Table]) -> pa.Table:
        """What `act()` returns, tried again when the server lost the job."""
        for attempt in range(self.client.tries):
            try:
                return act()
            except Slow:
                raise
            except Died as fault:
                if attempt + 1 == self.client.tries:
                    raise
                self.tell(str(fault))
                if not isinstance(fault, uws.Gone):
                    self.client.rest(self.client.pause * 2**attempt)
        raise AssertionError("a job is tried at least once")

    def _answer(self, job: uws.Job, name: str) -> pa.Table:
        """A job's table: started, waited for, fetched, read."""
        job.run()
        job.wait()
        file = job.result(self.incoming / f"{name}.vot", lambda n: self.meter.add(bytes=n))
        try:
            return job.tap.table(file)
        except DataError as fault:
            if isinstance(fault, Overflow):
                raise
            raise Died(str(fault)) from fault  # whole by its length, and yet no whole VOTable: a proxy cut it
        finally:
            file.unlink(missing_ok=True)

    def most(self) -> int:
        """Rows of a range at most: as asked, but fewer than the service gives at once."""
        limits = [self.mirrors.most, self.manifest.word("most")]
        return max(1, min([self.job_rows, *[n - 1 for n in limits if n]]))

    def _quarter(self, r: Range) -> None:
        if not (self.cut and cuts.divisible(r.lo, r.hi)):
            raise Slow("a query takes too long however small it is. TRY: --where with less, or another --service")
        self.manifest.split(r.lo, cuts.quarters(r.lo, r.hi))

    # --- fetching ----------------------------------------------------------------------------------------------------

    def take(self, r: Range) -> None:
        """Fetch a range of known size; on return it is done, cut finer, or short."""
        if r.expected == 0:
            self.manifest.set(r.lo, state=DONE, rows=0, bytes=0)
            return
        lo = r.lo
        for _ in range(COUNTS_AGAIN):
            try:
                table = self.mirrors.ask(lambda service, tap: self._rows(service, tap, lo))
            except Slow:
                self._quarter(r)
                return
            except Overflow as fault:
                self._overflowed(r, fault)
                return
            r = self.manifest.at(r.lo)
            if self._whole(table, r):
                self._keep(r, table)
                return
            self._drop_job(r.lo)
            # The table may have changed since it was counted, or another service have another.
            expected = sum(self._counts(r, r.hi + 1).values()) if self.cut else self._total(r)
            self.manifest.set(r.lo, expected=expected)
        self.manifest.set(r.lo, state=SHORT, rows=table.num_rows)

    def _whole(self, table: pa.Table, r: Range) -> bool:
        """Whether these are the rows of the range: as many as were counted, none twice, none from elsewhere."""
        if r.expected is None:
            return True  # it says itself that it is whole, and nothing else is known
        if table.num_rows != r.expected or (self.unique and parts.doubles(table)):
            return False
        return not (self.cut and parts.outside(table, r.lo, r.hi))

    def _rows(self, service: Service, tap: Tap, lo: int) -> pa.Table:
        """The rows of a range by a job: the one in the manifest, else a new one."""

        def once() -> pa.Table:
            r = self.manifest.at(lo)
            if not r.job or r.service != service.name:
                # One more than was counted: a range that has grown shows.
                most = UNCOUNTED if r.expected is None else r.expected + 1
                adql, stars = self.mirrors.rows(service, r.lo, r.hi), self.query.along(r.lo, r.hi)
                url = uws.create(tap, adql, most, self.manifest.runid, stars)
                self.manifest.set(lo, job=url, service=service.name)
                self.meter.add(jobs=1)
                r = self.manifest.at(lo)
            try:
                return self._answer(uws.Job(tap, r.job), f"rows-{lo:019d}")
            except Overflow as fault:
                if fault.table is None or r.expected is None or fault.table.num_rows <= r.expected:
                    raise
                return fault.table
            except Died:
                self._drop_job(lo)
                raise

        return parts.conformed(self._again(once), self.mirrors.schema(), tap.host)

    def _keep(self, r: Range, table: pa.Table) -> None:
        name = parts.named(r.lo, self.kind)
        path = self.manifest.folder / name
        found = parts.write(path, table.replace_schema_metadata(self.out.metadata))
        size = path.stat().st_size
        self.manifest.set(r.lo, state=DONE, rows=table.num_rows, bytes=size, file=name, sha256=found)
        self._drop_job(r.lo)
        self.meter.add(rows=table.num_rows)

    def _drop_job(self, lo: int) -> None:
        """Remove a range's job from its server; what cannot be removed from a finished range is tried again later."""
        r = self.manifest.at(lo)
        service = next((s for s in self.mirrors.services if s.name == r.service), None)
        if r.job is None or service is None:
            return
        up = service.name not in self.mirrors.down
        gone = up and uws.Job(Tap(self.client, service.url), r.job).delete()
        if gone or r.state != DONE:
            self.manifest.set(lo, job=None)

    def _overflowed(self, r: Range, fault: Overflow) -> None:
        """The service gives less at once than it said: remember that, and cut this range anew."""
        self._drop_job(r.lo)
        rows = fault.table.num_rows if fault.table is not None else (r.expected or 0) // 2
        if not self.cut or rows < 1 or not cuts.divisible(r.lo, r.hi):
            self.manifest.set(r.lo, state=SHORT, rows=rows)
            return
        with self.turn:
            self.manifest.note(most=min(self.most(), rows))
        self.manifest.split(r.lo, [(r.lo, r.hi, OPEN, None)])

    # --- all of it ---------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Count everything, fetch nothing; returns the rows there are."""
        self._begin(OPEN)
        self._ended()
        return sum(r.expected or 0 for r in self.manifest.ranges())

    def start(self) -> None:
        """Fetch in the background; `parts` gives what has come, in order."""
        self._begin(OPEN, TODO)

    def _begin(self, *states: str) -> None:
        if self.manifest.ranges(*states):
            self.manifest.note(swept=False)
        # Daemons: a reader that goes away ends the program at once, whatever a server is doing.
        work = {"target": self._loop, "args": (states,), "daemon": True, "name": "xp-fetch"}
        self.threads = [threading.Thread(**work) for _ in range(self.parallel)]
        for thread in self.threads:
            thread.start()

    def parts(self) -> Iterator[Path]:
        """The files of the ranges in order, each as soon as it is whole; IncompleteError at one that is short."""
        lo, end = min(r.lo for r in self.manifest.ranges()), max(r.hi for r in self.manifest.ranges())
        while lo <= end:
            with self.turn:
                while (r := self._from(lo)).state in (OPEN, TODO):
                    self._check()
                    self.turn.wait(0.2)
            if r.state == SHORT:
                self.wait()
            if r.file:
                yield self.manifest.folder / r.file
            lo = r.hi + 1
        self.wait()

    def _from(self, lo: int) -> Range:
        """The first range at or after `lo` (there are gaps where nothing was asked for)."""
        return next(r for r in self.manifest.ranges() if r.hi >= lo)

    def wait(self) -> None:
        """Until nothing is left to do; raises what went wrong, IncompleteError (76) if rows are missing."""
        self._ended()
        self._sweep()
        if short := self.manifest.ranges(SHORT):
            raise missing(short, self.cut)
        self.ended()

    def _ended(self) -> None:
        for thread in self.threads:
            while thread.is_alive():
                thread.join(0.1)
                self._check()
        self._check()

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def _next(self, states: tuple[str, ...]) -> Range | None:
        """The next range to work on; None when there will be no more."""
        with self.turn:
            while self.fault is None:
                waiting = [r for r in self.manifest.ranges(*states) if r.lo not in self.busy]
                if waiting:
                    self.busy.add(waiting[0].lo)
                    return waiting[0]
                if not self.busy:
                    return None
                self.turn.wait(0.2)
        return None

    def _loop(self, states: tuple[str, ...]) -> None:
        while (r := self._next(states)) is not None:
            try:
                self.survey(r) if r.state == OPEN else self.take(r)
                self._expect()
            except BaseException as fault:
                with self.turn:
                    self.fault = self.fault or fault
                self.client.stopping.set()
            finally:
                with self.turn:
                    self.busy.discard(r.lo)
                    self.turn.notify_all()

    def _expect(self) -> None:
        ranges = self.manifest.ranges()
        with self.turn:
            if self.meter.total is None and all(r.state == DONE or r.expected is not None for r in ranges):
                self.meter.expect(sum(r.expected or 0 for r in ranges))
                self.counted(self.meter.total, sum(bool(r.expected) for r in ranges))

    def _sweep(self) -> None:
        """Remove from the servers what we left there."""
        for r in self.manifest.ranges(DONE, SHORT):
            if r.job:
                self._drop_job(r.lo)
        if self.manifest.word("swept"):
            return
        # Also those of an earlier run, which was killed before it could write an address down.
        used = {r.service for r in self.manifest.ranges()} | set(self.mirrors.taps)
        for service in self.mirrors.services:
            if service.name in used - self.mirrors.down:
                with suppress(XpError):  # a server that does not answer is no failure of the fetch
                    tap = self.mirrors.tap(service)
                    for url in uws.orphans(tap, self.manifest.runid):
                        uws.Job(tap, url).delete()
        self.manifest.note(swept=True)


def missing(short: list[Range], cut: bool = True) -> IncompleteError:
    """The error that names the ranges which are not whole; `cut`: they are ranges of a query in pieces."""
    spans = "; ".join(f"{r.lo} to {r.hi}: {_came(r)}" for r in short[:5])
    more = f" and {len(short) - 5} more ranges" if len(short) > 5 else ""
    where, cure = f"source_id {spans}{more}", "the same command again, or another --service"
    if not cut:
        where, cure = f"its one reply: {_came(short[0])}", "it without --whole, in pieces, or fewer rows"
    return IncompleteError(f"the archive gave other numbers of rows than it counts, in {where}. TRY: {cure}")


def _came(r: Range) -> str:
    return f"{r.rows or 0:,} of {'more' if r.expected is None else f'{r.expected:,}'}"
