"""What files from elsewhere may not do: run code, read other files, fill the disk, or appear where they should not."""

import ast
import gzip
import io
import os
import pickle
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from xptools import cli, progress
from xptools.archive import unpack
from xptools.errors import DataError

PACKAGE = Path(cli.__file__).parent
VOTABLE = """<?xml version="1.0"?><!DOCTYPE VOTABLE [{}]>
<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="s" datatype="char" arraysize="*"/>
<FIELD name="x" datatype="double"/><DATA><TABLEDATA><TR><TD>a{}</TD><TD>1</TD></TR></TABLEDATA></DATA>
</TABLE></RESOURCE></VOTABLE>"""
LAUGHS = '<!ENTITY e0 "aaaaaaaaaa">' + "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(12))


def calls() -> list[tuple[Path, ast.Call, str]]:
    """Every call in the package: file, node, and what is called."""
    out = []
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        out += [(path, n, ast.unparse(n.func)) for n in nodes]
    return out


def test_nothing_evaluates_code_and_weights_are_data():
    """No eval, exec or pickle of what is read; PyTorch's files as weights only."""
    for where, node, name in calls():
        assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "joblib.load"), where
        if name == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), where
        if name == "yaml.load":
            assert ast.unparse(node.args[1]) == "Loader" and "class Loader(yaml.SafeLoader)" in where.read_text(), where
        if name == "np.load":
            assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords), where


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt"])
def test_a_model_file_that_is_a_program_does_not_run(inside, tmp_path, name):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (tmp_path / name).write_bytes(pickle.dumps(Evil(), 2))
    assert inside("run", "mock 300 | deredden --map none", "-o", tmp_path / "s.parquet")[0] == 0
    code, _, err = inside("mass", "--model", tmp_path / name, tmp_path / "s.parquet", "-o", tmp_path / "o.parquet")
    assert code == 65 and "not a model file" in err
    if name == "m.pt":
        line = ("train", "vae", "--import", tmp_path / name, "--normalise", tmp_path / "t", "-o", tmp_path / "n")
        code, _, err = inside(*line)
        assert code == 65 and "load safely" in err
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "cut",
    ["__import__('os').mkdir('owned')", "ra.__class__", "(lambda: 1)()", "open('x')", "ra if 1 else dec", "ra[0]"],
)
def test_expressions_are_arithmetic_only(inside, tmp_path, monkeypatch, cut):
    from tables import stars, write

    monkeypatch.chdir(tmp_path)
    write(stars(5), tmp_path / "s.parquet")
    code, _, err = inside("select", "--where", f"{cut} > 0", "s.parquet", "-o", "o.parquet")
    assert code == 2 and "Traceback" not in err, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.parquet"]


