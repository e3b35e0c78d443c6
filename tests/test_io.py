"""Every format in and out, by path and by pipe; what is cut off, damaged or no table at all is refused in words."""

import gzip
import io
import os
import shutil
import subprocess
import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import field, gallery, listed, read, same, stars, vector, write

from xptools.errors import DataError, InputError, OutputError, PermissionFault, UsageError
from xptools.io import arrowstream, even, open_reader, open_writer, sniff

BLANKS = ["pm", "mag"]
FORMATS = ("arrows", "arrow", "parquet", "fits", "vot", "ecsv")
NAMES = {"vot": "votable", "ecsv": "ecsv"}


def piped(data: bytes, **options) -> pa.Table:
    """Read bytes as if they came through a pipe on stdin."""
    got, put = os.pipe()
    saved = os.dup(0)
    os.dup2(got, 0)
    os.close(got)

    def feed():
        with open(put, "wb") as f:
            f.write(data)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        return read("-", **options)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        thread.join(10)


def stream(table: pa.Table, rows: int = 16) -> bytes:
    """The bytes of a table as an Arrow stream."""
    raw = io.BytesIO()
    writer = open_writer("-", table.schema, stdout=raw)
    for batch in table.to_batches(max_chunksize=rows):
        writer.write(batch)
    writer.close()
    return raw.getvalue()


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_comes_back_as_it_went(tmp_path, suffix, nulls):
    table = gallery(50, nulls=nulls)
    same(table, read(write(table, tmp_path / f"t.{suffix}")))


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_rows_and_one_row_come_back(tmp_path, suffix):
    for rows in (0, 1):
        table = gallery(rows)
        back = read(write(table, tmp_path / f"t{rows}.{suffix}"))
        assert back.num_rows == rows
        assert back.schema.names == table.schema.names
        if rows:
            same(table, back)


@pytest.mark.parametrize("rows", [0, 50])
def test_csv_keeps_the_values(tmp_path, rows):
    table = gallery(rows).drop_columns(["coef", "wide"])
    back = read(write(table, tmp_path / "t.csv"))
    assert back.schema.names == table.schema.names
    for name in table.schema.names:
        got = back[name].cast(table[name].type)
        assert listed(got) == listed(table[name]), name


def test_csv_refuses_arrays_and_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="--explode"):
        write(gallery(3), tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [*FORMATS, "csv"])
def test_infinities_and_extremes_survive(tmp_path, suffix):
    x = np.array([np.inf, -np.inf, 0.1, 1e-310, 1.7976931348623157e308, -0.0])
    with np.errstate(over="ignore"):
        table = pa.table({"x": x, "y": x.astype("f4"), "i": np.array([2**62 + 1, -(2**62), 0, 1, 2, 3])})
    back = read(write(table, tmp_path / f"t.{suffix}"))
    for name in table.schema.names:
        got = back[name].to_numpy().astype(table[name].to_numpy().dtype)
        assert got.tobytes() == table[name].to_numpy().tobytes(), name


@pytest.mark.parametrize("suffix", ["fits", "vot", "parquet", "arrow"])
def test_unsigned_and_small_integers(tmp_path, suffix):
    table = pa.table(
        {
            "a": pa.array([0, 255], pa.uint8()),
            "b": pa.array([0, 65535], pa.uint16()),
            "c": pa.array([0, 2**32 - 1], pa.uint32()),
            "d": pa.array([0, 2**63 - 1], pa.uint64()),
            "e": pa.array([-128, 127], pa.int8()),
        }
    )
    back = read(write(table, tmp_path / f"t.{suffix}"))
    for name in table.schema.names:
        assert back[name].to_pylist() == table[name].to_pylist(), name


def test_fits_holds_the_whole_of_uint64(tmp_path):
    table = pa.table({"d": pa.array([0, 2**64 - 1, 2**63], pa.uint64())})
    back = read(write(table, tmp_path / "t.fits"))
    assert back["d"].to_pylist() == table["d"].to_pylist()
    with pytest.raises(DataError, match="too large for VOTable"):
        write(table, tmp_path / "t.vot")


def test_nulls_in_integers_stay_nulls(tmp_path):
    table = pa.table({"i": pa.array([1, None, 3], pa.int64()), "t": pa.array([True, None, False])})
    for suffix in ("arrow", "fits", "vot", "csv"):
        back = read(write(table, tmp_path / f"t.{suffix}"))
        assert back["i"].to_pylist() == [1, None, 3], suffix
    assert read(write(table, tmp_path / "t.parquet"))["i"].to_pylist() == [1, None, 3]


