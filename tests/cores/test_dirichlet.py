"""Shares of counted cells: closed forms of the Dirichlet-multinomial, and who is believed when."""

import numpy as np
from scipy.stats import dirichlet_multinomial

from xptools.cores import dirichlet

PRIOR = np.array([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]])


def test_the_evidence_is_that_of_the_dirichlet_multinomial():
    stars = np.array([[7, 0], [2, 1], [4, 30]])
    ours = [dirichlet.evidence(stars, PRIOR, nu) for nu in (2.0, 50.0)]
    theirs = [sum(dirichlet_multinomial.logpmf(n, nu * p, n.sum()) for n, p in zip(stars.T, PRIOR.T, strict=True))
              for nu in (2.0, 50.0)]  # fmt: skip
    np.testing.assert_allclose(ours[1] - ours[0], theirs[1] - theirs[0], rtol=1e-10)


def test_a_prior_that_holds_is_believed_and_one_that_does_not_gives_way():
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.full(6, 2.0), 40).T
    other = rng.dirichlet(np.full(6, 2.0), 40).T
    stars = np.stack([np.stack([rng.multinomial(300, p) for p in prior.T], axis=1)] * 2)
    found = dirichlet.posterior(stars, np.stack([prior, other]))
    shares = stars[0] / 300
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    off = [np.abs(f - prior).mean() / np.abs(shares - prior).mean() for f in found]
    assert off[0] < 0.35  # nearer to the truth than counts alone
    assert np.abs(found[1] - shares).mean() < 0.1 * np.abs(found[1] - other).mean() and off[1] < 1.1


def test_an_empty_cell_is_what_was_thought():
    stars = np.zeros((1, 3, 2))
    stars[0, :, 0] = 5, 3, 2
    np.testing.assert_allclose(dirichlet.posterior(stars, PRIOR[None])[0, :, 1], PRIOR[:, 1], atol=1e-6)
