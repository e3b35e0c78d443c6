"""Zero point against published values and a slow version, coordinates against astropy."""

import numpy as np
import pytest

from xptools.cores import astrometry


@pytest.mark.parametrize(
    ("G", "x", "lat", "solved", "want"),
    [
        (14.0, 1.50, 20.0, 31, -0.040285),
        (17.0, 1.35, -60.0, 31, -0.029100),
        (16.0, 1.50, 10.0, 95, -0.035154),
        (10.0, 1.60, 0.0, 31, -0.032083),
    ],
)
def test_zero_point_published(G, x, lat, solved, want):
    nu, pseudo = (x, np.nan) if solved == 31 else (np.nan, x)
    got = astrometry.zero_point([G], [nu], [pseudo], np.sin(np.radians([lat])), [solved])
    assert got[0] == pytest.approx(want, abs=1e-6)


def test_zero_point_unknowns_and_range():
    z = astrometry.zero_point([15.0] * 4, [1.5, np.nan, 1.5, 1.5], [np.nan] * 4, [0.1] * 4, [31, 31, 95, 3])
    assert np.isfinite(z).tolist() == [True, False, False, False]
    clamped = astrometry.zero_point([3.0, 6.0], [1.5] * 2, [np.nan] * 2, [0.0] * 2, [31, 31])
    assert clamped[0] == clamped[1]
    ok = astrometry.zero_point_valid(
        np.array([15.0, 5.0, 15.0, 15.0]), np.array([1.5, 1.5, 1.95, np.nan]), np.array([np.nan] * 3 + [1.3]),
        np.array([31, 31, 31, 95]),
    )
    assert ok.tolist() == [True, False, False, True]


def test_zero_point_of_real_stars(shared_data):
    import pyarrow.parquet as pq

    path = shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet"
    names = ["phot_g_mean_mag", "nu_eff_used_in_astrometry", "pseudocolour", "ecl_lat", "astrometric_params_solved",
             "ra", "dec"]
    t = {n: pq.read_table(path, columns=[n])[n].to_numpy().astype(float) for n in names}
    s = np.sin(np.radians(t["ecl_lat"]))
    assert np.abs(s - astrometry.sin_ecliptic_latitude(t["ra"], t["dec"])).max() < 1e-7
    z = astrometry.zero_point(t["phot_g_mean_mag"], t["nu_eff_used_in_astrometry"], t["pseudocolour"], s,
                              t["astrometric_params_solved"])
    known = np.isfinite(z)
    # One of these real stars has no G magnitude, hence no zero point.
    assert known.sum() == (np.isin(t["astrometric_params_solved"], (31, 95)) & np.isfinite(t["phot_g_mean_mag"])).sum()
    assert -0.15 < z[known].min()
    assert z[known].max() < 0.05


def test_galactic_is_astropys():
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(1)
    ra = np.concatenate([rng.uniform(0, 360, 2000), [0, 360, 266.4051, 192.8594812, 12.8594812, 10, 10]])
    dec = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, 2000))), [0, 0, -28.936175, 27.1282512, -27.1282512,
                                                                             90, -90]])
    want = SkyCoord(ra, dec, unit="deg").galactic
    l, b = astrometry.galactic(ra, dec)
    assert np.abs(b - want.b.deg).max() < 1e-9
    turn = (l - want.l.deg + 180) % 360 - 180
    assert np.abs(turn * np.cos(np.radians(b))).max() < 1e-9
    assert l.min() >= 0
    assert l.max() < 360


def test_galactic_of_the_archive(shared_data):
    import pyarrow.parquet as pq

    t = pq.read_table(shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet", columns=["ra", "dec", "l", "b"])
    l, b = astrometry.galactic(t["ra"].to_numpy(), t["dec"].to_numpy())
    assert np.abs(l - t["l"].to_numpy()).max() < 1e-4
    assert np.abs(b - t["b"].to_numpy()).max() < 1e-4


def test_velocity_and_distance():
    assert astrometry.tangential(100.0, 10.0) == pytest.approx(47.40470463)
    assert np.isnan(astrometry.distance([0.0, -1.0, np.nan])).all()
    assert astrometry.distance(2.0) == 500.0
    assert astrometry.zero_point_bright([12.0, 15.0, 19.0]).tolist() == [0.0, 0.01, 0.02]
