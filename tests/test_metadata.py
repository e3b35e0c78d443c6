"""Units, UCDs and descriptions; the history; the headers that other tools read."""

import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pytest
import yaml
from tables import field, gallery, read, stars, write

import xptools
from xptools import metadata
from xptools.columns import Column
from xptools.errors import DataError
from xptools.io import foreign
from xptools.protocol import RowOp


@dataclass(frozen=True)
class Noted(RowOp):
    """A step with a file, a citation and a package."""

    path: str = ""
    edges: tuple[float, ...] = (0.1, 0.2)
    name: ClassVar[str] = "noted"
    needs: ClassVar = ("parallax",)
    adds: ClassVar = {"x": Column("float64", "mag", "phot.mag", "Something")}
    cites: ClassVar = ("someone2020",)
    packages: ClassVar = ("numpy", "no-such-package")

    def files(self):
        return {"map": self.path} if self.path else {}

    def meta_out(self, schema):
        return {"xp.noted": {"b": 1, "a": [1.5]}}

    def compute(self, parallax):
        return {"x": parallax * 2}


def test_fields_carry_their_words():
    f = metadata.field_of("x", Column("float32[3]", "mas.yr**-1", "pos.pm", "Motion"))
    assert metadata.words_of(f) == {"unit": "mas.yr**-1", "ucd": "pos.pm", "description": "Motion"}
    assert f.type.list_size == 3 and not f.type.value_field.nullable
    assert "unit" not in metadata.words_of(metadata.field_of("feh", Column("float32", None, "phys.abund.Fe", "[dex]")))
    assert not metadata.field_of("n", Column("int16", None, "meta.number", "")).nullable


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mas.yr**-1", "mas/yr", True),
        ("mas.yr**-1", "mas yr-1", True),
        ("km.s**-1", "km / s", True),
        ("W.m**-2.nm**-1", "W nm-1 m-2", True),
        ("solMass", "Msun", True),
        ("deg", "rad", False),
        ("mas", "arcsec", False),
        ("mag", "kpc", False),
        ("kpc**3", "pc**3", False),
        ("mag", "no unit at all", False),
        ("deg", "degrees", True),
    ],
)
def test_units_by_meaning(one, other, same):
    assert metadata.same_unit(one, other) is same
    assert metadata.same_unit(other, one) is same


def test_vounits():
    assert metadata.vounit("km/s") == "km.s**-1"
    assert metadata.vounit("Msun") == "solMass"
    assert metadata.vounit(" ") == ""
    assert metadata.vounit("furlong per fortnight") is None
    assert metadata.vounit("dex") is None


