"""A fetch of catalogue rows as it was asked for: its query, its folder, and the table that comes of it."""

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from xptools import io, metadata, settings
from xptools.archive import credentials, parts
from xptools.archive.fetching import Fetch
from xptools.archive.http import Client
from xptools.archive.manifest import DONE, OPEN, TODO, Manifest
from xptools.archive.meter import BIG, Meter, size
from xptools.archive.mirrors import Mirrors
from xptools.archive.missing import Missing
from xptools.archive.query import FIDELITY, PAPER, Query, given, structured
from xptools.archive.services import Service, services
from xptools.columns import GAIA
from xptools.errors import DataError, UsageError
from xptools.io.batches import even
from xptools.lookup import identifiers
from xptools.protocol import Source, spelled

GUESS = 2e6  # bytes/s of an archive


@dataclasses.dataclass(frozen=True)
class Wish:
    """What `xp fetch gaia` was told, as it is kept in the manifest: plain values."""

    adql: str = ""
    whole: bool = False
    columns: tuple[str, ...] = ()
    table: str = "gaiadr3.gaia_source"
    where: str = PAPER
    region: str = ""
    fidelity: str = ""
    service: str = "esa"
    job_rows: int = 200_000
    parallel: int = 3
    tries: int = 6
    timeout: float = 60.0
    credentials: str = ""
    provenance: bool = True
    ids: str = ""
    missing: str = ""
    allow_missing: bool = False

    def services(self) -> tuple[Service, ...]:
        """The services, in order."""
        found = services(self.service)
        if self.credentials and len(found) > 1:
            raise UsageError("--credentials are those of one service, and must not reach another. TRY: one --service")
        return found

    def query(self) -> Query:
        """The query that is cut into ranges."""
        if self.adql:
            return given(self.adql, self.whole)
        if FIDELITY in self.columns and not self.joined():
            raise UsageError(f"no table of {FIDELITY} is known at {self.service}. TRY: --fidelity TABLE")
        stars = stars_of(self.ids) if self.ids else None
        return structured(self.names(), self.table, self.where, self.region, self.joined(), stars)

    def names(self) -> tuple[str, ...]:
        """The columns asked for, source_id first."""
        wanted = self.columns or tuple(GAIA)
        return ("*",) if wanted == ("*",) else tuple(dict.fromkeys(("source_id", *wanted)))

    def joined(self) -> str:
        """The table of fidelities, "" for none: that of the services, if they all call it so."""
        if self.fidelity:
            return "" if self.fidelity == "none" else self.fidelity
        tables = {s.fidelity for s in self.services()}
        return tables.pop() if len(tables) == 1 else ""

    @property
    def ident(self) -> str:
        """What makes two fetches the same: the query, wherever it is asked."""
        query = self.query()
        parts = repr((query.select, query.tail, query.ranges, query.cut)).encode()
        return hashlib.sha256(parts + (b"" if query.stars is None else query.stars.tobytes())).hexdigest()


def stars_of(path: str) -> np.ndarray:
    """The identifiers of a table, each once, ascending; UsageError if it has none."""
    with io.open_reader(path, ["source_id"]) as reader:
        if (key := spelled(reader.schema, "source_id")) is None:
            raise DataError(f"{path} has no column source_id. TRY: xp info {path}")
        found = [identifiers(batch.column(key), key, path) for batch in reader]
    stars = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    if not len(stars):
        raise UsageError(f"{path} has no star to ask for. TRY: xp info {path}")
    return stars


@dataclasses.dataclass(frozen=True)
class Gaia(Source):
    """The rows of a fetch, in source_id order, as they come."""

    adql: str = ""
    service: tuple[str, ...] = ()
    fetch: Any = dataclasses.field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "fetch-gaia"
    cites: ClassVar = ("gaia2016", "gaia2023")

    def params(self):
        return {k: v for k, v in super().params().items() if k != "fetch"}

    def added(self):
        return {}

    def schema(self, schema=None, replace=False):
        return self.fetch.out

    def record_batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        out = self.schema()
        batches = (b for path in self.fetch.parts() for b in parts.read(path))
        return even(
            (b.cast(out) if b.schema != out else b.replace_schema_metadata(out.metadata) for b in batches), rows
        )


