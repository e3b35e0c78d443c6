"""`xp deredden`: the columns by hand and against dustmaps, flags, options, policies, a sentence for each fault."""

import numpy as np
import pyarrow as pa
import pytest
from dustmap_files import write_bayestar, write_edenhofer

import xptools
from xptools.cores import astrometry, extinction
from xptools.errors import DataError, MissingColumns, UnavailableError, UsageError

NO_DISTANCE, NO_VALUE, NEAR, FAR, UNSURE, NO_COLOUR, EDGE, NO_ZERO_POINT, NO_G = (1 << i for i in range(9))


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    write_edenhofer(folder / "mean.fits", nside=8, shells=40)
    write_edenhofer(folder / "samples.fits", nside=2, shells=10, samples=3)
    write_bayestar(folder / "bayestar.h5", south=False)
    return folder


def stars(n=500, seed=1, **columns):
    rng = np.random.default_rng(seed)
    bp_rp = rng.uniform(0.5, 3.0, n)
    made = {
        "source_id": np.arange(n),
        "ra": rng.uniform(0, 360, n),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
        "parallax": rng.uniform(0.9, 20, n),
        "parallax_error": rng.uniform(0.02, 0.1, n),
        "phot_g_mean_mag": rng.uniform(10, 18, n),
        "phot_bp_mean_mag": 15 + 0.6 * bp_rp,
        "phot_rp_mean_mag": 15 - 0.4 * bp_rp,
        **{f"phot_{band}_mean_flux_over_error": rng.uniform(50, 500, n) for band in ("g", "bp", "rp")},
    }
    return {**made, **columns}


def run(words, columns):
    """The added columns as float64 arrays, null as NaN."""
    batch = pa.RecordBatch.from_pydict({k: pa.array(v, from_pandas=True) for k, v in columns.items() if v is not None})
    out = xptools.op(f"deredden {words}")(batch)
    assert out.num_rows == batch.num_rows
    assert out.schema.names[: batch.num_columns] == batch.schema.names
    return {name: out[name].to_numpy(zero_copy_only=False) for name in out.schema.names[batch.num_columns :]}


def test_columns_by_hand(maps):
    from xptools.dustfiles import open_map

    c = stars()
    out = run(f"--map-file {maps / 'mean.fits'}", c)
    d = 1000.0 / c["parallax"]
    E = open_map("edenhofer2023", str(maps / "mean.fits")).query(*astrometry.galactic(c["ra"], c["dec"]), d).E
    assert out["ext_e"] == pytest.approx(E, rel=1e-6)
    colour = c["phot_bp_mean_mag"] - c["phot_rp_mean_mag"]
    k = extinction.coefficients(out["bp_rp0"].astype(float), E)
    for name, ratio in zip(("ag", "abp", "arp"), k, strict=True):
        assert out[name] == pytest.approx(ratio * E, rel=2e-4)
        assert np.isnan(out[f"{name}_err"]).all()
    assert out["bp_rp0"] == pytest.approx(colour - out["abp"] + out["arp"], abs=1e-6)
    mg = c["phot_g_mean_mag"] - out["ag"] + 5 * np.log10(c["parallax"] / 100)
    assert out["mg0"] == pytest.approx(mg, abs=1e-5)
    relative = 2.1714724 * c["parallax_error"] / c["parallax"]
    assert out["mg0_err"] == pytest.approx(np.hypot(relative, 1.0857362 / c["phot_g_mean_flux_over_error"]), rel=1e-5)
    inverse = [1.0857362 / c[f"phot_{band}_mean_flux_over_error"] for band in ("bp", "rp")]
    assert out["bp_rp0_err"] == pytest.approx(np.hypot(*inverse), rel=1e-5)
    assert ((out["deredden_flag"] & NEAR > 0) == (d <= 69.0)).all()
    assert out["ext_e"].dtype == np.float32
    assert out["deredden_flag"].dtype == np.int16


def test_the_same_numbers_as_dustmaps(maps):
    from astropy import units
    from astropy.coordinates import SkyCoord

    from xptools.dustforeign import quiet

    c = stars(2000, seed=2)
    with quiet():
        from dustmaps.edenhofer2023 import Edenhofer2023Query

        query = Edenhofer2023Query(str(maps / "mean.fits"), integrated=True)
    want = query(SkyCoord(c["ra"] * units.deg, c["dec"] * units.deg, distance=1000 / c["parallax"] * units.pc))
    inside = np.isfinite(want)
    assert inside.mean() > 0.5
    assert run(f"--map-file {maps / 'mean.fits'}", c)["ext_e"][inside] == pytest.approx(want[inside], rel=1e-6)


