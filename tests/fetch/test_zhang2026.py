"""examples/zhang2026 with DATA=gaia: what would be run, and the labels from catalogues as they are."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from tables import read, write
from tapstub import tap

from fetch import apogee
from xptools import artefact

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "zhang2026"
ROWS = 30


@pytest.fixture
def catalogues(tmp_path):
    """allStar and DistMass of 30 spectra of 14 stars, two of them without an identifier of Gaia's."""
    rng = np.random.default_rng(6)
    ids = np.repeat(np.array([0, 40, 30, 20, 10, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140]), 2) << 35
    stars = {"APOGEE_ID": [f"2M{i:08d}" for i in ids // 2**35], "GAIAEDR3_SOURCE_ID": ids}
    stars["SNR"] = rng.uniform(9, 300, ROWS)
    for key in ("TEFF", "LOGG", "M_H", "J", "H", "K"):
        stars[key] = rng.normal(5, 1, ROWS).astype("f4")
    stars |= {f"{key}_ERR": np.full(ROWS, 0.1, "f4") for key in ("TEFF", "LOGG", "M_H")}
    stars |= {"STARFLAG": np.arange(ROWS, dtype="i8"), "ASPCAPFLAG": np.zeros(ROWS, "i8")}
    stars["TEFF"][5], stars["K"][7] = -9999, 99.99
    masses = {"APOGEE_ID": stars["APOGEE_ID"], "MASS": rng.uniform(0.8, 2, ROWS), "MASS_ERR": np.full(ROWS, 0.1)}
    masses |= {"AGE_COR_SS": rng.uniform(1e9, 1e10, ROWS), "AGE_ERR": np.full(ROWS, 1e9)}
    masses["BITMASK"] = np.zeros(ROWS, "i8")
    for name, columns in (("allstar", stars), ("distmass", masses)):
        Table(columns).write(tmp_path / f"{name}.fits")
    return stars, masses


def labels(folder):
    words = [sys.executable, EXAMPLE / "labels.py", folder / "distmass.fits", folder / "allstar.fits"]
    done = subprocess.run([*words, "-o", folder / "labels.parquet"], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_the_best_spectrum_of_every_star_with_its_mass(catalogues, tmp_path, inside):
    stars, masses = catalogues
    code, said = labels(tmp_path)
    assert code == 0, said
    table = read(tmp_path / "labels.parquet")
    ids = np.unique(stars["GAIAEDR3_SOURCE_ID"])[1:]
    assert table["source_id"].to_pylist() == ids.tolist()
    for i, one in zip(ids, table.to_pylist(), strict=True):
        row = max(np.flatnonzero(stars["GAIAEDR3_SOURCE_ID"] == i), key=lambda k: stars["SNR"][k])
        assert (one["starflag"], one["mass"]) == (stars["STARFLAG"][row], masses["MASS"][row])
        for name, key in (("teff", "TEFF"), ("ks_m", "K")):
            known = -9000 < stars[key][row] < 90
            assert one[name] == stars[key][row] if known else np.isnan(one[name])
    # the joins of the Makefile
    some = ids[2:9]
    write(pa.table({"source_id": some, "ruwe": np.ones(7)}), tmp_path / "gaia.parquet")
    write(pa.table({"source_id": some[1:], "bp_n_relevant_bases": np.ones(6, "i2")}), tmp_path / "spectra.parquet")
    joins = " | ".join(f"join --with {tmp_path}/{n}.parquet --how inner" for n in ("gaia", "spectra"))
    code, _, said = inside("run", joins, tmp_path / "labels.parquet", "-o", tmp_path / "all.parquet")
    assert code == 0, said
    assert read(tmp_path / "all.parquet")["source_id"].to_pylist() == some[1:].tolist()


def test_catalogues_of_other_rows_are_refused(catalogues, tmp_path):
    masses = Table.read(tmp_path / "distmass.fits")
    masses[::-1].write(tmp_path / "distmass.fits", overwrite=True)
    code, said = labels(tmp_path)
    assert code == 1 and "has other rows than" in said and not (tmp_path / "labels.parquet").exists()


def test_the_archive_s_steps_are_planned(planned, tmp_path):
    steps = planned(EXAMPLE, "DATA=gaia")
    order = ("fetch recipe zhang2026 --to", "labels.py", "join --with", "train ask --recipe distmass", "report.py")
    assert [steps.index(words) for words in order] == sorted(steps.index(words) for words in order)
    assert "mock" not in steps and f'"{tmp_path}/apogee-xp.parquet"' in steps
    assert "fetch" not in planned(EXAMPLE) and "fetch" not in planned(EXAMPLE, "real", "DATA=own.parquet")


MANIFEST = """[[file]]
name = "{name}"
key = "{key}"
what = "{key}"
use = "labels"
folder = "apogee"
url = "{url}"
get = "{url}/sas/{name}"
"""
CONFIG = """[fetch.data]
manifest = "{folder}/manifest.toml"
[fetch.gaia]
service = "{gaia}"
[fetch.xp]
service = "{url}/data-server/data"
[train.ask]
epochs = 2
"""


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
def test_the_whole_of_it_from_stand_ins_of_the_archives(there, tmp_path):
    """Mock giants as allStar, DistMass, TAP and DataLink have them: down to the panels of stars that were held out."""
    stars = apogee.giants(7000)  # so many that some know the high orders which panel e shows
    files = apogee.catalogues(stars)
    there.serve("/sas", files)
    link = apogee.Spectra(there, stars)
    link.without = set(stars["source_id"].to_pylist()[-20:])
    keys = ("apogee-dr17", "distmass-dr17")
    told = [MANIFEST.format(key=key, name=name, url=there.url) for key, name in zip(keys, files, strict=True)]
    (tmp_path / "manifest.toml").write_text("".join(told))
    with tap(apogee.gaia(stars)) as archive:
        config = CONFIG.format(folder=tmp_path, gaia=archive.tap, url=there.url)
        (tmp_path / "xp.toml").write_text(config)
        done = made(tmp_path, "DATA=gaia", "PRESET=tiny")
        assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    known = read(out / "apogee-xp.parquet")
    assert known["source_id"].to_pylist() == stars["source_id"].to_pylist()[:-20]
    np.testing.assert_allclose(known["teff"], stars["teff"][:-20], rtol=1e-5)  # of the better spectrum
    about = artefact.about(out / "distmass.safetensors")
    assert about.training["recipe"] == "distmass" and {"mass", "age", "jk"} < set(about.domain)
    hidden, learned = (set(read(out / f"{name}.parquet")["source_id"].to_pylist()) for name in ("hidden", "learned"))
    assert hidden and not hidden & learned and not hidden & set(known["source_id"].to_pylist()[: apogee.BADLY])
    lines = (out / "real.txt").read_text().splitlines()
    assert "0.114 Msun, 1.334 Gyr" in lines[-1] and sum(" mass " in line for line in lines) >= 5
    assert (out / "real-mass.pdf").stat().st_size > 5000 and (out / "real-age.pdf").exists()
    asked = len(there.seen)
    assert made(tmp_path, "DATA=gaia", "PRESET=tiny").returncode == 0 and len(there.seen) == asked


def made(folder, *words):
    """`make` with the folder's configuration."""
    line = [
        "make",
        "-C",
        str(EXAMPLE),
        f"OUT={folder}/out",
        f"XP='{sys.executable}' -m xptools",
        f"PYTHON='{sys.executable}'",
    ]
    env = {**os.environ, "XP_CONFIG": f"{folder}/xp.toml", "NO_PROXY": "127.0.0.1", "XP_OFFLINE": "0"}
    return subprocess.run([*line, *words], capture_output=True, text=True, check=False, env=env)
