"""Map files: the same numbers as dustmaps' own classes, converted once, refused with a sentence when they are wrong."""

import json
import multiprocessing
import os
import shutil
import warnings

import numpy as np
import pytest
from dustmap_files import write_bayestar, write_edenhofer

from xptools import dustfiles, mapcache
from xptools.cores import dustcube
from xptools.errors import DataError, DiskError, UnavailableError, UsageError


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    write_edenhofer(folder / "mean.fits", nside=8, shells=60)
    write_edenhofer(folder / "ring.fits", ordering="RING", seed=2)
    write_edenhofer(folder / "no_inner.fits", inner=False, seed=3)
    write_edenhofer(folder / "samples.fits", nside=4, shells=20, samples=4)
    write_bayestar(folder / "bayestar.h5", south=False)
    return folder


@pytest.fixture(scope="module")
def sky():
    rng = np.random.default_rng(1)
    n = 20000
    l, b, d = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(1, 1500, n)
    l[:3], b[:3] = [0.0, 360.0, 180.0], [90.0, -90.0, 0.0]
    return l, b, d


def coordinates(sky):
    from astropy import units
    from astropy.coordinates import SkyCoord

    l, b, d = sky
    return SkyCoord(l * units.deg, b * units.deg, distance=d * units.pc, frame="galactic")


def theirs(name, *args, **kwargs):
    """A query class of dustmaps, without its talk."""
    from importlib import import_module

    from xptools.dustforeign import quiet

    module, kind = name.split(".")
    with quiet():
        return getattr(import_module(f"dustmaps.{module}"), kind)(*args, **kwargs)


@pytest.mark.parametrize("file", ["mean", "ring", "no_inner"])
def test_edenhofer_is_dustmaps(maps, sky, file):
    path = str(maps / f"{file}.fits")
    want = theirs("edenhofer2023.Edenhofer2023Query", path, integrated=True)(coordinates(sky))
    got = dustfiles.open_map("edenhofer2023", path).query(*sky)
    inside = np.isfinite(want)
    assert np.abs(got.E[inside] / want[inside] - 1).max() < 1e-6
    assert (got.place[inside] == dustcube.INSIDE).all()
    # Where dustmaps has no value: nearer than the first centre, or beyond the last.
    query = theirs("edenhofer2023.Edenhofer2023Query", path, integrated=True)
    centres = query.distances.value
    assert np.array_equal(~inside, (sky[2] <= centres[0]) | (sky[2] > centres[-1]))
    assert np.isfinite(got.E).all()
    assert np.array_equal(got.place == dustcube.BEYOND, sky[2] > centres[-1])
    assert np.isnan(got.E_err).all()


def test_edenhofer_samples_are_dustmaps(maps, sky):
    path = str(maps / "samples.fits")
    query = theirs("edenhofer2023.Edenhofer2023Query", path, load_samples=True, integrated=True)
    got = dustfiles.open_map("edenhofer2023", path, samples=True).query(*sky)
    for column, mode in ((got.E, "mean"), (got.E_err, "std")):
        want = query(coordinates(sky), mode=mode)
        inside = np.isfinite(want)
        assert np.abs(column[inside] / want[inside] - 1).max() < 1e-6
    # Without being asked for, samples that a file has are used all the same: they are all it has.
    assert np.array_equal(dustfiles.open_map("edenhofer2023", path).query(*sky).E, got.E)


@pytest.mark.parametrize("statistic", ["mean", "median", "best"])
def test_bayestar_is_dustmaps(maps, sky, statistic):
    path = str(maps / "bayestar.h5")
    query = theirs("bayestar.BayestarQuery", path)
    want, quality = query(coordinates(sky), mode=statistic, return_flags=True)
    got = dustfiles.open_map("bayestar2019", path, statistic=statistic).query(*sky)
    factor = 2.742 / 2.769925
    hole = np.isnan(want)
    assert 0.05 < hole.mean() < 0.5
    assert np.array_equal(np.isnan(got.E), hole)
    assert np.array_equal(got.place == dustcube.OUTSIDE, hole)
    assert np.abs(got.E / (factor * want) - 1)[~hole].max() < 1e-6
    assert np.array_equal(got.reliable, quality["converged"] & quality["reliable_dist"])
    spread = query(coordinates(sky), mode="samples").astype(float).std(axis=1)
    assert np.abs(got.E_err / (factor * spread) - 1)[~hole].max() < 1e-5


def test_below_the_first_shell_and_beyond_the_last(maps):
    chart = dustfiles.open_map("edenhofer2023", str(maps / "mean.fits"))
    d = np.array([1e-6, 34.5, 69.0, 69.0001, 1249.0, 5000.0, np.inf])
    E = chart.query(np.full(7, 40.0), np.full(7, 5.0), d).E
    assert E[0] == pytest.approx(E[2] * 1e-6 / 69.0, rel=1e-12)
    assert E[1] == pytest.approx(0.5 * E[2], rel=1e-12)
    assert E[3] == pytest.approx(E[2], rel=1e-5)
    assert E[5] == E[6] >= E[4]


