"""Nested pixels against healpy."""

import healpy
import numpy as np
import pytest

from xptools.cores.healpix import centre, nested_pixel, radius


@pytest.mark.parametrize("order", [0, 1, 5, 8, 12])
def test_pixels_are_healpy_s(order):
    rng = np.random.default_rng(1)
    ra = rng.random(100_000) * 360
    dec = np.degrees(np.arcsin(2 * rng.random(100_000) - 1))
    assert np.array_equal(nested_pixel(ra, dec, order), healpy.ang2pix(1 << order, ra, dec, nest=True, lonlat=True))


def test_poles_meridians_and_wrapped_angles():
    ra = np.array([0.001, 90.0, 180.0, 270.0, 359.999999999, 12.3, 12.3, -10.0, 370.0, 360.0])
    dec = np.array([0.001, 90.0, -90.0, 89.9999999, -89.9999999, 41.8, -41.9, 3.0, 3.0, 5.0])
    assert np.array_equal(nested_pixel(ra, dec), healpy.ang2pix(4096, ra, dec, nest=True, lonlat=True))


def test_level_12_is_where_gaia_puts_it():
    # the pixel of a real identifier, from the archive's own definition source_id // 2^35
    assert 5853498713190525696 // 2**35 == 170359234
    ra, dec = healpy.pix2ang(4096, 170359234, nest=True, lonlat=True)
    assert nested_pixel(np.array([ra]), np.array([dec]))[0] == 170359234


def test_real_identifiers_agree_with_their_positions(shared_data):
    import pyarrow.parquet as pq

    t = pq.read_table(
        shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet", columns=["source_id", "ra", "dec"]
    )
    pixel = nested_pixel(t["ra"].to_numpy(), t["dec"].to_numpy())
    # positions of an identifier are those of an earlier epoch: a few stars have crossed an edge of 51 arcsec
    assert np.mean(pixel == t["source_id"].to_numpy() >> 35) > 0.99


@pytest.mark.parametrize("order", [0, 1, 2, 5, 12, 20, 29])
def test_centres_and_radii_are_healpy_s(order):
    pixel = np.random.default_rng(2).integers(0, 12 << (2 * order), 20_000)
    ra, dec = centre(order, pixel)
    theirs = healpy.pix2ang(1 << order, pixel, nest=True, lonlat=True)
    assert np.abs((ra - theirs[0] + 180) % 360 - 180).max() < 1e-12 and np.abs(dec - theirs[1]).max() < 1e-12
    assert abs(radius(order) / np.degrees(healpy.max_pixrad(1 << order)) - 1) < 1e-6
