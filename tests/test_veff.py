"""`xp veff`: volumes in the pipe and as a table, the options beyond the paper, and what it says of wrong input."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xptools
from xptools import metadata
from xptools.cores.bins import BinTable
from xptools.errors import DataError, InputError, MissingColumns, UsageError
from xptools.protocol import Source

STARS = pa.table(
    {
        "mass": pa.array([0.16, 0.5, 0.75, 0.89, 0.1, None, 0.5, 0.5], pa.float32()),
        "feh": pa.array([-1.5, -2.0, -1.2, -1.5, -1.5, -1.5, 0.0, float("nan")], pa.float32()),
    }
)
# SCIENCE 6.5: M_G at the mass centres of real PARSEC tables, 10 Gyr
CENTRES = [0.1768, 0.2304, 0.2839, 0.3375, 0.3911, 0.4446, 0.4982, 0.5518, 0.6054, 0.6589, 0.7125, 0.7661]
AT_CENTRES = {
    -2.0: [0.0444, 0.1100, 0.2156, 0.3635, 0.5874, 1.0253, 1.9563, 3.3933, 3.3933, 3.3933, 3.3933, 3.3933],
    -1.5: [0.0265, 0.0676, 0.1329, 0.2275, 0.3886, 0.7560, 1.6272, 3.3933, 3.3933, 3.3933, 3.3933, 3.3933],
    -1.2: [0.0186, 0.0482, 0.0961, 0.1648, 0.2935, 0.5796, 1.3178, 3.1784, 3.3933, 3.3933, 3.3933, 3.3933],
}


def row(step, stars=STARS):
    return step(stars.to_batches()[0]).to_pydict()


def test_bins_volumes_and_flags():
    out = row(xptools.op("veff"))
    assert out["mass_bin"] == [0, 6, 11, 13, -1, -1, 6, 6]
    assert out["feh_bin"] == [2, 0, 3, 2, 2, 2, -1, -1]
    assert out["veff_flag"] == [0, 0, 0, 8, 1, 4, 2, 4]
    seen = np.isfinite(np.array(out["veff"], float))
    np.testing.assert_array_equal(seen, [True] * 4 + [False] * 4)
    assert out["veff"][3] == 0.0  # 0.89 Msun and [Fe/H] = -1.5 have left the main sequence


@pytest.mark.parametrize("feh", AT_CENTRES)
def test_volumes_at_the_papers_bin_centres(feh):
    """SCIENCE 7.3. The built-in sequence is within 0.03 mag of PARSEC (0.05 at -2), so V within 4 (7) %."""
    step = xptools.op(f"veff --bin-point centre --feh-edges={feh - 0.1},{feh + 0.1}")
    got = step.table().veff[0, :12]
    np.testing.assert_allclose(got, AT_CENTRES[feh], rtol=0.075 if feh == -2.0 else 0.045)


def test_volumes_from_the_real_parsec_tables(shared_data):
    folder = shared_data / "isochrones"
    step = xptools.op(f"veff --bin-point centre --feh-edges=-1.51,-1.49 --isochrones '{_parsec(folder)}'")
    np.testing.assert_allclose(step.table().veff[0, :12], AT_CENTRES[-1.5], rtol=0.01)


def _parsec(folder):
    from xptools.cores.isochrone import read
    from xptools.errors import XpError

    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            grid = read(path)
        except (XpError, ValueError):
            continue
        covers = grid.mh_range[0] <= -1.5 <= grid.mh_range[1] and grid.age_range[0] <= 10 <= grid.age_range[1]
        if grid.family.lower().startswith("parsec") and covers:
            return path
    return pytest.skip("no PARSEC table at [M/H] = -1.5 and 10 Gyr there")


def test_average_differs_from_the_centre_as_the_reference_says():
    """SCIENCE 7.2: -0.027 to +0.017 dex at [M/H] = -1.5."""
    edges = "--feh-edges=-1.6,-1.4"
    mean, centre = (xptools.op(f"veff {edges} --bin-point {p}").table().veff[0, :12] for p in ("average", "centre"))
    shift = np.log10(mean / centre)
    assert shift.min() == pytest.approx(-0.027, abs=0.003)
    assert shift.max() == pytest.approx(0.017, abs=0.003)


def test_monte_carlo_agrees_with_quadrature():
    quad = xptools.op("veff --feh-edges=-1.6,-1.4").table()
    mc = xptools.op("veff --feh-edges=-1.6,-1.4 --method mc --samples 100000 --seed 4").table()
    use = quad.veff > 0
    assert np.all(np.abs(mc.veff - quad.veff)[use] < 4.5 * mc.veff_err[use])
    assert np.all(mc.veff_err[use] < 0.005 * mc.veff[use] + 0.02 * (quad.veff[use] < 1))
    again = xptools.op("veff --feh-edges=-1.6,-1.4 --method mc --samples 100000 --seed 4").table()
    np.testing.assert_array_equal(mc.veff, again.veff)


def test_shared_volume_and_scale_for_reproduction():
    step = xptools.op("veff --veff-mode shared --veff-feh=-1.3 --veff-scale 0.238732")
    veff = step.table().veff
    np.testing.assert_array_equal(veff[0], veff[3])
    assert veff[0, 9] == pytest.approx(3.393339 * 3 / (4 * np.pi), rel=1e-5)


def test_the_table_travels_in_the_schema():
    step = xptools.op("veff")
    stated = metadata.value_of(step.schema(STARS.schema), "xp.veff")
    table = BinTable.from_dict(stated)
    np.testing.assert_allclose(table.veff, step.table().veff, rtol=1e-7)
    assert stated["parameters"]["g_limit"] == 17.0 and "PARSEC" in stated["parameters"]["light"]


def test_table_is_a_source_of_56_rows(xp, tmp_path):
    assert isinstance(xptools.op("veff --table"), Source)
    done = xp("veff", "--table", "-o", tmp_path / "v.parquet")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.num_rows == 56
    assert BinTable.from_dict(metadata.value_of(table.schema, "xp.veff")).veff.shape == (4, 14)
    assert metadata.unit_of(table.schema.field("veff")) == "kpc**3"


def test_volume_averaged_over_a_metallicity_distribution():
    """Against stars drawn from the Gaussian inside the bin, each with its own volume."""
    from scipy.stats import truncnorm

    from xptools.cores import sequence
    from xptools.cores.veff import Survey, Volume

    mean, sigma, lo, hi = -1.45, 0.4, -2.2, -1.8
    feh = truncnorm((lo - mean) / sigma, (hi - mean) / sigma, mean, sigma).rvs(20_000, random_state=1)
    mass = np.random.default_rng(2).uniform(0.15, 0.90 - 13 * 0.75 / 14, 20_000)
    drawn = Volume(Survey(mg_limit=4.0))(sequence.absolute(mass, feh)[0]).mean()
    base = "veff --feh-edges=-2.2,-1.8"
    flat, shaped = (xptools.op(f"{base} {o}").table().veff[0, 0] for o in ("", "--mdf=-1.45,0.4"))
    assert shaped == pytest.approx(drawn, rel=0.02)
    assert flat / shaped > 1.03
    with pytest.raises(UsageError, match="no mean and width"):
        xptools.op("veff --mdf=-1.45")


def test_density_law_and_the_suns_place():
    base = "veff --feh-edges=-1.6,-1.4"
    top = [xptools.op(f"{base} {o}").table().veff[0, 9] for o in ("", "--h-r 3", "--z-sun 0.0208", "--r-sun 8.275")]
    np.testing.assert_allclose(top, [3.393339, 3.292427, 3.392704, 3.393877], rtol=1e-6)


def test_density_file(tmp_path):
    law = tmp_path / "law.toml"
    disc, halo = "weight = 3\nh_r = 1.5\nh_z = 1.43\n", "slope = 2.5\nq = 0.7\nfeh = [-9, -1.5]\n"
    law.write_text(f"[[component]]\n{disc}[[component]]\n{halo}")
    step = xptools.op(f"veff --feh-edges=-1.9,-1.7,-1.2,-1.1 --density {law}")
    veff = step.table().veff[:, 9]
    assert veff[1] == veff[2] == pytest.approx(3.393339) and veff[0] > 1.01 * veff[1]
    law.write_text("[[component]]\nh_x = 1\n")
    with pytest.raises(DataError, match="h_x"):
        xptools.op(f"veff --density {law}").table()
    law.write_text("[[component]]\nfeh = [0, 1]\nh_r = 1\nh_z = 1\n")
    with pytest.raises(DataError, match="no component for"):
        xptools.op(f"veff --density {law}").table()


def test_parallax_cut_barely_binds_at_17():
    """SCIENCE 7.4: S/N about 14 at 1 kpc and G = 17."""
    base = "veff --feh-edges=-1.6,-1.4"
    ratio = xptools.op(f"{base} --plx-sn 10").table().veff[0, :12] / xptools.op(base).table().veff[0, :12]
    assert np.all((ratio > 0.97) & (ratio < 1 + 1e-6))
    assert xptools.op(f"{base} --plx-sn 30").table().veff[0, 6] < 0.8 * xptools.op(base).table().veff[0, 6]


def test_completeness_curve_and_eta(tmp_path):
    curve = tmp_path / "curve.csv"
    curve.write_text("g,completeness\n0,0.5\n21,0.5\n")
    eta = tmp_path / "eta.csv"
    eta.write_text("feh_lo,feh_hi,completeness,completeness_err\n-2.2,-1.5,0.8,0.08\n-1.5,-1,0.4,0.02\n")
    plain = xptools.op("veff").table().veff
    use = plain > 0
    got = xptools.op(f"veff --completeness {curve}").table().veff
    np.testing.assert_allclose((got / np.where(use, plain, 1))[use], 0.5, rtol=1e-3)
    table = xptools.op(f"veff --eta-completeness {eta} --veff-error 0.06").table()
    np.testing.assert_allclose(table.veff[0, :12] / plain[0, :12], 0.8)
    np.testing.assert_allclose(table.veff[3, :12] / plain[3, :12], 0.4)
    np.testing.assert_allclose(table.veff_err[0, :12] / table.veff[0, :12], np.hypot(0.1, 0.06))


def test_completeness_map(tmp_path):
    pixel, g = np.divmod(np.arange(24), 2)
    table = pa.table({"healpix": pixel, "g": g * 21.0, "completeness": np.where(pixel < 6, 1.0, 0.5)})
    pq.write_table(table, tmp_path / "map.parquet")
    option = f"--completeness {tmp_path / 'map.parquet'}"
    got = xptools.op(f"veff --feh-edges=-1.6,-1.4 --h-r inf --h-z inf {option}").table().veff[0, 9]
    assert got / 4.188790 == pytest.approx(0.75, rel=0.01)
    pq.write_table(table.slice(0, 23), tmp_path / "map.parquet")
    with pytest.raises(DataError, match="not a full grid"):
        xptools.op(f"veff --feh-edges=-1.6,-1.5 {option}").table()


def test_results_do_not_depend_on_the_batches():
    step = xptools.op("veff")
    whole = row(step)
    parts = [row(step, STARS.slice(i, 1).combine_chunks()) for i in range(8)]
    assert repr([p["veff"][0] for p in parts]) == repr(whole["veff"])


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("veff --mass-edges 0.9,0.1", UsageError, "do not ascend"),
        ("veff --mg-limit bright", UsageError, "a number or none"),
        ("veff --max-distance 0", UsageError, "between 0 and"),
        ("veff --mass-edges 0.2:0.5:1000000", UsageError, "more than 1,000 bins"),
        ("veff --mass-edges -0.2,0.5", UsageError, "are masses"),
        ("veff --veff-scale inf", UsageError, "must be finite"),
        ("veff --table stars.parquet", UsageError, "reads no INPUT"),
        ("veff --map-file dust.fits", UsageError, "--map-file has no effect .* TRY: --map edenhofer2023"),
        ("veff --map none --map-file dust.fits", UsageError, "--map-file has no effect"),
        ("veff --curve-unit tau", UsageError, "--curve-unit has no effect without a 3D dust map"),
        ("veff --samples 2000", UsageError, "--samples has no effect with --method quad. TRY: --method mc"),
        ("veff --veff-feh=-1.3", UsageError, "--veff-feh has no effect .* TRY: --veff-mode shared"),
    ],
)
def test_wrong_options(line, error, words):
    with pytest.raises(error, match=words):
        xptools.op(line)


@pytest.mark.parametrize(
    ("settings", "line", "code"),
    [
        ("veff_feh = -1.0\nsamples = 2000\ncurve_unit = 'tau'", "", 0),  # settings for other runs of the same command
        ("map_file = 'dust.fits'", "--map none", 0),
        ("map_file = 'dust.fits'", "", 2),  # the name of the map was forgotten
    ],
)
def test_a_configuration_may_hold_what_this_run_does_not_need(settings, line, code, xp, tmp_path):
    (tmp_path / "own.toml").write_text(f"[veff]\n{settings}\n")
    done = xp("--config", tmp_path / "own.toml", "veff", "--table", *line.split(), "-o", tmp_path / "v.csv")
    assert done.returncode == code, done.stderr
    assert (b"--map-file has no effect" in done.stderr) == (code == 2)


def test_wrong_files(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("g,completeness\n0,1.5\n")
    with pytest.raises(DataError, match="between 0 and 1"):
        xptools.op(f"veff --completeness {bad}").table()
    bad.write_text("feh_lo,feh_hi,completeness\n-2.2,-1.9,1\n")
    with pytest.raises(DataError, match="in every bin"):
        xptools.op(f"veff --eta-completeness {bad}").table()
    bad.write_text("g\n1\n")
    with pytest.raises(MissingColumns, match="completeness"):
        xptools.op(f"veff --completeness {bad}").table()
    bad.write_text("g,completeness\n")
    with pytest.raises(DataError, match="has no rows"):
        xptools.op(f"veff --completeness {bad}").table()


def test_masses_below_the_isochrones_are_told(capsys):
    xptools.op("veff --mass-edges 0,0.3,0.5 --feh-edges=-1.6,-1.4").table()
    assert "begin at 0.1 Msun" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "component = 3",
        "[[component]]\nweight = 'a'\nh_r = 2\nh_z = 0.9",
        "[[component]]\nweight = -1\nh_r = 2\nh_z = 0.9",
        "[[component]]\nh_r = 0\nh_z = 0.9",
        "[[component]]\nh_r = 'x'\nh_z = 0.9",
        "[[component]]\nfeh = [-1]\nh_r = 1\nh_z = 0.9",
    ],
)
def test_density_laws_that_are_none(text, tmp_path):
    (tmp_path / "law.toml").write_text(text)
    with pytest.raises(DataError, match=r"law\.toml\. TRY"):
        xptools.op(f"veff --density {tmp_path / 'law.toml'}").table()


def test_isochrones_that_are_not_there_or_not_so_old(xp, tmp_path):
    with pytest.raises(DataError, match=r"1 to 13\.5 Gyr, not 50"):
        xptools.op("veff --age 50").table()
    with pytest.raises(InputError, match="no isochrone table is named"):
        xptools.op("veff --isochrones ,").table()
    done = xp("veff", "--table", "--isochrones", tmp_path / "absent", "-o", tmp_path / "o.parquet")
    assert done.returncode == 66 and b"cannot open" in done.stderr and b"TRY: ls" in done.stderr


def test_missing_column_is_named(xp, tmp_path):
    pq.write_table(STARS.drop_columns("feh"), tmp_path / "s.parquet")
    done = xp("veff", tmp_path / "s.parquet", "-o", tmp_path / "o.parquet")
    assert done.returncode == 65
    assert b"feh" in done.stderr and not (tmp_path / "o.parquet").exists()


def test_history_has_the_parameters():
    out = xptools.op("veff --g-limit 16.5").schema(STARS.schema)
    record = json.loads(out.metadata[metadata.HISTORY])[-1]
    assert "16.5" in json.dumps(record)


def test_a_bin_without_isochrones_is_told(xp):
    done = xp("veff", "--table", "--feh-edges=-2,-1.1,1,2", "--mass-edges", "0.3,0.5", "-O", "csv")
    assert done.returncode == 0 and done.stdout.count(b"\n") == 4
    assert done.stderr.count(b"all volumes are 0 for [Fe/H] 1 to 2") == 1 and done.stderr.count(b"warning") == 1