def test_foreign_arrow_types_become_plain(tmp_path):
    table = pa.table(
        {
            "dict": pa.array(["a", "b", None]).dictionary_encode(),
            "large": pa.array(["a", "b", None], pa.large_string()),
            "view": pa.array(["a", "b", None], pa.string_view()),
            "half": pa.array(np.array([1, 2, 3], "f2")),
            "none": pa.nulls(3),
            "whole": pa.array([1, 2, 3], pa.decimal128(18, 0)),
            "lists": pa.array([[1.0], [2.0, 3.0], None], pa.large_list(pa.float32())),
        }
    )
    with open(tmp_path / "t.arrow", "wb") as f, pa.ipc.new_file(f, table.schema) as w:
        w.write_table(table)
    back = read(tmp_path / "t.arrow")
    assert [str(t) for t in back.schema.types[:6]] == ["string", "string", "string", "float", "double", "int64"]
    assert back["lists"].to_pylist() == table["lists"].to_pylist()
    assert back["view"].to_pylist() == ["a", "b", None]


@pytest.mark.parametrize("suffix", ["fits", "vot", "ecsv", "csv"])
@pytest.mark.parametrize("value", [{"a": 1}, ["a", "b"]])
def test_what_a_format_cannot_hold_is_refused(tmp_path, suffix, value):
    with pytest.raises(DataError, match="cannot hold"):
        write(pa.table({"x": [value]}), tmp_path / f"t.{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["vot", "ecsv", "arrow", "parquet"])
def test_lists_of_any_length(tmp_path, suffix):
    table = pa.table({"n": [1, 2, 3], "x": pa.array([[1.5], [2.0, 3.0], []], pa.list_(pa.float64()))})
    back = read(write(table, tmp_path / f"t.{suffix}"))
    assert [v or [] for v in back["x"].to_pylist()] == [[1.5], [2.0, 3.0], []]


# --- sniffing and carriers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_name_does_not_matter_and_a_pipe_is_as_good(tmp_path, suffix):
    table = gallery(40)
    path = write(table, tmp_path / f"t.{suffix}")
    same(read(path), piped(path.read_bytes()))
    other = tmp_path / "misnamed.csv"
    shutil.copy(path, other)
    same(read(path), read(other))


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
@pytest.mark.parametrize("suffix", ["arrows", "fits", "csv"])
def test_packed_files_are_unpacked(tmp_path, suffix, packing):
    table = pa.table({"source_id": [1, 2, 3], "x": [0.5, 1.5, 2.5]})
    plain = write(table, tmp_path / f"t.{suffix}").read_bytes()
    data = gzip.compress(plain) if packing == "gzip" else pa.compress(plain, "zstd", asbytes=True)
    (tmp_path / "packed").write_bytes(data)
    for back in (read(tmp_path / "packed"), piped(data)):
        assert back["x"].to_pylist() == [0.5, 1.5, 2.5]
    (tmp_path / "cut").write_bytes(data[:-9])
    with pytest.raises(DataError):
        read(tmp_path / "cut")


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"\n\n  <HTML><head><title>502</title>", "HTML page"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "HDF5"),
        (b"PK\x03\x04" + b"\0" * 50, "ZIP"),
        (b'{"error": "no such table"}', "JSON"),
        (b"%PDF-1.7 ...", "pdf"),
        (b"<?xml version='1.0'?><note/>", "no VOTable"),
        (bytes(range(256)) * 4, "no format that xp knows"),
        (b"hello", "no format"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, head, what):
    path = tmp_path / "stars.parquet"
    path.write_bytes(head)
    with pytest.raises(DataError, match=r"TRY: ") as caught:
        read(path)
    assert what in str(caught.value)


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "stars.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"TRY: .*stars\.parquet"):
        read(tmp_path / "star.parquet")
    with pytest.raises(InputError, match="folder"):
        read(tmp_path)
    if os.getuid():
        (tmp_path / "stars.parquet").chmod(0)
        with pytest.raises(PermissionFault):
            read(tmp_path / "stars.parquet")


# --- truncation ----------------------------------------------------------------------------------------------------


