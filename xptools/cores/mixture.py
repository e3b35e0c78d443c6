"""A mixture of Gaussians whose parameters a small network makes of a context (Li+ 2026 App. B).

    p(x | c) = sum_k pi_k(c) N(x | mu_k(c), Sigma_k(c)),   Sigma = L L^T,   L = lower(c) + diag(exp d(c) + 1e-6)

x = (ra, dec, v_ra, v_dec) and c = [Fe/H], both standardised. The network is 1 -> 32 -> 32 -> 15 K with ReLU; its output
is K logits, K x 4 means, K x 4 values d, K x 6 entries below the diagonal row by row. That is zuko's GMM, weight for
weight. Parameters are {"net.0.weight": (32, 1), "net.0.bias": (32,), ...}; `xp` is NumPy or jax.numpy.

A model file holds beside them: norm.mean, norm.std (4,), norm.ra_cut [deg], norm.clip [km/s], norm.context_centre,
norm.context_scale [dex]; mdf.feh, mdf.count: centres of the cells of [Fe/H] [dex] and the stars trained on in each.
"""

from math import log, pi
from typing import Any

import numpy as np

DIM = 4
BELOW = tuple((i, j) for i in range(DIM) for j in range(i))  # row by row, as the network gives them
PER_COMPONENT = 1 + 2 * DIM + len(BELOW)
EPSILON = 1e-6  # least diagonal of L

Params = dict[str, Any]


def depth(params: Params) -> int:
    """How many linear layers there are."""
    return sum(name.startswith("net.") and name.endswith(".weight") for name in params)


def size(params: Params) -> int:
    """K, the number of components."""
    return params[f"net.{depth(params) - 1}.bias"].shape[0] // PER_COMPONENT


def network(params: Params, c, xp=np):
    """The network's output (C, 15 K) at standardised contexts c (C,)."""
    h, last = c[:, None], depth(params) - 1
    for k in range(last + 1):
        h = h @ params[f"net.{k}.weight"].T + params[f"net.{k}.bias"]
        h = xp.maximum(h, 0) if k < last else h
    return h


def parts(out, xp=np):
    """Of the output (C, 15 K): log weights (C, K), means (C, K, 4), diagonal of L (C, K, 4), below it (C, K, 6)."""
    K = out.shape[-1] // PER_COMPONENT
    logits, rest = out[..., :K], out[..., K:]
    mean, d, below = rest[..., : DIM * K], rest[..., DIM * K : 2 * DIM * K], rest[..., 2 * DIM * K :]
    shape = out.shape[:-1]
    return (
        logits - _log_sum(logits, xp)[..., None],
        mean.reshape(*shape, K, DIM),
        xp.exp(d).reshape(*shape, K, DIM) + EPSILON,
        below.reshape(*shape, K, len(BELOW)),
    )


def components(params: Params, c, xp=np):
    """Log weights (C, K), means (C, K, 4) and lower Cholesky factors (C, K, 4, 4) at contexts c (C,)."""
    log_weight, mean, diagonal, below = parts(network(params, c, xp), xp)
    nothing = xp.zeros_like(diagonal[..., 0])
    rows = [
        [below[..., BELOW.index((i, j))] if j < i else diagonal[..., i] if j == i else nothing for j in range(DIM)]
        for i in range(DIM)
    ]
    return log_weight, mean, xp.stack([xp.stack(row, -1) for row in rows], -2)


def log_prob(params: Params, x, c, xp=np):
    """ln p(x | c) (N,) of standardised x (N, 4) at contexts c (N,): L z = x - mu solved forwards, ln det from L."""
    log_weight, mean, diagonal, below = parts(network(params, c, xp), xp)
    away, z = x[:, None, :] - mean, []
    for i in range(DIM):
        rest = away[..., i] - sum(below[..., BELOW.index((i, j))] * z[j] for j in range(i))
        z.append(rest / diagonal[..., i])
    square = sum(v * v for v in z)
    log_normal = -0.5 * (square + DIM * log(2 * pi)) - xp.log(diagonal).sum(-1)
    return _log_sum(log_weight + log_normal, xp)


def _log_sum(a, xp):
    """ln of the sum of e^a over the last axis, safe for any a."""
    most = a.max(-1)
    return most + xp.log(xp.exp(a - most[..., None]).sum(-1))


def unwrapped(norm: Params, ra):
    """Right ascension [deg] in [cut, cut + 360): continuous where there are stars."""
    return norm["norm.ra_cut"] + (ra - norm["norm.ra_cut"]) % 360.0


def standardise(norm: Params, ra, dec, v_ra, v_dec) -> np.ndarray:
    """x (N, 4) float64 of ra, dec [deg] and v_ra, v_dec [km/s] (N,); velocities are clipped at norm.clip.

    norm.mean, norm.std (4,): of (unwrapped ra, dec, v_ra, v_dec); norm.ra_cut, norm.clip: numbers.
    """
    clip = norm["norm.clip"]
    columns = (unwrapped(norm, ra), dec, np.clip(v_ra, -clip, clip), np.clip(v_dec, -clip, clip))
    return (np.stack(columns, -1).astype(np.float64) - norm["norm.mean"]) / norm["norm.std"]


def context(norm: Params, feh):
    """c of [Fe/H] [dex]: (feh - norm.context_centre) / norm.context_scale."""
    return (feh - norm["norm.context_centre"]) / norm["norm.context_scale"]
