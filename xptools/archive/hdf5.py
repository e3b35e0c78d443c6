"""Spectra in HDF5 with a dataset per column (Flatiron's), on this machine or behind HTTP.

From the network, source_id is read first, then only the blocks that hold wanted rows, where these are much less than
the file: what that would cost is known before, from where the datasets say that their rows are.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from xptools.archive import ranged, spectra
from xptools.errors import DataError

ROWS = 1024  # of the file, read at once
NEAR = 1 << 16  # bytes between two rows that are read along with them
REQUEST = 500_000  # bytes that would have come in the time of one more request: 0.1 s at 5 MB/s
SHARE = 0.5  # of the file; what costs more is fetched whole

FILE, STAR = 17e6, 3.4e6  # what source_id and the short columns of a file cost so, and each star with its six lists


class Columns:
    """The columns of a table of spectra in an open HDF5 file, and which of its rows are wanted."""

    def __init__(self, file: Any, name: str, wanted: np.ndarray, correlations: bool):
        names = {n.lower(): n for n in file}
        if "source_id" not in names:
            raise DataError(f"{name} has no dataset source_id, only {', '.join(list(file)[:6])}. TRY: another file")
        self.data = {n: file[names[n]] for n in spectra.columns(correlations) if n in names}
        self.found = np.flatnonzero(spectra.among(self.data["source_id"][:], wanted))
        self.chunks: dict[str, np.ndarray] = {}

    def groups(self) -> Iterator[np.ndarray]:
        """The wanted rows (ascending), as they are read together."""
        for group in np.unique(self.found // ROWS):
            yield self.found[self.found // ROWS == group]

    def batches(self, file: ranged.Blocks | None = None) -> Iterator[pa.RecordBatch]:
        """The wanted rows; all blocks of a batch that they need of `file` are asked for at once."""
        for rows in self.groups():
            if file is not None:
                file.ahead(self.blocks(rows))
            yield pa.RecordBatch.from_pydict({n: _arrow(_taken(d, rows)) for n, d in self.data.items()})

    def blocks(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of the blocks that hold these rows, ascending."""
        every = [np.zeros(0, np.int64)]
        for name in self.data:
            starts, stops = self._spans(name, rows)
            first, last = starts // ranged.BLOCK, (stops - 1) // ranged.BLOCK
            counts = last - first + 1
            steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            every.append(np.unique(np.repeat(first, counts) + steps))
        return np.unique(np.concatenate(every))

    def cost(self) -> int:
        """Bytes that come for all wanted rows, and for each request as many as would have come meanwhile."""
        blocks = self.blocks(self.found)
        return len(blocks) * ranged.BLOCK + len(ranged.runs(blocks)) * REQUEST

    def _spans(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in the file rows of a dataset begin and end [bytes]; none where it does not say."""
        data = self.data[name]
        if data.chunks is None:
            start, size = data.id.get_offset(), _row_bytes(data)
            at = start + rows * size if start is not None else np.zeros(0, np.int64)
            return at, at + size
        if name not in self.chunks:
            found: list[tuple[int, int, int]] = []
            data.id.chunk_iter(lambda c: found.append((c.chunk_offset[0], c.byte_offset, c.byte_offset + c.size)))
            self.chunks[name] = np.array(found, np.int64).reshape(-1, 3)
        first, start, stop = self.chunks[name].T
        held = np.isin(first // data.chunks[0], rows // data.chunks[0])
        return start[held], stop[held]


def _row_bytes(data: Any) -> int:
    return data.dtype.itemsize * int(np.prod(data.shape[1:]))


def _taken(data: Any, rows: np.ndarray) -> np.ndarray:
    """Rows (ascending) of a dataset, neighbours in one reading."""
    near = data.chunks[0] if data.chunks else NEAR // _row_bytes(data)
    cuts = np.flatnonzero(np.diff(rows) > near) + 1
    return np.concatenate([data[int(run[0]) : int(run[-1]) + 1][run - run[0]] for run in np.split(rows, cuts)])


def _arrow(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
