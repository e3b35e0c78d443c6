"""Arrays to Arrow and back, and the four kinds of step on small examples."""

import pickle
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

import xptools
from xptools import stream
from xptools.columns import Column
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.protocol import Fold, RowOp, Source, Step, bound, spelled, to_arrow, to_numpy


@dataclass(frozen=True)
class Doubled(RowOp):
    """2 x; flag 1 where x is unknown."""

    factor: float = 2.0
    name: ClassVar[str] = "doubled"
    needs: ClassVar = ("parallax",)
    wants: ClassVar = ("parallax_error",)
    adds: ClassVar = {
        "twice": Column("float32", "mas", "pos.parallax", "Twice"),
        "pair": Column("float64[2]", None, "meta.number", "Two numbers"),
    }
    flags: ClassVar = {1: "unknown parallax", 2: "no error"}

    def compute(self, parallax, parallax_error=None):
        assert len(parallax)
        flag = np.isnan(parallax) * 1 + (2 if parallax_error is None else 0)
        return {
            "twice": self.factor * parallax, "pair": np.stack([parallax, -parallax], 1), "doubled_flag": flag,
        }  # fmt: skip


@dataclass(frozen=True)
class Summed(Fold):
    """Counts and whole sums."""

    name: ClassVar[str] = "summed"
    needs: ClassVar = ("n",)
    adds: ClassVar = {
        "total": Column("int64", None, "meta.number", "Sum"),
        "rows": Column("int64", None, "meta.number", "N"),
    }

    def zero(self):
        return (0, 0)

    def add(self, state, n):
        return (state[0] + int(n.sum()), state[1] + len(n))

    def merge(self, one, other):
        return (one[0] + other[0], one[1] + other[1])

    def finish(self, state, schema):
        return {"total": [state[0]], "rows": [state[1]], "meta": {"xp.summed": {"of": len(schema)}}}


@dataclass(frozen=True)
class Counted(Source):
    """0, 1, 2 ..."""

    size: int = 10
    name: ClassVar[str] = "counted"
    adds: ClassVar = {"n": Column("int64", None, "meta.number", "A number")}

    def rows(self):
        return self.size

    def batches(self, rows):
        for i in range(0, self.size, rows):
            yield {"n": np.arange(i, min(i + rows, self.size))}


def batch(**columns) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


# --- arrays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int16(), pa.int64(), pa.bool_()])
def test_columns_to_arrays_and_back(kind, offset):
    values = [1, 0, 1, 1, 0, 1, 0]
    column = pa.array([bool(v) if kind == pa.bool_() else v for v in values], kind).slice(offset)
    array = to_numpy(column)
    assert array.tolist() == values[offset:]
    assert to_arrow(array, pa.field("x", kind), len(array), "t").equals(column)


def test_null_is_nan():
    assert np.isnan(to_numpy(pa.array([1.5, None]))[1])
    assert np.isnan(to_numpy(pa.array([1, None], pa.int16()))[1])
    assert np.isnan(to_numpy(pa.array([True, None]))[1])
    assert np.isnan(to_numpy(pa.nulls(2))).all()
    assert to_numpy(pa.array(["a", None])).tolist() == ["a", ""]
    assert to_numpy(pa.array(["a", None], pa.string_view())).tolist() == ["a", ""]
    assert to_numpy(pa.array(["a", "b"]).dictionary_encode()).tolist() == ["a", "b"]
    with pytest.raises(DataError, match="identifier"):
        to_numpy(pa.array([1, None]), "source_id")


@pytest.mark.parametrize("start", [0, 1, 4])
def test_a_null_spectrum_is_a_row_of_nan_and_moves_no_other(start):
    flat = pa.array(np.arange(18.0))
    kind = pa.list_(pa.float64(), 3)
    column = pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array([False, True, False, False, True, False]))
    got = to_numpy(column.slice(start))
    want = np.arange(18.0).reshape(6, 3)
    want[[1, 4]] = np.nan
    np.testing.assert_array_equal(got, want[start:])
    lists = pa.array([None if np.isnan(r[0]) else r.tolist() for r in want], pa.list_(pa.float64()))
    np.testing.assert_array_equal(to_numpy(lists.slice(start)), want[start:])
    with pytest.raises(DataError, match="different lengths"):
        to_numpy(pa.array([[1.0], [1.0, 2.0]]), "x")


def test_wrong_shapes_are_bugs_of_the_step():
    with pytest.raises(ValueError, match="shape"):
        to_arrow(np.zeros(3), pa.field("x", pa.float64()), 4, "t")
    with pytest.raises(ValueError, match="shape"):
        to_arrow(np.zeros((4, 2)), pa.field("x", pa.list_(pa.float64(), 3)), 4, "t")


def test_what_is_not_computed_is_unknown():
    assert np.isnan(to_arrow(None, pa.field("x", pa.float32()), 2, "t").to_numpy()).all()
    assert to_arrow(None, pa.field("x", pa.int16()), 2, "t").to_pylist() == [0, 0]
    assert np.isnan(to_numpy(to_arrow(None, pa.field("x", pa.list_(pa.float32(), 2)), 2, "t"))).all()


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_row_step():
    out = Doubled()(batch(parallax=[1.0, None], other=["a", None]))
    assert out.schema.names == ["parallax", "other", "twice", "pair", "doubled_flag"]
    assert out["doubled_flag"].to_pylist() == [2, 3]
    assert out["twice"].type == pa.float32()
    assert out["pair"].to_pylist()[0] == [1.0, -1.0]
    assert out["other"].to_pylist() == ["a", None]
    assert "1: unknown parallax" in out.schema.field("doubled_flag").metadata[b"description"].decode()


