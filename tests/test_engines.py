"""The same steps inside other engines, as the manual of xp run shows them: equal to xp's own rows."""

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from tables import stars

import xptools

ADDED = ("mass", "mass_err", "mh_phot", "mass_flag")


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """Stars without masses."""
    return stars(800).drop_columns(["mass", "mass_err"])


@pytest.fixture(scope="module")
def wanted(table) -> dict[str, np.ndarray]:
    """What xp appends."""
    out = xptools.through("mass", table).read_all()
    return {name: out[name].to_numpy() for name in ADDED}


def agree(got, wanted: dict[str, np.ndarray]) -> None:
    """`got[name]` is the column bit for bit."""
    for name in ADDED:
        np.testing.assert_array_equal(np.asarray(got[name]), wanted[name], name)


def test_polars(table, wanted):
    frame = pl.from_arrow(table)
    masses = frame.lazy().map_batches(lambda f: pl.from_arrow(xptools.through("mass", f)), validate_output_schema=False)
    agree(masses.collect(), wanted)


def test_polars_streams_batches(table, wanted):
    """Pieces of any size give the same rows."""
    frame = pl.from_arrow(table)
    pieces = [pl.from_arrow(xptools.through("mass", frame.slice(i, 77))) for i in range(0, len(frame), 77)]
    agree(pl.concat(pieces), wanted)


def test_duckdb(table, wanted):
    base = duckdb.connect()
    base.register("catalogue", table)
    base.register("masses", xptools.through("mass", base.sql("from catalogue where parallax > 5")).read_all())
    got = base.sql(f"select {', '.join(ADDED)} from masses").fetchnumpy()
    kept = table["parallax"].to_numpy() > 5
    agree(got, {name: column[kept] for name, column in wanted.items()})


def test_spark_s_map_in_arrow_is_a_map_over_batches(table, wanted):
    """Spark itself is not at hand: what mapInArrow does to a partition."""
    step = xptools.op("mass")
    agree(pa.Table.from_batches(map(step, table.to_batches(max_chunksize=100))), wanted)