def test_the_record_of_a_step(tmp_path):
    (tmp_path / "map.fits").write_bytes(b"abc")
    step = Noted(str(tmp_path / "map.fits"))
    schema = step.schema(stars(1).schema)
    (record,) = metadata.history(schema)
    assert record["id"] == "xp-noted.1" and record["pp"] == []
    assert record["params"] == {"path": str(tmp_path / "map.fits"), "edges": [0.1, 0.2]}
    assert record["files"] == {
        "map": {"name": "map.fits", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    }
    assert record["cites"] == ["someone2020"]
    assert record["pkgs"]["no-such-package"] == "absent"
    assert record["xp"] == xptools.__version__
    assert metadata.value_of(schema, "xp.noted") == {"a": [1.5], "b": 1}
    assert not {"date", "time", "output", "threads"} & set(json.dumps(record).replace('"', " ").split())
    second = metadata.with_record(schema, step)
    assert [r["pp"] for r in metadata.history(second)] == [[], ["xp-noted.1"]]
    assert metadata.history(second)[1]["id"] == "xp-noted.2"


def test_the_input_s_digest_goes_into_the_first_record_only():
    schema = metadata.with_values(stars(1).schema, {metadata.INPUT.decode(): "abc"})
    once = Noted().schema(schema)
    twice = metadata.with_record(once, Noted())
    assert [r.get("inputs") for r in metadata.history(twice)] == [{"sha256": "abc"}, None]
    assert metadata.INPUT not in twice.metadata


def test_a_changed_file_changes_the_digest_and_a_big_one_is_sampled(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(b"one")
    first = metadata.sha256(path)
    path.write_bytes(b"other")
    assert metadata.sha256(path) != first
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"1")
    folder = metadata.sha256(tmp_path / "d")
    (tmp_path / "d" / "b").write_bytes(b"2")
    assert metadata.sha256(tmp_path / "d") != folder
    with open(tmp_path / "big", "wb") as f:
        f.truncate((1 << 28) + 10)
    assert metadata.sha256(tmp_path / "big").startswith("ends:")


def test_a_broken_history_is_named():
    with pytest.raises(DataError, match="--no-provenance"):
        metadata.history(pa.schema([], metadata={"xp.provenance": "{no json"}))


@pytest.mark.parametrize("suffix", ["arrows", "arrow", "parquet", "fits", "vot", "ecsv"])
def test_history_and_notes_survive_files(tmp_path, suffix):
    schema = Noted().schema(stars(5).schema)
    table = stars(5).append_column(schema.field("x"), pa.array([1.0] * 5)).replace_schema_metadata(schema.metadata)
    back = read(write(table, tmp_path / f"t.{suffix}"))
    assert metadata.history(back.schema) == metadata.history(schema)
    if suffix in ("arrows", "arrow", "parquet"):
        assert metadata.value_of(back.schema, "xp.noted") == {"a": [1.5], "b": 1}


def test_the_votable_header_describes_every_column():
    table = gallery(3)
    root = ET.fromstring(metadata.votable_header(table.schema, {"label": 40}))
    fields = [e for e in root.iter() if e.tag.endswith("}FIELD")]
    assert [f.get("name") for f in fields] == table.schema.names
    kinds = [f.get("datatype") for f in fields]
    assert kinds == "long double double float int short boolean unicodeChar float double".split()
    assert fields[7].get("arraysize") == "40*" and fields[8].get("arraysize") == "5"
    assert fields[1].get("unit") == "deg" and fields[0].get("unit") is None
    assert not [e for e in root.iter() if e.tag.endswith("}DATA")]
    words = foreign._votable_words(metadata.votable_header(table.schema, {}).encode())
    assert [w["description"] for w in words] == [f.metadata[b"description"].decode() for f in table.schema]


def test_the_yaml_header_is_yaml():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("tag:yaml.org,2002:omap", lambda load, node: load.construct_sequence(node, deep=True))
    schema = Noted().schema(gallery(1).append_column(stars(1).schema.field("parallax"), pa.array([1.0])).schema)
    header = yaml.load(metadata.ecsv_yaml(schema), Loader)
    assert [d["name"] for d in header["datatype"]] == schema.names
    assert header["datatype"][2] == {
        "name": "pm", "datatype": "float64", "unit": "mas.yr**-1", "description": "Motion",
        "meta": [{"ucd": "pos.pm;pos.eq.ra"}],
    }  # fmt: skip
    assert json.loads(header["meta"][0]["xp_provenance"]) == metadata.history(schema)


def test_words_of_other_tools_are_found():
    plain = pa.schema([("ra", pa.float64()), ("dec", pa.float64())])
    text = (
        "datatype:\n- {name: ra, unit: deg, datatype: float64, description: East}\n- {name: dec, datatype: float64}\n"
    )
    got = foreign.described(plain.with_metadata({"table_meta_yaml": text + "meta: !!omap\n- {a: !strange [1]}\n"}))
    assert metadata.words_of(got.field("ra")) == {"unit": "deg", "description": "East"}
    header = metadata.votable_header(
        pa.schema([field("ra", pa.float64(), "deg", "pos.eq.ra"), ("dec", pa.float64())]), {}
    )
    got = foreign.described(plain.with_metadata({"IVOA.VOTable-Parquet.content": header}))
    assert metadata.words_of(got.field("ra")) == {"unit": "deg", "ucd": "pos.eq.ra"}
    for broken in ({"table_meta_yaml": "[: no"}, {"IVOA.VOTable-Parquet.content": "<VOTABLE"}):
        assert foreign.described(plain.with_metadata(broken)).equals(plain)


def test_a_parquet_file_of_stilts_gives_units(tmp_path):
    """A file as other tools write it: no Arrow schema in its footer."""
    import pyarrow.parquet as pq

    header = metadata.votable_header(gallery(1).schema, {"label": 40})
    with pq.ParquetWriter(tmp_path / "t.parquet", gallery(1).schema.remove_metadata(), store_schema=False) as writer:
        writer.write_table(gallery(5).replace_schema_metadata(None).cast(gallery(1).schema.remove_metadata()))
        writer.add_key_value_metadata({"IVOA.VOTable-Parquet.version": "1.0", "IVOA.VOTable-Parquet.content": header})
    back = read(tmp_path / "t.parquet")
    assert metadata.unit_of(back.schema.field("pm")) == "mas.yr**-1"
    assert back.schema.metadata is None or not set(back.schema.metadata) & set(metadata.FILE_KEYS)


def test_versions_are_those_of_the_packages():
    from importlib.metadata import version

    for package in ("numpy", "scipy", "numba", "jax", "pyarrow"):
        assert metadata._version(package) == metadata._installed()[package] == version(package)
    assert metadata._version("no_such_package") == "absent"
