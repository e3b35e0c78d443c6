"""The cubic spline against scipy's two of the same kind."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline, splev, splrep

from xptools.cores.cubic import Cubic


@pytest.mark.parametrize("n", [4, 5, 9, 300])
def test_it_is_scipy_s(n):
    rng = np.random.default_rng(n)
    x = np.cumsum(rng.uniform(0.1, 2.0, n))
    y = rng.normal(size=n)
    at = np.concatenate([np.linspace(x[0] - 0.5, x[-1] + 0.5, 997), x])
    got = Cubic(x, y)(at)
    assert np.allclose(got, CubicSpline(x, y)(at), rtol=0, atol=1e-11)
    assert np.allclose(got, splev(at, splrep(x, y, s=0)), rtol=0, atol=1e-11)
    assert Cubic(x, y)(at.reshape(-1, 1)).shape == (len(at), 1)


def test_a_cubic_is_met_exactly():
    x = np.array([0.0, 0.3, 1.0, 1.1, 2.5])
    at = np.linspace(-1.0, 4.0, 50)
    assert np.allclose(Cubic(x, x**3 - 2 * x)(at), at**3 - 2 * at, rtol=1e-12, atol=1e-12)
