"""Two hundred bad inputs: no traceback, at most three lines, the way out named, the right exit code."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from tables import gallery, read, stars, write

from xptools import cli
from xptools.errors import EXIT_CODES

SUFFIXES = ("arrows", "arrow", "parquet", "fits", "vot", "ecsv", "csv")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> dict[str, bytes]:
    """The bytes of one table in every format."""
    folder = tmp_path_factory.mktemp("good")
    table = gallery(60)
    tables = {s: table if s != "csv" else table.drop_columns(["coef", "wide"]) for s in SUFFIXES}
    return {s: write(t, folder / f"t.{s}").read_bytes() for s, t in tables.items()}


def judged(result, codes: set[int], what: str) -> None:
    """The promises about a failure."""
    code, out, err = result
    assert code in codes, f"{what}: {code} {err}"
    assert "Traceback" not in err + out, f"{what}: {err}"
    if code:
        lines = err.strip().splitlines()
        assert 1 <= len(lines) <= 3, f"{what}: {err}"
        assert "error: " in err and "TRY: " in err, f"{what}: {err}"
        assert len(err) < 1500, f"{what}: {err}"
        assert out == "", what


def spoilt(data: bytes, rng: np.random.Generator, how: int) -> bytes:
    """Cut, overwritten, doubled, shifted or emptied in the middle."""
    at = int(rng.integers(1, len(data)))
    many = int(rng.integers(1, 200))
    noise = rng.integers(0, 256, many, dtype=np.uint8).tobytes()
    ways = (
        data[:at],
        data[:at] + noise + data[at + many :],
        data[:at] + data[at + many :],
        data[:at] + noise + data[at:],
        data[:at] + b"\0" * many + data[at + many :],
    )
    return ways[how % len(ways)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_spoilt_tables(good, suffix, tmp_path, inside):
    rng = np.random.default_rng(len(suffix) + ord(suffix[0]))
    refused = 0
    for i in range(20):
        (tmp_path / "t").write_bytes(spoilt(good[suffix], rng, i))
        result = inside("convert", tmp_path / "t", "-o", tmp_path / "out.arrow", "-q")
        judged(result, {0, 65}, f"{suffix} {i}")
        refused += result[0] == 65
        if result[0] == 0:
            read(tmp_path / "out.arrow")
            (tmp_path / "out.arrow").unlink()
        assert {p.name for p in tmp_path.iterdir()} == {"t"}
    assert refused >= (10 if suffix not in ("csv", "ecsv") else 3)


def test_things_that_are_no_table(tmp_path, inside, good):
    rng = np.random.default_rng(5)
    junk = [rng.integers(0, 256, int(n), dtype=np.uint8).tobytes() for n in rng.integers(1, 5000, 20)]
    junk += [
        b"",
        b"\n",
        b"<html>",
        b"{}",
        b"[]",
        b"\0" * 100,
        b"PAR1",
        b"ARROW1",
        b"SIMPLE  =",
        b"\xff" * 8,
        b"\xff" * 4,
    ]
    junk += [b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"# %ECSV 1.0\n", b"<VOTABLE/>", b"PAR1" + b"\0" * 50 + b"PAR1"]
    junk += [
        gzip.compress(b""),
        gzip.compress(b"<html>"),
        gzip.compress(good["arrow"])[:-20],
        b"\x28\xb5\x2f\xfd" + b"a" * 9,
    ]
    for i, data in enumerate(junk):
        (tmp_path / "t").write_bytes(data)
        judged(inside("convert", tmp_path / "t", "-o", tmp_path / "o.arrow", "-q"), {65}, f"junk {i} {data[:20]!r}")


BAD_LINES = [
    (["convert", "{t}", "-o", "{d}/o.nothing"], 2),
    (["convert", "{t}", "--batch-rows", "0", "-o", "{d}/o.arrow"], 2),
    (["convert", "{t}", "--batch-rows", "x"], 2),
    (["convert", "{t}", "--nothing"], 2),
    (["convert", "{t}", "extra"], 2),
    (["convert", "{t}", "--keep", "nothing", "-o", "{d}/o.arrow"], 65),
    (["convert", "{t}", "--drop", "nothing", "-o", "{d}/o.arrow"], 65),
    (["convert", "{t}", "--rename", "ra", "-o", "{d}/o.arrow"], 2),
    (["convert", "{t}", "--rename", "ra=dec", "-o", "{d}/o.arrow"], 65),
    (["convert", "{t}", "--rename", "nothing=b", "-o", "{d}/o.arrow"], 65),
    (["convert", "{t}", "--unit", "ra=furlong per", "-o", "{d}/o.arrow"], 2),
    (["convert", "{t}", "--unit", "feh=dex", "-o", "{d}/o.arrow"], 2),
    (["convert", "{t}", "-o", "{d}"], 73),
    (["convert", "{t}", "-o", "{d}/no/o.arrow"], 73),
    (["convert", "{d}", "-o", "{d}/o.arrow"], 66),
    (["convert", "{d}/none", "-o", "{d}/o.arrow"], 66),
    (["convert", "{t}", "--config", "{d}/none.toml", "-o", "{d}/o.arrow"], 78),
    (["convert", "{t}", "--config", "{t}", "-o", "{d}/o.arrow"], 78),
    (["convert", "{t}", "--config", "{d}/bad.toml", "-o", "{d}/o.arrow"], 78),
    (["convert", "{t}", "--config", "{d}/odd.toml", "-o", "{d}/o.arrow"], 78),
    (["convert", "{t}", "--config", "{d}/flat.toml", "-o", "{d}/o.arrow"], 78),
    (["convert", "{t}", "--require-version", "0.0.0", "-o", "{d}/o.arrow"], 78),
    (["convert", "{t}", "--threads", "-1", "-o", "{d}/o.arrow"], 2),
    (["convert", "{t}", "--device", "tpu", "-o", "{d}/o.arrow"], 2),
    (["conver"], 2),
    (["--keep"], 2),
    (["run", "", "{t}"], 2),
    (["run", "convert |", "{t}"], 2),
    (["run", "convert | nothing", "{t}"], 2),
    (["run", "convert --nothing", "{t}"], 2),
    (["run", "info", "{t}"], 2),
    (["run", "mass | mock 10", "{t}"], 2),
    (["run", "convert --help", "{t}"], 2),
]


@pytest.mark.parametrize(("words", "code"), BAD_LINES, ids=[" ".join(w) for w, _ in BAD_LINES])
def test_bad_command_lines(words, code, tmp_path, inside):
    write(stars(20), tmp_path / "t.arrow")
    (tmp_path / "bad.toml").write_text("[convert\n")
    (tmp_path / "odd.toml").write_text("[convert]\nnothing = 1\n")
    (tmp_path / "flat.toml").write_text("convert = 3\n")
    judged(inside(*(w.format(t=tmp_path / "t.arrow", d=tmp_path) for w in words)), {code}, " ".join(words))
    assert not (tmp_path / "o.arrow").exists()


@pytest.mark.parametrize("name", [n for n in cli.names() if n not in ("completion", "doctor", "help", "cite")])
def test_every_command_on_what_it_cannot_use(name, tmp_path, inside):
    """A table without a single useful column, a text as number, a page of HTML."""
    write(pa.table({"a": [1.0, 2.0], "q": ["x", "y"]}), tmp_path / "useless.parquet")
    texts = stars(5).select(["source_id", "note"])
    for column in stars(1).schema.names[1:-2]:
        texts = texts.append_column(column, texts["note"])
    write(texts, tmp_path / "texts.parquet")
    (tmp_path / "page.parquet").write_text("<!doctype html><html></html>")
    before = {p.name for p in tmp_path.iterdir()}
    extra = {"join": ["--with", str(tmp_path / "useless.parquet")], "plot": ["cmd"], "train": ["mass"]}.get(name, [])
    allowed = {0, 2, 65} if name in ("info", "convert", "train", "veff", "mock", "run") else {2, 65}
    for file in ("useless.parquet", "texts.parquet", "page.parquet"):
        words = [name, *extra, str(tmp_path / file)]
        if name not in ("info", "train"):
            words += ["-o", str(tmp_path / "out.arrow")]
        code, out, err = inside(*words)
        assert code in allowed and "Traceback" not in err, f"{file}: {code} {err}"
        if code:
            judged((code, out, err), allowed, file)
        (tmp_path / "out.arrow").unlink(missing_ok=True)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_every_exit_code_is_described():
    assert set(EXIT_CODES) >= {0, 1, 2, 64, 65, 66, 69, 70, 73, 74, 75, 76, 77, 78, 130, 141, 143}
