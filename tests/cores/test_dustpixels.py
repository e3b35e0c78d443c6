"""Nested pixels and mixed resolutions against healpy and a slow search."""

import numpy as np
import pytest

from xptools.cores import dustpixels


@pytest.mark.parametrize("nside", [1, 4, 64, 1024])
def test_nested_pixel_is_healpys(nside):
    import healpy

    from xptools.cores import _dustkernels as kernels

    rng = np.random.default_rng(nside)
    theta, phi = np.arccos(rng.uniform(-1, 1, 4000)), rng.uniform(0, 2 * np.pi, 4000)
    theta[:4], phi[:4] = [0.0, np.pi, 0.1, 1.0], [0.0, 1.0, 0.0, 0.0]
    got = [kernels.nested_pixel(t, p, nside) for t, p in zip(theta, phi, strict=True)]
    assert np.array_equal(got, healpy.ang2pix(nside, theta, phi, nest=True))


def test_rows_of_mixed_resolutions():
    import healpy

    from xptools.cores import _dustkernels as kernels

    rng = np.random.default_rng(1)
    # nside 1 pixels 0, 1, 3 (2 is a hole, 0 is covered by finer pixels as well), nside 4 pixels of base pixel 0 and 5.
    pixel = np.concatenate([[0, 1, 3, 4, 6, 7, 8, 9, 10, 11], np.arange(16), np.arange(80, 96)])
    nside = np.concatenate([np.full(10, 1), np.full(32, 4)])
    shuffled = rng.permutation(len(pixel))
    nside, pixel = nside[shuffled], pixel[shuffled]
    start, row, width, coarse, top, base = dustpixels.index_pixels(nside, pixel)
    theta, phi = np.arccos(rng.uniform(-1, 1, 2000)), rng.uniform(0, 2 * np.pi, 2000)
    theta[0] = np.nan
    found = np.empty(2000, np.int64)
    kernels.rows_of(theta, phi, start, row, width, top, coarse, 2 * int(np.log2(top // base)), found)
    assert found[0] == -1
    for i in range(1, 2000):
        fits = [r for r in range(len(pixel)) if healpy.ang2pix(nside[r], theta[i], phi[i], nest=True) == pixel[r]]
        in_zero = healpy.ang2pix(1, theta[i], phi[i], nest=True) == 0
        want = max(fits, key=lambda r: nside[r]) if fits else -1
        # Where a coarse and finer pixels overlap the finer ones count; the coarse one is seen only where they begin.
        assert found[i] == want or (in_zero and found[i] in fits)