def test_no_map_changes_nothing():
    c = stars()
    out = run("--map none", c)
    for name in ("ext_e", "ext_e_err", "ag", "abp", "arp", "ag_err"):
        assert (out[name] == 0).all()
    assert out["mg0"] == pytest.approx(c["phot_g_mean_mag"] + 5 * np.log10(c["parallax"] / 100), abs=1e-5)
    assert out["bp_rp0"] == pytest.approx(c["phot_bp_mean_mag"] - c["phot_rp_mean_mag"], abs=1e-6)
    assert (out["deredden_flag"] == 0).all()


def test_samples_give_errors(maps):
    c = stars()
    out = run(f"--samples --map-file {maps / 'samples.fits'}", c)
    assert (out["ext_e_err"] > 0).all()
    ratio = out["ag"] / out["ext_e"]
    assert out["ag_err"] == pytest.approx(ratio * out["ext_e_err"], rel=1e-4)
    plain = run(f"--samples --map-file {maps / 'samples.fits'}", {**c, "parallax_error": np.full(500, 1e-9)})
    flux = 1.0857362 / c["phot_g_mean_flux_over_error"]
    assert plain["mg0_err"] == pytest.approx(np.hypot(flux, out["ag_err"]), rel=1e-4)


def test_bayestar_on_the_scale_of_zgr23(maps):
    c = stars()
    out = run(f"--map bayestar2019 --map-file {maps / 'bayestar.h5'}", c)
    hole = np.isnan(out["ext_e"])
    assert 0.05 < hole.mean() < 0.5
    assert ((out["deredden_flag"] & NO_VALUE > 0) == hole).all()
    assert (out["deredden_flag"] & UNSURE > 0).any()
    assert np.isnan(out["mg0"][hole]).all()
    # A_V is the map's own, whatever the reading of the curve.
    tau = run(f"--curve-unit tau --map bayestar2019 --map-file {maps / 'bayestar.h5'}", c)
    assert tau["ag"][~hole] == pytest.approx(out["ag"][~hole], rel=1e-5)
    assert tau["ext_e"][~hole] == pytest.approx(out["ext_e"][~hole] / extinction.TAU_TO_MAG, rel=1e-5)
    double = run(f"--map-av 5.484 --map bayestar2019 --map-file {maps / 'bayestar.h5'}", c)
    assert double["ext_e"][~hole] == pytest.approx(2 * out["ext_e"][~hole], rel=1e-5)


def test_curve_unit(maps):
    c = stars()
    mag, tau = (run(f"--curve-unit {unit} --map-file {maps / 'mean.fits'}", c) for unit in ("mag", "tau"))
    assert np.array_equal(mag["ext_e"], tau["ext_e"])
    assert tau["ag"] / mag["ag"] == pytest.approx(1.0857, abs=3e-3)


def test_stars_without_something(maps):
    n = 8
    c = stars(n, parallax=[5.0, -1.0, 0.0, None, 5.0, 5.0, 5.0, 0.5])
    c["ra"] = [10.0, 10, 10, 10, None, 10, 10, 10]
    c["phot_bp_mean_mag"] = [15.0, 15, 15, 15, 15, None, 30.0, 15]
    c["phot_rp_mean_mag"] = [14.0] * n
    out = run(f"--map-file {maps / 'mean.fits'}", c)
    flags = [0, NO_DISTANCE, NO_DISTANCE, NO_DISTANCE, NO_VALUE, NO_COLOUR, EDGE, FAR]
    assert out["deredden_flag"].tolist() == flags
    assert np.isfinite(out["ext_e"]).tolist() == [True, False, False, False, False, True, True, True]
    assert np.isfinite(out["mg0"]).tolist() == [True, False, False, False, False, False, True, True]


def test_beyond_the_map(maps):
    c = stars(4, parallax=[0.5, 0.82, 0.85, 5.0])
    words = f"--map-file {maps / 'mean.fits'}"
    clamp, nan = run(words, c), run(f"{words} --outside nan", c)
    assert np.isfinite(clamp["ext_e"]).all()
    assert np.isfinite(nan["ext_e"]).tolist() == [False, False, True, True]
    assert (clamp["deredden_flag"] == nan["deredden_flag"]).all()
    with pytest.raises(DataError, match="2 of 4 stars of this batch lie outside the map edenhofer2023"):
        run(f"{words} --outside error", c)