def test_what_is_wanted_is_used_if_there():
    with_error = Doubled()(batch(parallax=[1.0], parallax_error=[0.1]))
    assert with_error["doubled_flag"].to_pylist() == [0]
    with pytest.raises(MissingColumns, match="parallax missing"):
        Doubled()(batch(x=[1.0]))


def test_names_in_any_case_and_exact_ones_first():
    schema = pa.schema([("RA", pa.float64()), ("ra", pa.float64()), ("DEC", pa.float64())])
    assert spelled(schema, "ra") == "ra"
    assert spelled(schema, "dec") == "DEC"
    assert spelled(pa.schema([("RA", pa.int8()), ("Ra", pa.int8())]), "ra") is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (pa.array(["a"]), "text"),
        (pa.array([b"a"]), "text"),
        (pa.array([{"a": 1}]), "text"),
        (pa.array([1], pa.timestamp("s")), "times"),
        (pa.array([None], pa.timestamp("s")), "type timestamp"),
        (pa.array([None], pa.date32()), "type date"),
        (pa.array([None], pa.binary()), "type binary"),
    ],
)
def test_what_is_no_number_is_named(values, words):
    with pytest.raises(DataError, match=words):
        Doubled()(batch(parallax=values))


def test_schemas_that_differ_only_in_units_are_not_confused():
    first = pa.schema([pa.field("parallax", pa.float64(), metadata={"unit": "mas"}), pa.field("a", pa.int8())])
    other = first.set(1, first.field(1).with_metadata({"unit": "kpc"}))
    assert bound(Doubled(), first)[0].field("a").metadata is None
    assert bound(Doubled(), other)[0].field("a").metadata == {b"unit": b"kpc"}
    with pytest.raises(DataError, match="arcsec"):
        bound(Doubled(), first.set(0, first.field(0).with_metadata({"unit": "arcsec"})))


def test_replacing():
    once = Doubled()(batch(parallax=[1.0]))
    with pytest.raises(DataError, match="twice, pair, doubled_flag already there"):
        Doubled()(once)
    again = Doubled(3.0)(once, replace=True)
    assert again.schema.names == once.schema.names
    assert again["twice"].to_pylist() == [3.0]


# --- folds, sources, chains ----------------------------------------------------------------------------------------


def test_a_fold():
    step = Summed()
    table = step(batch(n=[1, 2, 3]))
    assert table.to_pylist() == [{"total": 6, "rows": 3}]
    assert table.schema.metadata[b"xp.summed"] == b'{"of": 1}'
    state = step.merge(step.feed(step.zero(), batch(n=[1])), step.feed(step.zero(), batch(n=[2, 3])))
    assert state == (6, 3)
    assert stream.fold(step, [batch(n=[1]).slice(0, 0)], batch(n=[1]).schema).to_pylist() == [{"total": 0, "rows": 0}]


def test_a_source_through_a_fold_in_one_run(tmp_path):
    plans = [stream.Plan(Counted(100)), stream.Plan(Summed())]
    done = stream.run(plans, stream.Options(output=str(tmp_path / "t.arrow"), batch_rows=7, quiet=True))
    assert done.read == 100 and done.table["total"].to_pylist() == [4950]
    assert [b.num_rows for b in Counted(10).record_batches(4)] == [4, 4, 2]
    assert b"xp.rows_hint" not in done.table.schema.metadata
    for wrong in ([Summed(), Summed()], [Summed(), Counted()], [Counted(), Counted()]):
        with pytest.raises(UsageError, match="middle"):
            stream.run([stream.Plan(s) for s in wrong], stream.Options(quiet=True))


def test_a_chain_over_polars():
    import polars as pl

    frame = pl.DataFrame({"parallax": [1.0, None, 3.0], "name": ["a", "b", None]})
    out = stream.through([Doubled()], frame, rows=2).read_all()
    assert out["twice"].to_numpy().tolist()[::2] == [2.0, 6.0]
    assert out["name"].to_pylist() == ["a", "b", None]


def test_steps_are_values():
    assert Doubled(2.0) == Doubled() and hash(Doubled(2.0)) == hash(Doubled())
    assert pickle.loads(pickle.dumps(Doubled(5.0))) == Doubled(5.0)
    assert Doubled(5.0).params() == {"factor": 5.0}
    with pytest.raises(NotImplementedError):
        Step().schema(pa.schema([]))


def test_an_identifier_that_went_through_float_is_refused_by_every_step():
    one = {name: [1.0] for name in ("parallax", "phot_g_mean_mag", "bp_rp")}
    table = pa.table({"source_id": [5.853498713190525e18], **one})
    with pytest.raises(DataError, match="source_id is floating point"):
        xptools.through("deredden --map none", table)
    assert xptools.through("convert --drop source_id", table).read_all().num_rows == 1
