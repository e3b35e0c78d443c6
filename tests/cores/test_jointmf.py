"""Phi behind errors: the response against scattered stars, the mode against a general optimiser, a known universe."""

import numpy as np
import pytest
from scipy.optimize import minimize

from xptools.cores import jointmf, laplace, response
from xptools.cores.bins import POINTS, BinTable
from xptools.cores.errortable import ErrorTable

MASSES, FEH = np.linspace(0.2, 0.6, 6), np.array([-2.0, -1.7, -1.4])


def table(masses=MASSES, feh=FEH, error=0.0) -> BinTable:
    """Volumes that fall towards low masses and low [Fe/H]."""
    fine = np.linspace(masses[:-1], masses[1:], POINTS, axis=1)
    V = np.stack([(fine / 0.4) ** 2 * (1 + 0.2 * b) for b in range(len(feh) - 1)])
    mean = V.mean(axis=2)
    return BinTable(masses, feh, mean, error * mean, V)


def scattered(seed: int, density=8000.0, slope=-1.0, gradient=2.0, sigma=0.2, trend=0.0):
    """(table, mass, [Fe/H], both errors, true ln Phi(M, [Fe/H])) of a universe far wider than the table."""
    rng, t = np.random.default_rng(seed), table()
    m = np.linspace(0.1, 0.7, 601)
    f = np.linspace(-3.2, -0.2, 1201)
    m, f = 0.5 * (m[1:] + m[:-1]), 0.5 * (f[1:] + f[:-1])

    def ln_phi(mass, feh):
        return np.log(density) + (slope + 0.8 * (feh + 1.7)) * np.log(mass / 0.4) + gradient * (feh + 1.7)

    V = np.exp(np.interp(f, 0.5 * (FEH[1:] + FEH[:-1]), np.log([1.0, 1.2]))) * (m[:, None] / 0.4) ** 2
    n = rng.poisson(np.exp(ln_phi(m[:, None], f)) * V * (m[1] - m[0]) * (f[1] - f[0]))
    i, c = np.divmod(np.repeat(np.arange(n.size), n.ravel()), n.shape[1])
    error = sigma * np.exp(0.25 * rng.standard_normal(len(i)) + trend * (f[c] + 1.7))
    mass_error = np.full(len(i), 0.012)
    return t, m[i] + mass_error * rng.standard_normal(len(i)), f[c] + error * rng.standard_normal(len(i)), error, \
        mass_error, ln_phi  # fmt: skip


def true_density(t: BinTable, ln_phi) -> np.ndarray:
    """log10 Phi (B, K) of the bins."""
    out = np.empty(t.veff.shape)
    for b in range(len(t.feh_edges) - 1):
        f = np.linspace(t.feh_edges[b], t.feh_edges[b + 1], 201)
        for k in range(len(t.width)):
            m = np.linspace(t.mass_edges[k], t.mass_edges[k + 1], 41)[:, None]
            phi = np.exp(ln_phi(m, f)) * (m / 0.4) ** 2
            out[b, k] = np.log10(phi.mean() * (f[-1] - f[0]) / ((m / 0.4) ** 2).mean())
    return out


def counted(seed=1, **kwargs):
    t, mass, feh, error, mass_error, ln_phi = scattered(seed, **kwargs)
    return t, response.count(t, mass, feh, error, mass_error), ln_phi


def test_counts_of_batches_add_and_nothing_is_lost():
    t, mass, feh, error, mass_error, _ = scattered(2)
    mass[5], feh[7] = np.nan, np.nan
    whole = response.count(t, mass, feh, error, mass_error)
    parts = [response.count(t, *(v[s] for v in (mass, feh, error, mass_error)))
             for s in (slice(0, 100), slice(100, None))]  # fmt: skip
    summed = parts[1] + parts[0]
    np.testing.assert_array_equal(summed.n, whole.n)
    np.testing.assert_allclose(summed.square, whole.square)
    assert whole.n.sum() + whole.outside == len(mass)
    inside = (mass >= 0.2) & (mass < 0.6) & (feh >= -2.0) & (feh < -1.4)
    assert whole.n.sum() == inside.sum() == whole.mass.sum()


