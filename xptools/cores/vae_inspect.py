"""What latents know of a label: Spearman's correlation, mutual information from ranks, and probes of all of them.

    I = sum_ij n_ij / n ln(n n_ij / (n_i n_j)) - (B - 1)^2 / (2 n)        [nats], Miller's correction for the cells

with both variables cut into B classes of equal numbers. Only orders enter, so the scale of a label does not matter.
The partial correlation is that of what a quadratic in the ranks of other labels leaves of both ranks: what a latent
knows of a label at fixed others. A probe predicts the label from all latents, for each star by what it learned from
others: least squares, linear or quadratic, and a random forest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

FEWEST = 30  # stars
FOLDS = 5
TREES, LEAF, GROWN_ON = 50, 5, 8192  # of the forest: trees, fewest stars of a leaf, most stars of a tree
RIDGE = 1e-6


def ranked(latents: np.ndarray, label: np.ndarray) -> list[tuple[int, float, float]]:
    """(latent, Spearman's rho, mutual information) of latents (N, L) with a label (N,), the most informative first."""
    ranks = [(k, spearman(z, label), mutual_information(z, label)) for k, z in enumerate(latents.T)]
    return sorted(ranks, key=lambda r: (-r[2], -abs(r[1])))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of two variables (N,); 0 where one is constant."""
    a, b = (rankdata(v) - (len(v) + 1) / 2 for v in (x, y))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def partial(x: np.ndarray, y: np.ndarray, others: np.ndarray) -> float:
    """Spearman's correlation of x and y (N,) at fixed others (N, m); without any it is `spearman`."""
    terms = quadratic(np.apply_along_axis(rankdata, 0, others)) if others.shape[1] else np.ones((len(x), 1))
    a, b = (r - terms @ np.linalg.lstsq(terms, r, rcond=1e-9)[0] for r in (rankdata(x), rankdata(y)))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 1e-9 * len(x) ** 3 else 0.0


def mutual_information(x: np.ndarray, y: np.ndarray) -> float:
    """Of two variables (N,) in nats, never negative."""
    n = len(x)
    B = int(np.clip(np.sqrt(n / 20), 2, 30))
    i, j = (np.minimum((rankdata(v) - 0.5) * B // n, B - 1).astype(int) for v in (x, y))
    table = np.bincount(i * B + j, minlength=B * B).reshape(B, B) / n
    expected = table.sum(1)[:, None] * table.sum(0)
    some = table > 0
    I = float((table[some] * np.log(table[some] / expected[some])).sum())
    return max(I - (B - 1) ** 2 / (2 * n), 0.0)


def probed(latents: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """A label's predictions (N,) from latents (N, L) by each probe, every star's from the other folds."""
    return {
        "linear": squares(linear(latents), label),
        "quadratic": squares(quadratic(latents), label),
        "forest": crossed(forest, latents, label),
    }


def forest(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What a random forest (Breiman 2001; scikit-learn's) grown on x (N, L) and y (N,) gives for new (M, L)."""
    from sklearn.ensemble import RandomForestRegressor

    some = min(GROWN_ON, len(y))
    grown = RandomForestRegressor(TREES, min_samples_leaf=LEAF, max_samples=some, random_state=0, n_jobs=-1)
    grown.fit(x, y)
    return grown.set_params(n_jobs=1).predict(new)  # trees of one thread are added in one order


def single(columns: np.ndarray, label: np.ndarray) -> tuple[int, float]:
    """(place, Spearman's rho) of that of columns (N, K) which knows most of a label (N,), by rho; unknown is NaN."""
    rho = np.zeros(columns.shape[1])
    for k, column in enumerate(columns.T):
        known = np.isfinite(column)
        if known.sum() >= FEWEST:
            rho[k] = spearman(column[known], label[known])
    best = int(np.abs(rho).argmax())
    return best, float(rho[best])


def linear(x: np.ndarray) -> np.ndarray:
    """1 and x_i (N, L + 1) of standardised columns x (N, L)."""
    return np.concatenate([np.ones((len(x), 1)), (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)], 1)


def quadratic(x: np.ndarray) -> np.ndarray:
    """1, x_i and x_i x_j (N, terms) of standardised columns x (N, L)."""
    terms = linear(x)
    i, j = np.triu_indices(x.shape[1])
    return np.concatenate([terms, terms[:, i + 1] * terms[:, j + 1]], 1)


def squares(terms: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Least-squares predictions (N,) of a label by terms (N, t), each star's from the other folds."""

    def fitted(A, y, new):
        return new @ np.linalg.solve(A.T @ A + RIDGE * len(A) * np.eye(A.shape[1]), A.T @ y)

    return crossed(fitted, terms, label)


def crossed(predicted: Callable, x: np.ndarray, label: np.ndarray) -> np.ndarray:
    """What `predicted(x, label, new)` of the other folds gives for each star (N,) of x (N, n)."""
    out, fold = np.empty(len(label)), np.arange(len(label)) % FOLDS
    for k in range(FOLDS):
        use = fold != k
        out[~use] = predicted(x[use], label[use], x[~use])
    return out
