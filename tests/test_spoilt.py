"""Damaged files that tests/fuzz/readers.py found no sentence for, reduced: each is refused by name, with status 65."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import gallery, write

from xptools import artefact
from xptools.commands.mass import DEFAULT
from xptools.cores import isochrone
from xptools.errors import DataError


def strings(offsets: list[int], data: bytes) -> pa.Array:
    """Texts whose offsets and bytes nobody has checked."""
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(data)]
    return pa.StringArray.from_buffers(len(offsets) - 1, buffers[1], buffers[2])


def stream(batch: pa.RecordBatch, file: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, batch.schema) as out:
        out.write_batch(batch)
    return sink.getvalue().to_pybytes()


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


BEYOND = pa.RecordBatch.from_arrays([strings([0, 134217850, 6], b"abcdef")], ["label"])
NO_TEXT = pa.RecordBatch.from_arrays([strings([0, 3, 6], b"ab\xff\xfe\x80f")], ["label"])
NO_TEXT_EITHER = pa.table({"label": pa.array([b"ab\xff\xfe"]).view(pa.string())})
PLAIN = pa.RecordBatch.from_arrays([pa.array([1.0])], ["label"])
ECSV = "# %ECSV 1.0\n# ---\n# datatype:\n# - {{name: a, datatype: {kind}}}\n# schema: astropy-2.0\na\n1\n"
CASES = {
    "text whose offset points out of the file": stream(BEYOND, file=True),
    "the same in a stream": stream(BEYOND),
    "text that is no UTF-8": stream(NO_TEXT),
    "a column's name that is no UTF-8": stream(PLAIN).replace(b"label", b"la\x80el"),
    "the same in Parquet": parquet(NO_TEXT_EITHER),
    "the same in CSV": b"a,b\xff\n1,2\n",
    "a type of ECSV that there is not": ECSV.format(kind="int10").encode(),
    "another one": ECSV.format(kind="float30").encode(),
    "a VOTable whose column has no name": b'<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD namecd="pos"/>'
    b"<DATA><TABLEDATA><TR><TD>1</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>",
    "a VOTable whose data are nowhere": b'<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="a" datatype="int"/>'
    b"<DATA><BINARY2></BINARY2></DATA></TABLE></RESOURCE></VOTABLE>",
    "a VOTable in no known encoding": b'<?xml version="1.0" encoding="UTF--1"?><VOTABLE version="1.4"></VOTABLE>',
}


@pytest.mark.parametrize("what", CASES)
def test_a_damaged_table_is_refused_by_name(inside, tmp_path, what):
    path = tmp_path / "spoilt"
    path.write_bytes(CASES[what])
    code, out, err = inside("convert", path, "-o", tmp_path / "out.arrow")
    assert (code, out) == (65, ""), err
    assert "spoilt is a damaged" in err and "TRY:" in err and not (tmp_path / "out.arrow").exists()


def model(header: dict, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h | {"w": {"dtype": "F32", "shape": [1]}},
        lambda h: h | {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        lambda h: h | {"__metadata__": {"xptools": h["__metadata__"]["xptools"][:-9]}},
        lambda h: h | {"__metadata__": {"xptools": h["__metadata__"]["xptools"].replace("metrics", "mutrics")}},
        lambda h: h | {"__metadata__": {"xptools": "[]"}},
        lambda h: h | {"__metadata__": []},
    ],
)
def test_a_damaged_model_is_refused_by_name(tmp_path, change):
    raw = DEFAULT.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    path = tmp_path / "m.safetensors"
    path.write_bytes(model(change(json.loads(raw[8 : 8 + size])), raw[8 + size :]))
    with pytest.raises(DataError, match=r"m\.safetensors"):
        artefact.about(path)


def test_weights_that_do_not_fit_their_list_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(DEFAULT.read_bytes() + b"\0")
    with pytest.raises(DataError, match="the model file is damaged"):
        artefact.load(path, "mass")


def test_an_isochrone_table_without_rows_is_refused(tmp_path):
    (tmp_path / "a.dat").write_text("# Zini MH logAge Mini Mass label Gmag G_BPmag G_RPmag\n")
    with pytest.raises(DataError, match="no rows in the isochrone table"):
        isochrone.read(tmp_path / "a.dat")


def test_the_search_finds_nothing_in_a_few_cases(tmp_path):
    """tests/fuzz/readers.py itself runs; an hour of it is for `make fuzz`."""
    from pathlib import Path

    script = Path(__file__).parent / "fuzz/readers.py"
    words = ["--seconds", "0.1", "--keep", str(tmp_path / "found"), "--target", "expression"]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 findings" in done.stdout and list((tmp_path / "found").iterdir()) == []


def test_the_search_would_find_something(tmp_path, monkeypatch):
    """A reader that fails on a third of all files is caught, each place once, and its file is kept."""
    from fuzz import readers

    path = tmp_path / "t"
    write(gallery(5).drop_columns(["coef", "wide"]), path, "csv")

    def fails(file):
        raise ZeroDivisionError("here")

    monkeypatch.setitem(readers.READERS, "csv", fails)
    monkeypatch.setattr(readers.resource, "setrlimit", lambda *_: None)
    told = []
    monkeypatch.setattr("builtins.print", lambda line, **_: told.append(line))
    monkeypatch.setattr(readers, "corpus", lambda: {"csv": [path.read_bytes()]})
    readers.cases("csv", 0, 3, tmp_path)
    assert len(told) == 3 and "ZeroDivisionError at" in told[0]
    assert sorted(p.name for p in tmp_path.glob("*.bin")) == ["csv-0.bin", "csv-1.bin", "csv-2.bin"]