def test_xml_reads_no_other_file_and_does_not_grow(inside, tmp_path):
    (tmp_path / "secret").write_text("TOPSECRET")
    for entity in (f'SYSTEM "{(tmp_path / "secret").as_uri()}"', 'SYSTEM "http://127.0.0.1:9/x"'):
        (tmp_path / "t.vot").write_text(VOTABLE.format(f"<!ENTITY e {entity}>", "&e;"))
        code, out, err = inside("convert", tmp_path / "t.vot", "-o", tmp_path / "o.csv")
        assert code == 65 and "external entity" in err and "SECRET" not in out + err
    (tmp_path / "t.vot").write_text(VOTABLE.format(LAUGHS, "&e12;"))
    code, _, err = inside("convert", tmp_path / "t.vot", "-o", tmp_path / "o.csv")
    assert code == 65 and "damaged" in err
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("serial", ["BINARY", "BINARY2", "FITS"])
@pytest.mark.parametrize("where", ["before", "within"])
def test_votable_data_are_not_had_from_elsewhere(inside, tmp_path, serial, where):
    """A STREAM may name a file or a server for its data, and astropy would go there."""
    (tmp_path / "secret").write_bytes(struct.pack(">d", 42.5))
    table = '<TABLE><FIELD name="x" datatype="double"/><DATA>{}</DATA></TABLE>'
    plain = table.format("<TABLEDATA><TR><TD>1</TD></TR></TABLEDATA>")
    for href in ((tmp_path / "secret").as_uri(), "http://127.0.0.1:9/x"):
        far = table.format(f'<{serial}><STREAM href="{href}"/></{serial}>')
        odd = plain.replace('"double"', '"bit"')  # a type for astropy
        tables = far if where == "before" else odd + far
        (tmp_path / "t.vot").write_text(f'<VOTABLE version="1.4"><RESOURCE>{tables}</RESOURCE></VOTABLE>')
        code, out, err = inside("convert", tmp_path / "t.vot", "-O", "csv")
        assert code == 65 and f"but in {href[:80]}" in err and "42.5" not in out, err


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """An archive as they are published."""
    with gzip.open(path, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def test_archives_are_bounded_in_size_number_and_place(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "LARGEST", 1000)
    monkeypatch.setattr(unpack, "MOST", 2)
    monkeypatch.setattr(unpack, "ALL", 1 << 20)
    half = tmp_path / "half"
    half.mkdir()
    unpack._members(
        packed(tmp_path / "a.tar.gz", {"../../x.iso": b"1", "/etc/y.iso": b"2", "z.sh": b"3"}), half, "*.iso"
    )
    assert sorted(p.name for p in half.iterdir()) == ["x.iso", "y.iso"] and not list(tmp_path.glob("x*"))
    for members in ({"a.iso": b"0" * 1001}, {f"{i}.iso": b"1" for i in range(3)}, {"a.txt": b"0" * (2 << 20)}):
        with pytest.raises(DataError, match="unpacks to more"):
            unpack._members(packed(tmp_path / "b.tar.gz", members), half, "*.iso")


def test_holes_of_a_sparse_member_count(tmp_path, monkeypatch):
    """A file of 20 MB of holes takes a hundred bytes of an archive, but not of a disk."""
    monkeypatch.setattr(unpack, "ALL", 1 << 20)
    (half := tmp_path / "half").mkdir()
    with (tmp_path / "a.iso").open("wb") as f:
        f.truncate(20 << 20)
    archive = tmp_path / "a.tar.gz"
    line = ["tar", "--format=gnu", "-czSf", archive, "-C", tmp_path, "a.iso"]
    subprocess.run(line, check=True)
    assert archive.stat().st_size < 1000
    with pytest.raises(DataError, match="unpacks to more"):
        unpack._members(archive, half, "*.iso")
    assert sum(p.stat().st_size for p in half.iterdir()) <= 1 << 20


def test_names_from_a_file_do_not_command_the_terminal(inside, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"source_id": [1], "\x1b]0;owned\x07x": [1.0], "y\x9b2J": [2.0]}), tmp_path / "t.parquet")
    code, _, err = inside("mass", tmp_path / "t.parquet", "-o", tmp_path / "o.parquet")
    assert code == 65 and "?]0;owned?x" in err and "\x1b" not in err and "\x9b" not in err
    assert progress.harmless("\x1b[1mx\x1b[0m \x1b[2Jy\n") == "\x1b[1mx\x1b[0m ?[2Jy\n"


@pytest.mark.parametrize("mask", [0o027, 0o077])
def test_files_are_made_with_the_user_s_umask(inside, tmp_path, monkeypatch, mask):
    from tables import stars, write

    write(stars(40).drop_columns(["mass", "mass_err"]), tmp_path / "s.parquet")
    before = os.umask(mask)
    try:
        made = tmp_path / "made"
        made.mkdir()
        for suffix in ("parquet", "arrow", "arrows", "fits", "vot", "ecsv", "csv"):
            assert inside("convert", tmp_path / "s.parquet", "-o", made / f"t.{suffix}")[0] == 0
        assert inside("run", "mass", tmp_path / "s.parquet", made / "parts")[0] == 0
    finally:
        os.umask(before)
    for path in (made, *made.rglob("*")):
        whole = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == whole & ~mask, path
