"""`xp fetch parsec` against a stand-in of the form: whole tables only, each asked for once."""

import numpy as np
import pytest

from fetch.services import CmdForm, isochrone_text
from xptools.archive import parsec
from xptools.cores import isochrone
from xptools.cores._isochrone_files import read_file


@pytest.fixture
def fetch(inside, tmp_path, there, monkeypatch):
    """`fetch(*words)` runs `xp fetch parsec` into a folder without waiting; returns code, stderr, folder."""
    monkeypatch.setattr("xptools.archive.http.Client.rest", lambda self, seconds: None)
    folder = tmp_path / "parsec"

    def run(*words):
        code, _, said = inside("fetch", "parsec", "--service", f"{there.url}/cgi-bin/cmd", *words, "-o", folder)
        return code, said, folder

    return run


GRID = ("--mh", "-1.5:-1:0.25", "--logage", "9.8:10.1:0.1")


def test_a_grid_of_tables_that_the_isochrones_reader_reads(there, fetch):
    form = CmdForm(there)
    code, said, folder = fetch(*GRID)
    assert code == 0, said
    assert sorted(p.name for p in folder.iterdir()) == [f"parsec_mh{m:+.3f}.dat" for m in (-1.0, -1.25, -1.5)]
    found = isochrone.load(str(folder))
    assert found.family == "PARSEC YBC"
    assert form.asked == [-1.5, -1.25, -1.0]
    code, said, _ = fetch(*GRID)
    assert code == 0 and "0 of 3 tables" in said and len(form.asked) == 3


@pytest.mark.parametrize("fault", [503, "drop", "cut"])
def test_a_fault_costs_a_try(there, fetch, fault):
    CmdForm(there)
    there.queue = [fault, "", fault]
    code, said, folder = fetch(*GRID)
    assert code == 0, said
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("lines", [1, 5, 60])
def test_a_table_that_is_cut_is_asked_for_again(there, fetch, lines):
    form = CmdForm(there)
    form.cut = [0, lines]
    code, said, folder = fetch(*GRID)
    assert code == 0, said
    assert form.asked == [-1.5, -1.25, -1.25, -1.0]
    assert all(p.read_text().endswith("#isochrone terminated\n") for p in folder.iterdir())


def test_cut_off_and_run_again(there, fetch):
    form = CmdForm(there)
    there.queue = ["", "", *[503] * 30]
    code, _, folder = fetch(*GRID)
    assert code == 75 and len(list(folder.iterdir())) == 1
    there.queue = []
    assert fetch(*GRID)[0] == 0 and form.asked == [-1.5, -1.25, -1.0]
    (folder / "parsec_mh-1.000.dat").write_text(isochrone_text(-1.0, [9.8]))
    assert fetch(*GRID)[0] == 0 and form.asked[3:] == [-1.0]


def test_a_metallicity_that_is_not_there_is_told(there, fetch):
    CmdForm(there)
    code, said, folder = fetch("--mh", "-2.5", "--logage", "10")
    assert code == 76 and "PARSEC gave [M/H] = -2.19 for -2.5" in said
    assert not list(folder.iterdir())
    assert fetch("--mh", "-2.2", "--logage", "10")[0] == 0
    code, said, _ = fetch("--mh", "0.7", "--logage", "10")
    assert code == 69 and "metallicity out of range" in said


@pytest.mark.parametrize("words", [("1:0:0.1", "10"), ("-1", "9,9.5,10.1"), ("a", "10"), ("-1", "9:10:0")])
def test_what_is_no_grid_is_refused(fetch, words):
    code, said, _ = fetch("--mh", words[0], "--logage", words[1])
    assert code == 2 and "TRY" in said


def test_the_grid_of_the_paper():
    values = parsec.grid("-2.2:0.5:0.1")
    assert len(values) == 28 and values[0] == -2.2 and values[-1] == 0.5 and -1.1 in values
    np.testing.assert_allclose(np.diff(values), 0.1)


def test_real_tables_end_as_the_stand_in_does(shared_data, tmp_path):
    path = shared_data / "isochrones" / "parsec_ybc" / "cmd34_gaiaedr3_z0.004100_le1Gyr.dat"
    found = read_file(path)
    ages = tuple(sorted(float(np.log10(i.age) + 9) for i in found))
    assert parsec.fault(path, found[0].mh, ages) == ""
    cut = tmp_path / "cut.dat"
    cut.write_text(path.read_text().removesuffix("#isochrone terminated\n"))
    assert "cut" in parsec.fault(cut, found[0].mh, ages)
