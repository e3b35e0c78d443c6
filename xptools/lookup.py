"""Rows of a table by identifier, for `xp join`: read along where both sides ascend, indexed on disk where not.

A small table is held in memory, sorted. Of another, while the wanted identifiers ascend, it is read once, side by side,
and only a window is held; at the first step back (or if it does not ascend itself) it is sorted into a temporary file
in pieces that fit in memory, and rows are found by bisection in memory-mapped arrays.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from xptools import io
from xptools.arrowcalls import taken, wrapped
from xptools.errors import DataError
from xptools.protocol import spelled

PIECE_ROWS = 1 << 21
BLOCK_ROWS = 1 << 16
SMALL = 1 << 23  # bytes of a table that is held


class Lookup:
    """The other table of a join: `rows(ids)` gives its rows in the order of `ids`, nulls where there is none."""

    def __init__(self, path: str, key: str, columns: tuple[str, ...]):
        self.path, self.key, self.columns = path, key, columns
        with io.open_reader(path) as reader:
            self.schema = _payload(reader.schema, path, key, columns)
        self.finder: Held | Along | Index | None = None

    def rows(self, ids: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        """The payload rows for identifiers (n,) and a boolean (n,) telling which were found."""
        if self.finder is None:
            self.finder = _held(self) or (Along(self) if _ascends(self) else Index(self))
        if isinstance(self.finder, Along) and not self.finder.can(ids):
            self.finder = Index(self)
        return self.finder.rows(ids)

    def batches(self):
        """The other table's (ids, payload) batches, once through."""
        reader = io.open_reader(self.path, [self.key, *self.schema.names])
        key = spelled(reader.schema, self.key)
        for batch in reader:
            yield identifiers(batch.column(key), key, self.path), batch.select(self.schema.names)


