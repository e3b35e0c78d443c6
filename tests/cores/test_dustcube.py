"""The map cube: against healpy's weights, closed forms, its own array form, and in JAX."""

import numpy as np
import pytest

from xptools.cores import dustcube

RADII = np.array([75.0, 125.0, 175.0, 225.0, 275.0])
TOY = np.array([0.010, 0.020, 0.035, 0.055, 0.080])


def random_cube(nside=8, samples=1, shells=12, seed=2):
    rng = np.random.default_rng(seed)
    steps = rng.gamma(0.5, 0.4, (12 * nside**2, samples, shells))
    lnE = (-6 + np.cumsum(steps, axis=2)).astype(np.float32)
    return dustcube.Cube(nside, lnE, np.geomspace(69.0, 1250.0, shells))


def stars(n=3000, seed=3):
    """Places all over the sky, at its edges, and nowhere."""
    rng = np.random.default_rng(seed)
    l, b = rng.uniform(-30, 400, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    d = rng.uniform(1, 1500, n)
    l[:8] = [0, 0, 360, 90, 45, 359.99999999, 0, 1e-13]
    b[:8] = [90, -90, 0, 89.99999, -89.9999, 0, 41.8103148957786, 0]
    d[8:12] = [69.0, 1250.0, 1e-3, np.inf]
    l[12], b[13], b[14], d[15], d[16], d[17] = np.nan, np.nan, 95.0, np.nan, 0.0, -3.0
    return l, b, d


def test_rings_are_healpys():
    import healpy

    for nside in (1, 2, 16):
        tables = dustcube.rings(nside)
        i = np.arange(1, 4 * nside)
        first, count, costheta, sintheta, shifted = healpy.ringinfo(nside, i)
        assert np.array_equal(tables.first[1:-1], first)
        assert np.array_equal(tables.count[1:-1], count)
        assert np.array_equal(tables.shift[1:-1] == 0.5, shifted)
        assert np.abs(tables.theta[1:-1] - np.arctan2(sintheta, costheta)).max() < 1e-14


@pytest.mark.parametrize("nside", [1, 2, 4, 32])
def test_neighbours_are_healpys(nside):
    import healpy

    l, b, _ = stars(20000)
    keep = np.isfinite(l) & (np.abs(b) <= 90)
    l, b = l[keep], b[keep]
    values = np.random.default_rng(nside).normal(size=12 * nside**2)
    pixel, weight = healpy.get_interp_weights(nside, l % 360.0, b, lonlat=True)
    want = (values[pixel] * weight).sum(axis=0)
    mine, w = dustcube.neighbours(*dustcube.directions(l, b, False)[:2], dustcube.rings(nside))
    assert np.abs(sum(w) - 1).max() < 1e-14
    assert np.abs(sum(values[p] * x for p, x in zip(mine, w, strict=True)) - want).max() < 1e-11


@pytest.mark.parametrize("samples", [1, 3])
def test_compiled_is_the_array_form(samples):
    cube = random_cube(samples=samples)
    l, b, d = stars()
    theta, phi, _ = dustcube.directions(l, b, False)
    want = dustcube.integrated(theta, phi, d, cube.lnE, cube.radii, cube.tables)
    got = cube.query(l, b, d)
    nowhere = np.arange(12, 18)
    assert np.isnan(got[0]).nonzero()[0].tolist() == nowhere.tolist()
    assert (got[2][nowhere] == dustcube.OUTSIDE).all()
    for a, c in zip(got, want, strict=True):
        assert np.array_equal(np.isnan(a), np.isnan(c))
        assert np.allclose(a, c, rtol=1e-12, atol=1e-15, equal_nan=True)
    assert np.isnan(got[1]).all() == (samples == 1)


def test_jax_is_numpy():
    cube = random_cube(samples=2)
    l, b, d = stars()
    for a, c in zip(cube.query_jax(l, b, d), cube.query(l, b, d), strict=True):
        assert a.dtype == c.dtype
        assert np.allclose(a, c, rtol=1e-12, atol=1e-15, equal_nan=True)
    assert [len(a) for a in cube.query_jax([], [], [])] == [0, 0, 0]


def test_toy_cube_by_hand():
    """Density 1 ... 5e-4 per pc in 50 pc shells outside an inner 0.005: E at centres, geometric means between them."""
    lnE = np.broadcast_to(np.log(TOY), (12, 1, 5)).astype(np.float32)
    cube = dustcube.Cube(1, np.ascontiguousarray(lnE), RADII)
    d = np.array([*RADII, *(0.5 * (RADII[1:] + RADII[:-1])), 37.5, 1e-6, 500.0])
    E, _, place = cube.query(np.full(len(d), 33.0), np.full(len(d), -12.0), d)
    between = np.sqrt(TOY[1:] * TOY[:-1])
    assert pytest.approx([*TOY, *between, 0.005, 0.010 * 1e-6 / 75, 0.080], rel=1e-6) == E
    assert place.tolist() == [dustcube.BELOW, *[dustcube.INSIDE] * 8, dustcube.BELOW, dustcube.BELOW, dustcube.BEYOND]


def test_one_node_and_equal_steps():
    lnE = np.zeros((12, 1, 1), np.float32)
    E, _, place = dustcube.Cube(1, lnE, np.array([100.0])).query([0.0] * 3, [0.0] * 3, [50.0, 100.0, 200.0])
    assert E.tolist() == [0.5, 1.0, 1.0]
    assert place.tolist() == [dustcube.BELOW, dustcube.BELOW, dustcube.BEYOND]


def test_guide_finds_what_a_search_finds():
    from xptools.cores import _dustkernels as kernels

    rng = np.random.default_rng(4)
    for radii in (np.geomspace(69, 1250, 517), np.sort(rng.uniform(0, 1, 50)) ** 6 + 1e-9, np.array([1.0, 1000.0])):
        cube = dustcube.Cube(1, np.zeros((12, 1, len(radii)), np.float32), radii)
        guide, steps = cube.guide
        d = np.concatenate([rng.uniform(radii[0], radii[-1], 500), radii[1:], np.nextafter(radii[1:-1], 1e9)])
        got = [kernels.node_right(x, radii, guide, steps) for x in d]
        assert np.array_equal(got, np.searchsorted(radii, d))


def test_same_bits_however_it_is_cut():
    l, b, d = stars(40000)
    whole = random_cube().query(l, b, d, threads=1)
    threads = random_cube().query(l, b, d, threads=3)
    parts = [random_cube().query(l[s], b[s], d[s]) for s in (slice(0, 1), slice(1, 777), slice(777, None))]
    for k in range(3):
        cut = np.concatenate([p[k] for p in parts])
        for other in (threads[k], cut):
            assert np.array_equal(whole[k], other, equal_nan=True)


def test_poles_and_the_turn_are_smooth():
    cube = random_cube()
    here = cube.query([10.0, 200.0, 0.0, 360.0], [90.0, 90.0, 12.0, 12.0], [300.0] * 4)[0]
    near = cube.query([10.0, 200.0, 1e-9, 360 - 1e-9], [90 - 1e-9, 90 - 1e-9, 12.0, 12.0], [300.0] * 4)[0]
    assert here[0] == here[1]
    assert here[2] == here[3]
    assert here == pytest.approx(near, rel=1e-7)


def test_equatorial_is_galactic():
    from xptools.cores.astrometry import galactic

    rng = np.random.default_rng(6)
    ra, dec, d = rng.uniform(0, 360, 500), np.degrees(np.arcsin(rng.uniform(-1, 1, 500))), rng.uniform(50, 1000, 500)
    cube = random_cube()
    assert cube.query(ra, dec, d, equatorial=True)[0] == pytest.approx(cube.query(*galactic(ra, dec), d)[0], rel=1e-10)


def test_no_star():
    assert [len(a) for a in random_cube().query([], [], [])] == [0, 0, 0]


def test_circle_is_sine_and_cosine():
    """All around, at the quarters, and on both sides of half a turn, where the tangent has its pole."""
    quarters = np.radians(np.arange(-360.0, 361.0, 90.0))
    angle = np.concatenate([np.random.default_rng(2).uniform(-7, 7, 10_000), quarters, np.nextafter(np.pi, [0.0, 9.0])])
    sine, cosine = dustcube.circle(angle)
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=5e-16)
    np.testing.assert_allclose(cosine, np.cos(angle), rtol=0, atol=5e-16)
    assert np.isnan(dustcube.circle(np.array([np.nan]))).all()
