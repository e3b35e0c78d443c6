"""Spectra asked for piece by piece, kept as parts in a folder, counted against what was asked, read back in order.

A part is a Parquet file with what one piece of the identifiers brought; it appears whole or not at all, so whoever is
killed goes on where he was. What is missing from a part is asked for again; what stays missing is told, never dropped.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from xptools import io
from xptools.archive import missing, spectra
from xptools.archive.held import held
from xptools.errors import ConfigError, OutputError, XpError


class Piece(NamedTuple):
    """Identifiers (ascending) that are asked for together, under the name of their part."""

    name: str
    ids: np.ndarray


class Route(Protocol):
    """A way to spectra: how the identifiers are cut into pieces, and what a piece brings."""

    parallel: int
    steady: bool  # whether asking again brings nothing new

    def pieces(self, ids: np.ndarray) -> list[Piece]:
        """All identifiers (ascending) in pieces, ascending."""

    def get(self, piece: Piece) -> pa.Table:
        """What there is of a piece, as `spectra.normal` makes it; may hold fewer rows, in any order."""

    def stop(self) -> None:
        """Give up waiting: another piece has failed for good."""


def chunks(ids: np.ndarray, size: int) -> list[Piece]:
    """Pieces of `size` identifiers."""
    return [Piece(f"{i // size:06d}", ids[i : i + size]) for i in range(0, len(ids), size)]


class Folder:
    """The folder of one fetch: its request, its parts. Two processes never work in it at once."""

    def __init__(self, path: Path, request: dict):
        self.path, self.note = path, path / "request.json"
        self.request = json.dumps(request, sort_keys=True)
        if self.note.exists() and self.note.read_text() != self.request:
            raise ConfigError(f"the folder {path} belongs to another request. TRY: --work DIR, or remove it")

    @contextmanager
    def held(self) -> Iterator[None]:
        """The right to write into it; a failure before there is anything in it leaves no folder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise OutputError(f"cannot make the folder {self.path}: {fault.strerror}. TRY: --work DIR") from fault
        with held(self.path / "lock", str(self.path), ", or --work DIR"):
            try:
                self.note.write_text(self.request)
                yield
            except BaseException:
                if {p.name for p in self.path.iterdir()} <= {"lock", self.note.name, missing.NAME}:
                    self.clear()
                raise

    def part(self, piece: Piece) -> Path:
        """Where the part of a piece is or will be."""
        return self.path / f"part-{piece.name}.parquet"

    def ids(self, piece: Piece) -> np.ndarray:
        """The identifiers that a part holds, none if there is no part."""
        path = self.part(piece)
        if not path.exists():
            return np.zeros(0, np.int64)
        try:
            with io.open_reader(str(path), ["source_id"]) as reader:
                parts = [b.column(0).to_numpy() for b in reader]
        except XpError:  # not one of ours any more: as if it had never come
            path.unlink()
            return np.zeros(0, np.int64)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def read(self, piece: Piece) -> pa.Table | None:
        """The part of a piece."""
        if not self.part(piece).exists():
            return None
        with io.open_reader(str(self.part(piece))) as reader:
            return pa.Table.from_batches(list(reader), reader.schema)

    def parts(self, pieces: list[Piece]) -> tuple[tuple[str, ...], dict[str, int]]:
        """The parts there are, in order, and the coefficients per band in all of them."""
        import pyarrow.parquet as pq

        there = [str(self.part(p)) for p in pieces if self.part(p).exists()]
        return tuple(there), spectra.widths([pq.read_schema(p) for p in there] or [spectra.empty().schema])

    def clear(self) -> None:
        """Remove what was kept, and the folder if nothing else is in it."""
        for path in (*self.path.glob("part-*.parquet"), self.note, self.path / "lock", self.path / missing.NAME):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def keep(self, piece: Piece, table: pa.Table) -> None:
        """Write the part of a piece, replacing an older one."""
        with io.open_writer(str(self.part(piece)), table.schema, "parquet") as writer:
            for batch in table.to_batches():
                writer.write(batch)


def request(route: str, ids: np.ndarray, **rest: object) -> dict:
    """What makes two fetches the same."""
    return {"route": route, "ids": hashlib.sha256(ids.tobytes()).hexdigest(), "count": len(ids), **rest}


def gather(
    route: Route, folder: Folder, pieces: list[Piece], tries: int, hook: Callable[[int, bool], None]
) -> np.ndarray:
    """Fetch what the folder does not hold yet; returns the identifiers that stayed missing (ascending).

    `hook(n, old)` hears of n identifiers settled, whether by an earlier run. What a piece lacks is asked for `tries`
    times and on while any of it comes.
    """
    lost: list[np.ndarray] = []
    stopped = threading.Event()

    def settle(piece: Piece) -> np.ndarray:
        lacking = np.setdiff1d(piece.ids, folder.ids(piece), assume_unique=True)
        settled, asked = route.steady and folder.part(piece).exists(), 0
        while len(lacking) and not settled and not stopped.is_set():
            before, asked = len(lacking), asked + 1
            _add(folder, piece, route.get(Piece(piece.name, lacking)), lacking)
            lacking = np.setdiff1d(piece.ids, folder.ids(piece), assume_unique=True)
            settled = route.steady or (asked >= tries and len(lacking) == before)
        hook(len(piece.ids), not asked)
        return lacking

    with folder.held(), ThreadPoolExecutor(max(1, route.parallel)) as pool:
        jobs = [pool.submit(settle, piece) for piece in pieces]
        try:
            for job in as_completed(jobs):
                lost.append(job.result())
        except BaseException:
            stopped.set()
            route.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return np.sort(np.concatenate(lost)) if lost else np.zeros(0, np.int64)


def _add(folder: Folder, piece: Piece, new: pa.Table, asked: np.ndarray) -> None:
    """Put new rows into the part of a piece: only those asked for, each once."""
    if not (wanted := spectra.among(new["source_id"].to_numpy(), asked)).all():
        new = new.filter(pa.array(wanted))
    old = folder.read(piece)
    if old is None or new.num_rows:
        folder.keep(piece, new if old is None else spectra.together([old, new]))


def joined(parts: Iterable[str], sizes: dict[str, int]) -> Iterator[pa.RecordBatch]:
    """The batches of parts one after the other, with lists of these widths."""
    for path in parts:
        with io.open_reader(path) as reader:
            schema = reader.schema
            for batch in reader:
                yield from spectra.widened(pa.Table.from_batches([batch], schema), sizes).to_batches()
