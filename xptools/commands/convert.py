"""`xp convert`: a table from one format to another; columns kept, dropped, renamed, given a unit."""

from dataclasses import dataclass
from typing import ClassVar

import click

from xptools.errors import DataError, UsageError
from xptools.options import row_command
from xptools.protocol import Step, bound, spelled


@dataclass(frozen=True)
class Convert(Step):
    """The table with columns chosen, renamed or spread out; values are never changed.

    `keep` and `drop` are column names, `rename` and `unit` are pairs, `explode` turns array columns into scalar ones.
    """

    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    unit: tuple[tuple[str, str], ...] = ()
    explode: bool = False

    name: ClassVar[str] = "convert"

    def schema(self, schema, replace=False):
        import pyarrow as pa

        from xptools import metadata

        fields = [f for name, i in self._layout(schema) for f in [self._field(schema, name, i)]]
        names = [f.name for f in fields]
        double = next((n for n in names if names.count(n) > 1), None)
        if not names:
            raise DataError("no column would be left. TRY: --keep with the columns you want")
        if double:
            raise DataError(f"two columns would be named {double}. TRY: another --rename")
        out = pa.schema(fields, schema.metadata)
        return metadata.with_record(out, self) if self.records else out

    @property
    def records(self) -> bool:
        """A conversion that changes nothing but the format is no step of the history."""
        return self != Convert()

    def __call__(self, batch, replace=False):
        import pyarrow as pa

        if not self.records:
            return batch
        out, _ = bound(self, batch.schema, replace)
        columns = []
        for name, i in self._layout(batch.schema):
            column = batch.column(batch.schema.get_field_index(name))
            columns.append(column if i is None else _element(column, i))
        return pa.RecordBatch.from_arrays(columns, schema=out)

    def _chosen(self, schema) -> list[str]:
        for name in (*self.keep, *self.drop, *(old for old, _ in self.rename), *(name for name, _ in self.unit)):
            if spelled(schema, name) is None:
                raise _absent(name, schema)
        kept = [spelled(schema, n) for n in self.keep] or list(schema.names)
        dropped = {spelled(schema, n) for n in self.drop}
        return [n for n in kept if n not in dropped]

    def _layout(self, schema) -> list[tuple[str, int | None]]:
        import pyarrow as pa

        layout: list[tuple[str, int | None]] = []
        for name in self._chosen(schema):
            kind = schema.field(name).type
            if self.explode and pa.types.is_fixed_size_list(kind):
                layout += [(name, i) for i in range(kind.list_size)]
            else:
                layout.append((name, None))
        return layout

    def _field(self, schema, name: str, i: int | None):
        field = schema.field(name)
        new = next((new for old, new in self.rename if spelled(schema, old) == name), name)
        unit = next((unit for old, unit in self.unit if spelled(schema, old) == name), None)
        if i is not None:
            field = field.with_type(field.type.value_type)
            new = f"{new}_{i}"
        if unit is not None:
            words = {k: v for k, v in (field.metadata or {}).items() if k != b"unit"}
            field = field.with_metadata({**words, **({b"unit": unit.encode()} if unit else {})})
        return field.with_name(new)


def _element(column, i: int):
    from xptools.arrowcalls import call

    return call("list_element", column, i)


def _absent(name: str, schema) -> DataError:
    import difflib

    near = difflib.get_close_matches(name, schema.names, 1)
    hint = f"; nearest is {near[0]}" if near else ""
    return DataError(f"there is no column {name}{hint}. TRY: xp info on the input for its columns")


def _pairs(texts: tuple[str, ...], option: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in texts:
        left, equals, right = text.partition("=")
        if not (equals and left):
            raise UsageError(f"{option} {text!r} is not of the form NAME=VALUE. TRY: {option} {text}=VALUE")
        pairs.append((left, right))
    return tuple(pairs)


def _vounit(text: str) -> str:
    """The unit as VOUnits spell it; UsageError if it is none."""
    from xptools import metadata

    unit = metadata.vounit(text)
    if unit is None:
        raise UsageError(f"{text!r} is no unit. TRY: mag, mas.yr**-1, km.s**-1, kpc**3, or nothing for none (dex)")
    return unit


def _names(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(n.strip() for text in texts for n in text.split(",") if n.strip())


@row_command(
    "tables",
    2,
    examples=(
        "xp convert stars.fits -o stars.parquet",
        "xp convert --keep source_id,parallax --rename parallax=plx stars.parquet -o two.csv",
    ),
    see=("info", "join"),
)
@click.option("--keep", multiple=True, metavar="NAMES", help="Only these columns, in this order (commas, or repeat).")
@click.option("--drop", multiple=True, metavar="NAMES", help="All columns but these.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="Rename a column.")
@click.option("--unit", multiple=True, metavar="NAME=UNIT", help="State a column's unit (values stay); empty for none.")
@click.option("--explode", is_flag=True, help="Array columns as scalar columns NAME_0, NAME_1 ... (CSV needs it).")
def command(keep, drop, rename, unit, explode):
    """Convert a table between formats, and choose, rename or label its columns.

    Reads Arrow, Parquet, FITS, VOTable, ECSV and CSV (also gzip or zstd), recognised by their bytes; writes what the
    output's suffix says. Units, UCDs, descriptions and the history go along. Values are never changed, but every format
    has its own way to say that one is missing: in Parquet and FITS a missing float is NaN and a missing text is empty,
    in CSV and ECSV the cell is empty. CSV has no units and no array columns.
    """
    units = tuple((name, _vounit(unit)) for name, unit in _pairs(unit, "--unit"))
    return Convert(_names(keep), _names(drop), _pairs(rename, "--rename"), units, explode)
