"""`xp fetch data`: files come whole, compared and in their place, or not at all."""

import gzip
import hashlib
import json

import pytest

from fetch.services import basti, basti_text, dataverse, zenodo
from xptools.cores import isochrone

MAP = b"SIMPLE  =                    T" + bytes(range(256)) * 4000


@pytest.fixture
def fetch(inside, tmp_path, there, monkeypatch):
    """`fetch(words, **entry)` runs `xp fetch data` with a manifest of one entry (key "thing") at the stand-in."""
    monkeypatch.setattr("xptools.archive.http.Client.rest", lambda self, seconds: None)
    monkeypatch.setenv("XP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INPUT_DIR", raising=False)
    config = tmp_path / "dustmaps.json"
    config.write_text(json.dumps({"data_dir": str(tmp_path / "maps")}))
    monkeypatch.setenv("DUSTMAPS_CONFIG_FNAME", str(config))

    def run(*words, **entry):
        entry = {"key": "thing", "name": "thing.fits", "what": "a map", "use": "xp", "url": "https://a.org"} | entry
        text = "[[file]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in {"folder": "box", **entry}.items())
        (tmp_path / "manifest.toml").write_text(text)
        return inside("fetch", "data", *(words or ("thing",)), "--manifest", tmp_path / "manifest.toml")

    return run


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


def test_a_map_lands_where_dustmaps_and_deredden_look(there, fetch, tmp_path, inside):
    from xptools import dustfiles

    there.serve("/files", {"mean_and_std_healpix.fits": MAP})
    name = "mean_and_std_healpix.fits"
    entry = {"key": "edenhofer2023", "name": name, "folder": "edenhofer_2023", "home": "dustmaps"}
    code, out, said = fetch("edenhofer2023", get=f"{there.url}/files/{name}", md5=md5(MAP), **entry)
    assert code == 0, said
    path = tmp_path / "maps" / "edenhofer_2023" / "mean_and_std_healpix.fits"
    assert path.read_bytes() == MAP and out.strip() == str(path)
    assert dustfiles.locate("edenhofer2023") == path


@pytest.mark.parametrize("fault", [503, "cut", "corrupt", "drop", "html", "html202"])
def test_a_fault_costs_a_try(there, fetch, tmp_path, fault):
    files = there.serve("/files", {"thing.fits": MAP})
    there.queue = [fault]
    code, _, said = fetch(get=f"{there.url}/files/thing.fits", md5=md5(MAP), bytes=len(MAP))
    assert code == 0, said
    assert (tmp_path / "cache" / "box" / "thing.fits").read_bytes() == MAP
    assert bool(files.ranges) == (fault == "cut")


@pytest.mark.parametrize(
    ("entry", "served", "code", "words"),
    [
        ({"md5": "0" * 32}, MAP, 65, "md5"),
        ({"bytes": 5}, MAP, 65, "bytes"),
        ({}, b"<!DOCTYPE html><html>log in</html>", 75, "HTML page"),
    ],
)
def test_what_is_not_the_file_is_refused_and_not_kept(there, fetch, tmp_path, entry, served, code, words):
    there.serve("/files", {"thing.fits": served})
    found, _, said = fetch(get=f"{there.url}/files/thing.fits", **entry)
    assert found == code and words in said and "Traceback" not in said
    assert not list((tmp_path / "cache" / "box").iterdir())


def test_without_a_published_sum_the_first_download_is_noted(there, fetch, tmp_path):
    files = there.serve("/files", {"thing.fits": MAP})
    get = f"{there.url}/files/thing.fits"
    code, _, said = fetch(get=get)
    assert code == 0 and "no published checksum" in said
    path = tmp_path / "cache" / "box" / "thing.fits"
    note = path.with_name("thing.fits.sha256")
    assert note.read_text() == f"{hashlib.sha256(MAP).hexdigest()}  thing.fits\n"
    path.unlink()
    files.files["thing.fits"] = MAP[::-1]
    code, _, said = fetch(get=get)
    assert code == 65 and "sha256" in said and not path.exists()
    files.files["thing.fits"] = MAP
    assert fetch(get=get)[0] == 0 and path.exists()