class Held:
    """All of the other table, sorted by identifier, in memory."""

    def __init__(self, ids: np.ndarray, rows: pa.Table):
        self.ids, self.table = ids, rows

    def rows(self, ids: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        return _taken(self.table, self.ids, ids)


class Along:
    """Both sides ascend: a window of the other table moves along."""

    def __init__(self, table: Lookup):
        self.source, self.schema = table.batches(), table.schema
        self.ids, self.window, self.last, self.done = np.zeros(0, np.int64), table.schema.empty_table(), None, False

    def can(self, ids: np.ndarray) -> bool:
        """Whether these identifiers go on from the last ones."""
        ascending = bool(np.all(ids[1:] >= ids[:-1]))
        return ascending and (self.last is None or ids.size == 0 or ids[0] >= self.last)

    def rows(self, ids: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        if ids.size:
            self._forget(ids[0])
            self._advance(ids[-1])
            self.last = ids[-1]
        return _taken(self.window, self.ids, ids)

    def _forget(self, first: int) -> None:
        start = int(np.searchsorted(self.ids, first))
        self.ids, self.window = self.ids[start:], self.window.slice(start)

    def _advance(self, last: int) -> None:
        ids, tables = [self.ids], [self.window]
        while not self.done and (ids[-1].size == 0 or ids[-1][-1] < last):
            part = next(self.source, None)
            if part is None:
                self.done = True
                break
            ids.append(part[0])
            tables.append(pa.Table.from_batches([part[1]], self.schema))
        self.ids, self.window = np.concatenate(ids), pa.concat_tables(tables)


class Index(Held):
    """The other table sorted by identifier in a temporary folder: memory-mapped identifiers and rows."""

    def __init__(self, table: Lookup):
        import tempfile

        bounds = _bounds(table)
        with tempfile.TemporaryDirectory(prefix="xp-join-", dir=os.environ.get("XP_TMPDIR")) as name:
            folder = Path(name)
            _split(table, bounds, folder)
            self.ids = _sorted(table, len(bounds) + 1, folder)
            # The files lose their names here; what is mapped stays until the process ends, however it ends.
            self.table = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow"))).read_all()


def identifiers(column: pa.Array, name: str, where: str) -> np.ndarray:
    """An identifier column as int64; DataError if it has nulls, text or floating point numbers."""
    if column.null_count:
        raise DataError(f"{where}: column {name} has {column.null_count} nulls; an identifier may not be missing")
    if not pa.types.is_integer(column.type):
        lost = ", so its last digits may be lost" if pa.types.is_floating(column.type) else ", not integer"
        raise DataError(f"{where}: column {name} is {column.type}{lost}. TRY: read it again as int64")
    return column.to_numpy(zero_copy_only=False).astype(np.int64)


def _payload(schema: pa.Schema, path: str, key: str, columns: tuple[str, ...]) -> pa.Schema:
    own = spelled(schema, key)
    if own is None:
        raise DataError(f"{path} has no column {key}. TRY: xp join --on NAME, or xp info {path}")
    absent = next((c for c in columns if spelled(schema, c) is None), None)
    if absent:
        raise DataError(f"{path} has no column {absent}. TRY: xp info {path}")
    names = [spelled(schema, c) for c in columns] or [n for n in schema.names if n != own]
    return pa.schema([schema.field(n) for n in names], schema.metadata)


def _held(table: Lookup) -> Held | None:
    """The table in memory, if it is small."""
    ids, parts, size = [np.zeros(0, np.int64)], [], 0
    for own, batch in table.batches():
        size += own.nbytes + batch.nbytes
        if size > SMALL:
            return None
        ids.append(own)
        parts.append(batch)
    known = np.concatenate(ids)
    order = np.argsort(known, kind="stable")
    known = known[order]
    _no_double(known[1:][np.diff(known) == 0], table)
    return Held(known, taken(pa.Table.from_batches(parts, table.schema), wrapped(order)))


def _ascends(table: Lookup) -> bool:
    last = None
    for batch in io.open_reader(table.path, [table.key]):
        ids = identifiers(batch.column(0), table.key, table.path)
        if ids.size == 0:
            continue
        steps = np.diff(ids)
        _no_double(ids[1:][steps == 0], table)
        if last is not None and ids[0] == last:
            _no_double(ids[:1], table)
        if np.any(steps < 0) or (last is not None and ids[0] < last):
            return False
        last = ids[-1]
    return True


def _no_double(doubles: np.ndarray, table: Lookup) -> None:
    if doubles.size:
        raise DataError(
            f"{table.path} has {table.key} {doubles[0]} more than once, so a row would have two partners. "
            "TRY: drop the doubles first"
        )


def _bounds(table: Lookup) -> np.ndarray:
    # Identifiers that cut the other table into pieces small enough to sort in memory, from a sample of each batch.
    total, sample = 0, []
    for batch in io.open_reader(table.path, [table.key]):
        ids = identifiers(batch.column(0), table.key, table.path)
        total += ids.size
        sample.append(ids[:: max(1, ids.size // 256)])
    pieces = max(1, -(-2 * total // PIECE_ROWS)) if total > PIECE_ROWS else 1
    ids = np.sort(np.concatenate(sample)) if sample else np.zeros(0, np.int64)
    return ids[np.linspace(0, ids.size, pieces + 1).astype(int)[1:-1]] if pieces > 1 else np.zeros(0, np.int64)


def _split(table: Lookup, bounds: np.ndarray, folder: Path) -> None:
    schema = _with_key(table)
    writers = [pa.ipc.new_stream(str(folder / f"piece-{i}"), schema) for i in range(len(bounds) + 1)]
    for ids, payload in table.batches():
        piece = np.searchsorted(bounds, ids, side="right")
        whole = pa.RecordBatch.from_arrays([wrapped(ids), *payload.columns], schema=schema)
        for i in np.flatnonzero(np.bincount(piece)):
            writers[i].write_batch(taken(whole, wrapped(np.flatnonzero(piece == i))))
    for writer in writers:
        writer.close()


def _sorted(table: Lookup, pieces: int, folder: Path) -> np.ndarray:
    payload = table.schema
    with pa.ipc.new_file(str(folder / "rows.arrow"), payload) as out, open(folder / "ids", "wb") as ids_file:
        for i in range(pieces):
            path = folder / f"piece-{i}"
            part = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
            ids = part.column(0).to_numpy()
            order = np.argsort(ids, kind="stable")
            ids = ids[order]
            _no_double(ids[1:][np.diff(ids) == 0], table)
            ids_file.write(ids.tobytes())
            rows = taken(part.drop_columns([part.schema.names[0]]), wrapped(order))
            out.write_table(pa.Table.from_arrays(rows.columns, schema=payload), BLOCK_ROWS)
            del part
            path.unlink()
    size = (folder / "ids").stat().st_size
    return np.memmap(folder / "ids", np.int64, "r") if size else np.zeros(0, np.int64)


def _with_key(table: Lookup) -> pa.Schema:
    name = "xp_join_key"
    return pa.schema([pa.field(name, pa.int64()), *table.schema])


def _taken(rows: pa.Table, known: np.ndarray, ids: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    where = np.searchsorted(known, ids)
    found = np.zeros(ids.size, bool)
    inside = where < known.size
    found[inside] = known[where[inside]] == ids[inside]
    # Rows that exist are taken, then spread out to all ids: taking with nulls from a chunked table copies it whole.
    some = taken(rows, wrapped(where[found])).combine_chunks()
    spread = np.cumsum(found) - 1
    return taken(some, wrapped(spread, missing=~found)) if not found.all() else some, found