def test_zero_point(maps):
    c = stars(4, astrometric_params_solved=np.array([31, 95, 31, 3], np.int16), ecl_lat=np.full(4, 20.0),
              nu_eff_used_in_astrometry=[1.5, None, None, None], pseudocolour=[None, 1.5, None, None])
    c["phot_g_mean_mag"] = np.array([14.0, 16.0, 15.0, 15.0])
    c["parallax"] = np.full(4, 2.0)
    out = run("--map none --zero-point lindegren2021", c)
    zero = out["parallax_zero_point"]
    assert zero[0] == pytest.approx(-0.040285, abs=1e-6)
    assert np.isnan(zero).tolist() == [False, False, True, True]
    assert out["deredden_flag"].tolist() == [0, 0, NO_ZERO_POINT, NO_ZERO_POINT]
    used = 2.0 - np.nan_to_num(zero)
    assert out["mg0"] == pytest.approx(c["phot_g_mean_mag"] + 5 * np.log10(used / 100), abs=1e-5)
    assert run("--map none --zero-point leung2023", c)["parallax_zero_point"][:2] == pytest.approx(
        zero[:2] + np.array([0.005, 0.015])
    )
    assert "parallax_zero_point" not in run("--map none", c)
    del c["ecl_lat"]
    assert np.isfinite(run("--map none --zero-point lindegren2021", c)["parallax_zero_point"][:2]).all()


def test_e_from_a_column():
    c = stars(3, my_e=[0.1, None, 0.2])
    out = run("--e-column my_e", c)
    assert out["ext_e"] == pytest.approx([0.1, np.nan, 0.2], nan_ok=True)
    assert out["deredden_flag"].tolist() == [0, NO_VALUE, 0]
    with pytest.raises(MissingColumns, match="your_e"):
        run("--e-column your_e", c)


def test_own_passbands(tmp_path, shared_data):
    path = shared_data / "passbands" / "gaia_dr3_passbands.csv"
    c = stars(my_e=np.full(500, 0.3))
    own, shipped = run(f"--e-column my_e --passbands '{path}'", c), run("--e-column my_e", c)
    assert own["ag"] == pytest.approx(shipped["ag"], abs=1e-5)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="wavelength_nm,G,BP,RP"):
        run(f"--e-column my_e --passbands '{tmp_path / 'bad.csv'}'", c)
    with pytest.raises(UnavailableError, match="no passband file"):
        run(f"--e-column my_e --passbands '{tmp_path / 'none.csv'}'", c)


def test_positions_and_colours_in_other_columns(maps):
    c = stars()
    words = f"--map-file {maps / 'mean.fits'}"
    want = run(words, c)
    l, b = astrometry.galactic(c["ra"], c["dec"])
    bp_rp = c["phot_bp_mean_mag"] - c["phot_rp_mean_mag"]
    other = {**c, "ra": None, "dec": None, "phot_bp_mean_mag": None, "phot_rp_mean_mag": None}
    got = run(words, {**other, "l": l, "b": b, "bp_rp": bp_rp})
    for name in ("ext_e", "mg0", "bp_rp0"):
        assert got[name] == pytest.approx(want[name], rel=1e-5)
    with pytest.raises(MissingColumns, match="ra, dec"):
        run(words, {**other, "bp_rp": bp_rp})
    with pytest.raises(MissingColumns, match="phot_bp_mean_mag"):
        run(words, {**other, "l": l, "b": b})
    with pytest.raises(MissingColumns, match="astrometric_params_solved"):
        run("--map none --zero-point lindegren2021", c)


def test_batches_do_not_matter(maps):
    c = stars(3000)
    words = f"--map-file {maps / 'mean.fits'}"
    whole = run(words, c)
    cut = [run(words, {k: v[s] for k, v in c.items()}) for s in (slice(0, 1), slice(1, 1000), slice(1000, None))]
    for name, column in whole.items():
        assert np.array_equal(column, np.concatenate([part[name] for part in cut]), equal_nan=True)
    assert all(len(v) == 0 for v in run(words, {k: v[:0] for k, v in c.items()}).values())


def test_shell_correction_lowers_e(maps):
    c = stars()
    plain, correct = (run(f"{more} --map-file {maps / 'mean.fits'}", c)["ext_e"] for more in ("", "--shell-correct"))
    far = 1000 / c["parallax"] > 75
    assert (correct[far] <= plain[far]).all()
    assert correct[far].mean() < plain[far].mean()