def test_zenodo_says_size_sum_and_licence(there, fetch, tmp_path):
    record = zenodo(there, "77", {"other.txt": b"x", "thing.fits": MAP})
    there.queue = ["", "corrupt"]
    code, _, said = fetch(zenodo=record)
    assert code == 0 and "cc-by-4.0" in said and "no published" not in said
    assert (tmp_path / "cache" / "box" / "thing.fits").read_bytes() == MAP
    assert not (tmp_path / "cache" / "box" / "other.txt").exists()
    code, _, said = fetch(zenodo=record, name="nothing.fits")
    assert code == 69 and "other.txt, thing.fits" in said


def test_every_file_of_a_record_and_none_before_all(there, fetch, tmp_path):
    record = zenodo(there, "78", {"one.fits": MAP, "two.fits": MAP[:5000]})
    there.queue = ["", "", *[503] * 20]
    entry = {"zenodo": record, "name": "*"}
    assert fetch(**entry)[0] == 75
    there.queue = []
    seen = len(there.seen)
    code, out, said = fetch(**entry)
    assert code == 0, said
    assert [line.rpartition("/")[2] for line in out.split()] == ["one.fits", "two.fits"]
    assert not any("one.fits" in path for path in there.seen[seen:])
    code, _, said = fetch(**entry)
    assert "is here" in said or code == 0


def test_a_record_that_contradicts_the_manifest_is_refused(there, fetch):
    code, _, said = fetch(zenodo=zenodo(there, "79", {"thing.fits": MAP}), md5="1" * 32)
    assert code == 69 and "another thing.fits" in said


def test_dataverse_and_its_firewall(there, fetch, tmp_path):
    record = dataverse(there, {"thing.fits": MAP})
    there.queue = ["html202"]
    code, _, said = fetch(dataverse=record)
    assert code == 0, said
    assert (tmp_path / "cache" / "box" / "thing.fits").read_bytes() == MAP
    there.queue = ["html202"] * 20
    code, _, said = fetch("--again", "thing", dataverse=record)
    assert code == 75 and "got" not in said and "HTML page (HTTP 202)" in said


def test_input_dir_is_used_before_the_network(there, fetch, tmp_path, monkeypatch):
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "thing.fits").write_bytes(MAP)
    monkeypatch.setenv("INPUT_DIR", str(tmp_path / "input"))
    code, out, said = fetch(get=f"{there.url}/files/thing.fits", md5=md5(MAP))
    assert code == 0 and out.strip() == str(tmp_path / "input" / "thing.fits")
    assert not there.seen
    # what is there but wrong is said, and downloaded
    there.serve("/files", {"thing.fits": MAP})
    (tmp_path / "input" / "thing.fits").write_bytes(MAP[:-1])
    code, out, said = fetch(get=f"{there.url}/files/thing.fits", md5=md5(MAP))
    assert code == 0 and "bad sum" in said and "cache" in out


def test_offline_lists_what_is_missing(there, fetch, monkeypatch):
    monkeypatch.setenv("XP_OFFLINE", "1")
    code, _, said = fetch("thing", "aspgap", get=f"{there.url}/files/thing.fits", about="2 GB")
    assert code == 69 and "thing (about 2 GB)" in said and "aspgap" in said
    assert not there.seen


def test_too_large_for_the_disk_is_said_first(there, fetch):
    there.serve("/files", {"thing.fits": MAP})
    code, _, said = fetch(get=f"{there.url}/files/thing.fits", bytes=10**18)
    assert code == 74 and "are free" in said and not there.seen


def test_an_unknown_name(fetch):
    code, _, said = fetch("edenhofr2023")
    assert code == 2 and "TRY: edenhofer2023" in said


# --- archives of tables behind a page -------------------------------------------------------------------------------


