"""The continuous mass function: its process, its volumes, its mode, and known laws."""

import numpy as np
import pytest
from scipy.optimize import minimize

from xptools.cores import bins, process

EDGES = np.linspace(0.15, 0.75, 12)


def table(error=0.0):
    veff, fine = bins.average(lambda m: np.minimum(3.4, 0.03 * (m / 0.18) ** 5), EDGES, refine=10)
    return bins.BinTable(EDGES, np.array([-1.6, -1.4]), veff[None], error * veff[None], fine[None])


def counted(stars=3000, slope=-2.0, seed=0, error=0.0):
    t, rng = process.refined(table(error)), np.random.default_rng(seed)
    shape = t.centre**slope
    ln_phi = np.log(shape * stars / (shape * t.veff[0] * t.width).sum())
    return process.Curve.of(t, 0, rng.poisson(np.exp(ln_phi) * t.veff[0] * t.width)), ln_phi


def test_parts_add_up_to_the_bin():
    whole, parts = table(0.1), process.refined(table(0.1))
    sums = (parts.veff * parts.width).reshape(1, 11, process.CELLS).sum(axis=2)
    np.testing.assert_allclose(sums, whole.veff * whole.width)
    np.testing.assert_allclose(parts.veff_err / parts.veff, 0.1)


@pytest.mark.parametrize("theta", [(0.0, 0.0), (1.0, -1.0)])
def test_the_modes_have_the_covariance_of_matern(theta):
    curve, _ = counted()
    size, length = np.exp(process.PRIOR_MEAN + process.PRIOR_WIDTH * np.array(theta))
    width = curve.widths(np.array(theta))[2 : 2 + process.MODES]
    modes = curve.design[:, 2 : 2 + process.MODES]
    got = (modes * width**2) @ modes.T
    r = np.sqrt(3) * np.abs(curve.x[:, None] - curve.x) / length
    known = size**2 * (1 + r) * np.exp(-r)
    middle = slice(20, 60)
    np.testing.assert_allclose(got[middle, middle], known[middle, middle], atol=0.12 * size**2)


def test_the_mode_is_where_a_general_optimiser_ends():
    curve, _ = counted(300, error=0.1)
    theta = np.array([0.3, -0.5])
    y, _, _ = process.mode(curve, theta)
    width, A = curve.widths(theta), curve.design
    centre = np.zeros(len(width))
    centre[1] = process.LINE_SLOPE

    def loss(u):
        ln_rate = A @ (centre + width * u) + curve.level
        rate = curve.exposure * np.exp(ln_rate)
        return rate.sum() - curve.n @ ln_rate + 0.5 * u @ u, width * (A.T @ (rate - curve.n)) + u

    slow = minimize(loss, np.zeros(len(width)), jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 2000})
    assert loss((y - centre) / width)[0] <= slow.fun + 1e-6


def test_it_finds_a_power_law_and_knows_how_well():
    pulls = []
    for seed in range(4):
        curve, ln_phi = counted(seed=seed)
        got, shape = process.sample(curve, seed, chains=2, warmup=300, draws=400)
        assert got.trouble() == [] and shape.shape == (process.POINTS, 2)
        ln = got.ln_phi.reshape(-1, len(ln_phi))
        pulls.append((ln.mean(axis=0) - ln_phi) / ln.std(axis=0))
    assert 0.3 < np.sqrt(np.mean(np.square(pulls))) < 1.6


def test_a_kink_is_not_smoothed_over_where_one_may_be():
    """Slopes -1 below 0.5 Msun and -3 above: beside the kink, where 100,000 stars tell the slope."""
    t, rng = process.refined(table()), np.random.default_rng(3)
    ln_phi = -np.log(t.centre) - 2 * np.maximum(np.log(t.centre / 0.5), 0.0)
    shape = np.exp(ln_phi) * t.veff[0] * t.width
    n = rng.poisson(shape * 1e5 / shape.sum())
    off = []
    for breaks in ((0.5,), ()):
        curve = process.Curve.of(t, 0, n, breaks)
        y, _, _ = process.mode(curve, np.zeros(2))
        found = curve.design[:, : curve.smooth] @ y[: curve.smooth]
        near = np.abs(np.log(t.centre / 0.5)) < 0.15
        slope = np.gradient(found - ln_phi, np.log(t.centre))[near]
        off.append(np.sqrt(np.mean(slope**2)))
    assert off[0] < 0.5 * off[1]


def test_errors_of_the_volume_widen_it():
    curves = (counted(3000, error=e)[0] for e in (0.3, 0.0))
    wide, narrow = (process.sample(c, 1, chains=2, warmup=300, draws=400)[0] for c in curves)
    assert wide.ln_phi.std(axis=(0, 1)).mean() > 1.2 * narrow.ln_phi.std(axis=(0, 1)).mean()
