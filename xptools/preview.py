"""The first rows of a table as a person reads them: names, a row of units, as many columns as fit."""

from typing import Any

import pyarrow as pa

from xptools import metadata, terminal


def drawn(table: pa.Table, width: int | None = None) -> tuple[Any, int]:
    """(rich table, number of columns shown) of a small table for a screen `width` characters wide."""
    from rich.table import Table

    width = width or terminal.width()
    rows = [[_cell(v) for v in row.values()] for row in table.to_pylist()]
    units = [metadata.unit_of(f) for f in table.schema]
    shown, used = 0, 0
    for i, f in enumerate(table.schema):
        used += 2 + max(len(t) for t in (f.name, units[i], *(r[i] for r in rows)))
        if used > width and shown:
            break
        shown += 1
    out = Table(show_header=True, header_style="bold", box=None, padding=(0, 2, 0, 0))
    for f in list(table.schema)[:shown]:
        out.add_column(f.name, justify="left" if pa.types.is_string(f.type) else "right", no_wrap=True)
    out.add_row(*units[:shown], style="dim")
    for row in rows:
        out.add_row(*row[:shown])
    return out, shown


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(_cell(v) for v in value[:3]) + (", ...]" if len(value) > 3 else "]")
    # Markup and control characters of a text must not reach the screen as such.
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else "?" for c in text).replace("[", "\\[")[:40]
