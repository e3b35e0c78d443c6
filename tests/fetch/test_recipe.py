"""`xp fetch recipe` and the credentials: what papers need, and who asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from servers import serving
from tables import read
from tapstub import tap

import xptools
from fetch.services import Login
from fetch.spectra import IDS, DataLink, same
from xptools import cli, manifest
from xptools.archive import credentials
from xptools.archive.http import Client
from xptools.arrays import to_numpy
from xptools.errors import InputError, PermissionFault
from xptools.recipes import Recipe, Step, recipes


@pytest.mark.parametrize("name", sorted(recipes()))
def test_the_list_needs_no_network_and_shows_every_step(inside, name, monkeypatch):
    monkeypatch.setenv("XP_OFFLINE", "1")
    code, out, said = inside("fetch", "recipe", name, "--list")
    assert code == 0, said
    assert recipes()[name].title in out and not said
    assert all(step.what in out for step in recipes()[name].steps)


def test_steps_are_command_lines_and_data_that_there_are(tmp_path):
    keys = {e.key for e in manifest.external()}
    for recipe in recipes().values():
        assert len({s.key for s in recipe.steps}) == len(recipe.steps)
        for step in recipe.steps:
            assert not step.data or (step.data in keys and step.data in step.run)
            assert bool(step.needs) == bool(step.made) and step.makes in step.run
            line = step.words(tmp_path, lambda key: keys & {key} and tmp_path / key)
            assert not any("{" in word for word in line)
            root = cli.xp.make_context("xp", line)
            root.meta["xp.parse"] = True  # parsed, not run
            if line[0] == "fetch":
                group = cli.xp.get_command(root, "fetch")
                group.get_command(root, line[1]).make_context(line[1], line[2:], parent=root)
            else:
                assert all(xptools.op(part.strip()) for part in line[1].split("|"))


def test_the_list_says_what_is_left_in_all(inside, tmp_path, monkeypatch):
    monkeypatch.setenv("XP_OFFLINE", "1")
    for name in ("catalogue.parquet", "candidates.parquet"):
        (tmp_path / name).write_bytes(b"")
    code, out, _ = inside("fetch", "recipe", "li2026", "gaia", "candidates", "spectra", "training-spectra", "--list",
                          "--to", tmp_path)  # fmt: skip
    assert code == 0 and out.count("(here)") == 2 and "left: about 16 GB" in out
    assert out.count("waits for") == 1 and "labelled.parquet (made by: the rows of the labels" in out
    code, out, said = inside("fetch", "recipe", "li2026", "dusty", "--list")
    assert code == 2 and "TRY: dust, isochrones" in said


def test_a_whole_recipe_with_a_step_that_waits_for_an_analysis(inside, there, tmp_path, monkeypatch):
    """Catalogue by TAP, a selection, spectra by DataLink; what is there is not asked for again."""
    link = DataLink(there)
    parallax = np.linspace(0.5, 5, len(IDS))
    table = pa.table({"source_id": pa.array(IDS), "parallax": pa.array(parallax)})
    with tap(table) as archive:
        lines = (
            f"fetch gaia --service {archive.tap} --where all --columns parallax -o {{to}}/g.parquet",
            "run 'select --parallax 2: | convert --keep source_id' {to}/g.parquet -o {to}/n.parquet",
            f"fetch xp --service {there.url}/data-server/data {{to}}/wanted.parquet -o {{to}}/s.parquet",
        )
        needs = {"needs": "{to}/wanted.parquet", "made": "xp mass"}
        steps = (
            Step("gaia", "rows", lines[0], about="2 GB", makes="{to}/g.parquet"),
            Step("near", "a selection", lines[1], makes="{to}/n.parquet"),
            Step("spectra", "spectra", lines[2], about="19 GB", makes="{to}/s.parquet", **needs),
        )
        monkeypatch.setattr("xptools.recipes.recipes", lambda: {"own": Recipe("own", "A paper", steps)})
        monkeypatch.setenv("XP_CACHE", str(tmp_path / "cache"))
        line = ("fetch", "recipe", "own", "--to", tmp_path / "d")
        code, _, said = inside(*line)
        assert code == 69 and "left: about 21 GB and 1 of a size" in said, said
        assert f"what is left needs {tmp_path}/d/wanted.parquet (made by: xp mass)" in said
        assert not link.asked and said.index("left: about") < said.index("asks http")
        made = archive.stub.made
        (tmp_path / "d" / "n.parquet").rename(tmp_path / "d" / "wanted.parquet")
        monkeypatch.setattr("xptools.recipes.recipes", lambda: {"own": Recipe("own", "A paper", (steps[0], steps[2]))})
        code, _, said = inside(*line)
        assert code == 0 and archive.stub.made == made, said
        assert inside(*line)[0] == 0 and len(link.asked) == 1, "what is there is not asked for again"
        os.utime(tmp_path / "d" / "s.parquet", (1, 1))  # older than the stars that it is of
        assert inside(*line)[0] == 0 and len(link.asked) == 2
    same(read(tmp_path / "d" / "s.parquet"), [i for i, p in zip(IDS, parallax, strict=True) if p > 2])


def test_an_unknown_recipe(inside):
    code, _, said = inside("fetch", "recipe", "nobody1900")
    assert code == 2 and "TRY: li2026, zhang2026, laroche2024" in said


def test_offline_stops_at_the_first_step_and_names_it(inside, monkeypatch, tmp_path):
    monkeypatch.setenv("XP_OFFLINE", "1")
    monkeypatch.setenv("XP_CACHE", str(tmp_path))
    code, _, said = inside("fetch", "recipe", "laroche2024", "--to", tmp_path)
    assert code == 69 and "xp-vae" in said and "502,311" in said


def test_what_is_here_is_not_fetched(inside, monkeypatch, tmp_path):
    monkeypatch.setenv("XP_OFFLINE", "1")
    monkeypatch.setenv("INPUT_DIR", str(tmp_path))
    (tmp_path / "xp_apogee_cat.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    code, out, said = inside("fetch", "recipe", "laroche2024", "catalogue", "--to", tmp_path)
    assert code == 0, said
    assert str(tmp_path / "xp_apogee_cat.h5") in out and "(here)" in said


def test_the_catalogue_of_laroche2024_becomes_a_table_for_xp(inside, tmp_path):
    """As astropy writes a table into HDF5, which is how the paper's authors published theirs."""
    rng = np.random.default_rng(2)
    columns = {
        "coeffs": rng.normal(0, 9, (40, 110)),
        "coeff_errs": rng.random((40, 110)) + 1,
        "ids": np.arange(40) << 35,
    }
    columns |= {name: rng.random(40) for name in ("TEFF", "LOGG", "M_H", "ALPHA_M", "FE_H", "MG_FE", "J", "H", "K")}
    columns["SFD_EBV"] = np.full(40, 0.05)
    columns["phot_g_mean_flux"] = np.full(40, 1e5)
    columns |= {f"{name}_ERR": np.full(40, 1e-3) for name in ("TEFF", "LOGG", "M_H")}
    columns |= {name: np.zeros(40, np.int64) for name in ("ASPCAPFLAG", "STARFLAG")}
    with h5py.File(tmp_path / "cat.h5", "w") as file:
        file["__astropy_table__"] = Table(columns).as_array()
    script = Path(__file__).parents[2] / "examples/laroche2024/apogee.py"
    out = tmp_path / "apogee.parquet"
    subprocess.run([sys.executable, script, tmp_path / "cat.h5", "-o", out], check=True)
    table = read(out)
    np.testing.assert_array_equal(to_numpy(table["rp_coefficients"]), columns["coeffs"][:, 55:])
    np.testing.assert_array_equal(to_numpy(table["bp_coefficient_errors"]), columns["coeff_errs"][:, :55])
    assert (
        table["source_id"].to_pylist() == columns["ids"].tolist()
        and table["alpha_m"].to_pylist()[0] == columns["ALPHA_M"][0]
    )
    assert inside("vae", out, "-o", tmp_path / "z.parquet")[0] == 0