@contextmanager
def opened(
    wish: Wish, folder: Path, kind: str, meter: Meter, tell: Callable[[str], None], output: str = "-"
) -> Iterator[Gaia]:
    """The fetch in `folder`, begun or gone on with, its parts of a `kind`; no other process works there meanwhile.

    `output` is the file that its rows go to, where they go to one.
    """
    query, found = wish.query(), wish.services()
    known = credentials.read(wish.credentials) if wish.credentials else None
    client = Client(wish.timeout, wish.tries, max(4, wish.parallel + 1))
    manifest = Manifest(folder)
    with manifest.held(), _cleared(manifest):
        manifest.begin(wish.ident, query.ranges, OPEN, wish=dataclasses.asdict(wish))
        sign_in = (lambda c, url: credentials.sign_in(c, url, known)) if known else None
        mirrors = Mirrors(manifest, query, found, client, sign_in)
        step = Gaia(" ".join(str(query).split()), service=tuple(s.name for s in found))
        out = metadata.with_record(mirrors.schema(), step) if wish.provenance else mirrors.schema()
        fetch = Fetch(manifest, mirrors, meter, out, wish.job_rows, wish.parallel, not wish.adql, kind, tell)
        fetch.counted = lambda rows, jobs: _announced(query, out, rows, jobs, tell)
        if query.stars is not None and not (wish.where or wish.region):
            fetch.ended = lambda: _reconciled(wish, query.stars, manifest, output)
        try:
            yield dataclasses.replace(step, fetch=fetch)
        finally:
            client.stopping.set()


@contextmanager
def _cleared(manifest: Manifest) -> Iterator[None]:
    """A query that the archive does not accept leaves no folder that would stand in a better one's way."""
    try:
        yield
    except DataError:
        if not any(r.job or r.state == DONE for r in manifest.ranges()):
            manifest.discard()
        raise
    finally:
        manifest.close()


def _reconciled(wish: Wish, stars: np.ndarray, manifest: Manifest, output: str) -> None:
    """Which of the stars asked for are not there; IncompleteError (76) if that is not allowed."""
    lacking, policy = absent(manifest, stars), Missing(wish.missing, wish.allow_missing)
    manifest.note(missing=len(lacking))
    policy.reconcile(lacking, len(stars), policy.place(output, manifest.folder), f"stars are not in {wish.table}")


def absent(manifest: Manifest, stars: np.ndarray) -> np.ndarray:
    """Of these stars (ascending), those that are in no part of a fetch."""
    there = [np.zeros(0, np.int64)]
    for r in manifest.ranges(DONE):
        if r.file:
            with io.open_reader(str(manifest.folder / r.file), ["source_id"]) as reader:
                there += [batch.column(0).to_numpy() for batch in reader]
    return np.setdiff1d(stars, np.concatenate(there), assume_unique=True)


def _announced(query: Query, out: pa.Schema, rows: int, jobs: int, tell: Callable[[str], None]) -> None:
    """Say how many of the stars asked for are there, and what a large fetch will cost."""
    if query.stars is not None:
        tell(f"asked for {len(query.stars):,} stars, of which {rows:,} are there")
    if weight(out, rows) > BIG:
        tell(planned(out, rows, jobs))


@contextmanager
def place(wish: Wish) -> Iterator[Path]:
    """A folder for a fetch whose rows go elsewhere: in the cache, where a second try finds it; see `settled`."""
    if cache := settings.cache_dir():
        yield cache / "fetch" / f"gaia-{wish.ident[:16]}"
        return
    with tempfile.TemporaryDirectory(prefix="xp-fetch-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def settled(fetch: Fetch) -> None:
    """Remove the folder of a fetch whose rows have all gone elsewhere."""
    if not fetch.manifest.ranges(OPEN, TODO):
        shutil.rmtree(fetch.manifest.folder, ignore_errors=True)


def is_folder(output: str) -> bool:
    """Whether an output is a folder for parts."""
    return output.endswith(os.sep) or (output != "-" and os.path.isdir(output))


def weight(schema: pa.Schema, rows: int) -> float:
    """Bytes on the wire, about: VOTable BINARY2 in base64; lists are not counted."""
    flat = sum(max(1, f.type.bit_width // 8) if pa.types.is_primitive(f.type) else 30 for f in schema)
    return rows * (flat + (len(schema) + 7) // 8) * 65 / 48


def planned(schema: pa.Schema, rows: int, jobs: int) -> str:
    """What a fetch will cost."""
    heavy = weight(schema, rows)
    hours = (heavy / GUESS + 2 * jobs) / 3600
    return (
        f"{rows:,} rows in {jobs:,} jobs, about {size(heavy)} on the wire, {size(heavy / 2.5)} in Parquet, "
        f"{hours:.2g} hours if the archive sends 2 MB/s"
    )


def summary(manifest: Manifest) -> dict:
    """What is in a manifest, for people and programs."""
    ranges = manifest.ranges()
    done = [r for r in ranges if r.state == DONE]
    counted = all(r.expected is not None or r.state == DONE for r in ranges)
    return {
        "wish": manifest.word("wish"),
        "states": {s: sum(r.state == s for r in ranges) for s in ("done", "todo", "open", "short")},
        "rows": sum(r.rows or 0 for r in done),
        "expected": sum(r.expected or 0 for r in ranges) if counted else None,
        "bytes": sum(r.bytes or 0 for r in done),
        "jobs": [r.job for r in ranges if r.job],
        "missing": manifest.word("missing") or 0,
        "short": [
            {"lo": r.lo, "hi": r.hi, "rows": r.rows, "expected": r.expected} for r in ranges if r.state == "short"
        ],
    }
