"""From answers and references to the numbers of `xp plot ask`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._plot_input import found, need_input
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.protocol import spelled

if TYPE_CHECKING:
    import pyarrow as pa

    from xptools.figures.ask import Tally

RANGES = {"mass": (0.5, 2.5), "age": (0.0, 14.0), "teff": (3800.0, 5600.0), "logg": (0.8, 3.8), "mh": (-2.0, 0.6)}
ROWS = 1 << 16


def columns(unit: str | None) -> dict[str, Column]:
    """The columns beside the figure; `unit` is the label's."""
    return {
        "kind": Column("string", None, "meta.code.class", "cell (of stars) or panel (what its stars come to)"),
        "panel": Column("string", None, "meta.id", "Which answers: the suffix of their columns"),
        "x": Column("float64", unit, "stat.value", "Reference, centre of the cell"),
        "y": Column("float64", unit, "stat.value", "Answer, centre of the cell; of a panel: median answer - reference"),
        "scatter": Column("float64", unit, "stat.stdev", "Of a panel: 1.48 MAD of answer - reference"),
        "error": Column("float64", unit, "stat.error;stat.median", "Of a panel: median error of the answers"),
        "n": Column("int64", None, "meta.number", "Stars"),
    }


def reference_of(schema: pa.Schema, label: str, reference: str | None) -> str:
    """The reference's column."""
    return reference or next((n for n in (f"true_{label}", label) if spelled(schema, n)), f"true_{label}")


def unit_of(schema: pa.Schema, label: str, reference: str | None) -> str | None:
    """The reference's unit."""
    from xptools import metadata

    return metadata.unit_of(schema.field(spelled(schema, reference_of(schema, label, reference)))) or None


def counted(
    path: str, label: str, reference: str | None, panels: tuple[str, ...], titles: dict[str, str], span: Any
) -> tuple[Tally, dict[str, Any], pa.Schema]:
    """(the stars counted, what the figure must know, the table's schema)."""
    from xptools import io
    from xptools.figures import style
    from xptools.figures.ask import Tally
    from xptools.protocol import to_numpy

    need_input(path)
    if span is None and label not in RANGES:
        raise UsageError(f"--range is needed for {label!r}. TRY: --range LO:HI")
    low, high = span or RANGES[label]
    with io.open_reader(path, None, ROWS) as reader:
        names = reader.schema.names
        chosen = panels or tuple(
            n.removeprefix(f"{label}_") for n in names if n.startswith(f"{label}_") and f"{n}_err_net" in names
        )
        if not chosen:
            raise MissingColumns("plot ask", (f"{label}_a",), tuple(names))
        truth = reference_of(reader.schema, label, reference)
        need = found(reader.schema, (truth, *(f"{label}_{p}" for p in chosen)))
        errors = {p: spelled(reader.schema, f"{label}_{p}_err") for p in chosen}
        tally = Tally.empty(low, high, chosen)

        def values(batch, name):
            return to_numpy(batch.column(batch.schema.get_field_index(name)), name).astype(float)

        for batch in reader:
            tally.rows += batch.num_rows
            x = values(batch, need[truth])
            for k, p in enumerate(chosen):
                error = values(batch, errors[p]) if errors[p] else None
                tally.add(k, x, values(batch, need[f"{label}_{p}"]), error)
    if not tally.cells.any():
        raise DataError(f"no row of {path} has {truth} and an answer inside the axes. TRY: --range")
    unit = unit_of(reader.schema, label, reference)
    words = style.label(label, unit)
    words = words[0].lower() + words[1:] if label in ("mass", "age") else words
    about = {"x_label": f"Reference {words}", "y_label": f"Answered {words}", "unit": style.UNITS.get(unit, unit or "")}
    about |= {"low": low, "high": high, "titles": titles, "rows": tally.rows}
    return tally, about, reader.schema
