"""Counting for `xp plot hist`: one expression, fixed bins, any number of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._plot_cmd import expression_words, parsed, rows_of
from xptools.commands._plot_input import found
from xptools.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def counted(
    path: str, text: str, edges: tuple[float, ...]
) -> tuple[np.ndarray, dict[str, Any], pa.Schema, dict[str, Column]]:
    """(counts per bin, what the figure must know, the table's schema, the columns of the numbers)."""
    import numpy as np

    from xptools import io

    expression = parsed(text)
    counts, rows, unknown = np.zeros(len(edges) - 1, np.int64), 0, 0
    with io.open_reader(path) as reader:
        words = expression_words(reader.schema, text)
        found(reader.schema, expression.columns)
        for (values,) in rows_of(reader, (expression,)):
            known = values[np.isfinite(values)]
            rows, unknown = rows + values.size, unknown + values.size - known.size
            counts += np.histogram(known, edges)[0]
    if not counts.any():
        raise DataError(
            f"none of {rows:,} rows has {text} between {edges[0]:g} and {edges[-1]:g} ({unknown:,} are unknown). "
            "TRY: xp info --stats, or other --bins"
        )
    about = {"x": text, "x_label": words["label"], "rows": rows, "unknown": unknown, "drawn": int(counts.sum())}
    columns = {
        "lo": Column("float64", words["unit"], words["ucd"], f"Lower edge of the bin in {text}"),
        "hi": Column("float64", words["unit"], words["ucd"], f"Upper edge of the bin in {text}"),
        "n": Column("int64", None, "meta.number", "Rows in the bin"),
        "n_lo": Column("float64", None, "stat.confidenceLevel;stat.min", "Lower end of the 68 % interval of n"),
        "n_hi": Column("float64", None, "stat.confidenceLevel;stat.max", "Upper end of the 68 % interval of n"),
    }
    return counts, about, reader.schema, columns
