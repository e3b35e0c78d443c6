"""Flux and variances of XP spectra on JAX's device (`--device cuda`): plain matrix products.

    f = c D,   V = w M + sigma^2 D^2,   w = (rho_ij sigma_i sigma_j for j < i),   M = 2 D_i D_j

Both functions take what their counterparts for the CPU take (`_xpkernels`, `_xpvariance`). Products run in full
float32, of which a GPU's own default leaves ten bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from xptools.cores._jax import chunked, configure

ROWS = 4096


def flux_band(c, count, kind, D, D_alone, at, merged, flux):
    """`_xpkernels.flux_band`."""
    for rows, matrix in _groups(kind, D, D_alone, at):
        (part,) = chunked(lambda used, D=matrix: _compiled()[0](used, D), ROWS)(_used(c, count, rows))
        flux[np.ix_(rows, at)] += part
        if len(merged):
            merged[np.ix_(rows, at)] = part


def variance_band(sigma, rho, count, kind, D, D_alone, at, total, correlated):
    """`_xpvariance.variance_band`, with D (K, P) in place of their products."""
    for rows, matrix in _groups(kind, D, D_alone, at):
        unit = 2.0 ** np.ceil(np.log2(np.abs(matrix).max()))  # float32 holds no square of 1e-20
        matrix, used = matrix / unit, _used(sigma, count, rows).astype(np.float32)
        (part,) = chunked(lambda s, D=matrix: _compiled()[1](s, D), ROWS)(used)
        known = np.zeros(len(rows), bool)
        if rho.shape[1]:
            i, j = np.tril_indices(len(matrix), -1)
            M = (2 * matrix[i] * matrix[j]).astype(np.float32)
            (more,) = chunked(lambda s, r, M=M: _compiled()[2](s, r, M), ROWS)(used, rho[rows])
            known = np.isfinite(more[:, 0])
            part = part + np.where(known[:, None], more, 0.0)
        correlated[rows[~known]] = False
        total[np.ix_(rows, at)] += unit**2 * part


def _groups(kind, D, D_alone, at):
    """Stars that have both bands, stars that have this one alone, each with its matrix without the padding."""
    for code, matrix in ((1, D), (2, D_alone)):
        rows = np.flatnonzero(kind == code)
        if len(rows):
            yield rows, matrix[:, : len(at)]


def _used(block, count, rows):
    """Some rows of a block (N, K), zero beyond the first `count` of each."""
    return np.where(np.arange(block.shape[1]) < count[rows, None], block[rows], 0.0)


@cache
def _compiled():
    """Flux, variance of independent coefficients, and what correlations add to it."""
    jax = configure()
    jnp = jax.numpy

    def product(a, b):
        return (jnp.matmul(a, b, precision="highest"),)

    def correlations(sigma, rho, M):
        i, j = np.tril_indices(sigma.shape[1], -1)
        return product(rho * (sigma[:, i] * sigma[:, j]), M)

    return jax.jit(product), jax.jit(lambda sigma, D: product(sigma.astype(float) ** 2, D * D)), jax.jit(correlations)
