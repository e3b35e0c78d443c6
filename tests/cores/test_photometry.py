"""Corrected excess factor, absolute magnitudes and magnitude errors against published numbers and closed forms."""

import numpy as np
import pytest

from xptools.cores import photometry


@pytest.mark.parametrize(
    ("colour", "f"), [(1.0, 1.216844), (2.0, 1.334920), (4.0 - 1e-12, 1.619684), (4.0, 1.619720), (0.0, 1.154360)]
)
def test_excess_expected_is_riello_table_2(colour, f):
    assert photometry.excess_expected(colour) == pytest.approx(f, abs=1e-6)


def test_the_three_ranges_meet_at_their_breaks():
    for x in photometry.BREAKS:
        jump = photometry.excess_expected(x) - photometry.excess_expected(x - 1e-9)
        assert abs(jump) < 2e-3
    assert abs(photometry.excess_expected(4.0) - photometry.excess_expected(4.0 - 1e-9)) < 1e-4


@pytest.mark.parametrize(("G", "sigma"), [(13, 0.00869), (15, 0.01403), (16, 0.01914), (17, 0.02685), (17.5, 0.03201)])
def test_excess_sigma_published_values(G, sigma):
    assert photometry.excess_sigma(G) == pytest.approx(sigma, abs=6e-6)


def test_corrected_excess_is_the_difference_and_keeps_nan():
    C = np.array([1.3, np.nan, 1.2])
    x = np.array([1.0, 1.0, np.nan])
    out = photometry.excess_corrected(C, x)
    assert out[0] == pytest.approx(1.3 - 1.216844)
    assert np.isnan(out[1:]).all()


def test_absolute_magnitude_at_ten_parsec_and_one_kpc():
    np.testing.assert_allclose(photometry.absolute_magnitude([5.0, 17.5], [100.0, 1.0]), [5.0, 7.5])


def test_absolute_magnitude_of_a_parallax_that_is_not_positive_is_unknown():
    assert np.isnan(photometry.absolute_magnitude([10.0, 10.0, 10.0], [0.0, -2.0, np.nan])).all()


def test_magnitude_error_by_finite_difference():
    snr = 50.0
    flux = 1.0e4
    step = photometry.magnitude(flux, "BP") - photometry.magnitude(flux * (1 + 1e-6 / snr), "BP")
    assert photometry.magnitude_error(snr) == pytest.approx(step / 1e-6, rel=1e-6)
    with_zero_point = photometry.magnitude_error([1e9, 0.0, -3.0], "RP")
    assert with_zero_point[0] == pytest.approx(0.0037793818)
    assert np.isnan(with_zero_point[1:]).all()


def test_real_rows_agree_with_the_archive(shared_data):
    import pyarrow.parquet as pq

    names = [f"phot_{b}_mean_{k}" for b in ("g", "bp", "rp") for k in ("mag", "flux")]
    table = pq.read_table(shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet", columns=names)
    for band, b in (("G", "g"), ("BP", "bp"), ("RP", "rp")):
        mag = table[f"phot_{b}_mean_mag"].to_numpy().astype(float)
        mine = photometry.magnitude(table[f"phot_{b}_mean_flux"].to_numpy().astype(float), band)
        known = np.isfinite(mag)
        np.testing.assert_allclose(mine[known], mag[known], atol=2e-5)
