"""xp info: every format, statistics against numpy, models, and nothing added to the history."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xptools import inspection


@pytest.fixture
def stars(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 40_000)
    values[::10] = np.nan
    ids = pa.array(5853498713190525696 + np.arange(40_000))
    fields = [
        pa.field("source_id", pa.int64()),
        pa.field("parallax", pa.float64(), metadata={"unit": "mas", "ucd": "pos.parallax.trig"}),
    ]
    path = tmp_path / "stars.parquet"
    pq.write_table(pa.table([ids, pa.array(values)], schema=pa.schema(fields)), path)
    return path, values


def test_statistics_are_numpys_and_identifiers_keep_their_digits(stars):
    path, values = stars
    answer = inspection.table(str(path), stats=True)
    by_name = {c["name"]: c for c in answer["columns"]}
    known = values[np.isfinite(values)]
    got = by_name["parallax"]["stats"]
    assert (got["count"], got["unknown"]) == (known.size, 4_000)
    np.testing.assert_allclose(
        [got["mean"], got["sd"], got["min"], got["max"]], [known.mean(), known.std(ddof=1), known.min(), known.max()]
    )
    assert by_name["source_id"]["stats"]["max"] == 5853498713190525696 + 39_999
    assert by_name["parallax"]["unit"] == "mas"


@pytest.mark.parametrize("suffix", ["arrows", "arrow", "parquet", "fits", "vot", "ecsv", "csv"])
def test_every_format_tells_rows_and_units(xp, stars, tmp_path, suffix):
    path = tmp_path / f"s.{suffix}"
    assert xp("convert", stars[0], "-o", path).returncode == 0
    answer = json.loads(xp("info", path).stdout)
    assert answer["rows"] == 40_000
    assert {c["name"]: c.get("unit") for c in answer["columns"]} == {"source_id": None, "parallax": "mas"}


def test_on_standard_input_and_head(xp, stars):
    stream = xp("convert", "-o", "-", stars[0]).stdout
    answer = json.loads(xp("info", "--head", "2", stdin=stream).stdout)
    assert [r["source_id"] for r in answer["head"]] == [5853498713190525696, 5853498713190525697]
    assert answer["head"][0]["parallax"] is None
    assert answer["history"] == []


@pytest.mark.parametrize("options", [(), ("--head", "1"), ("--columns",)])
def test_a_stream_is_not_believed_that_says_how_long_it_is(xp, stars, options):
    stream = xp("convert", "-o", "-", stars[0]).stdout
    assert b"rows_hint" in stream
    for end in (len(stream) // 2, len(stream) - 8):
        done = xp("info", *options, stdin=stream[:end])
        assert done.returncode == 65 and b"cut off" in done.stderr and not done.stdout


def test_text_names_columns_and_only_the_names(xp, stars):
    text = xp("info", "--text", stars[0]).stdout.decode()
    assert "40,000 rows, 2 columns" in text and "mas" in text
    assert xp("info", "--text", "--columns", stars[0]).stdout.decode().split() == ["source_id", "parallax"]


def test_a_head_shows_every_column_whole(xp, tmp_path):
    table = pa.table({f"a_column_with_a_long_name_{i}": [1.5 * i] for i in range(20)})
    pq.write_table(table, tmp_path / "wide.parquet")
    lines = xp("info", "--head", 1, "--text", tmp_path / "wide.parquet").stdout.decode().splitlines()
    assert max(map(len, lines)) <= 160
    words = " ".join(lines).split()
    assert all(words.count(name) == 2 for name in table.column_names) and "28.5" in words


def test_a_parameter_of_zero_is_part_of_the_history(xp):
    stream = xp("mock", 20, "--noise", 0).stdout
    assert " noise=0 " in xp("info", "--text", stdin=stream).stdout.decode()
