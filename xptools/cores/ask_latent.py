"""What the known numbers of a star say of a few hidden ones, if all were Gaussian: factor analysis with holes.

    z_i = L_i u + c_i + noise of variance n_i,      u ~ N(0, 1) of K numbers,      i any known token

    u | known:   covariance S = (1 + sum_i L_i L_i^T / n_i)^-1,   mean m = S sum_i L_i (z_i - c_i) / n_i

The sums run over whatever is known, so m is the best linear answer from any subset (Ghahramani & Hinton 1996, with
holes). A network learns such small differences of large numbers slowly; it is given m and S and learns what is not
linear. z is cut at CUT, for one wild number must not turn all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

CUT = 8.0
STARS, ROUNDS = 8192, 25  # of the fit
FLOOR = 1e-6  # least variance of the noise, in standardised units
UNTOLD = 0.1  # variance that the fit begins with where a token has no errors


class Told(NamedTuple):
    """Of each star: means m and ln standard deviations of the hidden numbers (B, K), m and S in float64."""

    features: Tensor
    mean: Tensor
    covariance: Tensor

    def of(self, stars: int) -> Told:
        """The first `stars`."""
        return Told(*(x[:stars] for x in self))


class Latent(nn.Module):
    """L (V + 1, K), c and n (V + 1,) of tokens 1 ... V, found by `fitted` and not trained afterwards."""

    def __init__(self, tokens: int, hidden: int):
        super().__init__()
        self.register_buffer("loadings", torch.zeros(tokens + 1, hidden))
        self.register_buffer("offset", torch.zeros(tokens + 1))
        self.register_buffer("noise", torch.ones(tokens + 1))

    def forward(self, values: Tensor, known: Tensor) -> Told:
        """From standardised values (B, V + 1), 0 where unknown, and what is known (B, V + 1)."""
        L, noise = self.loadings.double(), self.noise.double()
        scaled = L / noise[:, None]
        pairs = (L[:, :, None] * scaled[:, None, :]).flatten(1)
        seen = known.double()
        K = L.shape[1]
        precision = (seen @ pairs).unflatten(1, (K, K)) + torch.eye(K, dtype=torch.float64, device=L.device)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        off = (values.double().clamp(-CUT, CUT) - self.offset.double()) * seen
        mean = (covariance @ (off @ scaled)[..., None])[..., 0]
        error = 0.5 * covariance.diagonal(dim1=1, dim2=2).log()
        return Told(torch.cat([mean, error], 1).float(), mean, covariance)

    def guess(self, told: Told, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and ln variance (B, R) of tokens (B, R), 1 ... V."""
        L = self.loadings[tokens].double()
        mean = (L @ told.mean[..., None])[..., 0] + self.offset[tokens].double()
        variance = ((L @ told.covariance) * L).sum(-1) + self.noise[tokens].double()
        return mean.float(), variance.log().float()

    def set(self, loadings: np.ndarray, offset: np.ndarray, noise: np.ndarray) -> None:
        """What `fitted` found, for tokens 1 ... V."""
        for name, array in (("loadings", loadings), ("offset", offset), ("noise", noise)):
            getattr(self, name)[1:] = torch.from_numpy(array).to(self.noise)


def fitted(z: np.ndarray, sigma: np.ndarray, hidden: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L (V, K), c and n (V,) of the greatest likelihood, nearly: ROUNDS of EM from the principal components.

    z (N, V) standardised, NaN where unknown; sigma (N, V) its errors, 0 where unknown. Tokens that nobody knows keep
    L = 0 and n = 1.
    """
    known = np.isfinite(z)
    y = np.nan_to_num(np.clip(z, -CUT, CUT)).astype(np.float64)
    columns = (s[k & (s > 0)] for s, k in zip(sigma.T, known.T, strict=True))
    noise = np.maximum([np.median(s**2) if len(s) else UNTOLD for s in columns], FLOOR)
    offset = y.sum(0) / np.maximum(known.sum(0), 1)
    L = _principal((y - offset) * known, noise, hidden)
    seen = known.astype(np.float64)
    count = seen.sum(0)
    for _ in range(ROUNDS):
        L, offset, noise = _round(y, seen, L, offset, noise)
    never = count < 2
    L[never], offset[never], noise[never] = 0.0, 0.0, 1.0
    return L, offset, noise


def _principal(y: np.ndarray, noise: np.ndarray, hidden: int) -> np.ndarray:
    """Loadings (V, K) of the directions that stand out most from the noise."""
    white = y / np.sqrt(noise)
    size, axes = np.linalg.eigh(white.T @ white / len(y))
    size, axes = size[::-1][:hidden], axes[:, ::-1][:, :hidden]
    out = np.zeros((len(noise), hidden))
    out[:, : len(size)] = axes * np.sqrt(np.maximum(size - 1.0, 0.1)) * np.sqrt(noise)[:, None]
    return out


def _round(y, seen, L, offset, noise):
    """One round of expectation and maximisation; the offset is the loading of a hidden number that is always 1."""
    (_, V), K = y.shape, L.shape[1]
    precision = (seen @ (L[:, :, None] * (L / noise[:, None])[:, None, :]).reshape(V, -1)).reshape(-1, K, K)
    S = np.linalg.inv(precision + np.eye(K))
    m = (S @ (((y - offset) * seen) @ (L / noise[:, None]))[..., None])[..., 0]
    one = np.hstack([m, np.ones((len(m), 1))])
    second = one[:, :, None] * one[:, None, :]
    second[:, :K, :K] += S
    A = (seen.T @ second.reshape(len(m), -1)).reshape(V, K + 1, K + 1) + 1e-6 * np.eye(K + 1)
    b = (y * seen).T @ one
    W = np.linalg.solve(A, b[..., None])[..., 0]
    square = (y**2 * seen).sum(0) - 2 * (W * b).sum(1) + np.einsum("vi,vij,vj->v", W, A, W)
    # the hidden numbers are given mean 0 and variance 1 again, which hastens the rounds (Liu, Rubin & Wu 1998)
    centre, scatter = one.mean(0)[:K], second.mean(0)[:K, :K]
    root = np.linalg.cholesky(scatter - np.outer(centre, centre))
    return W[:, :K] @ root, W[:, K] + W[:, :K] @ centre, np.maximum(square / np.maximum(seen.sum(0), 1), FLOOR)