def test_slices_divide_every_bin():
    edges, bins = response.slices(np.array([-2.2, -1.8, -1.65]))
    np.testing.assert_allclose(edges, [-2.2, -2.1, -2.0, -1.9, -1.8, -1.725, -1.65])
    np.testing.assert_array_equal(bins, [0, 0, 0, 0, 1, 1])


def test_response_is_the_share_of_scattered_stars():
    t, counts, _ = counted()
    truth = response.truth_of(t, counts)
    edges, _ = response.slices(FEH)
    rng, c, s = np.random.default_rng(3), 4, 5
    given = response.feh_matrix(truth, counts, edges)[2, s, :, c]
    sigma = np.sqrt(counts.square[2, s] / counts.n[2, s].sum())
    drawn = rng.uniform(truth.feh_edges[c], truth.feh_edges[c + 1], 400_000) + sigma * rng.standard_normal(400_000)
    np.testing.assert_allclose(given, np.histogram(drawn, edges)[0] / 400_000, atol=4e-3)
    mass = response.mass_matrix(truth, counts)
    drawn = rng.uniform(*truth.mass_edges[3:5], 400_000)
    sigma = np.sqrt(response.MASS_CLASSES[1:-2] * response.MASS_CLASSES[2:-1])
    sigma = sigma[np.argmin(np.abs(np.log(sigma / 0.012)))]  # the class that 0.012 Msun falls in stands for it
    seen = np.histogram(drawn + sigma * rng.standard_normal(400_000), MASSES)[0] / 400_000
    np.testing.assert_allclose(mass[:, 3, c], seen, atol=4e-3)


def test_classes_of_error_share_out_every_true_slice():
    t, counts, _ = counted()
    truth = response.truth_of(t, counts)
    plain = response.plain_shares(counts)
    flat = response.shares(truth, counts, np.log(plain), 0.0)
    np.testing.assert_allclose(flat, np.repeat(plain[:, :, None], flat.shape[2], axis=2))
    tilted = response.shares(truth, counts, np.log(plain), -3.0)
    np.testing.assert_allclose(tilted.sum(axis=1), 1.0)
    mean = (tilted * np.arange(tilted.shape[1])[:, None]).sum(axis=1)
    assert (np.diff(mean, axis=1) < 0).all()  # a falling trend: larger errors at low [Fe/H]


@pytest.mark.parametrize("stated", [0.0, 0.015])
def test_stars_of_small_errors_are_of_a_class_of_theirs(stated):
    """Whether errors are stated shows in the errors, not in which class they are."""
    t, *_ = counted()
    rng, n = np.random.default_rng(4), 8000
    mass, feh = rng.uniform(MASSES[0], MASSES[-1], n), rng.uniform(FEH[0], FEH[-1], n)
    err = np.where(np.arange(n) % 2, 0.015, 0.3)
    known = ErrorTable.of(mass, feh + err * rng.normal(size=n), feh, err)
    counts = response.count(t, mass, feh, np.full(n, stated))
    truth, (edges, _) = response.truth_of(t, counts), response.slices(FEH)
    n_seen = response.by_known(truth, counts, edges, known)[0]
    assert n_seen.shape[1] == (2 if stated else 1)


def test_mode_is_what_a_general_optimiser_finds():
    t, counts, _ = counted(density=300.0)
    problem = jointmf.prepare(t, counts).problem()
    theta = np.array([0.3, -0.2, 0.1, -0.4])
    found = laplace.mode(problem, theta)
    precision, _ = problem.prior(theta)

    def loss(y):
        value, rate, true = laplace._value(problem, precision, y)
        return -value, -(problem.jacobian(true).T @ (problem.n / rate - 1.0).ravel() - precision @ y)

    other = minimize(loss, np.zeros(len(found.y)), jac=True, method="BFGS", options={"gtol": 1e-4, "maxiter": 5000})
    assert abs(loss(found.y)[0] - other.fun) < 1e-3
    np.testing.assert_allclose(problem.ln_phi(found.y), problem.ln_phi(other.x), atol=5e-3)


