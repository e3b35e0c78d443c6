"""`xp join`: columns of another table, matched by source_id."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import click

from xptools.errors import DataError
from xptools.options import row_command
from xptools.protocol import Step, spelled


@dataclass(frozen=True)
class Join(Step):
    """Each row with the columns of the row of another table that has the same identifier."""

    other: str = ""
    on: str = "source_id"
    how: str = "left"
    columns: tuple[str, ...] = ()
    suffix: str = ""
    mark: str = ""

    name: ClassVar[str] = "join"

    @property
    def drops(self) -> bool:
        return self.how != "left"

    def params(self) -> dict[str, Any]:
        return {k: v for k, v in super().params().items() if k != "other"}

    def files(self) -> dict[str, str]:
        return {"with": self.other}

    def schema(self, schema, replace=False):
        import pyarrow as pa

        from xptools import metadata

        key = spelled(schema, self.on)
        if key is None:
            raise DataError(f"there is no column {self.on}. TRY: --on NAME, or xp info on the input")
        fields = [] if self.how == "anti" else [f.with_name(f.name + self.suffix) for f in self._other().schema]
        taken = [f.name for f in fields if f.name in schema.names]
        if taken:
            raise DataError(f"both tables have a column {taken[0]}. TRY: --suffix _2, or --columns with others")
        if self.mark:
            text = f"A row with this {self.on} is in {self.other.rpartition('/')[2]}"
            fields.append(pa.field(self.mark, pa.bool_(), False, {"ucd": "meta.code", "description": text}))
        extra = {} if self.how == "anti" else {k.decode(): v.decode() for k, v in _extra(self._other().schema, schema)}
        out = pa.schema([*schema, *fields], schema.metadata)
        return metadata.with_record(metadata.with_values(_histories(out, self), extra), self)

    def __call__(self, batch, replace=False):
        import pyarrow as pa

        from xptools.arrowcalls import filtered, wrapped
        from xptools.lookup import identifiers

        out = _schema(self, batch.schema, repr(batch.schema.metadata))
        key = spelled(batch.schema, self.on)
        ids = identifiers(batch.column(key), key, "the input")
        rows, found = self._other().rows(ids)
        columns = [] if self.how == "anti" else [_filled(c) for c in rows.columns]
        if self.mark:
            columns.append(wrapped(found))
        whole = pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=out)
        keep = {"inner": found, "anti": ~found}.get(self.how)
        return whole if keep is None or keep.all() else filtered(whole, keep)

    def _other(self):
        return _lookup(self)


@lru_cache(maxsize=4)
def _lookup(step: Join):
    from xptools.lookup import Lookup

    return Lookup(step.other, step.on, step.columns)


@lru_cache(maxsize=16)
def _schema(step: Join, schema, _metadata: str):
    return step.schema(schema)


def _filled(column):
    """One chunk; an unmatched float is NaN, as everywhere."""
    import pyarrow as pa

    from xptools.arrowcalls import filled

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    return filled(array, float("nan")) if pa.types.is_floating(array.type) else array


def _extra(other, schema):
    own = schema.metadata or {}
    return [(k, v) for k, v in (other.metadata or {}).items() if k not in own and k.startswith(b"xp.")]


def _histories(out, step: Join):
    """Both histories in one list: the other table's first, under names of its own."""
    from xptools import metadata

    own = metadata.history(out)
    other = [] if step.how == "anti" else metadata.history(_lookup(step).schema)
    if not other:
        return out
    renamed = {r["id"]: f"with.{r['id']}" for r in other}
    other = [{**r, "id": renamed[r["id"]], "pp": [renamed.get(p, p) for p in r["pp"]]} for r in other]
    return metadata.with_values(out, {metadata.HISTORY.decode(): [*other, *own]})


@row_command(
    "tables",
    3,
    examples=(
        "xp join --with metallicities.parquet stars.parquet -o both.parquet",
        "xp join --with spectra.arrows --how inner --columns bp_coefficients stars.parquet -o both.parquet",
    ),
    see=("convert", "info"),
)
@click.option("--with", "other", required=True, metavar="FILE", help="The other table.")
@click.option("--on", default="source_id", show_default=True, metavar="NAME", help="The integer column that both have.")
@click.option(
    "--how",
    type=click.Choice(["left", "inner", "anti"]),
    default="left",
    show_default=True,
    help="left keeps every row, inner those with a partner, anti those without.",
)
@click.option("--columns", default="", metavar="NAMES", help="Columns of the other table to take (default: all).")
@click.option("--suffix", default="", metavar="TEXT", help="Added to the names of the other table's columns.")
@click.option("--mark", default="", metavar="NAME", help="Add a boolean column NAME: a partner was found.")
def command(other, on, how, columns, suffix, mark):
    """Join columns of another table by source_id.

    The order of the input is kept, and with --how left every row. An identifier may occur in the input more than once,
    in the other table only once. If both tables ascend in it they are read side by side, once, in little memory;
    otherwise the other table is sorted into a temporary file (XP_TMPDIR) first; one of few megabytes is held. A row
    without partner gets NaN (null in integer and text columns).
    """
    chosen = tuple(c.strip() for c in columns.split(",") if c.strip())
    return Join(other, on, how, chosen, suffix, mark)
