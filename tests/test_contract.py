"""What every command promises (CONTRACT section 1). A new command is tested here by existing.

Commands are found by file name. A command that cannot run without options has a line in LINES; the columns it needs
come from `tables.stars`, or from the command that makes them.
"""

import json
import os
import pickle
import re
import tomllib
from functools import cache
from importlib import import_module

import click
import numpy as np
import pyarrow as pa
import pytest
from astropy.io.votable.ucd import parse_ucd
from astropy.units import Unit
from tables import read, stars, write

import xptools
from xptools import cli, metadata, stream
from xptools.columns import KNOWN, XP
from xptools.errors import DataError, MissingColumns
from xptools.protocol import Cut, Fold, RowOp, Source, spelled

LINES = {
    "deredden": ["deredden --map none", "deredden --map none --zero-point lindegren2021"],
    "select": [
        "select --magnitude 12:15 --where 'ruwe < 1.05'",
        "select --flag --magnitude 12:15 --where 'ruwe < 1.05'",
    ],
    "join": ["join --with {other} --columns extra --suffix _2"],
    "mock": ["mock 300", "mock 300 --spectra --correlations --map toy"],
    "mf": ["mf --method exact"],
    "calibrate": [
        "calibrate",
        "calibrate --grid 400:1000:50 --absolute --synthetic --truncate --floors zgr --covariance",
    ],
    "vae": ["vae", "vae --add all --sample 3"],
    "ask": [
        "ask mass age",
        "ask bp_coefficients mh --given rp_coefficients,bp_rp --explain --precision float32",
        "ask teff mass --given bp_coefficients,bp_rp --joint 3 --seed 2",
    ],
    "convert": ["convert", "convert --keep source_id,ra,dec,note", "convert --rename ra=alpha --unit odd=km"],
}
ROWS = 220


def kind(name: str) -> str:
    """row, cut, fold, source or plain."""
    return getattr(getattr(import_module(f"xptools.commands.{name}").command, "about", None), "kind", "plain")


def lines(*kinds: str) -> list[str]:
    """The command lines to test, of commands of these kinds."""
    return [line for n in cli.names() if kind(n) in kinds for line in LINES.get(n, [n])]


def known_options(line: str) -> str:
    """The line without options that its command does not have."""
    command = import_module(f"xptools.commands.{line.split()[0]}").command
    has = {o for p in command.params for o in p.opts}
    return " ".join(w for w in line.split(" ") if not w.startswith("--") or w in has)


ROW, CUT, FOLD, SOURCE = (lines(k) for k in ("row", "cut", "fold", "source"))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """`build(line)` gives (step, a table that it can read)."""
    other = tmp_path_factory.mktemp("contract") / "other.parquet"
    ids = stars(ROWS)["source_id"]
    write(pa.table({"source_id": ids, "extra": pa.array(np.arange(ROWS, dtype=float))}), other)

    @cache
    def made(line: str):
        step = xptools.op(known_options(line).format(other=other))
        table = stars(ROWS, spectra=any(n in XP for n in step.needs))
        for column in step.needs:
            if column not in table.schema.names:
                maker = xptools.op(cli.makers(column)[0])
                table = pa.Table.from_batches([maker(b) for b in table.to_batches()])
        taken = set() if isinstance(step, Fold | Source) else set(step.added()) - set(step.needs)
        return step, table.drop_columns([n for n in taken if n in table.schema.names]).combine_chunks()

    return made


def through(step, table: pa.Table, rows: int = 16384, replace: bool = False) -> pa.Table:
    """A table through a step in batches."""
    schema = step.schema(table.schema, replace)
    batches = [step(b, replace) for b in table.to_batches(max_chunksize=rows)]
    return pa.Table.from_batches(batches, schema)


