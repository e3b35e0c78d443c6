"""What every figure of `xp plot` shares: its table, its twin, its file, its place in the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import click

from xptools.columns import Column
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.protocol import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa


@dataclass(frozen=True)
class Figure(Step):
    """A figure as the history of its numbers has it: which, and with what options."""

    figure: str
    options: tuple[tuple[str, Any], ...] = ()

    name: ClassVar[str] = "plot"
    cites: ClassVar[tuple[str, ...]] = ("hunter2007",)
    packages: ClassVar[tuple[str, ...]] = ("matplotlib",)

    def params(self) -> dict[str, Any]:
        """The figure's name and its options."""
        return {"figure": self.figure, **dict(self.options)}


@dataclass(frozen=True)
class Target:
    """Where a figure goes: its file and form, its twin, its width."""

    output: str
    form: str
    twin: str | None
    column: str
    clobber: bool


def target(
    input: str, output: str | None, form: str | None, data_out: str | None, column: str, no_clobber: bool
) -> Target:
    """The target of the options; what is wrong with them, or with matplotlib, shows before a row is read."""
    from xptools.figures import style

    if output is None:
        raise UsageError("a figure needs a file. TRY: -o figure.pdf (or .png, .svg)")
    form = form or (None if output == "-" else style.kind(output))
    if form is None:
        raise UsageError("a figure on standard output needs its form. TRY: --form png")
    style.matplotlib()
    # Not mf.parquet for mf.pdf: that is what the table itself is called.
    twin = data_out or (f"{output}.parquet" if output != "-" else "none")
    for path in (output, twin):
        if _same_file(path, input):
            raise UsageError(f"{path} is the input, which would be lost. TRY: another -o or --data-out")
    return Target(output, form, None if twin == "none" else twin, column, not no_clobber)


def _same_file(one: str, other: str) -> bool:
    import os

    return one != "-" and os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def need_input(path: str) -> None:
    """Usage and exit 64 when nothing comes in and standard input is a terminal."""
    import os

    if path == "-" and os.isatty(0):
        ctx = click.get_current_context()
        words = f"No INPUT, and standard input is a terminal. TRY: {ctx.command_path} --help"
        click.echo(f"{ctx.get_usage()}\n{words}", err=True)
        ctx.exit(64)


def small_table(path: str, needs: tuple[str, ...], maker: str) -> pa.Table:
    """A report table as a whole; MissingColumns, naming the command that makes it, if it is another table."""
    import pyarrow as pa

    from xptools import io

    need_input(path)
    with io.open_reader(path) as reader:
        missing = tuple(name for name in needs if name not in reader.schema.names)
        if missing:
            raise DataError(
                f"{reader.name} is not what xp {maker} writes: {', '.join(missing)} missing. "
                f"TRY: xp {maker} first, and plot its output"
            )
        table = pa.Table.from_batches(list(reader), reader.schema)
    if table.num_rows == 0:
        raise DataError(f"{reader.name} has no rows to plot. TRY: xp info {path}")
    return table


def arrays(table: pa.Table) -> dict[str, np.ndarray]:
    """The scalar columns as arrays: numbers as float64 or int64, text as str."""
    import numpy as np

    from xptools.protocol import to_numpy

    out = {}
    for name in table.schema.names:
        values = to_numpy(table[name], name)
        if values.ndim == 1:
            out[name] = values.astype(np.str_) if values.dtype == object else values
    return out


def found(schema: pa.Schema, names: tuple[str, ...]) -> dict[str, str]:
    """Column names as the table spells them; MissingColumns if one is not there."""
    from xptools.protocol import spelled

    there = {name: spelled(schema, name) for name in names}
    missing = tuple(name for name, spelling in there.items() if spelling is None)
    if missing:
        raise MissingColumns("plot", missing, tuple(schema.names))
    return there


def finish(
    step: Figure, draw: Callable, numbers: dict[str, np.ndarray], about: dict[str, Any], where: Target,
    source: pa.Schema, columns: dict[str, Column],
) -> None:  # fmt: skip
    """Draw the numbers, write the figure, and beside it the very numbers, with the history of the input."""
    from xptools import progress
    from xptools.figures import style

    figure = style.rendered(draw, numbers, about, where.column, where.form)
    if where.twin:
        _write_twin(_twin(step, numbers, about, source, columns), where)
    _write_bytes(figure, where)
    import os

    written = [where.output] if where.output != "-" else []
    written += [f"its numbers in {where.twin}"] if where.twin else []
    if written and not os.environ.get("XP_QUIET"):
        progress.say(f"xp plot {step.figure}: {', '.join(written)}")


def _twin(step: Figure, numbers: dict, about: dict, source: pa.Schema, columns: dict[str, Column]) -> pa.Table:
    import pyarrow as pa

    from xptools import metadata
    from xptools.protocol import to_arrow

    fields = [
        metadata.field_of(n, columns[n]) if n in columns else source.field(n)
        for n in numbers
        if n in columns or n in source.names
    ]
    schema = metadata.with_record(pa.schema(fields, metadata=source.metadata), step)
    schema = metadata.with_values(schema, {"xp.figure": {k: v for k, v in about.items() if _plain(v)}})
    rows = len(next(iter(numbers.values())))
    return pa.Table.from_arrays([to_arrow(numbers[f.name], f, rows, "plot") for f in schema], schema=schema)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | tuple | list | dict | None)


def _write_twin(table: pa.Table, where: Target) -> None:
    from xptools import io

    with io.open_writer(where.twin, table.schema, None, where.clobber) as writer:
        for batch in table.to_batches():
            writer.write(batch)


def _write_bytes(data: bytes, where: Target) -> None:
    from xptools import terminal
    from xptools.io import writer

    stdout = terminal.claim() if where.output == "-" else None
    if stdout is not None and terminal.is_terminal():
        raise UsageError("a figure cannot be shown on a terminal. TRY: -o figure.pdf, or xp plot cmd --terminal")
    place = writer.Target(where.output, where.clobber, stdout)
    try:
        place.raw.write(data)
        place.raw.flush()
        place.commit()
    except BaseException:
        place.discard()
        raise
