"""Where stars fall, and volumes averaged over bins."""

import numpy as np
import pytest

from xptools.cores import bins
from xptools.cores.veff import Survey, Volume
from xptools.errors import DataError

EDGES = np.array(bins.MASS_EDGES)


def table(volume=lambda m: m**5):
    veff, fine = bins.average(volume, EDGES, refine=10)
    return bins.BinTable(EDGES, np.array([-2.0, -1.0]), veff[None], 0.01 * veff[None], fine[None])


def test_default_grid_gives_the_printed_centres():
    """Centres of Li+ 2026 Table 5."""
    printed = [0.18, 0.23, 0.28, 0.34, 0.39, 0.44, 0.50, 0.55, 0.61, 0.66, 0.71, 0.77, 0.82, 0.87]
    np.testing.assert_allclose(np.round(table().centre, 2), printed)


def test_bins_are_half_open_and_outside_is_minus_one():
    got = bins.locate(np.array([0.1, 0.15, 0.2, 0.8999, 0.9, np.nan, np.inf]), EDGES)
    np.testing.assert_array_equal(got, [-1, 0, 0, 13, -1, -1, -1])
    assert got.dtype == np.int16


def test_average_is_the_integral():
    exact = np.diff(EDGES**6) / 6 / np.diff(EDGES)
    np.testing.assert_allclose(table().veff[0], exact, rtol=1e-10)
    # one point per bin is the paper's choice, off by percents
    assert abs(table().centre[0] ** 5 / exact[0] - 1) > 0.05


def test_volume_inside_a_bin_averages_to_the_bin():
    m = np.linspace(EDGES[3], EDGES[4], 200_001)
    t = table()
    assert t.volume(0, 3, m).mean() == pytest.approx(t.veff[0, 3], rel=1e-3)
    np.testing.assert_allclose(t.volume(0, 3, m[::1000]), m[::1000] ** 5, rtol=1e-3)


@pytest.mark.parametrize("refine", [10])
def test_real_volume_with_its_kinks_to_1e_4(refine):
    """M_G(M) of SCIENCE 6.5, [M/H] = -1.5; the kink where d_max meets the sphere's edge is the hard part."""
    masses = [0.1768, 0.2304, 0.2839, 0.3375, 0.3911, 0.4446, 0.4982, 0.5518, 0.6054, 0.6589, 0.7125, 0.7661, 0.9]
    M_G = [10.63, 9.94, 9.44, 9.04, 8.64, 8.14, 7.56, 6.94, 6.36, 5.79, 5.22, 4.58, 2.4]
    V = Volume(Survey())

    def volume(m):
        return V(np.interp(m, masses, M_G))

    fast, _ = bins.average(volume, EDGES, refine=refine)
    slow, _ = bins.average(volume, EDGES, refine=2000)
    np.testing.assert_allclose(fast, slow, rtol=1e-4)


def test_a_sudden_end_inside_a_bin():
    """The turn-off: V is 2 M below 0.8237 Msun and 0 above."""
    veff, fine = bins.average(lambda m: np.where(m < 0.8237, 2 * m, 0.0), EDGES)
    lo, hi = EDGES[12], EDGES[13]
    assert veff[12] == pytest.approx((0.8237**2 - lo**2) / (hi - lo), rel=1e-8)
    assert veff[13] == 0.0 and fine[12, 0] > 0 and fine[12, -1] == 0


def test_round_trip_and_damage():
    t = table()
    again = bins.BinTable.from_dict(t.to_dict())
    np.testing.assert_allclose(again.fine, t.fine, rtol=1e-7)
    with pytest.raises(DataError, match="format 9"):
        bins.BinTable.from_dict(t.to_dict() | {"format": 9})
    with pytest.raises(DataError, match="damaged"):
        bins.BinTable.from_dict({"format": 1})
    with pytest.raises(DataError, match="does not fit"):
        bins.BinTable.from_dict(t.to_dict() | {"mass_edges": [0.1, 0.2]})