def test_steps_have_slopes_and_kinks_of_their_own():
    """The prior's covariance of ln Phi in one slice, and of two in different bins, against the kernels written out."""
    t, counts, _ = counted(density=300.0)
    problem = jointmf.prepare(t, counts, breaks=(0.4,)).problem()
    theta = np.array([-0.2, 0.3, 0.1, 0.5])
    precision, ln_det = problem.prior(theta)
    assert ln_det == pytest.approx(np.linalg.slogdet(precision)[1])
    A = problem.basis
    covariance = (A @ np.linalg.inv(precision)[: A.shape[1], : A.shape[1]] @ A.T).reshape(2 * problem.exposure.shape)
    size, length, far, step = np.exp(laplace.PRIOR_MEAN + laplace.PRIOR_WIDTH * theta)
    c = np.flatnonzero(problem.steps[:, 1])[0]  # a slice of the first bin; the same minus one is beyond the table
    x, f = problem.ln_m, problem.feh
    kink = np.maximum(x - np.log(0.4 / jointmf.PIVOT), 0.0)
    r = np.sqrt(3) * np.abs(x[:, None] - x) / length
    matern = (1 + r) * np.exp(-r)
    own = step**2 * (matern + (np.outer(x, x) + np.outer(kink, kink)) / laplace.LEVER**2)
    plane = 16 + 9 * np.outer(x, x) + laplace.KINK**2 * np.outer(kink, kink)
    for d in (c, c - 1):
        q = np.sqrt(5) * abs(f[c] - f[d]) / np.hypot(far, laplace.SHORTEST)
        known = plane + 16 * f[c] * f[d] + size**2 * matern * (1 + q + q * q / 3) * np.exp(-q) + own * (c == d)
        np.testing.assert_allclose(covariance[:, c, :, d], known, rtol=0.02, atol=0.02)


def test_the_sampler_samples_what_the_approximation_approximates():
    from xptools.cores._jax import configure

    jnp = configure().numpy
    _, counts, _ = counted(density=300.0)
    problem = jointmf.prepare(table(error=0.05), counts).problem()
    m = laplace.mode(problem, laplace.CENTRE)
    rng = np.random.default_rng(5)
    y = m.y + 0.1 * rng.standard_normal((3, len(m.y)))
    theirs = [-laplace._value(problem, m.precision, v)[0] for v in y]
    data = problem.arrays() | {"precision": m.precision}
    ours = [float(jointmf.energy(jnp.asarray(v), data)) for v in y]
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-9)


@pytest.fixture(scope="module")
def inferred():
    """(plain log Phi, joint mean, joint sd, truth), each (B, K)."""
    t, counts, ln_phi = counted(seed=7, density=30_000.0, gradient=3.0, trend=-0.4)
    _, bins = response.slices(FEH)
    n = counts.n.sum(axis=1) @ (bins[:, None] == np.arange(2))
    got = jointmf.sample(jointmf.prepare(t, counts), 1, chains=2, warmup=400, draws=400)
    draws = got.ln_phi.reshape(-1, *t.veff.shape) / np.log(10)
    assert got.divergences < 20
    assert got.rhat.max() < 1.05
    return np.log10(n.T / (t.veff * t.width)), draws.mean(axis=0), draws.std(axis=0), true_density(t, ln_phi), n.T


def test_known_universe_is_recovered_where_counting_is_biased(inferred):
    plain, mean, sd, truth, n = inferred
    poisson = 1 / np.sqrt(n) / np.log(10)
    assert np.abs((plain - truth) / poisson).mean() > 3  # counting alone is wrong by many sigma
    assert np.abs((mean - truth) / sd).max() < 3.5
    assert np.abs((mean - truth) / sd).mean() < 1.5
    assert np.sqrt(((mean - truth) ** 2).mean()) < 0.5 * np.sqrt(((plain - truth) ** 2).mean())


def test_no_star_at_all_gives_the_prior():
    t = table()
    none = np.zeros(0)
    got = jointmf.sample(jointmf.prepare(t, response.count(t, none, none, none)), 1, chains=2, warmup=60, draws=60)
    assert np.isfinite(got.ln_phi).all()
    assert got.ln_phi.std() > 1