def boundaries(data: bytes) -> list[int]:
    """Where the messages of a stream begin, the end mark's included."""
    places, at = [], 0
    while at < len(data):
        places.append(at)
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if length == 0:
            break
        message = pa.ipc.read_message(pa.py_buffer(data[at:]))
        body = message.body.size if message.body is not None else 0
        at += 8 + length + (body + 7) // 8 * 8
    return places


def test_a_stream_cut_anywhere_is_refused():
    data = stream(gallery(64))
    places = boundaries(data)
    assert len(places) == 6
    between = [(a + b) // 2 for a, b in pairwise([*places, len(data)])]
    for cut in sorted({*places[1:], *between, 4, 8, len(data) - 1, len(data) - 4}):
        with pytest.raises(DataError, match="cut off"):
            piped(data[:cut])


def test_the_rows_read_are_named():
    data = stream(gallery(64))
    with pytest.raises(DataError, match="after 48 rows"):
        piped(data[: boundaries(data)[-2]])


def test_poison_and_a_second_stream_are_refused():
    data = stream(gallery(64))
    with pytest.raises(DataError, match="cut off"):
        piped(data[: boundaries(data)[3]] + arrowstream.POISON)
    with pytest.raises(DataError, match="cut off"):
        piped(arrowstream.POISON)
    with pytest.raises(DataError, match="goes on after its end mark"):
        piped(data + data)
    with pytest.raises(pa.ArrowInvalid):
        pa.ipc.open_stream(data[: boundaries(data)[3]] + arrowstream.POISON).read_all()


@pytest.mark.parametrize("suffix", ["arrows", "arrow", "parquet", "fits", "vot"])
def test_a_cut_file_is_refused(tmp_path, suffix):
    data = write(gallery(300), tmp_path / f"t.{suffix}").read_bytes()
    for part in (0.3, 0.7, 0.97):
        (tmp_path / "cut").write_bytes(data[: int(part * len(data))])
        with pytest.raises(DataError, match=r"cut|damaged|without"):
            read(tmp_path / "cut")


@pytest.mark.parametrize("suffix", ["arrows", "arrow", "parquet", "fits"])
def test_damaged_bytes_never_crash(tmp_path, suffix):
    data = bytearray(write(gallery(40), tmp_path / f"t.{suffix}").read_bytes())
    rng = np.random.default_rng(3)
    for _ in range(25):
        spoilt = bytearray(data)
        for at in rng.integers(8, len(data), 6):
            spoilt[at] = rng.integers(0, 256)
        (tmp_path / "spoilt").write_bytes(spoilt)
        try:
            read(tmp_path / "spoilt")
        except DataError:
            continue


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*FORMATS, "json"])
def test_a_failed_file_never_appears_and_the_old_one_stays(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(b"old")
    table = gallery(40)
    writer = open_writer(str(path), table.schema)
    writer.write(table.to_batches()[0])
    writer.abort()
    del writer
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fmt", ["arrows", "arrow", "parquet", "fits", "votable"])
def test_a_failed_stream_is_readable_by_no_one(tmp_path, fmt):
    table, raw = gallery(40), io.BytesIO()
    writer = open_writer("-", table.schema, fmt, stdout=raw)
    writer.write(table.to_batches()[0])
    writer.abort()
    del writer
    (tmp_path / "part").write_bytes(raw.getvalue())
    with pytest.raises(DataError):
        read(tmp_path / "part")


def test_targets_that_cannot_be(tmp_path):
    schema = gallery(1).schema
    with pytest.raises(UsageError, match="-O FORMAT"):
        open_writer(str(tmp_path / "t.xyz"), schema)
    with pytest.raises(OutputError, match="folder"):
        open_writer(str(tmp_path), schema, "parquet")
    with pytest.raises(OutputError, match="mkdir"):
        open_writer(str(tmp_path / "no" / "t.parquet"), schema)
    path = write(gallery(3), tmp_path / "t.parquet")
    with pytest.raises(OutputError, match="no-clobber"):
        open_writer(str(path), schema, clobber=False)


def test_two_that_may_not_replace_do_not(tmp_path):
    table, path = gallery(3), tmp_path / "t.arrow"
    one, two = (open_writer(str(path), table.schema, clobber=False) for _ in range(2))
    one.close()
    with pytest.raises(OutputError, match="meanwhile"):
        two.close()
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_and_links_of_the_old_file_are_kept(tmp_path):
    path, link = tmp_path / "t.parquet", tmp_path / "link.parquet"
    write(gallery(3), path)
    path.chmod(0o640)
    link.symlink_to(path)
    write(gallery(5), link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert read(path).num_rows == 5


def test_file_only_keys_do_not_reach_streams_and_hints_do_not_reach_files(tmp_path):
    table = gallery(5).replace_schema_metadata({"xp.rows_hint": "5", "xp.mock": "{}"})
    for suffix in ("parquet", "arrow"):
        back = open_reader(str(write(table, tmp_path / f"t.{suffix}"))).schema
        assert set(back.metadata) == {b"xp.mock"}


def test_even_batches():
    table = gallery(1000)
    for sizes in ([1000], [1] * 1000, [3, 0, 400, 597], [64] * 15 + [40]):
        at, parts = 0, []
        for n in sizes:
            parts += table.slice(at, n).combine_chunks().to_batches() or [table.schema.empty_table().to_batches()]
            at += n
        out = list(even([p for p in parts if isinstance(p, pa.RecordBatch)], 64))
        assert [b.num_rows for b in out] == [64] * 15 + [40]
        assert pa.Table.from_batches(out).drop_columns(BLANKS).equals(table.drop_columns(BLANKS))


def test_only_the_columns_asked_for(tmp_path):
    for suffix in FORMATS:
        reader = open_reader(str(write(gallery(9), tmp_path / f"t.{suffix}")), ["RA", "coef", "nothing"])
        assert reader.schema.names == ["ra", "coef"]
        assert reader.whole.names == gallery(1).schema.names
        assert sum(b.num_rows for b in reader) == 9


# --- text ----------------------------------------------------------------------------------------------------------


def test_csv_types_do_not_hang_on_the_first_block(tmp_path, monkeypatch):
    from xptools.io import text

    monkeypatch.setattr(text, "BLOCK", 1 << 12)
    n = 3000
    path = tmp_path / "t.csv"
    lines = ["source_id,ra,a,q,c,d,e"]
    for i in range(n):
        late = i > n - 50
        a = "1.5" if late else "1"
        b = str(2**60 + i) if late else ""
        c = "text" if late else "true"
        lines.append(f"{2**61 + i},1.5,{a},{b},{c},2020-01-0{1 + i % 9},")
    path.write_text("\n".join(lines) + "\n")
    back = read(path)
    types = ["int64", "double", "double", "int64", "string", "string", "double"]
    assert [str(t) for t in back.schema.types] == types
    assert back["q"][-1].as_py() == 2**60 + n - 1
    assert back["c"].to_pylist()[0] == "true"
    assert back["source_id"][0].as_py() == 2**61


@pytest.mark.parametrize("number", ["4.9e+18", "4900000000000000000.0"])
def test_identifiers_that_have_lost_digits_are_refused(tmp_path, inside, number):
    (tmp_path / "t.csv").write_text(f"ra,source_id\n1,{number}\n")
    code, _, err = inside("convert", tmp_path / "t.csv", "-o", tmp_path / "t.parquet")
    assert code == 65 and f"source_id has {number}" in err and "lose their last digits" in err


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ra,dec\n1,2\n", ["ra", "dec"]),
        ("\ufeffra,dec\n1,2\n", ["ra", "dec"]),
        ("ra\tdec\n1\t2\n", ["ra", "dec"]),
        ("ra;dec\r\n1;2\r\n", ["ra", "dec"]),
        ("# made by hand\nra, dec\n1, 2\n", ["ra", "dec"]),
        ('"ra","dec"\n1,2\n', ["ra", "dec"]),
    ],
)
def test_csv_dialects(tmp_path, text, names):
    (tmp_path / "t.csv").write_text(text)
    back = read(tmp_path / "t.csv")
    assert back.schema.names == names
    assert back.to_pylist() == [{"ra": 1, "dec": 2}]
    assert str(back.schema.field("ra").type) == "double"


