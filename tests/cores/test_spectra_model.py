"""The spectral model: magnitudes, colours and the direction in which each label moves each feature."""

import numpy as np
import pytest

from xptools.cores import spectra_model as model
from xptools.cores.mock_spectra import passbands_on_grid
from xptools.cores.photometry import POGSON, ZERO_POINT


def shape(w, teff=5000.0, logg=4.5, feh=0.0, alpha=0.0):
    """ln flux at wavelengths [nm]."""
    return model.log_shape(*(np.array([x]) for x in (teff, logg, feh, alpha)), np.array(w, float))[0]


def depth(centre, left, right, **labels):
    """How far a feature lies below the line between two wavelengths beside it, in ln flux."""
    a, c, b = shape([left, centre, right], **labels)
    return a + (b - a) * (centre - left) / (right - left) - c


def test_g_is_met():
    M_G = np.array([3.0, 4.67, 9.0, 12.0])
    grid, T = passbands_on_grid()
    flux = model.flux_at_10pc(np.array([6500, 5770, 3700, 3100.0]), 4.5, -0.5, 0.0, M_G, grid)
    np.testing.assert_allclose(ZERO_POINT["G"] - POGSON * np.log(flux @ T[0]), M_G, atol=1e-9)


def test_stars_are_independent_and_broadcast():
    teff = np.linspace(3000, 9000, 20)
    grid = np.arange(400.0, 900.0, 7)
    whole = model.flux_at_10pc(teff, 4.5, -1.0, 0.2, 6.0, grid)
    assert whole.shape == (20, len(grid)) and (whole > 0).all()
    assert np.array_equal(whole[7:8], model.flux_at_10pc(teff[7:8], 4.5, -1.0, 0.2, 6.0, grid))


@pytest.mark.parametrize(
    ("where", "labels"),
    [
        ((395.1, 380.0, 410.0), {"teff": 5500.0}),
        ((517.5, 500.0, 540.0), {"teff": 4600.0}),
        ((589.3, 575.0, 605.0), {"teff": 4200.0}),
        ((854.2, 835.0, 880.0), {"teff": 5200.0}),
        ((707.0, 702.0, 745.0), {"teff": 3400.0}),
        ((430.5, 420.0, 446.0), {"teff": 5200.0}),
    ],
    ids=["Ca H K", "Mg b", "Na D", "Ca triplet", "TiO", "CH"],
)
def test_metals_deepen_lines(where, labels):
    depths = [depth(*where, feh=feh, **labels) for feh in (-2.0, -1.0, 0.0)]
    assert depths[0] < depths[1] < depths[2] and depths[2] > 0.01


def test_alpha_elements_deepen_mg_and_tio_but_not_iron():
    assert depth(517.5, 500, 540, alpha=0.4) > depth(517.5, 500, 540)
    iron = list(model.profiles((500.0,))).__len__() - 3
    one, other = (model.strengths(5000.0, 4.5, -1.0, a)[..., iron] for a in (0.0, 0.4))
    assert one == other


def test_balmer_lines_peak_in_a_stars_and_the_jump_with_them():
    strength = [depth(486.1, 470, 500, teff=t) for t in (4500.0, 6000.0, 9000.0)]
    assert strength[0] < strength[1] < strength[2]
    assert shape([375.0, 355.0], teff=9000.0) @ [1, -1] > shape([375.0, 355.0], teff=6000.0) @ [1, -1]


def test_iron_reddens_the_blue():
    warm = {feh: shape([400.0, 800.0], teff=5500.0, feh=feh) @ [1, -1] for feh in (-2.0, -1.0, 0.0)}
    assert warm[-2.0] > warm[-1.0] > warm[0.0]


def test_molecules_only_in_cool_stars():
    assert depth(707.0, 702, 745, teff=3300.0) > 0.2
    assert abs(depth(707.0, 702, 745, teff=5500.0)) < 0.02


def test_temperatures_of_colours():
    """The Sun, an M dwarf (Mann+ 2015: 3,650 K at 2.0), monotony, metallicity in the right direction."""
    assert model.temperature_of(0.82, 0.0) == pytest.approx(5720, abs=80)
    assert model.temperature_of(2.0, 0.0) == pytest.approx(3651, abs=2)
    colours = np.linspace(-0.2, 4.2, 500)
    for feh in (-2.5, 0.0, 0.4):
        assert (np.diff(model.temperature_of(colours, feh)) <= 0).all()
    assert np.isnan(model.temperature_of(np.nan, 0.0))
