"""The compiled part of `delimited` (numba, CPU): one pass over the bytes of a text table."""

from __future__ import annotations

from xptools.cores._numba import compiled

QUOTE, COMMA, LINE, RETURN = 34, 44, 10, 13


@compiled(folder="numba")
def split(raw, quotes, columns, cells):
    """Places of the fields of all rows into cells (rows, columns, 2); (rows found, row that is wrong or -1).

    `quotes` are the places of all quotes, ascending, and one that is behind the end.
    """
    at, row, end, quote = 0, 0, len(raw), 0
    while at < end:
        if raw[at] == LINE or raw[at] == RETURN:  # an empty line
            at += 1
            continue
        column, more = 0, True
        while more:
            if at < end and raw[at] == QUOTE:
                while quotes[quote] < at:
                    quote += 1
                first, last = at + 1, quotes[quote + 1] if quote + 1 < len(quotes) else end
                at, quote = last + 1, quote + 2
            else:
                first = at
                while at < end and raw[at] != COMMA and raw[at] != LINE and raw[at] != RETURN:
                    at += 1
                last = at
            if column == columns or at > end:
                return row, row
            cells[row, column, 0], cells[row, column, 1] = first, last
            column += 1
            more = at < end and raw[at] == COMMA
            if not more and at < end and raw[at] != LINE and raw[at] != RETURN:
                return row, row  # a quoted field that goes on after its quotes
            at += 1
        if column != columns:
            return row, row
        row += 1
    return row, -1


@compiled(folder="numba")
def joined(raw, cells, out):
    """The fields cells (rows, columns, 2), separated by commas, a line a row, into out; how many bytes that are."""
    place = 0
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            for k in range(cells[row, column, 0], cells[row, column, 1]):
                out[place] = raw[k]
                place += 1
            out[place] = COMMA
            place += 1
        out[place - 1] = LINE
    return place


__all__ = ["joined", "split"]
