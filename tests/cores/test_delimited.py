"""Fields of a text table: what Python's csv module finds, in the same places."""

import csv
import io

import numpy as np
import pytest

from xptools.cores.delimited import joined, split
from xptools.errors import DataError


def fields(text: bytes, columns: int) -> list[list[str]]:
    raw = np.frombuffer(text, np.uint8)
    return [[text[a:b].decode() for a, b in row] for row in split(raw, columns)]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_the_fields_are_those_of_the_csv_module(ends, last):
    rng = np.random.default_rng(5)
    words = ["", "1", "-2.5e3", "null", "[1, 2,3]", "(a,b)", "x y", ",", "é"]
    rows = [[words[k] for k in rng.integers(0, len(words), 5)] for _ in range(300)]
    out = io.StringIO()
    csv.writer(out, lineterminator=ends, quoting=csv.QUOTE_MINIMAL).writerows([["a", *row] for row in rows])
    text = out.getvalue() if last else out.getvalue().removesuffix(ends)
    assert fields(text.encode(), 6) == list(csv.reader(io.StringIO(text)))


def test_empty_lines_are_none_and_nothing_is_nothing():
    assert fields(b"\n\n1,2\n\r\n3,4\n\n", 2) == [["1", "2"], ["3", "4"]]
    assert fields(b"", 2) == [] and fields(b"\n", 1) == []
    assert fields(b'"",\n', 2) == [["", ""]]


@pytest.mark.parametrize("text", [b"1\n", b"1,2,3\n", b"1,2\n3", b'"1"x,2\n', b'1,"2\n', b'1,"2,3\n4,5\n', b"1,2,\n"])
def test_a_row_that_is_cut_or_too_long_is_told(text):
    with pytest.raises(DataError, match="has not 2 fields"):
        fields(text, 2)


def test_chosen_fields_joined_are_a_table_again():
    text = b'1,"[a, b]",x\n22,"[]",\n'
    raw = np.frombuffer(text, np.uint8)
    cells = split(raw, 3)
    assert joined(raw, cells[:, [0, 2]]) == b"1,x\n22,\n"
    assert joined(raw, cells[[1]][:, [2]]) == b"\n" and joined(raw, cells[:0]) == b""
