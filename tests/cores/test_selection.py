"""The cuts against closed forms and slow versions; NaN is unknown in each of them."""

import numpy as np
import pytest

from xptools.cores import photometry, selection

R = np.random.default_rng(3)


def test_interval_is_open_at_both_ends():
    x = np.array([1.0, 2.0, 3.0, np.nan])
    cases = [(1, 3, [0, 1, 0]), (None, 3, [1, 1, 0]), (1, None, [0, 1, 1]), (None, None, [1, 1, 1])]
    for low, high, passes in cases:
        got, unknown = selection.interval(x, low, high)
        assert got.tolist() == [*map(bool, passes), False]
        assert unknown.tolist() == [False, False, False, True]


def test_interval_takes_a_decimal_limit_in_the_columns_precision():
    assert selection.interval(np.array([0.1], np.float32), None, 0.1)[0].tolist() == [False]
    assert selection.interval(np.array([0.1], np.float32), 0.1, None)[0].tolist() == [False]


def test_interval_of_infinite_values():
    assert selection.interval(np.array([np.inf, -np.inf]), 0, None)[0].tolist() == [True, False]


def test_main_sequence_drops_the_branch_above_the_turn_off():
    colour = np.array([1.0, 0.7, 0.6, 0.75, 1.2, 2.0])
    M_G = np.array([2.5, 3.0, 3.9, 4.6, 6.0, 8.5])
    x, y = selection.main_sequence(colour, M_G)
    assert x.tolist() == [0.6, 0.75, 1.2, 2.0]
    assert y.tolist() == [3.9, 4.6, 6.0, 8.5]


def slow_below(x, y, locus, offset, colours, brightest, blue):
    if np.isnan(x) or np.isnan(y):
        return None
    if x < locus[0][0]:
        return bool(blue and y > brightest and x > colours[0])
    for x0, x1, y0, y1 in zip(locus[0], locus[0][1:], locus[1], locus[1][1:], strict=False):
        if x0 <= x <= x1:
            limit = y0 + (y1 - y0) * (x - x0) / (x1 - x0)
            return bool(y > limit + offset and y > brightest and colours[0] < x < colours[1])
    return False


def test_below_locus_equals_the_slow_version():
    locus = (np.array([0.6, 0.75, 1.2, 2.0, 3.5]), np.array([3.9, 4.6, 6.0, 8.5, 12.0]))
    x, y = R.uniform(-0.5, 4.5, 3000), R.uniform(2, 14, 3000)
    x[::50], y[::70] = np.nan, np.nan
    for offset, blue in [(0.0, True), (0.3, False), (-0.5, True)]:
        passes, unknown = selection.below_locus(x, y, locus, offset, keep_blue=blue)
        slow = [slow_below(a, b, locus, offset, (0, 4), 4, blue) for a, b in zip(x, y, strict=True)]
        assert [s is None for s in slow] == unknown.tolist()
        assert [s is True for s in slow] == passes.tolist()


@pytest.mark.parametrize("mh", [-2.0, -1.5, -1.2])
def test_metal_poor_dwarfs_bluer_than_the_solar_turn_off_stay(mh):
    from xptools.cores import isochrone, sequence

    locus = selection.main_sequence(*isochrone.load(None).locus(0.0, 5.0))
    M_G, colour = sequence.absolute(np.linspace(0.15, 0.78, 60), mh)
    M_G, colour = np.asarray(M_G), np.asarray(colour)
    assert (colour < locus[0][0]).any()
    faint = M_G > 4.05
    assert selection.below_locus(colour, M_G, locus)[0][faint].all()
    assert not selection.below_locus(colour, M_G, locus, keep_blue=False)[0][faint].all()


def test_a_solar_binary_of_equal_masses_is_rejected():
    from xptools.cores import isochrone, sequence

    locus = selection.main_sequence(*isochrone.load(None).locus(0.0, 5.0))
    M_G, colour = sequence.absolute(np.linspace(0.2, 0.8, 20), 0.0, 5.0)
    assert not selection.below_locus(np.asarray(colour), np.asarray(M_G) - 0.7526, locus)[0].any()


def test_below_locus_on_the_line_is_rejected():
    locus = (np.array([0.5, 1.5]), np.array([5.0, 7.0]))
    x = np.array([1.0, 1.0, 1.0])
    assert selection.below_locus(x, np.array([6.0, 6.001, 5.999]), locus)[0].tolist() == [False, True, False]


def test_good_excess_is_n_sigma_wide():
    G = np.full(4, 15.0)
    x = np.full(4, 1.0)
    sigma = float(photometry.excess_sigma(15.0))
    f = float(photometry.excess_expected(1.0))
    C = f + sigma * np.array([2.99, -2.99, 3.01, np.nan])
    passes, unknown = selection.good_excess(C, x, G, 3.0)
    assert passes.tolist() == [True, True, False, False]
    assert unknown.tolist() == [False, False, False, True]


def test_good_excess_keeps_the_gaussian_fraction():
    G = R.uniform(12, 17.5, 200_000)
    x = R.uniform(0.3, 4.2, G.size)
    C = photometry.excess_expected(x) + photometry.excess_sigma(G) * R.normal(size=G.size)
    for n, fraction in [(1, 0.682689), (3, 0.997300)]:
        kept = selection.good_excess(C, x, G, n)[0].mean()
        assert kept == pytest.approx(fraction, abs=5 * np.sqrt(fraction * (1 - fraction) / G.size))


def test_among_equals_a_set():
    wanted = np.sort(R.choice(10_000, 300, replace=False)).astype(np.int64) + 2**60
    ids = R.integers(0, 10_000, 4000) + 2**60
    chosen = set(wanted.tolist())
    assert selection.among(ids, wanted)[0].tolist() == [int(i) in chosen for i in ids]
    assert not selection.among(ids, np.zeros(0, np.int64))[0].any()


def test_keys_keep_the_order_and_the_value():
    x = np.concatenate([R.normal(size=500) * 10.0 ** R.integers(-30, 30, 500), [0.0, np.inf, -np.inf, 1e-45]])
    x = x.astype(np.float32)
    keys = selection.ordered_keys(x)
    assert (np.argsort(keys, kind="stable") == np.argsort(x, kind="stable")).all()
    assert [selection.key_value(int(k)) for k in keys] == x.tolist()


@pytest.mark.parametrize("wanted", [1, 2, 133, 5000, 9999])
def test_two_passes_give_the_wanted_th_highest_value(wanted):
    x = np.round(R.normal(size=10_000), 3).astype(np.float32)
    x[::1000] = np.nan
    if wanted > np.isfinite(x).sum():
        wanted = int(np.isfinite(x).sum())
    parts = np.array_split(x, 7)
    high, above = selection.from_the_top(sum(selection.key_counts(p) for p in parts), wanted)
    low, _ = selection.from_the_top(sum(selection.key_counts(p, high) for p in parts), wanted - above)
    value = selection.key_value((high << 16) | low)
    assert value == np.sort(x[~np.isnan(x)])[-wanted]


def test_minus_infinity_is_unknown_and_passes_no_limit():
    passes, unknown = selection.interval(np.array([-np.inf, np.inf, np.nan, 1.0], np.float32), None, 17.0)
    assert passes.tolist() == [False, False, False, True]
    assert unknown.tolist() == [True, False, True, False]
    assert selection.interval(np.array([np.inf]), 1.0, None)[0].all()
