"""What the trainings on tables share: reading, cuts and their counts, origin, messages and the bar."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xptools.errors import DataError, MissingColumns, UsageError
from xptools.protocol import check_identifier, check_unit, spelled, to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Origin:
    """Where a training sample came from, and how many rows were left after each cut."""

    name: str
    digest: str | None
    quality: str | None
    where: str | None
    flow: list[tuple[str, int]]
    history: list[dict[str, Any]]

    def record(self, packages: tuple[str, ...]) -> dict[str, Any]:
        """What a model file says of it, with versions, day and command line."""
        from xptools import artefact

        return {
            "input": self.name,
            "sha256": self.digest,
            "input_history": self.history,
            "quality": self.quality,
            "where": self.where,
            "cuts": [list(cut) for cut in self.flow],
            "versions": artefact.versions(*packages),
            "date": artefact.today(),
            "command": shlex.join(["xp", *sys.argv[1:]]),
        }


class Cuts:
    """--quality and --where on the columns of a table."""

    def __init__(self, schema: pa.Schema, model: str, quality: str | None, where: str | None):
        from xptools.cores import quality as rules

        self.quality, self.where = quality, where
        self.columns = {n: s for n in (rules.wanted(quality) if quality else ()) if (s := spelled(schema, n))}
        if quality and (lacking := rules.lacking(quality, set(self.columns))):
            raise MissingColumns(f"train {model} --quality {quality}", lacking, tuple(schema.names))
        self.condition = condition(where, schema)

    def keep(self, batch: pa.RecordBatch) -> tuple[np.ndarray, list[tuple[str, int]]]:
        """Rows that pass (N,) bool, and the counts after each cut."""
        import numpy as np

        from xptools.cores import quality as rules

        keep, flow = np.ones(batch.num_rows, bool), [("in the table", batch.num_rows)]
        if self.quality:
            keep, steps = rules.select(self.quality, {n: array(batch, s) for n, s in self.columns.items()})
            flow += steps
        if self.condition is not None:
            keep = keep & meets(self.condition, batch)
            flow.append(("--where", int(keep.sum())))
        return keep, flow


def read(path: str, model: str, rows: int, plan: Callable, say: Callable) -> tuple[Any, list[dict], Origin]:
    """The plan for a table's columns (`plan(schema)`), its parts of all batches, and where they came from.

    A plan has `cuts`, and `part(batch)` gives a dict with "flow". Counts are said. DataError without rows.
    """
    from xptools import io, metadata
    from xptools.commands._plot_input import need_input

    need_input(path)
    with io.open_reader(path, None, rows) as reader:
        columns = plan(reader.schema)
        parts = [columns.part(batch) for batch in reader if batch.num_rows]
    if not parts:
        raise DataError(f"{reader.name} has no rows. TRY: xp info {path}")
    flow = [(text, sum(p["flow"][i][1] for p in parts)) for i, (text, _) in enumerate(parts[0]["flow"])]
    for text, left in flow:
        say(f"xp train {model}: {left:>9,} rows left: {text}")
    history = [{k: r.get(k) for k in ("cmd", "params")} for r in metadata.history(reader.schema)]
    name, cuts = reader.name.rpartition("/")[2], columns.cuts
    return columns, parts, Origin(name, io.digest(path), cuts.quality, cuts.where, flow, history)


def column(schema: pa.Schema, model: str, name: str) -> str:
    """A column's name as the table spells it; MissingColumns if it is not there, DataError if its unit is another.

    A source_id that went through float is refused, as everywhere.
    """
    check_identifier(schema)
    found = spelled(schema, name)
    if found is None:
        raise MissingColumns(f"train {model}", (name,), tuple(schema.names))
    check_unit(name, schema.field(found))
    return found


def array(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """One column of a batch, null as NaN."""
    return to_numpy(batch.column(batch.schema.get_field_index(name)), name)


def meets(found: tuple, batch: pa.RecordBatch) -> np.ndarray:
    """Rows (N,) bool for which what `condition` gave is true."""
    expression, names = found
    return expression.condition({n: array(batch, s) for n, s in names.items()})[0]


def condition(text: str | None, schema: pa.Schema):
    """A condition on columns, read and with its columns as the table spells them; None for none."""
    if text is None:
        return None
    from xptools.commands._plot_input import found
    from xptools.cores.expression import ExpressionError, parse

    try:
        expression = parse(text)
    except ExpressionError as fault:
        raise UsageError(f"{fault}. TRY: xp select --help") from None
    return expression, found(schema, expression.columns)


def sayer(quiet: bool) -> Callable[[str], None]:
    """How a training speaks: on stderr, or not at all."""
    from xptools import progress

    return (lambda _: None) if quiet else progress.say


def chosen_precision(wanted: str, on_gpu: bool) -> str:
    """float32 or bfloat16, as --precision says; auto is what is quicker for a training."""
    return ("bfloat16" if on_gpu else "float32") if wanted == "auto" else wanted


class Watch:
    """What a person sees of a training: a bar on a terminal, with -v a line of JSON per epoch that `wanted` picks."""

    def __init__(
        self, model: str, epochs: int, quiet: bool, verbose: bool, mode: str,
        wanted: Callable[[dict], bool] = lambda record: True,
    ):  # fmt: skip
        from xptools import progress

        draw = not quiet and not verbose and mode != "off" and (mode == "on" or progress.on_terminal())
        self.verbose, self.wanted, self.bar = verbose, wanted, progress.Bar(f"train {model}", epochs, draw)

    def __call__(self, what: str, record: dict) -> None:
        import json

        from xptools import progress

        self.bar.add(1)
        if self.verbose and self.wanted(record):
            progress.say(json.dumps({"training": what, **record}))

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