def test_toy_cube_of_dustmaps_and_shell_correction(tmp_path):
    """Density 1 ... 5e-4 per pc in 50 pc shells from 50 pc on, 0.005 inside: half a shell off, or exact."""
    rho = np.repeat(np.array([1, 2, 3, 4, 5])[:, None] * 1e-4, 12, axis=1)
    path = write_edenhofer(tmp_path / "toy.fits", 1, rho=rho, boundaries=np.arange(50, 301, 50), inside=0.005)
    centres = np.arange(75.0, 300, 50)
    l, b = np.full(5, 10.0), np.full(5, 20.0)
    as_dustmaps = dustfiles.open_map("edenhofer2023", str(path)).query(l, b, centres).E
    assert as_dustmaps == pytest.approx([0.010, 0.020, 0.035, 0.055, 0.080], rel=1e-6)
    correct = dustfiles.open_map("edenhofer2023", str(path), shell_correct=True)
    edges = correct.query(np.full(6, 10.0), np.full(6, 20.0), np.arange(50.0, 301, 50)).E
    assert edges == pytest.approx([0.005, 0.010, 0.020, 0.035, 0.055, 0.080], rel=1e-6)
    assert (correct.query(l, b, centres).E < as_dustmaps).all()


def test_another_class_of_dustmaps(tmp_path):
    """SFD through its own query: a constant map in SFD's two-file format, A_V = 2.742 E(B-V)."""
    from astropy.io import fits

    for pole, sign in (("ngp", 1), ("sgp", -1)):
        hdu = fits.PrimaryHDU(np.full((64, 64), 0.1, np.float32))
        hdu.header.update(CTYPE1="GLON-ZEA", CTYPE2="GLAT-ZEA", CRPIX1=32.5, CRPIX2=32.5, CRVAL1=0.0,
                          CRVAL2=90.0 * sign, CD1_1=-2.6, CD1_2=0.0, CD2_1=0.0, CD2_2=2.6 * sign, LONPOLE=180.0,
                          LAM_NSGP=sign, LAM_SCAL=32)
        hdu.writeto(tmp_path / f"SFD_dust_4096_{pole}.fits")
    from xptools.dustforeign import asker

    ask = asker("sfd", tmp_path, "mean")
    got = ask(np.array([10.0, 200.0, np.nan]), np.array([60.0, -60.0, 0.0]), np.array([100.0, np.nan, 1.0]), False, 1)
    assert got.E[:2] == pytest.approx([0.1, 0.1], rel=1e-5)
    assert np.isnan(got.E[2])
    assert got.place.tolist() == [dustcube.INSIDE, dustcube.INSIDE, dustcube.OUTSIDE]


def test_maps_are_found_where_dustmaps_keeps_them(maps, tmp_path, monkeypatch):
    home = tmp_path / "elsewhere"
    (home / "edenhofer_2023").mkdir(parents=True)
    config = tmp_path / "dustmapsrc"
    config.write_text(json.dumps({"data_dir": "$MAPS_ARE_IN/elsewhere"}))
    monkeypatch.setenv("MAPS_ARE_IN", str(tmp_path))
    monkeypatch.setenv("DUSTMAPS_CONFIG_FNAME", str(config))
    words = r"mean_and_std_healpix.fits \(3.2 GB\) was looked for in .*elsewhere"
    with pytest.raises(UnavailableError, match=words) as e:
        dustfiles.locate("edenhofer2023")
    assert "https://doi.org/10.5281/zenodo.8187943" in str(e.value)
    assert "--map none" in str(e.value)
    there = shutil.copy(maps / "mean.fits", home / "edenhofer_2023" / "mean_and_std_healpix.fits")
    assert dustfiles.locate("edenhofer2023") == there
    assert dustfiles.locate("bayestar2019", str(maps / "bayestar.h5")) == maps / "bayestar.h5"
    with pytest.raises(UnavailableError, match=r"validation_with_less_data_but_2kpc_mean_and_std"):
        dustfiles.locate("edenhofer2023", flavor="2kpc")
    (tmp_path / "data").mkdir()
    shutil.copy(maps / "bayestar.h5", tmp_path / "data" / "bayestar2019.h5")
    monkeypatch.setenv("XP_DATA", str(tmp_path / "data"))
    assert dustfiles.locate("bayestar2019").parent.name == "data"


