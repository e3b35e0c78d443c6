"""Counting for `xp plot cmd`: which axes, which cells, and the stream through them."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from xptools.commands._plot_input import found
from xptools.errors import DataError, MissingColumns, UsageError, XpError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa

    from xptools.cores.expression import Expression
    from xptools.figures.cmd import Cloud, Grid, Numbers

OBSERVED = "phot_g_mean_mag + 5*log10(parallax/100)"
WIDE = ((-1.0, 6.0), (-5.0, 22.0))  # mag: every colour and absolute magnitude of Gaia's stars
ROWS = 1 << 16
MOST_CELLS = 4_000_000
Range = tuple[float, float] | None
Pair = tuple[str, str]


def axes(schema: pa.Schema, x: str | None, y: str | None) -> tuple[str, str]:
    """The expressions of both axes: as asked, else dereddened where there, else observed."""
    from xptools.protocol import spelled

    x = x or ("bp_rp0" if spelled(schema, "bp_rp0") else "bp_rp")
    return x, y or ("mg0" if spelled(schema, "mg0") else OBSERVED)


def counted(
    path: str, x: str | None, y: str | None, ranges: tuple[Range, Range], cell: tuple[float, float], invert: bool
) -> tuple[Cloud, dict[str, Any], pa.Schema]:
    """The table's cloud, what the figure must know of it, and the table's schema."""
    from xptools.figures.cmd import Cloud

    words, pair, reader = _opened(path, x, y)
    with reader:
        about = _about(reader.schema, words, ranges, invert)
        cloud = Cloud.empty(_grid(words, about, ranges, cell))
        for one, other in rows_of(reader, pair):
            cloud.add(one, other)
    drawn = int(cloud.counts.sum())
    if drawn == 0:
        raise DataError(
            f"none of {cloud.rows:,} rows is inside the axes ({cloud.unknown:,} have no {words[0]} or {words[1]}). "
            "TRY: xp info --stats, or other --x-range and --y-range"
        )
    about |= {"dx": cloud.grid.dx, "dy": cloud.grid.dy, "drawn": drawn, "rows": cloud.rows, "unknown": cloud.unknown}
    return cloud, about, reader.schema


def _opened(path: str, x: str | None, y: str | None) -> tuple[tuple[str, str], tuple, Any]:
    """(the axes' texts, the axes parsed, a reader of their columns only where the format can leave others out)."""
    from xptools import io

    reader = io.open_reader(path, None, ROWS)
    try:
        words = axes(reader.schema, x, y)
        pair = tuple(parsed(text) for text in words)
        names = found(reader.schema, tuple(dict.fromkeys(c for e in pair for c in e.columns)))
    except XpError:
        reader.close()
        raise
    if reader.format == "parquet" and path != "-":
        reader.close()
        reader = io.open_reader(path, list(names.values()), ROWS)
    return words, pair, reader


def parsed(text: str) -> Expression:
    """An axis's expression; UsageError if it is none."""
    from xptools.cores.expression import ExpressionError, parse

    try:
        return parse(text)
    except ExpressionError as fault:
        raise UsageError(f"{fault}. TRY: xp plot --help") from None


def rows_of(reader: Any, axes: tuple[Expression, ...]) -> Iterator[tuple[np.ndarray, ...]]:
    """The axes' values, batch by batch."""
    from xptools.cores.expression import ExpressionError
    from xptools.protocol import to_numpy

    names = found(reader.schema, tuple(dict.fromkeys(c for e in axes for c in e.columns)))
    for batch in reader:
        columns = {n: to_numpy(batch.column(batch.schema.get_field_index(s)), s) for n, s in names.items()}
        if batch.num_rows:
            try:
                yield tuple(axis.number(columns) for axis in axes)
            except ExpressionError as fault:
                raise DataError(f"{fault}. TRY: xp info for the columns and their types") from None


def _grid(words: Pair, about: dict[str, Any], ranges: tuple[Range, Range], cell: tuple[float, float]) -> Grid:
    from xptools.figures.cmd import Grid

    spans = []
    for axis, wide, asked in zip("xy", WIDE, ranges, strict=True):
        if asked is None and about[f"{axis}_unit"] != "mag":
            raise UsageError(
                f"the limits of '{words[axis == 'y']}' must be given: they cannot be known before the last row. "
                f"TRY: --{axis}-range LO:HI --cell DX,DY"
            )
        spans.append(asked or wide)
    # cells of the size asked for, the last may reach beyond the limits
    shape = tuple(math.ceil((hi - lo) / size - 1e-9) for (lo, hi), size in zip(spans, cell, strict=True))
    if shape[0] * shape[1] > MOST_CELLS:
        raise UsageError(f"{shape[0]} x {shape[1]} cells are more than a figure can show. TRY: a larger --cell")
    return Grid(spans[0][0], spans[1][0], *cell, shape)


def expression_words(schema: pa.Schema, text: str) -> dict[str, Any]:
    """Unit, UCD and axis label of an expression: a column's own, those of M_G or a difference, or the text itself."""
    from xptools import metadata
    from xptools.columns import KNOWN
    from xptools.figures import style
    from xptools.protocol import spelled

    if "".join(text.split()) == "".join(OBSERVED.split()):
        return {"unit": "mag", "ucd": "phys.magAbs;em.opt", "label": style.label("mg", "mag")}
    spelling, known = spelled(schema, text), KNOWN.get(text)
    one, _, other = (part.strip() for part in text.partition("-"))
    if not spelling and spelled(schema, one) and spelled(schema, other):
        units = {expression_words(schema, part)["unit"] for part in (one, other)}
        unit = units.pop() if len(units) == 1 else None
        words = f"{style.label(one, None)} $-$ {style.label(other, None).lower()}"
        return {"unit": unit, "ucd": "stat.value", "label": style.label("", unit, words)}
    said = metadata.words_of(schema.field(spelling)) if spelling else {}
    unit = said.get("unit") or (known.unit if known else None)
    ucd = said.get("ucd") or (known.ucd if known else "stat.value")
    return {"unit": unit, "ucd": ucd, "label": style.label(text, unit, said.get("description"))}


def _about(schema: pa.Schema, words: tuple[str, str], ranges: tuple[Range, Range], invert: bool) -> dict[str, Any]:
    about: dict[str, Any] = {"x": words[0], "y": words[1], "x_range": ranges[0], "y_range": ranges[1]}
    for axis, text in zip("xy", words, strict=True):
        about |= {f"{axis}_{key}": value for key, value in expression_words(schema, text).items()}
    units = {about["x_unit"], about["y_unit"]}
    about["cell_unit"] = units.pop() if len(units) == 1 and None not in units else ""
    about["invert_y"] = invert and about["y_unit"] == "mag"
    return about


def with_background(numbers: Numbers, path: str, x: str | None, y: str | None, grid: Grid) -> Numbers:
    """The numbers, then the other table's cells as rows of kind "background"."""
    import numpy as np

    from xptools.figures.cmd import Cloud

    cloud = Cloud.empty(grid)
    try:
        _, pair, reader = _opened(path, x, y)
        with reader:
            for one, other in rows_of(reader, pair):
                cloud.add(one, other)
    except MissingColumns as fault:
        raise MissingColumns("plot cmd --background", fault.missing, fault.present) from None
    cells = np.flatnonzero(cloud.counts)
    i, j = np.divmod(cells, grid.shape[1])
    more = {
        "kind": np.full(cells.size, "background"),
        "x": grid.x0 + (i + 0.5) * grid.dx,
        "y": grid.y0 + (j + 0.5) * grid.dy,
        "n": cloud.counts[cells],
        "feh": np.full(cells.size, np.nan),
    }
    return {k: np.concatenate([v, more[k]]) for k, v in numbers.items()}


def with_isochrones(numbers: Numbers, isochrones: str, locus: str, tracks: str, age: float) -> Numbers:
    """The numbers, then lines of equal [M/H] (--locus) and, across them, of equal mass (--tracks)."""
    from xptools.commands._plot_words import numbers_of_list
    from xptools.cores import isochrone
    from xptools.figures.cmd import with_lines

    if not locus:
        raise UsageError("--tracks goes with --locus: its lines run between isochrones")
    table = isochrone.load(isochrones or None)
    metals = numbers_of_list("locus", locus)
    numbers = with_lines(numbers, "locus", {mh: table.locus(mh, age) for mh in metals})
    if not tracks:
        return numbers
    masses = numbers_of_list("tracks", tracks)
    return with_lines(numbers, "track", {m: track(table, m, metals, age) for m in masses})


def track(table: Any, mass: float, metals: list[float], age: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours and magnitudes of one mass between the outer of these [M/H], where it is on the main sequence."""
    import numpy as np

    mh = np.linspace(min(metals), max(metals), 41)
    magnitude, colour = table.absolute(np.full(len(mh), mass), mh, age)
    there = np.isfinite(magnitude) & (mass <= table.turn_off(mh, age))
    if not there.any():
        raise UsageError(f"--tracks: no star of {mass:g} Msun is on the main sequence there. TRY: 0.2,0.4,0.6")
    return np.asarray(colour)[there], np.asarray(magnitude)[there]


def preview(cloud: Cloud, about: dict[str, Any]) -> None:
    """The cloud as text on standard output, in colour if that is a terminal that has it."""
    import shutil

    import numpy as np

    from xptools import terminal
    from xptools.figures import cmd
    from xptools.figures.terminal import frame

    numbers = cloud.numbers()
    (x0, x1), (y0, y1) = cmd.view(numbers, about)
    size = shutil.get_terminal_size((80, 28))
    columns = int(max(min(size.columns - 12, 100, (x1 - x0) / cloud.grid.dx / 2), 8))
    rows = int(max(min(size.lines - 5, 36, (y1 - y0) / cloud.grid.dy / 4), 4))
    counts, _, _ = np.histogram2d(
        numbers["y"], numbers["x"], (rows * 4, columns * 2), ((y0, y1), (x0, x1)), weights=numbers["n"]
    )
    top = (y0, y1) if about["invert_y"] else (y1, y0)
    image = counts if about["invert_y"] else counts[::-1]
    wanted = os.environ.get("XP_COLOR", "auto")
    colour = wanted == "on" or (wanted == "auto" and terminal.is_terminal() and not os.environ.get("NO_COLOR"))
    labels = tuple(f"{about[a]} [{about[f'{a}_unit']}]" if about[f"{a}_unit"] else about[a] for a in "xy")
    text = frame(image, (x0, x1), top, labels, colour and os.environ.get("TERM") != "dumb")
    left = about["rows"] - about["drawn"]
    words = f"{about['drawn']:,} stars" + (f", {left:,} more outside or without these values" if left else "")
    raw = terminal.claim()
    raw.write(f"{text}\n{words}\n".encode())
    raw.flush()