@pytest.mark.parametrize(
    "text",
    [
        "ra,dec\n1,2\n3\n",
        "source_id,x\n1.5,2\n",
        "just some prose, with commas\nand lines\nof any, length, at all\n",
        "has_rvs,x\nmaybe,1\n",
        'x,y\n"(1.0, 2.0)",1\n"(a, b)",2\n',
    ],
)
def test_bad_csv_is_named(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match="TRY: "):
        read(tmp_path / "t.csv")


def test_both_spellings_of_arrays(tmp_path):
    (tmp_path / "t.csv").write_text('a,q\n"(1.0, 2.0, null)","[1, 2]"\n,"[]"\n"(4,5,nan)","[3]"\n')
    back = read(tmp_path / "t.csv")
    assert listed(back["a"]) == [[1.0, 2.0, None], [None, None, None], [4.0, 5.0, None]]
    assert [v or [] for v in back["q"].to_pylist()] == [[1.0, 2.0], [], [3.0]]


def test_a_broken_ecsv_header_is_named(tmp_path):
    (tmp_path / "t.ecsv").write_text("# %ECSV 1.0\n# ---\n# datatype: [oh, no\nra dec\n1 2\n")
    with pytest.raises(DataError, match="ECSV header"):
        read(tmp_path / "t.ecsv")


