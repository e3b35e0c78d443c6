"""Numbers that stand for unknown ones, found among values; and what must not be taken for them."""

import numpy as np
import pytest

from xptools.cores.ask_missing import stand_ins


def mixed(values: np.ndarray, *fakes: tuple[float, int]) -> np.ndarray:
    """The values with numbers that stand there so many times, some unknown, shuffled."""
    parts = [values, np.full(30, np.nan), *(np.full(n, number) for number, n in fakes)]
    return np.random.default_rng(1).permutation(np.concatenate(parts))


@pytest.mark.parametrize("number", [-9999.0, -999.0, 99.0, 9999.0, float(np.float32(-9999.99)), -1e30, 1e20])
@pytest.mark.parametrize("times", [20, 150, 3000])
def test_a_number_far_from_all_others_that_is_repeated_is_found(number, times):
    mass = np.random.default_rng(0).normal(1.2, 0.3, 1500)
    assert stand_ins(mixed(mass, (number, times))) == [number]
    assert stand_ins(mixed(mass, (number, 2))) == []


def test_nines_are_found_where_the_others_are_wide():
    teff = np.random.default_rng(0).normal(4800, 500, 2000)
    for number in (-9999.0, -999.0, 9999.0):
        assert stand_ins(mixed(teff, (number, 200))) == [number]
    assert stand_ins(mixed(teff, (-3000.0, 200))) == []  # not so far that it could be nothing else


def test_any_number_is_found_that_a_minority_has():
    mass = np.random.default_rng(0).normal(1.2, 0.03, 1500)
    assert stand_ins(mixed(mass, (0.0, 700))) == [0.0]
    assert stand_ins(mixed(mass, (0.0, 1700))) == []


def test_several_are_found_one_after_another():
    v = mixed(np.random.default_rng(0).normal(0, 1, 900), (-9999.0, 500), (-999.0, 40), (-9999.99, 60), (99.0, 20))
    assert sorted(stand_ins(v)) == [-9999.99, -9999.0, -999.0, 99.0]
    assert stand_ins(mixed(np.zeros(500), (-9999.0, 100))) == [-9999.0]


def test_outliers_beside_it_do_not_hide_it():
    rng = np.random.default_rng(0)
    v = np.concatenate([rng.normal(1, 0.2, 2000), [60.0, 75.0, 120.0]])
    assert stand_ins(mixed(v, (99.0, 40))) == [99.0]


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(2).normal(0, 1, 3000),
        np.round(np.random.default_rng(2).normal(4800, 300, 5000), -1),
        np.round(np.exp(np.random.default_rng(2).normal(-3, 1.5, 200_000)), 2),  # E(B-V) with a long tail, rounded
        np.round(np.random.default_rng(2).standard_cauchy(50_000), 1),
        np.where(np.arange(900) % 10, 0.0, 1.0),
        np.full(100, 0.1),
        np.where(np.arange(900) % 10, 0.0, 4096.0),
        np.minimum(np.random.default_rng(2).exponential(1, 20_000), 5.0),
        np.where(np.arange(900) % 3, 0.0, np.random.default_rng(2).normal(6, 0.2, 900)),  # most have 0
        np.empty(0),
        np.full(40, np.nan),
    ],
)
def test_honest_numbers_are_left_alone(values):
    assert stand_ins(values) == []
