"""Density laws and the geometry of the Sun's place."""

import numpy as np
import pytest

from xptools.cores import galaxy

MIX = galaxy.Mixture(((2.0, galaxy.Disc()), (1.0, galaxy.Halo())))
LAWS = [galaxy.Disc(), galaxy.Disc(np.inf, np.inf), galaxy.Halo(), MIX]


@pytest.mark.parametrize("law", LAWS)
def test_unit_density_at_the_sun_and_symmetric_in_height(law):
    assert law.density(galaxy.R_SUN, 0.0) == pytest.approx(1.0, abs=1e-15)
    assert law.density(8.275, 0.0, r_sun=8.275) == pytest.approx(1.0, abs=1e-15)
    Z = np.linspace(0.0, 1.0, 7)
    np.testing.assert_array_equal(law.density(8.0, Z), law.density(8.0, -Z))


def test_disc_falls_by_e_per_scale_length():
    law = galaxy.Disc(1.5, 1.43)
    assert law.density(8.122 - 1.5, 0.0) == pytest.approx(np.e)
    assert law.density(8.122, -1.43) == pytest.approx(1 / np.e)


def test_mixture_is_the_weighted_mean():
    expected = (2 * galaxy.Disc().density(7.5, 0.4) + galaxy.Halo().density(7.5, 0.4)) / 3
    assert MIX.density(7.5, 0.4) == pytest.approx(expected, rel=1e-15)


def test_cylindrical_of_the_cardinal_directions():
    l, b = np.array([0.0, 180.0, 90.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 90.0, -90.0])
    R, Z = galaxy.cylindrical(l, b, 1.0, z_sun=0.02)
    np.testing.assert_allclose(R, [7.122, 9.122, np.hypot(8.122, 1.0), 8.122, 8.122], rtol=1e-14)
    np.testing.assert_allclose(Z, [0.02, 0.02, 0.02, 1.02, -0.98], atol=1e-14)


def test_against_astropy_frame():
    from astropy import units as u
    from astropy.coordinates import Galactic, Galactocentric, SkyCoord, galactocentric_frame_defaults

    galactocentric_frame_defaults.set("v4.0")
    star = SkyCoord(l=[33.0, 201.0] * u.deg, b=[20.0, -55.0] * u.deg, distance=[0.7, 0.2] * u.kpc, frame=Galactic)
    frame = star.transform_to(Galactocentric(galcen_distance=8.122 * u.kpc, z_sun=0 * u.pc))
    R, Z = galaxy.cylindrical(np.array([33.0, 201.0]), np.array([20.0, -55.0]), np.array([0.7, 0.2]))
    np.testing.assert_allclose(R, np.hypot(frame.x, frame.y).to_value(u.kpc), rtol=1e-4)
    np.testing.assert_allclose(Z, frame.z.to_value(u.kpc), atol=1e-3)
