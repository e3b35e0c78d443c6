"""VOTable as text: TABLEDATA as astropy reads it, piece by piece, its faults named; base64 past the parser."""

import base64
import struct

import numpy as np
import pyarrow as pa
import pytest
from tables import read

from xptools import io
from xptools.errors import DataError
from xptools.io import votablestream

FIELDS = """<FIELD name="id" datatype="long"/><FIELD name="n" datatype="short"><VALUES null="-1"/></FIELD>
<FIELD name="x" datatype="float" unit="mas"/><FIELD name="b" datatype="boolean"/>
<FIELD name="s" datatype="char" arraysize="*"/><FIELD name="v" datatype="double" arraysize="2"/>
<FIELD name="w" datatype="int" arraysize="*"/>"""
ROWS = (
    ("1152921504606846977", "3", "1.5", "T", "a &lt; b", "1 2", "1 2 3"),
    (" 0x10 ", "-1", "", "false", "", " 1e3  NaN ", ""),
    ("-2", "0x7f", "+Inf", "", " padded ", "", "7"),
)


def document(rows, fields: str = FIELDS) -> str:
    body = "\n".join("<TR>" + "".join(f"<TD>{cell}</TD>" for cell in row) + "</TR>" for row in rows)
    return (
        '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>'
        f"{fields}<DATA><TABLEDATA>\n{body}\n</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>\n"
    )


def saved(folder, rows, fields: str = FIELDS):
    (folder / "t.vot").write_text(document(rows, fields))
    return folder / "t.vot"


@pytest.mark.parametrize("piece", [1 << 20, 37])
def test_cells_of_every_type(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("xptools.io.votablestream.PIECE", piece)
    back = read(saved(tmp_path, ROWS))
    assert back["id"].to_pylist() == [2**60 + 1, 16, -2]
    assert back["n"].to_pylist() == [3, None, 127]
    assert back["x"].to_pylist() == [1.5, None, np.inf]
    assert back["b"].to_pylist() == [True, False, None]
    assert back["s"].to_pylist() == ["a < b", None, " padded "]
    np.testing.assert_array_equal(back["v"].to_pylist(), [[1, 2], [1000, np.nan], [np.nan, np.nan]])
    assert back["w"].to_pylist() == [[1, 2, 3], None, [7]]
    assert back.schema.field("x").metadata[b"unit"] == b"mas"


def test_as_astropy_reads_it_in_pieces(tmp_path, monkeypatch):
    from astropy.io.votable import from_table, parse, writeto
    from astropy.table import Table

    rng = np.random.default_rng(4)
    rows = Table({"id": np.arange(900) + 2**60, "x": rng.normal(size=900), "y": rng.normal(size=900).astype("f4")})
    rows["c"] = np.array(["ab", "c", "<&>"] * 300)
    made = from_table(rows)
    made.get_first_table().format = "tabledata"
    writeto(made, str(tmp_path / "t.vot"))
    theirs = parse(str(tmp_path / "t.vot")).get_first_table().to_table()
    monkeypatch.setattr("xptools.io.votablestream.PIECE", 1000)
    monkeypatch.setattr("astropy.io.votable.parse", lambda *a, **k: pytest.fail("not streamed"))
    back = read(tmp_path / "t.vot")
    for name in ("id", "x", "y"):
        np.testing.assert_array_equal(back[name].to_numpy(), np.asarray(theirs[name]))
    assert back["c"].to_pylist() == list(theirs["c"])


@pytest.mark.parametrize(
    ("cell", "column", "words"),
    [("twelve", 0, "row 2, column id: 'twelve'"), ("1.5.2", 2, "row 2, column x"), ("70000", 1, "row 2, column n"),
     ("maybe", 3, "row 2, column b"), ("1 2 3", 5, "row 2, column v"), ("1 x", 6, "row 2, column w")],
)  # fmt: skip
def test_a_bad_cell_is_named(tmp_path, cell, column, words):
    bad = [*ROWS[1][:column], cell, *ROWS[1][column + 1 :]]
    with pytest.raises(DataError, match=words):
        read(saved(tmp_path, [ROWS[0], bad, ROWS[2]]))


def test_rows_of_another_width_and_a_cut_table(tmp_path):
    with pytest.raises(DataError, match="row 2 has 6 cells, not 7"):
        read(saved(tmp_path, [ROWS[0], ROWS[1][:6], ROWS[2]]))
    whole = document(ROWS)
    (tmp_path / "cut.vot").write_text(whole[: whole.index("padded")])
    with pytest.raises(DataError, match="cut-off"):
        read(tmp_path / "cut.vot")


def test_no_rows(tmp_path):
    assert read(saved(tmp_path, [])).num_rows == 0


STREAM = """<?xml version="1.0"?><VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="a" datatype="int"/><DATA><BINARY2>
<STREAM encoding="base64">{}</STREAM></BINARY2></DATA></TABLE></RESOURCE></VOTABLE>"""
CODED = base64.b64encode(b"".join(struct.pack(">Bi", 0, i) for i in range(5))).decode()


@pytest.mark.parametrize("blank", [0, votablestream.PIECE], ids=["one piece", "pieces"])
@pytest.mark.parametrize(
    "coded",
    [
        CODED,
        "\n  " + "\n\t ".join(CODED) + "\n",
        f"{CODED[:8]}&#13;\n{CODED[8:]}",
        f"{CODED[:7]}<!-- AAAA > BBBB -->{CODED[7:]}",
        f"<![CDATA[{CODED}]]>",
    ],
    ids=["plain", "blanks", "entity", "comment", "cdata"],
)
def test_base64_past_the_parser_is_what_the_parser_would_have_given(coded, blank, tmp_path):
    path = tmp_path / "t.vot"
    path.write_text(STREAM.format("\n" * blank + coded))
    assert pa.Table.from_batches(io.open_reader(str(path)))["a"].to_pylist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("blank", [0, votablestream.PIECE], ids=["one piece", "pieces"])
@pytest.mark.parametrize("coded", [f"{CODED[:8]}!{CODED[8:]}", CODED[:-5], f"{CODED[:8]}<{CODED[8:]}"])
def test_base64_that_is_none_is_refused(coded, blank, tmp_path):
    path = tmp_path / "t.vot"
    path.write_text(STREAM.format("\n" * blank + coded))
    with pytest.raises(DataError, match="damaged"):
        list(io.open_reader(str(path)))
