"""Spectra of a known nonlinear law: a curved sheet of two numbers in K dimensions, scatter about it, and noise."""

import numpy as np
import pyarrow as pa

K = 12
BANDS = (6, 6)


def law(t, K=K):
    """Clean vectors (N, K) of two numbers t (N, 2)."""
    k = np.arange(K) / K
    a, b = t[:, :1], t[:, 1:]
    bent = 0.25 * np.cos(4 * k) * (a * a - 1) + 0.2 * np.sin(5 * k) * a * b
    return np.cos(2.2 * k + 0.8) * a + np.sin(3.1 * k) * b + bent


def scatter(K=K):
    """Intrinsic scatter (K,), different in every coefficient."""
    return 0.05 + 0.15 * np.arange(K) / K


def sample(n, seed, noise=(0.02, 0.3), intrinsic=1.0, K=K):
    """t (n, 2), values and errors (n, K); errors differ from star to star."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, 2))
    sigma = np.exp(rng.uniform(*np.log(noise), (n, 1))) * np.exp(rng.normal(0, 0.1, (n, K)))
    x = law(t, K) + intrinsic * scatter(K) * rng.normal(size=(n, K)) + sigma * rng.normal(size=(n, K))
    return t, x, sigma


def table(n, seed, G=1e4, **more):
    """The same as a table with two bands of six coefficients and a G flux."""
    t, x, sigma = sample(n, seed)
    ids = np.random.default_rng(seed + 77).integers(2**60, 2**62, n)
    x, sigma, first = x * G, sigma * G, BANDS[0]
    return pa.table({
        "source_id": ids, "phot_g_mean_flux": np.full(n, G), "t1": t[:, 0], "t2": t[:, 1], **more,
        "bp_coefficients": wide(x[:, :first]), "rp_coefficients": wide(x[:, first:]),
        "bp_coefficient_errors": wide(sigma[:, :first]), "rp_coefficient_errors": wide(sigma[:, first:]),
    })  # fmt: skip


def wide(a):
    """A block as an array column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(a).ravel()), a.shape[1])
