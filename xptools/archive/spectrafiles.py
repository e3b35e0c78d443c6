"""Spectra out of files and replies in any format: their batches, only of the stars that are wanted."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from xptools import io
from xptools.archive import spectra
from xptools.archive.wire import Damaged, blocks
from xptools.arrays import to_numpy
from xptools.cores import delimited
from xptools.errors import DataError
from xptools.io import sniff
from xptools.io.spool import spooled
from xptools.io.text import Plan
from xptools.protocol import spelled


def read(raw: BinaryIO, name: str, wanted: np.ndarray | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a table of spectra in any format, from an open file; only the rows of `wanted` (sorted) if given."""
    head = raw.read(sniff.HEAD)
    found = sniff.kind(head)
    if found in ("csv", "ecsv"):
        raw.seek(0)
        yield from read_text(iter(lambda: raw.read(1 << 20), b""), name, wanted)
        return
    if found not in io.reader._OPENERS:
        raise sniff.refuse(found, name)
    raw.seek(0)
    for batch in io.reader._OPENERS[found](raw, name, None, 1024):
        yield chosen(batch, wanted)


def read_text(pieces: Iterable[bytes], name: str, wanted: np.ndarray | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of CSV or ECSV from its bytes in pieces, of which a block or two are in memory at once."""
    layout = None
    for block in blocks(pieces):
        if layout is None:
            first, block = _headed(block)
            layout = Layout.of(first, name)
        try:
            batch = layout.read(np.frombuffer(block, np.uint8), wanted)
        except (pa.ArrowInvalid, DataError) as fault:
            raise Damaged(f"{name}: {str(fault).splitlines()[0][:160]}. TRY: fetch it again") from fault
        if batch.num_rows:
            yield batch


class Layout(NamedTuple):
    """A text table's columns: how many, the place of source_id, the plain ones and the lists that are read."""

    count: int
    key: int
    plain: dict[str, int]
    lists: dict[str, int]

    @classmethod
    def of(cls, first: bytes, name: str) -> "Layout":
        """From the line with the names."""
        names = [n.strip().strip('"').lower() for n in first.decode("utf-8-sig", "replace").strip().split(",")]
        if "source_id" not in names:
            words = f"{name} has no column source_id in its header {first[:60]!r}"
            raise DataError(f"{words}. TRY: another service or file")
        known = {n: k for k, n in enumerate(names) if n in spectra.columns()}
        lists = {n: k for n, k in known.items() if n.endswith(spectra.LISTS)}
        return cls(len(names), names.index("source_id"), {n: k for n, k in known.items() if n not in lists}, lists)

    def read(self, raw: np.ndarray, wanted: np.ndarray | None) -> pa.RecordBatch:
        """The wanted rows of a block of whole lines; ArrowInvalid or DataError for what is no such table."""
        cells = delimited.split(raw, self.count)
        if wanted is not None:
            ids = _plain(raw, cells[:, [self.key]], ["source_id"])
            cells = cells[spectra.among(to_numpy(ids.column(0), "source_id"), wanted)]
        found = dict(zip(self.plain, _plain(raw, cells[:, list(self.plain.values())], list(self.plain)), strict=True))
        for name, k in self.lists.items():
            found[name] = _lists(raw, cells[:, k], np.float64 if name.endswith("_coefficients") else np.float32)
        return pa.RecordBatch.from_pydict(found)


def _plain(raw: np.ndarray, cells: np.ndarray, names: list[str]) -> pa.RecordBatch:
    """Columns without lists."""
    types = {n: pa.int64() if "int" in spectra.columns()[n].type else pa.float64() for n in names}
    if not len(cells):
        return pa.RecordBatch.from_pylist([], pa.schema(types))
    table = Plan("", ",", 0, types).open(pa.BufferReader(delimited.joined(raw, cells)), None, names).read_all()
    return table.combine_chunks().to_batches()[0]


def _lists(raw: np.ndarray, cells: np.ndarray, kind: type) -> pa.Array:
    """A column of lists; nulls where no star of the block has one."""
    values = spectra.listed(raw, cells, kind)
    if not values.size:
        return pa.nulls(len(cells), pa.list_(pa.from_numpy_dtype(kind)))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _headed(block: bytes) -> tuple[bytes, bytes]:
    """The line with the names, after lines that begin with #, and what comes after it."""
    at = 0
    while block.startswith(b"#", at):
        at = block.find(b"\n", at) + 1 or len(block)
    end = block.find(b"\n", at) + 1 or len(block)
    return block[at:end], block[end:]


def chosen(batch: pa.RecordBatch, wanted: np.ndarray | None) -> pa.RecordBatch:
    """The rows whose source_id is wanted."""
    if wanted is None:
        return batch
    spelling = spelled(batch.schema, "source_id")
    if spelling is None:
        raise DataError(f"there is no column source_id among {', '.join(batch.schema.names[:8])}. TRY: another file")
    ids = to_numpy(batch.column(batch.schema.get_field_index(spelling)), spelling)
    kept = spectra.among(ids, wanted)
    return batch if kept.all() else batch.filter(pa.array(kept))


def unzipped(packed: BinaryIO, where: str) -> Iterator[tuple[str, BinaryIO]]:
    """The members of a ZIP archive as open files, each tested against its checksum; DataError for a damaged one."""
    import zipfile

    try:
        with zipfile.ZipFile(packed) as archive:
            for member in archive.infolist():
                with archive.open(member) as packed_member, spooled(packed_member) as plain:
                    plain.seek(0)
                    yield member.filename, plain
    except (zipfile.BadZipFile, EOFError, zipfile.zlib.error) as fault:
        raise Damaged(f"the ZIP archive is damaged ({fault}). {where}. TRY: the same command again") from fault
