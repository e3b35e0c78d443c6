"""Where the fields of a text table begin and end (RFC 4180 without line breaks in fields), so that only what is wanted
of its rows need be read."""

from __future__ import annotations

import numpy as np

from xptools.errors import DataError


def split(raw: np.ndarray, columns: int) -> np.ndarray:
    """First and last place of every field, int64 (rows, columns, 2), of the text `raw` (uint8), without its quotes.

    Empty lines are left out. DataError for a row with another number of fields, or whose quotes do not fit.
    """
    from xptools.cores import _delimited

    most = int(np.count_nonzero(raw == _delimited.LINE)) + 1
    cells = np.empty((most, columns, 2), np.int64)
    quotes = np.append(np.flatnonzero(raw == _delimited.QUOTE), len(raw))
    rows, wrong = _delimited.split(raw, quotes, columns, cells)
    if wrong >= 0:
        raise DataError(f"row {wrong + 1} of a block has not {columns} fields")
    return cells[:rows]


def joined(raw: np.ndarray, cells: np.ndarray) -> bytes:
    """Some fields, as `split` gives them (rows, columns, 2), as text again: commas between, a line for every row."""
    from xptools.cores import _delimited

    out = np.empty(int((cells[..., 1] - cells[..., 0] + 1).sum()), np.uint8)
    _delimited.joined(raw, np.ascontiguousarray(cells), out)
    return out.tobytes()


__all__ = ["joined", "split"]