@pytest.fixture
def tables(there, fetch):
    """`tables(*words)` fetches the entry "thing", which is archives of isochrones behind a page."""

    def run(*words):
        place = {"listing": f"{there.url}/PREISOCS/P00/", "packed": "isocz*p00o1d1e1.isc_gaia-dr3.tar.gz"}
        return fetch(
            *(words or ("thing",)), name="*.isc_gaia-dr3*", by_hand="at a.org choose things and put them into", **place
        )

    return run


def test_archives_of_isochrones_are_read_and_unpacked(there, tables, tmp_path):
    basti(there, {"105y247": -2.5, "104y247": -2.0})
    there.queue = ["", "cut", 503]
    code, out, said = tables()
    assert code == 0, said
    folder = tmp_path / "cache" / "box"
    names = sorted(p.name for p in folder.iterdir())
    assert len(names) == 5 and names[-1] == "record.json" and len(out.split()) == 4
    found = isochrone.load(str(folder))
    assert found.family == "BaSTI-IAC"
    seen = len(there.seen)
    assert tables()[0] == 0 and len(there.seen) == seen


def test_a_damaged_archive_or_table_puts_nothing_in_place(there, tables, tmp_path):
    files = basti(there, {"105y247": -2.5, "104y247": -2.0})
    name = "isocz104y247p00o1d1e1.isc_gaia-dr3.tar.gz"
    whole, folder = files[name], tmp_path / "cache" / "box"
    for spoilt in (
        whole[:-300],
        gzip.compress(b"text"),
        gzip.compress(gzip.decompress(whole).replace(b"GAIA-DR3-NEW", b"JOHNSON-COUS")),
    ):
        files[name] = spoilt
        code, _, said = tables()
        assert code == 65 and "Traceback" not in said
        assert not list(folder.glob("*.isc_gaia-dr3-new"))
        for left in folder.glob(f"{name}*"):
            left.unlink()
    files[name] = whole
    assert tables()[0] == 0


def test_killed_while_the_tables_are_put_in_place(there, tables, tmp_path, monkeypatch):
    basti(there, {"105y247": -2.5, "104y247": -2.0})
    assert tables()[0] == 0
    next((tmp_path / "cache" / "box").glob("13000*")).unlink()
    monkeypatch.setenv("XP_OFFLINE", "1")
    assert tables()[0] == 69
    monkeypatch.delenv("XP_OFFLINE")
    assert tables()[0] == 0 and len(list((tmp_path / "cache" / "box").iterdir())) == 5


def test_by_hand_where_the_page_is_gone_and_what_is_put_there_is_read(there, tables, tmp_path):
    code, _, said = tables()
    assert code == 69 and "By hand: at a.org choose things" in said and "TRY: that, then xp fetch data thing" in said
    there.serve("/PREISOCS/P00", {"": b"<html>nothing here any more</html>"})
    code, _, said = tables()
    folder = tmp_path / "cache" / "box"
    assert code == 69 and "lists no isocz" in said and f"put them into {folder}" in said
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "12000z.isc_gaia-dr3").write_text(basti_text(-1.0, 12000))
    code, out, said = tables()
    assert code == 0 and out.strip() == str(folder / "12000z.isc_gaia-dr3")
    (folder / "13000z.isc_gaia-dr3").write_text("an excerpt\n")
    code, _, said = tables()
    assert code == 69 and "not a PARSEC, BaSTI or MIST" in said and "13000z" in said


@pytest.mark.parametrize("words", [("data", "--list"), ("--list",)])
def test_the_list(inside, words, monkeypatch):
    monkeypatch.setenv("XP_OFFLINE", "1")
    code, out, said = inside("fetch", *words)
    assert code == 0 and not said and ("recipe li2026" in out) == (words == ("--list",))
    for words in ("edenhofer2023 ", "about 3.2 GB", "doi:10.5281/zenodo.10469859", "none published", "BaSTI-IAC"):
        assert words in out