def test_files_that_are_no_maps(maps, tmp_path):
    html, gz, empty = (tmp_path / name for name in ("web.fits", "zipped.fits", "empty.fits"))
    html.write_bytes(b"\n<!DOCTYPE html><html><body>202 Accepted</body></html>")
    gz.write_bytes(b"\x1f\x8b" + bytes(100))
    empty.touch()
    cut = tmp_path / "cut.fits"
    whole = (maps / "mean.fits").read_bytes()
    cut.write_bytes(whole[: len(whole) // 3])
    short = tmp_path / "short.h5"
    short.write_bytes((maps / "bayestar.h5").read_bytes()[:5000])
    wrong = {html: "web page", gz: "gunzip", empty: "empty", cut: "truncated: [0-9,]+ bytes, at least"}
    for path, words in wrong.items():
        with pytest.raises(DataError, match=words):
            dustfiles.check("edenhofer2023", str(path))
    with pytest.raises(DataError, match="truncated or damaged"):
        dustfiles.check("bayestar2019", str(short))
    with pytest.raises(DataError, match=r"HDF5, not the FITS.*--map bayestar2019"):
        dustfiles.check("edenhofer2023", str(maps / "bayestar.h5"))
    with pytest.raises(DataError, match=r"FITS, not the HDF5.*--map edenhofer2023"):
        dustfiles.check("bayestar2019", str(maps / "mean.fits"))
    with pytest.raises(DataError, match="no posterior samples"):
        dustfiles.check("edenhofer2023", str(maps / "mean.fits"), samples=True)


def test_fits_that_is_another_map(tmp_path):
    from astropy.io import fits

    fits.PrimaryHDU(np.zeros((4, 4), np.float32)).writeto(tmp_path / "image.fits")
    with pytest.raises(DataError, match="not an Edenhofer 2023 map: it has no radial pixel centers"):
        dustfiles.check("edenhofer2023", str(tmp_path / "image.fits"))
    write_edenhofer(tmp_path / "good.fits", nside=1, shells=3)
    with fits.open(tmp_path / "good.fits") as hdus:
        hdus[0].header["NSIDE"] = 2
        hdus.writeto(tmp_path / "bad.fits")
    with pytest.raises(DataError, match="does not fit NSIDE 2"):
        dustfiles.check("edenhofer2023", str(tmp_path / "bad.fits"))
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["something"] = np.arange(3)
    with pytest.raises(DataError, match="no pixel_info, samples, best_fit"):
        dustfiles.check("bayestar2019", str(tmp_path / "other.h5"))


def test_names_that_are_no_maps():
    for name, words in (("nothere", "no dust map"), ("sfd.x", "no dust map"), ("bayestar", "no dust map"),
                        ("leike2020", "densities"), ("marshall", "--map-av"), ("bayestar2017", "--map-av")):
        with pytest.raises(UsageError, match=words):
            dustfiles.check(name)


def test_a_map_that_is_replaced_is_opened_again(maps, tmp_path):
    path = tmp_path / "map.fits"
    star = np.array([10.0]), np.array([20.0]), np.array([300.0])
    shutil.copy(maps / "mean.fits", path)
    first = dustfiles.open_map("edenhofer2023", str(path))
    assert dustfiles.open_map("edenhofer2023", str(path)) is first
    shutil.copy(maps / "ring.fits", path)
    assert dustfiles.open_map("edenhofer2023", str(path)).query(*star).E != first.query(*star).E
    path.unlink()
    with pytest.raises(UnavailableError, match="no map file"):
        dustfiles.open_map("edenhofer2023", str(path))


def build(args):
    os.environ["XP_CACHE"], path = args
    chart = dustfiles.open_map("edenhofer2023", path)
    return chart.query(np.array([10.0]), np.array([20.0]), np.array([300.0])).E[0]


def test_converted_once_even_by_several(maps, tmp_path, monkeypatch):
    args = (str(tmp_path), str(maps / "mean.fits"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(build, [args] * 4, chunksize=1)
    assert len(set(found)) == 1
    kept = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert len(kept) == 2
    assert kept[1] == f"{kept[0]}.lock" or kept[1].startswith("edenhofer-1-")
    # A file that changes is another map.
    before = mapcache.fingerprint(maps / "mean.fits")
    copy = shutil.copy2(maps / "mean.fits", tmp_path / "copy.fits")
    assert mapcache.fingerprint(copy) == before
    os.utime(copy, ns=(1, 1))
    assert mapcache.fingerprint(copy) != before


def test_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XP_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)

    def broken(folder):
        (folder / "part").touch()
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        mapcache.converted(source, "k", 1, broken)
    assert [p.suffix for p in (tmp_path / "cache" / "maps").iterdir()] == [".lock"]
    with pytest.raises(DiskError, match=r"takes 1000000000\.0 GB when converted"):
        mapcache.converted(source, "k", 10**18, broken)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XP_CACHE", str(tmp_path / "file" / "no"))
    with pytest.raises(DiskError, match="cannot keep the converted map"):
        mapcache.converted(source, "k", 1, broken)


def test_without_a_cache(maps, sky, monkeypatch):
    here = dustfiles.open_map("edenhofer2023", str(maps / "mean.fits")).query(*sky).E
    monkeypatch.setenv("XP_CACHE", "off")
    dustfiles._open.cache_clear()
    assert np.array_equal(dustfiles.open_map("edenhofer2023", str(maps / "mean.fits")).query(*sky).E, here)
    dustfiles._open.cache_clear()
    mapcache._temporary.pop().cleanup()


def test_synthetic_maps_are_what_dustmaps_reads(maps):
    """The files of these tests are in the real layout: dustmaps' own classes open them, uncertainty included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        query = theirs("edenhofer2023.Edenhofer2023Query", str(maps / "mean.fits"))
    assert query._rec.data_uncertainty.shape == query._rec.data.shape
    assert query._rec.radii0 == 69.0
