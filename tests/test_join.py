"""xp join: against a dictionary, sorted or not, doubles, histories, and identifiers that may not pass through float."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xptools
from xptools import lookup, metadata
from xptools.errors import DataError
from xptools.stream import through

FIRST = 5853498713190525696  # Proxima Cen: int(float(id)) is another number


def write(path, ids, **columns):
    pq.write_table(pa.table({"source_id": pa.array(ids, pa.int64()), **columns}), path, row_group_size=700)
    return str(path)


@pytest.fixture(params=["small", "large"], autouse=True)
def size(request, monkeypatch):
    """The other table is held in memory, or taken for a large one."""
    if request.param == "large":
        monkeypatch.setattr(lookup, "SMALL", 0)


@pytest.fixture(params=["ascending", "shuffled"])
def order(request):
    return request.param


@pytest.fixture
def sides(tmp_path, order):
    rng = np.random.default_rng(5)
    ids = FIRST + np.sort(rng.choice(50_000, 5_000, replace=False))
    left, right = ids[rng.random(5_000) < 0.7], ids[rng.random(5_000) < 0.6]
    if order == "shuffled":
        left, right = rng.permutation(left), rng.permutation(right)
    other = write(tmp_path / "other.parquet", right, feh=(right % 977).astype("f4"), n=pa.array(right % 13, pa.int64()))
    return pa.table({"source_id": left, "a": rng.random(left.size)}), right, other


@pytest.mark.parametrize("how", ["left", "inner", "anti"])
@pytest.mark.parametrize("rows", [97, 4096])
def test_join_is_a_dictionary_look_up(sides, how, rows):
    table, right, other = sides
    out = through(xptools.op(f"join --with '{other}' --how {how}"), table, rows).read_all()
    partner = {int(i): (float(i % 977), int(i % 13)) for i in right}
    ids = table["source_id"].to_pylist()
    keep = {"left": ids, "inner": [i for i in ids if i in partner], "anti": [i for i in ids if i not in partner]}[how]
    assert out["source_id"].to_pylist() == keep
    if how == "anti":
        assert out.column_names == ["source_id", "a"]
        return
    for i, feh, n in zip(keep, out["feh"].to_pylist(), out["n"].to_pylist(), strict=True):
        assert (feh, n) == partner[i] if i in partner else (np.isnan(feh) and n is None)


def test_mark_and_suffix(sides):
    table, right, other = sides
    out = through(xptools.op(f"join --with '{other}' --columns feh --suffix _x --mark found"), table).read_all()
    assert out.column_names == ["source_id", "a", "feh_x", "found"]
    assert out["found"].to_pylist() == np.isin(table["source_id"], right).tolist()


def test_pieces_smaller_than_the_table_give_the_same(sides, monkeypatch):
    table, _, other = sides
    whole = through(xptools.op(f"join --with '{other}'"), table).read_all()
    monkeypatch.setattr(lookup, "PIECE_ROWS", 500)
    found = lookup.Lookup(other, "source_id", ())
    found.finder = lookup.Index(found)
    rows, _ = found.rows(table["source_id"].to_numpy())
    np.testing.assert_array_equal(rows["n"].to_pylist(), whole["n"].to_pylist())


@pytest.mark.parametrize("ids", [[1, 2, 2, 3], [3, 2, 1, 2]])
def test_doubles_in_the_other_table_are_refused(tmp_path, ids):
    other = write(tmp_path / "o.parquet", ids, feh=np.zeros(4))
    with pytest.raises(DataError, match="source_id 2 more than once"):
        through(xptools.op(f"join --with '{other}'"), pa.table({"source_id": [1, 2, 3]})).read_all()


def test_doubles_across_blocks_are_refused(tmp_path):
    ids = np.concatenate([np.arange(20_000), np.arange(19_999, 30_000)])
    other = write(tmp_path / "o.parquet", ids, feh=np.zeros(ids.size))
    with pytest.raises(DataError, match="19999 more than once"):
        through(xptools.op(f"join --with '{other}'"), pa.table({"source_id": [1]})).read_all()


def test_the_input_may_repeat_an_identifier(tmp_path):
    other = write(tmp_path / "o.parquet", [1, 2], feh=[0.1, 0.2])
    out = through(xptools.op(f"join --with '{other}'"), pa.table({"source_id": [2, 2, 1]})).read_all()
    assert out["feh"].to_pylist() == [0.2, 0.2, 0.1]


@pytest.mark.parametrize(
    ("column", "words"),
    [(pa.array([1.0, 2.0]), "last digits"), (pa.array([1, None]), "1 nulls"), (pa.array(["1", "2"]), "not integer")],
)
def test_an_identifier_that_is_no_integer_is_refused(tmp_path, column, words):
    other = write(tmp_path / "o.parquet", [1, 2], feh=[0.1, 0.2])
    with pytest.raises(DataError, match=words):
        through(xptools.op(f"join --with '{other}'"), pa.table({"source_id": column})).read_all()


def test_collisions_and_absent_columns_are_named(tmp_path):
    other = write(tmp_path / "o.parquet", [1, 2], a=[0.1, 0.2])
    table = pa.table({"source_id": [1], "a": [0.0]})
    with pytest.raises(DataError, match="both tables have a column a"):
        through(xptools.op(f"join --with '{other}'"), table)
    with pytest.raises(DataError, match="no column b"):
        through(xptools.op(f"join --with '{other}' --columns b"), table)
    with pytest.raises(DataError, match="no column source_id"):
        through(xptools.op(f"join --with '{other}'"), pa.table({"x": [1]}))


def test_both_histories_survive_and_their_links_resolve(tmp_path):
    other = write(tmp_path / "o.parquet", [1, 2], feh=[0.1, 0.2])
    made = through(xptools.op("convert --rename feh=mh"), pq.read_table(other)).read_all()
    pq.write_table(made, other)
    table = through(xptools.op("convert --rename a=b"), pa.table({"source_id": [2], "a": [0.0]})).read_all()
    out = through(xptools.op(f"join --with '{other}'"), table).read_all()
    records = metadata.history(out.schema)
    ids = [r["id"] for r in records]
    assert [r["cmd"] for r in records] == ["convert", "convert", "join"]
    assert len(set(ids)) == 3
    assert all(p in ids for p in itertools.chain(*(r["pp"] for r in records)))
    assert records[-1]["files"]["with"]["sha256"] == metadata.sha256(other)


def test_empty_sides(tmp_path):
    none = write(tmp_path / "none.parquet", np.zeros(0, np.int64), feh=np.zeros(0))
    some = write(tmp_path / "some.parquet", [1], feh=[0.5])
    out = through(xptools.op(f"join --with '{none}'"), pa.table({"source_id": [1, 2]})).read_all()
    assert np.isnan(out["feh"].to_numpy()).all()
    empty = pa.table({"source_id": pa.array([], pa.int64())})
    assert through(xptools.op(f"join --with '{some}'"), empty).read_all().num_rows == 0