def test_history_names_the_map(maps):
    step = xptools.op(f"deredden --map-file {maps / 'mean.fits'}")
    assert step.files() == {"map": str(maps / "mean.fits")}
    assert step.cites == ("zhang2023", "riello2021", "dustmaps2018", "edenhofer2024")
    assert "map edenhofer2023" in step.added()["ext_e"].text
    assert xptools.op("deredden --map none").files() == {}


def test_sentences(xp, maps, tmp_path):
    """Through the program: exit code and sentence; nothing on stdout, no output file."""
    table = tmp_path / "in.arrows"
    batch = pa.RecordBatch.from_pydict(stars(10))
    with pa.OSFile(str(table), "wb") as f, pa.ipc.new_stream(f, batch.schema) as w:
        w.write_batch(batch)
    (tmp_path / "web.fits").write_text("<html>not found</html>")
    own = {"DUSTMAPS_CONFIG_FNAME": str(tmp_path / "none"), "HOME": str(tmp_path)}
    for words, code, sentence in (
        ([], 69, "mean_and_std_healpix.fits (3.2 GB) was looked for in"),
        ([], 69, "--map none for no correction"),
        (["--map-file", tmp_path / "no.fits"], 69, "there is no map file"),
        (["--map-file", tmp_path / "web.fits"], 65, "web page"),
        (["--map-file", maps / "bayestar.h5"], 65, "TRY: --map bayestar2019"),
        (["--map", "nothere"], 2, "no dust map 'nothere'"),
        (["--map", "bayestar2019", "--samples"], 2, "--samples is for edenhofer2023"),
    ):
        done = xp("deredden", *words, table, "-o", tmp_path / "out.parquet", env=own)
        assert done.returncode == code, done.stderr
        assert sentence in done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert done.stdout == b""
        assert not (tmp_path / "out.parquet").exists()
    assert b"edenhofer2023" in xp("deredden", "--map", "list").stdout


def test_usage():
    with pytest.raises(UsageError, match="--samples is for edenhofer2023"):
        xptools.op("deredden --map sfd --samples")
    for idle in ("--map-file dust.fits", "--flavor 2kpc", "--statistic best", "--outside nan", "--curve-unit tau"):
        with pytest.raises(UsageError, match=f"{idle.split()[0]} has no effect without a 3D dust map"):
            xptools.op(f"deredden --map none {idle}")
    with pytest.raises(UsageError, match="--map-file has no effect where E is a column"):
        xptools.op("deredden --e-column e --map-file dust.fits")


def test_real_stars(shared_data, maps):
    """The 2,390 complete rows: sensible extinctions, and every column of the zero point."""
    import pyarrow.parquet as pq

    step = xptools.op(f"deredden --zero-point lindegren2021 --map-file {maps / 'mean.fits'}")
    batch = pq.read_table(shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet").to_batches()[0]
    out = step(batch)
    plx = out["parallax"].to_numpy(zero_copy_only=False) - np.nan_to_num(out["parallax_zero_point"].to_numpy())
    flag = out["deredden_flag"].to_numpy()
    assert np.array_equal(flag & NO_DISTANCE > 0, ~(plx > 0))
    good = (flag == 0) & (plx > 1)
    assert good.sum() > 100
    c0 = out["bp_rp0"].to_numpy()[good]
    assert (c0 < out["bp_rp"].to_numpy(zero_copy_only=False)[good]).all()
    assert np.isfinite(out["mg0_err"].to_numpy()[good]).all()


def test_the_parallax_error_may_come_as_parallax_over_error():
    whole = pa.table(
        {"parallax": [5.0, 2.0], "phot_g_mean_mag": [10.0, 12.0], "bp_rp": [1.0, 2.0], "parallax_error": [0.05, 0.1]}
    )
    ratio = whole.drop_columns("parallax_error").append_column("parallax_over_error", pa.array([100.0, 20.0]))
    one, other = (xptools.through("deredden --map none", t).read_all()["mg0_err"].to_numpy() for t in (whole, ratio))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, 2.1715 * np.array([0.01, 0.05]), rtol=1e-4)


def test_a_star_without_g_is_flagged():
    G = np.array([15.0, np.nan, np.inf, 15.0])
    out = run("--map none", stars(4, phot_g_mean_mag=G))
    assert out["deredden_flag"].tolist() == [0, NO_G, NO_G, 0]
    np.testing.assert_array_equal(np.isnan(out["mg0"]), [False, True, True, False])
