"""examples/zhang2026 with DATA=gaia: what would be run, and the labels from catalogues as they are."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.table import Table
from tables import read, write

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


@pytest.mark.skipif(not shutil.which("make"), reason="make is not here")
def test_the_archive_s_steps_are_planned(tmp_path):
    def planned(*words):
        line = ["make", "-n", "-C", str(EXAMPLE), f"OUT={tmp_path}", *words]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    steps = planned("DATA=gaia")
    order = ("fetch recipe zhang2026 --to", "labels.py", "join --with", "train ask --recipe distmass")
    assert [steps.index(words) for words in order] == sorted(steps.index(words) for words in order)
    assert "mock" not in steps and f'"{tmp_path}/apogee-xp.parquet"' in steps
    assert "fetch" not in planned() and "fetch" not in planned("real", "DATA=own.parquet")