# --- credentials ---------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "secret"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return write


def test_credentials_in_all_spellings(secret):
    assert credentials.read(secret("user = ann\npassword = 'a=b'\n")).password == "a=b"
    assert credentials.read(secret("ann\nword\n")).user == "ann"
    assert credentials.read(secret("# mine\ntoken: abc\n")).token == "abc"
    assert "word" not in repr(credentials.read(secret("ann\nword\n")))


def test_credentials_that_others_can_read_or_that_are_none(secret):
    for mode in (0o640, 0o604, 0o666):
        with pytest.raises(PermissionFault, match="chmod 600"):
            credentials.read(secret("ann\nword\n", mode))
    with pytest.raises(PermissionFault, match="no user"):
        credentials.read(secret("user = ann\n"))
    with pytest.raises(InputError):
        credentials.read("/nowhere/at/all")


@pytest.mark.parametrize(
    ("works", "password", "words"),
    [(True, "word", ""), (False, "word", "knows us as"), ("cookieless", "word", "no session"), (True, "no", "401")],
)
def test_a_login_is_looked_at_twice(works, password, words):
    with serving() as there:
        archive = Login(there, works)
        client, tap = Client(pause=0.01), f"{there.url}/tap-server/tap"
        known = credentials.Credentials("ann", password)
        if words:
            with pytest.raises(PermissionFault, match=words):
                credentials.sign_in(client, tap, known)
        else:
            assert credentials.sign_in(client, tap, known, (f"{there.url}/data-server/login",)) == "ann"
            assert archive.logins == ["/tap-server/login", "/data-server/login"]
        assert archive.jobs == 0