# --- FITS of other tools -------------------------------------------------------------------------------------------


def test_fits_of_astropy_with_all_its_ways(tmp_path):
    from astropy.io import fits

    columns = [
        fits.Column("B", "L", array=np.array([True, False, True])),
        fits.Column("U16", "I", bzero=32768, array=np.array([0, 1, 65535], "u2")),
        fits.Column("U32", "J", bzero=2**31, array=np.array([0, 1, 2**32 - 1], "u4")),
        fits.Column("I8", "B", bzero=-128, array=np.array([-128, 0, 127], "i1")),
        fits.Column("SC", "I", array=np.array([0, 1, 2], "i2")),
        fits.Column("N", "J", null=-99, array=np.array([1, -99, 3])),
        fits.Column("S", "8A", array=np.array(["ab  ", "", "xyz"])),
        fits.Column("V", "3E", unit="mag", array=np.arange(9, dtype="f4").reshape(3, 3)),
        fits.Column("M", "4D", dim="(2,2)", array=np.arange(12.0).reshape(3, 2, 2)),
        fits.Column("X", "5X", array=np.array([[1, 0, 1, 0, 1]] * 3, bool)),
        fits.Column("P", "PE()", array=np.array([[1.0], [2.0, 3.0], []], object)),
    ]
    table = fits.BinTableHDU.from_columns(columns)
    table.header["TSCAL5"], table.header["TZERO5"] = 0.5, 10.0
    table.writeto(tmp_path / "t.fits")
    back = read(tmp_path / "t.fits")
    want = {
        "B": [True, False, True],
        "U16": [0, 1, 65535],
        "U32": [0, 1, 2**32 - 1],
        "I8": [-128, 0, 127],
        "SC": [10.0, 10.5, 11.0],
        "N": [1, None, 3],
        "S": ["ab", "", "xyz"],
        "V": [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
        "M": [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        "X": [[True, False, True, False, True]] * 3,
        "P": [[1.0], [2.0, 3.0], []],
    }
    for name, values in want.items():
        assert back[name].to_pylist() == values, name
    assert back.schema.field("V").metadata == {b"unit": b"mag"}


def test_fits_without_a_table_and_with_strange_columns(tmp_path):
    from astropy.io import fits

    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(DataError, match="without a binary table"):
        read(tmp_path / "image.fits")
    column = fits.Column("c", "C", array=np.zeros(3, "c8"))
    fits.BinTableHDU.from_columns([column]).writeto(tmp_path / "c.fits")
    with pytest.raises(DataError, match="complex"):
        read(tmp_path / "c.fits")


def test_fits_refuses_what_it_cannot_hold(tmp_path):
    table = pa.table({"i": pa.array([-(2**63), None], pa.int64())})
    with pytest.raises(DataError, match="takes for missing"):
        write(table, tmp_path / "t.fits")
    lists = pa.table({"x": pa.array([[1.0], []], pa.list_(pa.float64()))})
    with pytest.raises(DataError, match="FITS cannot hold"):
        write(lists, tmp_path / "t.fits")
    assert list(tmp_path.iterdir()) == []


# --- VOTable of other tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("serial", ["tabledata", "binary", "binary2"])
def test_votables_of_astropy(tmp_path, serial):
    from astropy.io.votable import from_table, writeto
    from astropy.table import MaskedColumn, Table

    rows = Table(
        {"id": np.array([2**60, 2, 3]), "x": [1.5, np.nan, 2.5], "s": ["a", "", "ccc"], "b": [True, False, True]}
    )
    if serial != "binary":
        rows["n"] = MaskedColumn([1, 2, 3], mask=[False, True, False])
    rows["x"].unit = "mas/yr"
    document = from_table(rows)
    document.get_first_table().format = serial
    writeto(document, str(tmp_path / "t.vot"))
    back = read(tmp_path / "t.vot")
    assert back["id"].to_pylist() == [2**60, 2, 3]
    assert listed(back["x"]) == [1.5, None, 2.5]
    assert listed(back["s"]) == ["a", None, "ccc"]
    assert back["b"].to_pylist() == [True, False, True]
    if serial != "binary":
        assert back["n"].to_pylist() == [1, None, 3]


@pytest.mark.parametrize("serial", ["binary", "binary2"])
def test_binary_votables_stream_as_astropy_reads_them(tmp_path, serial, monkeypatch):
    from astropy.io.votable import from_table, parse, writeto
    from astropy.table import Table

    from xptools.io import votablestream

    rng = np.random.default_rng(1)
    rows = Table({"id": np.arange(500) + 2**60, "x": rng.normal(size=500).astype("f4"), "v": rng.normal(size=(500, 3))})
    rows["s"] = [["", "a", "Straße", "with \\ & <"][i % 4] for i in range(500)]
    rows["c"] = np.array([b"ab", b"", b"xyz", b"q"] * 125)
    document = from_table(rows)
    document.get_first_table().format = serial
    writeto(document, str(tmp_path / "t.vot"))
    monkeypatch.setattr(votablestream, "PIECE", 777)
    monkeypatch.setattr("astropy.io.votable.parse", lambda *a, **k: pytest.fail("not streamed"))
    back = read(tmp_path / "t.vot")
    theirs = parse(str(tmp_path / "t.vot")).get_first_table().to_table()
    assert back["id"].to_pylist() == theirs["id"].tolist()
    assert back["x"].to_pylist() == theirs["x"].tolist()
    assert back["v"].to_pylist() == theirs["v"].tolist()
    assert back["s"].to_pylist() == rows["s"].tolist()
    assert back["c"].to_pylist() == ["ab", "", "xyz", "q"] * 125
    data = (tmp_path / "t.vot").read_bytes()
    for cut in (len(data) // 2, len(data) - 40):
        (tmp_path / "cut.vot").write_bytes(data[:cut])
        with pytest.raises(DataError, match="cut-off"):
            read(tmp_path / "cut.vot")
    late = data.replace(b"</RESOURCE>", b'<INFO name="QUERY_STATUS" value="OVERFLOW"/></RESOURCE>')
    (tmp_path / "late.vot").write_bytes(late)
    with pytest.raises(DataError, match="overflow"):
        read(tmp_path / "late.vot")


def test_the_servers_words_are_passed_on(tmp_path):
    head = '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE>'
    text = head + '<INFO name="QUERY_STATUS" value="ERROR">Column plx unknown</INFO></RESOURCE></VOTABLE>'
    (tmp_path / "t.vot").write_text(text)
    with pytest.raises(DataError, match="Column plx unknown"):
        read(tmp_path / "t.vot")


# --- other tools read what we write --------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["parquet", "parquet.votable"])
def test_astropy_reads_our_parquet_with_units(tmp_path, reader):
    pytest.importorskip("pandas", reason="astropy's Parquet reader needs pandas")
    from astropy import units
    from astropy.table import Table

    table = gallery(30)
    back = Table.read(write(table, tmp_path / "t.parquet"), format=reader)
    assert back["source_id"].dtype == np.int64
    assert back["source_id"].tolist() == table["source_id"].to_pylist()
    assert back["pm"].unit == units.mas / units.yr
    assert back["coef"].shape == (30, 5)
    assert back["pm"].description == "Motion"
    assert [str(s) for s in back["label"]] == table["label"].to_pylist()


@pytest.mark.parametrize("suffix", ["fits", "vot", "ecsv"])
def test_astropy_reads_the_rest(tmp_path, suffix):
    from astropy import units
    from astropy.table import Table

    table = gallery(30)
    back = Table.read(write(table, tmp_path / f"t.{suffix}"))
    assert back["source_id"].tolist() == table["source_id"].to_pylist()
    assert back["pm"].unit == units.mas / units.yr
    assert back["good"].tolist() == table["good"].to_pylist()
    np.testing.assert_array_equal(
        np.asarray(back["coef"]), table["coef"].combine_chunks().flatten().to_numpy().reshape(30, 5)
    )


def test_polars_reads_our_parquet(tmp_path):
    import polars as pl

    table = gallery(30)
    back = pl.read_parquet(write(table, tmp_path / "t.parquet"))
    assert back["source_id"].to_list() == table["source_id"].to_pylist()
    assert back["coef"].dtype == pl.Array(pl.Float32, 5)


@pytest.mark.filterwarnings("ignore")
def test_stilts_reads_units_ucds_and_descriptions(tmp_path):
    stilts = shutil.which("stilts")
    if stilts is None:
        pytest.skip("stilts is not installed")
    table = gallery(30, nulls=True)
    fits, vot = (write(table, tmp_path / name) for name in ("t.fits", "t.vot"))
    header = pq.read_metadata(write(table, tmp_path / "t.parquet")).metadata[b"IVOA.VOTable-Parquet.content"]
    (tmp_path / "meta.vot").write_bytes(header)

    def run(*words):
        return subprocess.run([stilts, *words], capture_output=True, text=True, check=True).stdout

    assert run("votlint", str(vot)) == ""
    assert run("votlint", str(tmp_path / "meta.vot")) == ""
    for path in (fits, vot):
        shown = run("tpipe", f"in={path}", "omode=out", "ofmt=votable-tabledata")
        for words in (
            'unit="mas.yr**-1"',
            'ucd="pos.pm;pos.eq.ra"',
            "Right &lt;ascension> &amp; more",
            'arraysize="5"',
        ):
            assert words in shown or words.replace(">", "&gt;") in shown, (path.suffix, words)
        (tmp_path / "back.vot").write_text(shown)
        assert listed(read(tmp_path / "back.vot")["n"]) == listed(table["n"])


# --- real files ----------------------------------------------------------------------------------------------------


def test_real_spectra_in_csv_and_ecsv(shared_data):
    one, two = (read(shared_data / "xp" / f"XP_CONTINUOUS_RAW.{s}") for s in ("csv", "ecsv"))
    assert one.num_rows == two.num_rows == 2
    assert one["source_id"].to_pylist() == two["source_id"].to_pylist()
    assert one.schema.field("bp_coefficients").type.list_size == 55
    a, b = (np.array(t["bp_coefficient_correlations"].to_pylist()) for t in (one, two))
    assert a.shape == (2, 1485)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_real_missing_spectrum_is_a_row_of_nan(shared_data):
    table = read(shared_data / "xp" / "XP_CONTINUOUS_RAW_with_missing_BP.csv")
    assert table.num_rows == 3
    lost = [all(v != v for v in row) for row in table["bp_coefficients"].to_pylist()]
    assert sum(lost) == 1
    assert not any(v != v for row in table["rp_coefficients"].to_pylist() for v in row)


def test_real_parquet_fits_and_csv(shared_data, tmp_path):
    spectra = read(shared_data / "xp" / "xp_continuous_2000.parquet")
    other = read(shared_data / "xp" / "xp_continuous_2000.fits")
    key = next(n for n in other.schema.names if n.lower() == "source_id")
    assert spectra["source_id"].to_pylist() == other[key].to_pylist()
    near = read(shared_data / "gaia" / "gaia_100pc_12k.csv")
    assert near.num_rows == 12366
    assert str(near.schema.field("source_id").type) == "int64"
    cone = read(shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet")
    for suffix in ("fits", "vot"):
        back = read(write(cone, tmp_path / f"t.{suffix}", rows=1000))
        assert back.num_rows == 2390
        for name in cone.schema.names:
            assert listed(back[name]) == listed(cone[name]), (suffix, name)


def test_sniffing_goes_by_bytes():
    assert sniff.kind(b"# %ECSV 1.0\n") == "ecsv"
    assert sniff.kind(b"ARROW1\0\0") == "arrow"
    assert sniff.kind(b"\xff\xff\xff\xff\x10\0\0\0") == "arrows"
    assert sniff.kind(b"<?xml version='1.0'?>\n<!-- c -->\n<VOTABLE>") == "votable"
    assert vector(pa.float32(), 3).list_size == 3 and field("a", pa.int8()).name == "a"


def test_the_name_meant_is_told_by_its_stem(inside, tmp_path):
    write(stars(3), tmp_path / "h.parquet")
    write(stars(3), tmp_path / "labels.parquet")
    code, _, err = inside("info", tmp_path / "lables.parquet")
    assert code == 66 and "labels.parquet" in str(err).partition("TRY")[2]
    code, _, err = inside("info", tmp_path / "v1.parquet")
    assert code == 66 and "TRY: ls" in str(err)
