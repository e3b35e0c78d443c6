"""The random forest: its best split against all splits, classes and numbers that no single feature tells, the seed."""

import numpy as np
import pytest

from xptools.cores import forest
from xptools.cores.forest import CLASSES, NUMBER


@pytest.mark.parametrize("y", [lambda rng: rng.normal(size=60), lambda rng: (rng.random(60) < 0.4) * 1.0])
@pytest.mark.parametrize(("fewest", "spread"), [(1, 1), (7, 1), (1, 1000), (7, 1000)])
def test_a_split_is_the_best_of_all(y, fewest, spread):
    """For classes the least squares are Gini's purity; stars far apart in rank are sorted, others counted."""
    rng = np.random.default_rng(1)
    x, y = (rng.integers(3, 40, 60) * spread).astype(np.uint16), y(rng)
    room = np.zeros(forest.RANKS), np.zeros(forest.RANKS, np.int64)

    def sides(code):
        return [s for s in (x <= code, x > code) if s.sum() >= fewest]

    gains = {c: y.var() * 60 - sum(y[s].var() * s.sum() for s in sides(c)) for c in np.unique(x) if len(sides(c)) == 2}
    best, code = forest.parted(x, y, np.arange(60), y.mean(), fewest, *room)
    code = x[x <= code].max()
    assert best == pytest.approx(max(gains.values())) == pytest.approx(gains[code])
    assert forest.parted(np.full(60, 9, np.uint16), y, np.arange(60), y.mean(), fewest, *room)[0] == 0
    assert not room[0].any() and not room[1].any()
    if set(y) == {0.0, 1.0}:
        purity = {c: sum(((y[s] == k).sum() ** 2) / s.sum() for s in sides(c) for k in (0, 1)) for c in gains}
        assert code == max(purity, key=purity.get)


def test_a_tree_is_least_squares_all_the_way():
    """One tree without a bootstrap: leaves hold the mean of their stars, and are as small as asked."""
    rng = np.random.default_rng(2)
    codes, y = rng.integers(0, 20000, (2, 500)).astype(np.uint16), rng.normal(size=500)
    feature, last, children, mean = forest.grown(codes, y, np.arange(500), np.zeros((1, 2)), 2, 5)
    leaf = np.zeros(500, int)
    for i, own in enumerate(codes.T):
        while feature[leaf[i]] >= 0:
            leaf[i] = children[leaf[i]] + (own[feature[leaf[i]]] > last[leaf[i]])
    sizes = np.bincount(leaf)
    assert sizes[sizes > 0].min() >= 5 and (feature[np.flatnonzero(sizes)] == forest.LEAF).all()
    assert all(mean[k] == pytest.approx(y[leaf == k].mean()) for k in np.flatnonzero(sizes))
    total = np.zeros(500)
    forest.summed(feature, last, children, mean, codes, total)
    assert np.allclose(total, mean[leaf])


def test_classes_that_no_single_feature_tells():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4))
    classes, few = x[:, 0] * x[:, 1] > 0, CLASSES._replace(trees=30)
    guess = forest.predicted(x[:2000], classes[:2000], x[2000:], few) > 0.5
    assert (guess == classes[2000:]).mean() > 0.93
    noise = rng.random(2000) < 0.3
    assert (forest.predicted(x[:2000], noise, x[2000:], few) > 0.5).mean() < 0.1  # what cannot be told is the majority


def test_numbers_and_the_seed():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 3))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]
    few = NUMBER._replace(trees=20)
    first, again, other = (forest.predicted(x[:3000], y[:3000], x[3000:], few, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert 1 - (first - y[3000:]).var() / y.var() > 0.75
    codes = forest.coded(x, [forest.between(c) for c in x.T])
    assert all(np.array_equal(code, np.argsort(np.argsort(c))) for code, c in zip(codes, x.T, strict=True))
    squeezed = forest.predicted(np.exp(x[:3000]), y[:3000], np.exp(x[3000:]), few)
    assert np.corrcoef(first, squeezed)[0, 1] > 0.999  # orders alone matter
