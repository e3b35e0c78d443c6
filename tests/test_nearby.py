"""The example on real stars: 12,366 within 100 pc with real PARSEC masses, and 2,390 whole rows of gaia_source."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from xptools.cores import astrometry, photometry, sequence

pytest.importorskip("matplotlib")
PROXIMA = 5853498713190525696


@pytest.fixture(scope="module")
def out(xp, shared_data, tmp_path_factory):
    if not shutil.which("make"):
        pytest.skip("make is not here")
    folder = tmp_path_factory.mktemp("nearby")
    example = Path(__file__).parent.parent / "examples" / "nearby"
    words = ["make", "-C", str(example), f"OUT={folder}", f"DATA={shared_data}", f"XP='{xp.program}' -q"]
    done = subprocess.run(
        [*words, "TRAIN=--epochs 60 --points 40000"], capture_output=True, text=True, timeout=300, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def stars(out):
    table = pq.read_table(out / "masses.parquet")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def test_every_star_is_there_and_proxima_has_parsecs_mass(stars):
    assert stars["source_id"].size == 12_366
    row = int(np.flatnonzero(stars["source_id"] == PROXIMA)[0])
    # PARSEC's own answer at M_G = 13.41 is 0.14 Msun at [M/H] = 0 (dynamics say 0.122)
    assert stars["mass"][row] == pytest.approx(float(sequence.mass(13.412, 0.0)), abs=0.02)


def test_masses_fall_with_absolute_magnitude_and_the_sun_has_one(stars):
    good = stars["mass_flag"] == 0
    assert 0.5 < good.mean() < 0.95
    edges = np.arange(4.5, 13.6, 0.75)
    bins = np.digitize(stars["mg0"], edges)
    medians = [np.median(stars["mass"][good & (bins == k)]) for k in range(1, edges.size)]
    assert all(np.diff(medians) < 0)
    sunlike = good & (abs(stars["mg0"] - 4.67) < 0.15) & (abs(stars["bp_rp0"] - 0.82) < 0.04)
    assert sunlike.sum() > 10
    assert np.median(stars["mass"][sunlike]) == pytest.approx(1.0, abs=0.06)


def test_white_dwarfs_and_giants_are_flagged(stars):
    dwarfs = (stars["mg0"] > 10) & (stars["bp_rp0"] < 1.2)
    giants = (stars["mg0"] < 2) & (stars["bp_rp0"] > 0.9)
    assert dwarfs.sum() > 300 and giants.sum() > 20
    assert np.all(stars["mass_flag"][dwarfs | giants] > 0)


def test_figures_and_their_numbers(out, stars):
    for name in ("cmd", "hr", "masses", "cutflow"):
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    counts = pq.read_table(out / "masses.pdf.parquet")["n"].to_numpy()
    mass = stars["mass"][stars["mass_flag"] == 0]
    assert counts.sum() == ((mass >= 0.08) & (mass <= 1.2)).sum()


def test_whole_rows_have_zero_point_extinction_and_excess(out, shared_data):
    raw = pq.read_table(shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet")
    got = pq.read_table(out / "complete.parquet")
    assert got.num_rows == raw.num_rows == 2_390
    assert got["source_id"].equals(raw["source_id"])
    column = {n: raw[n].to_numpy(zero_copy_only=False).astype(float) for n in (
        "phot_g_mean_mag", "nu_eff_used_in_astrometry", "pseudocolour", "ecl_lat", "astrometric_params_solved",
        "phot_bp_rp_excess_factor", "bp_rp",
    )}  # fmt: skip
    zero = astrometry.zero_point(
        column["phot_g_mean_mag"], column["nu_eff_used_in_astrometry"], column["pseudocolour"],
        np.sin(np.radians(column["ecl_lat"])), column["astrometric_params_solved"],
    )  # fmt: skip
    np.testing.assert_allclose(got["parallax_zero_point"].to_numpy(), zero, rtol=1e-6, equal_nan=True)
    assert -0.045 < np.nanmedian(zero) < -0.01
    c_star = got["c_star"].to_numpy()
    expected = photometry.excess_corrected(column["phot_bp_rp_excess_factor"], column["bp_rp"])
    np.testing.assert_allclose(c_star, expected, rtol=1e-4, atol=1e-6, equal_nan=True)
    # Riello+ 2021: the bulk of isolated bright stars has |C*| below 3 sigma
    bright = column["phot_g_mean_mag"] < 16
    assert got["in_cstar"].to_numpy(zero_copy_only=False)[bright].mean() > 0.9
    assert np.nanmax(got["ag"].to_numpy()) == 0
