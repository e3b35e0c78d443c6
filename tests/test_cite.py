"""xp cite: the bibliography, and what a table owes."""

import re
from importlib import import_module

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xptools import cli, manifest, manual, references


def test_bibliography_reads_whole():
    text = references.BIBLIOGRAPHY.read_text()
    assert len(references.entries()) == len(re.findall(r"^@", text, re.M)) > 30
    for entry in references.entries().values():
        assert {"author", "title", "year"} <= entry.fields.keys(), entry.key
        assert re.fullmatch(r"\d{4}", entry.fields["year"])
        assert not re.search(r"[{}\\]", entry.line()), entry.line()
        assert entry.text.count("{") == entry.text.count("}")


def test_dois_and_names_are_unique():
    entries = references.entries().values()
    dois = [e.fields["doi"] for e in entries if "doi" in e.fields]
    assert len(dois) == len(set(dois))
    assert all(re.fullmatch(r"10\.\d{4,5}/\S+", doi) for doi in dois)
    names = [n.strip() for e in entries for n in (e.key, *e.fields.get("ids", "").split(",")) if n.strip()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", cli.names())
def test_every_key_of_every_command_is_known(name):
    """Keys of the classes and of the default steps; keys in string literals of a `cites` property."""
    import inspect

    module = import_module(f"xptools.commands.{name}")
    steps = [d.step for d in manual.documented() if d.path[0] == name and d.step is not None]
    keys = [k for step in steps for k in manual._seen(step, "cites")]
    for value in (v for v in vars(module).values() if isinstance(v, type) and hasattr(v, "cites")):
        if isinstance(value.cites, property):
            keys += re.findall(r'"([a-z]+\d{4}[a-z]?)"', inspect.getsource(value.cites.fget))
        else:
            keys += value.cites
    # A map's name may stand where its paper's key does.
    assert not references.of([k for k in keys if k])[1]


def test_manifest_cites_known_papers():
    assert not references.of([f.cite for f in manifest.external() if f.cite])[1]


def test_other_names_give_one_entry():
    found, unknown = references.of(["edenhofer2023", "edenhofer2024", "nobody1900", "nobody1900"])
    assert [e.key for e in found] == ["edenhofer2024"]
    assert unknown == ["nobody1900"]


def test_everything_without_a_table(xp):
    done = xp("cite")
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.decode().count("\n@") + 1 == len(references.entries())


def test_of_a_table(xp, tmp_path):
    table = tmp_path / "t.parquet"
    assert xp("run", "mock 300 | deredden --map none | select --fidelity 0.5", "-o", table).returncode == 0
    keys = re.findall(r"^@\w+\{(\w+),", xp("cite", table).stdout.decode(), re.M)
    assert {"li2026", "rybizki2022", "zhang2023", *references.ALWAYS} <= set(keys)
    assert "green2019" not in keys and len(keys) == len(set(keys))
    listed = xp("cite", "--list", table).stdout.decode().splitlines()
    assert [line.split()[0] for line in listed] == keys
    assert any(line.startswith("rybizki2022") and "select" in line.rpartition("[")[2] for line in listed)


def test_of_a_stream_on_standard_input(xp):
    stream = xp("mock", 50).stdout
    for args in (("cite", "-"), ("cite",)):
        out = xp(*args, stdin=stream).stdout.decode()
        assert "riello2021" in out and "chabrier2003" not in out


def test_unknown_keys_are_reported(xp, tmp_path):
    history = b'[{"id": "xp-x.1", "pp": [], "cmd": "x", "cites": ["nobody1900"]}]'
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1.0]}).replace_schema_metadata({b"xp.provenance": history}), path)
    done = xp("cite", path)
    assert done.returncode == 0
    assert b"'nobody1900' (x)" in done.stderr and b"gaia2023" in done.stdout


def test_not_a_table(xp, tmp_path):
    (tmp_path / "page.html").write_text("<!DOCTYPE html><html>no</html>")
    assert xp("cite", tmp_path / "page.html").returncode == 65
    assert xp("cite", tmp_path / "none.parquet").returncode == 66
