"""Shares of what was counted in cells, where there are many; where there are few, those that were thought before.

Before the stars of a cell are counted, its shares are thought to be `prior`, as firmly as if nu stars had said so: a
Dirichlet distribution of parameters nu prior. With n_j of N stars in category j the shares' mean is

    P_j = (n_j + nu prior_j) / (N + nu),

and nu is that of the highest evidence of all cells of a group, ln p(n) = sum over cells of ln B(n + nu prior) -
ln B(nu prior): a prior that the stars bear out is believed, one that they contradict gives way.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

RAREST = 1e-7  # share that a category has at least before
FIRM = (0.0, 14.0)  # range of ln nu


def posterior(stars: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """P (A, J, C) of categories J in cells C of groups A, from stars (A, J, C) and prior (A, J, C), any norm."""
    prior = prior.clip(RAREST)
    prior = prior / prior.sum(axis=1, keepdims=True)
    out = np.empty(prior.shape)
    for n, p, row in zip(stars, prior, out, strict=True):
        nu = np.exp(minimize_scalar(lambda x, n=n, p=p: -evidence(n, p, np.exp(x)), bounds=FIRM, method="bounded").x)
        row[:] = (n + nu * p) / (n.sum(axis=0) + nu)
    return out


def evidence(n: np.ndarray, prior: np.ndarray, nu: float) -> float:
    """ln p of stars (J, C) whose shares have a Dirichlet prior of parameters nu prior (J, C), but for multinomials."""
    each = gammaln(n + nu * prior) - gammaln(nu * prior)
    return float(each.sum() - (gammaln(n.sum(axis=0) + nu) - gammaln(nu)).sum())
