"""From labels and references to the numbers of `xp plot feh`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._plot_input import found, need_input
from xptools.errors import DataError, MissingColumns
from xptools.protocol import spelled

if TYPE_CHECKING:
    import pyarrow as pa

    from xptools.figures.feh import Tally

REFERENCES = ("true_feh", "fe_h")
ROWS = 1 << 16
COLUMNS = {
    "kind": Column("string", None, "meta.code.class", "cell, median (running, with its 68 %) or panel (of its stars)"),
    "mg_lo": Column("float64", "mag", "phys.magAbs;em.opt;stat.min", "Lower edge of the M_G bin"),
    "mg_hi": Column("float64", "mag", "phys.magAbs;em.opt;stat.max", "Upper edge of the M_G bin"),
    "x": Column("float64", None, "phys.abund.Fe", "Reference [Fe/H] [dex]"),
    "y": Column("float64", None, "phys.abund.Fe", "[Fe/H] found; of a panel: median of found - reference [dex]"),
    "lo": Column("float64", None, "phys.abund.Fe;stat.min", "16 % quantile of [Fe/H] found [dex]"),
    "hi": Column("float64", None, "phys.abund.Fe;stat.max", "84 % quantile; of a panel: 1.48 MAD [dex]"),
    "n": Column("int64", None, "meta.number", "Stars"),
}


def counted(path: str, reference: str | None, edges, everything: bool) -> tuple[Tally, dict[str, Any], pa.Schema]:
    """(the stars counted, what the figure must know, the table's schema)."""
    import numpy as np

    from xptools import io
    from xptools.cores.feh import DIAGONAL
    from xptools.figures.feh import Tally
    from xptools.protocol import to_numpy

    need_input(path)
    # A spectrum without correlations has a good label all the same; its error is what is in doubt.
    tally = Tally.empty(np.array(edges))
    with io.open_reader(path, None, ROWS) as reader:
        name = reference or next((r for r in REFERENCES if spelled(reader.schema, r)), None)
        if name is None:
            raise MissingColumns("plot feh", (REFERENCES[0],), tuple(reader.schema.names))
        names = found(reader.schema, ("feh", "mg", name))
        flag = None if everything else spelled(reader.schema, "feh_flag")
        for batch in reader:
            take = {k: to_numpy(batch.column(batch.schema.get_field_index(v)), v) for k, v in names.items()}
            good = np.ones(batch.num_rows, bool)
            if flag is not None:
                bits = to_numpy(batch.column(batch.schema.get_field_index(flag)), flag).astype(int)
                good = bits & ~DIAGONAL == 0
            tally.add(take["mg"][good], take[name][good], take["feh"][good])
    if not tally.counts.any():
        raise DataError(f"no row of {path} has [Fe/H], {name} and M_G inside the panels. TRY: --mg-edges, or --all")
    known = {"true_feh": "True [Fe/H]", "fe_h": "[Fe/H] of ASPCAP", "mh_gspphot": "[M/H] of GSP-Phot"}
    words = known.get(name, f"{name} [dex]")
    about = {"x_label": words, "y_label": "[Fe/H] from XP", "rows": tally.rows, "drawn": int(tally.counts.sum())}
    return tally, about, reader.schema