def bits(column) -> bytes | list:
    """A column's values for comparison bit by bit."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_floating(array.type):
        return array.to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_fixed_size_list(array.type):
        return array.flatten().to_numpy(zero_copy_only=False).tobytes()
    return array.to_pylist()


def same_bits(one: pa.Table, other: pa.Table, what: str = "") -> None:
    assert one.schema.names == other.schema.names
    for name in one.schema.names:
        assert bits(one[name]) == bits(other[name]), f"{name} {what}"


def reads(step) -> list[str]:
    return [*step.needs, *step.wants]


# --- columns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*ROW, *CUT])
def test_rows_and_columns_are_kept(build, line):
    step, table = build(line)
    out = through(step, table)
    if line.startswith("convert "):
        return
    for i, f in enumerate(table.schema):
        assert out.schema.field(i).equals(f, check_metadata=True), f.name
    if not step.drops:
        same_bits(table, out.select(table.schema.names))
        return
    place = {v: i for i, v in enumerate(table["source_id"].to_pylist())}
    rows = [place[v] for v in out["source_id"].to_pylist()]
    assert rows == sorted(rows)
    same_bits(table.take(rows), out.select(table.schema.names))


@pytest.mark.parametrize("line", [*ROW, *CUT, *FOLD, *SOURCE])
def test_columns_are_as_declared(build, line):
    step, table = build(line)
    schema = step.schema(None if isinstance(step, Source) else table.schema)
    for name, column in step.added().items():
        field = schema.field(name)
        assert field.type == metadata.arrow_type(column.type)
        words = metadata.words_of(field)
        assert len(words["description"]) > 4, name
        parse_ucd(words["ucd"], check_controlled_vocabulary=True, has_colon=False)
        if column.unit is not None:
            assert "unit" in words
            Unit(words["unit"], format="vounit", parse_strict="raise")
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
    if isinstance(step, RowOp | Cut):
        out = through(step, table)
        assert list(out.schema.names[-len(step.added()) :] if step.added() else []) == list(step.added())
        for name, column in step.added().items():
            if not column.type.startswith("float"):
                assert out[name].null_count == 0, f"{name}: only floating point may be missing"


def test_known_columns_have_valid_units_and_ucds():
    for name, column in KNOWN.items():
        parse_ucd(column.ucd, check_controlled_vocabulary=True, has_colon=False)
        assert column.text, name
        if column.unit is not None:
            Unit(column.unit, format="vounit", parse_strict="raise")


# --- rows are independent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*ROW, *CUT])
def test_no_rows_never_reach_the_core(build, line, monkeypatch):
    step, table = build(line)
    for name in ("compute", "mask", "judge"):
        if hasattr(step, name):
            monkeypatch.setattr(type(step), name, lambda *a, **k: pytest.fail("called without rows"))
    empty = table.slice(0, 0).combine_chunks()
    batch = pa.RecordBatch.from_pylist([], schema=empty.schema)
    out = step(batch)
    assert out.num_rows == 0
    assert out.schema.equals(step.schema(table.schema))


@pytest.mark.parametrize("line", [*ROW, *CUT])
def test_batches_do_not_matter(build, line):
    step, table = build(line)
    whole = through(step, table)
    for rows in (1, 7, 100, 16384):
        small = table if rows > 1 else table.slice(0, 40)
        want = whole if rows > 1 else through(step, small)
        same_bits(want, through(step, small, rows), f"with batches of {rows}")


@pytest.mark.parametrize("line", [*ROW, *CUT])
def test_rows_do_not_meet(build, line):
    step, table = build(line)
    order = np.random.default_rng(2).permutation(table.num_rows)
    shuffled = through(step, table.take(order))
    whole = through(step, table)
    if step.drops:
        place = {v: i for i, v in enumerate(whole["source_id"].to_pylist())}
        same_bits(whole.take([place[v] for v in shuffled["source_id"].to_pylist()]), shuffled)
        return
    same_bits(whole.take(order), shuffled)
    one = table.slice(17, 1)
    same_bits(whole.slice(17, 1), through(step, one), "alone")


@pytest.mark.parametrize("line", [line for line in [*ROW, *CUT] if not line.startswith(("convert", "join"))])
def test_unknown_is_unknown_and_touches_no_neighbour(build, line):
    step, table = build(line)
    spare = np.array([i for i in range(table.num_rows) if i not in (3, 4, 5, 6)])
    marks = [n for n in step.added() if n.startswith("in_") or n.endswith("_flag")]
    whole = None if step.drops else through(step, table)
    for column in [c for c in reads(step) if c in table.schema.names and c != "source_id"]:
        where = table.schema.get_field_index(column)
        field = table.schema.field(where)
        if not pa.types.is_floating(field.type):
            values = table[column].to_pylist()
            values[3] = None
            spoilt = table.set_column(where, field, pa.array(values, field.type))
        else:
            values = table[column].to_numpy().copy()
            values[4], values[5], values[6] = np.nan, np.inf, -np.inf
            mask = np.arange(len(values)) == 3
            spoilt = table.set_column(where, field, pa.array(values, field.type, mask=mask))
            # Rows 3 and 4 are the same star, unknown once as null and once as NaN.
            spoilt = pa.concat_tables([spoilt.slice(0, 4), spoilt.slice(4, 1), spoilt.slice(5)])
        out = through(step, spoilt)
        if step.drops:
            continue
        same_bits(whole.take(spare).select(list(step.added())), out.take(spare).select(list(step.added())), column)
        for name in marks:
            assert out[name].null_count == 0
    if step.drops:
        return
    nothing = table
    for column in [c for c in reads(step) if c in table.schema.names and c != "source_id"]:
        where = nothing.schema.get_field_index(column)
        nothing = nothing.set_column(
            where, nothing.schema.field(where), pa.nulls(len(nothing), nothing.schema.types[where])
        )
    out = through(step, nothing)
    assert out.num_rows == table.num_rows


@pytest.mark.parametrize("line", [line for line in ROW if not line.startswith(("convert", "join"))])
def test_an_unknown_value_of_a_needed_column_is_flagged(build, line):
    step, table = build(line)
    if not step.flags:
        return
    for column in [c for c in step.needs if c in table.schema.names]:
        where = table.schema.get_field_index(column)
        field = table.schema.field(where)
        if pa.types.is_floating(field.type):
            nans = table.set_column(where, field, pa.array(np.full(table.num_rows, np.nan), field.type))
            assert np.all(through(step, nans)[f"{step.name}_flag"].to_numpy() != 0), column


@pytest.mark.parametrize("line", [line for line in ROW if not line.startswith(("convert", "join"))])
def test_null_and_nan_are_read_alike(build, line):
    step, table = build(line)
    for column in [c for c in step.needs if c in table.schema.names]:
        where = table.schema.get_field_index(column)
        field = table.schema.field(where)
        if not pa.types.is_floating(field.type):
            continue
        nulls = table.set_column(where, field, pa.nulls(table.num_rows, field.type))
        nans = table.set_column(where, field, pa.array(np.full(table.num_rows, np.nan), field.type))
        one, other = (through(step, t).select(list(step.added())) for t in (nulls, nans))
        same_bits(one, other, f"without {column}")


# --- the step as an object -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*ROW, *CUT, *FOLD, *SOURCE])
def test_steps_pickle_compare_and_hash(build, line, tmp_path):
    step, _ = build(line)
    again = pickle.loads(pickle.dumps(step))
    assert again == step
    assert hash(again) == hash(step)
    assert again.params() == step.params()
    json.dumps(metadata._plain(step.params()))


@pytest.mark.parametrize("line", [*ROW, *CUT, *FOLD, *SOURCE])
def test_one_line_of_history(build, line):
    step, table = build(line)
    before = [] if isinstance(step, Source) else metadata.history(table.schema)
    schema = step.schema(None if isinstance(step, Source) else table.schema)
    records = metadata.history(schema)
    if not step.records:
        assert records == before
        return
    assert len(records) == len(before) + 1
    last = records[-1]
    assert last["cmd"] == line.split()[0]
    assert last["pp"] == ([before[-1]["id"]] if before else [])
    assert last["xp"] == xptools.__version__
    assert set(last["params"]) == set(step.params())
    assert os.getcwd() not in json.dumps(last)
    assert schema.metadata == step.schema(None if isinstance(step, Source) else table.schema).metadata


@pytest.mark.parametrize("line", [line for line in [*ROW, *CUT] if not line.startswith(("convert", "join"))])
def test_columns_are_replaced_only_when_asked(build, line):
    step, table = build(line)
    if not step.added():
        return
    once = through(step, table)
    with pytest.raises(DataError, match="--replace"):
        step.schema(once.schema)
    twice = through(step, once, replace=True)
    assert twice.schema.names == once.schema.names
    same_bits(once, twice)


@pytest.mark.parametrize("line", [*ROW, *CUT, *FOLD])
def test_polars_and_arrow_readers_work(build, line):
    import polars as pl

    step, table = build(line)
    if isinstance(step, Fold) or not isinstance(step, RowOp | Cut):
        return
    got = pl.DataFrame(stream.through(step, pl.from_arrow(table)))
    want = through(step, table)
    assert got.height == want.num_rows
    for name in step.added():
        assert bits(got[name].to_arrow().cast(want[name].type)) == bits(want[name]), name


# --- what is wrong with the input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*ROW, *CUT, *FOLD])
def test_a_missing_column_is_named_with_its_neighbour_and_its_maker(build, line):
    step, table = build(line)
    for column in step.needs:
        near = f"{column}x"
        names = [near if n == column else n for n in table.schema.names]
        with pytest.raises(DataError) as caught:
            step.schema(table.rename_columns(names).schema)
        words = cli._helped(caught.value)
        assert column in words
        if not isinstance(caught.value, MissingColumns):
            assert "TRY: xp " in words
            continue
        assert f"nearest is {near}" in words
        makers = cli.makers(column)
        cures = [f"TRY: xp {makers[0]} first"] if makers else ["TRY: xp info", "TRY: xp fetch"]
        assert any(cure in words for cure in cures)


@pytest.mark.parametrize("line", [*ROW, *CUT, *FOLD])
def test_a_wrong_unit_is_refused_and_another_spelling_is_not(build, line):
    step, table = build(line)
    for column in [c for c in reads(step) if c in KNOWN and KNOWN[c].unit and c in table.schema.names]:
        where = table.schema.get_field_index(column)
        field = table.schema.field(where)
        wrong = table.schema.set(where, field.with_metadata({"unit": "m**7"}))
        with pytest.raises(DataError, match=rf"{column} is in m\*\*7"):
            step.schema(wrong)
        step.schema(table.schema.set(where, field.remove_metadata()))
        step.schema(table.schema.set(where, field.with_metadata({"unit": str(Unit(KNOWN[column].unit))})))


@pytest.mark.parametrize("line", [line for line in [*ROW, *CUT] if not line.startswith(("convert", "join"))])
def test_upper_case_names_do(build, line):
    step, table = build(line)
    if "--where" in line:
        return
    upper = table.rename_columns([n.upper() for n in table.schema.names])
    assert spelled(upper.schema, "source_id") == "SOURCE_ID"
    same_bits(through(step, table).select(list(step.added())), through(step, upper).select(list(step.added())))


@pytest.mark.parametrize("line", [line for line in [*ROW, *CUT] if not line.startswith("convert")])
def test_an_identifier_as_float_is_refused(build, line):
    step, table = build(line)
    if "source_id" not in reads(step) and not line.startswith("join"):
        return
    where = table.schema.get_field_index("source_id")
    spoilt = table.set_column(where, "source_id", table["source_id"].cast(pa.float64(), safe=False))
    with pytest.raises(DataError, match="source_id"):
        through(step, spoilt)


# --- folds and sources ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", FOLD)
def test_a_fold_is_the_same_in_any_pieces(build, line):
    step, table = build(line)
    whole = step.table(step.feed(step.zero(), table.to_batches()[0]), table.schema)
    for rows in (1, 50):
        assert stream.fold(step, table.to_batches(max_chunksize=rows), table.schema).schema.equals(whole.schema)
        same_bits(whole, stream.fold(step, table.to_batches(max_chunksize=rows), table.schema), f"of {rows}")
    parts = [step.feed(step.zero(), b) for b in table.to_batches(max_chunksize=60)]
    left, right = parts[0], parts[-1]
    for part in parts[1:]:
        left = step.merge(left, part)
    for part in parts[-2::-1]:
        right = step.merge(right, part)
    same_bits(whole, step.table(left, table.schema), "merged")
    same_bits(whole, step.table(right, table.schema), "merged backwards")


@pytest.mark.parametrize("line", SOURCE)
def test_a_source_is_the_same_in_any_pieces(build, line):
    step, _ = build(line)
    whole = pa.Table.from_batches(list(step.record_batches(16384)), step.schema())
    assert step.rows() in (None, whole.num_rows)
    for rows in (1, 64, 299):
        same_bits(whole, pa.Table.from_batches(list(step.record_batches(rows)), step.schema()), f"of {rows}")


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cli.names())
def test_help(name, inside):
    code, out, err = inside(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: xp " + name)
    command = import_module(f"xptools.commands.{name}").command
    assert command.about.section
    short = command.get_short_help_str(70)
    assert short[0].isupper()
    for p in command.params:
        if isinstance(p, click.Option):
            assert p.help and p.help.rstrip()[-1] in ".)", f"{name} {p.opts[0]} has no help"
    assert inside(name, "-h")[1] == out


@pytest.mark.parametrize("line", [*ROW, *CUT, *FOLD, *SOURCE])
def test_printed_parameters_give_the_same_step(build, line, inside, tmp_path):
    import shlex

    step, _ = build(line)
    other = tmp_path / "other.parquet"
    words = shlex.split(known_options(line).format(other=other))
    write(pa.table({"source_id": [1], "extra": [1.0]}), other)
    code, out, err = inside(*words, "-P")
    assert (code, err) == (0, "")
    printed = tomllib.loads(out)
    assert list(printed) == [words[0]]
    (tmp_path / "c.toml").write_text(out)
    positional = words[1:2] if isinstance(step, Source) and words[1:2] else []
    assert xptools.op([words[0], *positional, "--config", str(tmp_path / "c.toml")]) == xptools.op(words)


@pytest.mark.parametrize("line", ROW + CUT)
def test_a_file_in_and_a_file_out(build, line, inside, tmp_path):
    import shlex

    step, table = build(line)
    if line.startswith("join"):
        return
    write(table, tmp_path / "in.parquet")
    code, _, err = inside(
        *shlex.split(known_options(line)), tmp_path / "in.parquet", "-o", tmp_path / "out.parquet", "-q"
    )
    assert (code, err) == (0, "")
    back, want = read(tmp_path / "out.parquet"), through(step, table)
    same_bits(back, want)
    for f in want.schema:
        assert metadata.words_of(f) == metadata.words_of(back.schema.field(f.name))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reader", ["parquet", "parquet.votable"])
@pytest.mark.parametrize("line", ROW)
def test_astropy_reads_every_output(build, line, reader, tmp_path):
    pytest.importorskip("pandas", reason="astropy's Parquet reader needs pandas")
    from astropy.table import Table

    step, table = build(line)
    back = Table.read(write(through(step, table), tmp_path / "t.parquet"), format=reader)
    if "source_id" in back.colnames:
        assert back["source_id"].dtype == np.int64
    for name, column in step.added().items():
        if column.unit:
            assert back[name].unit == Unit(column.unit, format="vounit"), name
