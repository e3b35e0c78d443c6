"""A random forest (Breiman 2001): trees grown on bootstraps of the stars, each split the one that explains most.

    split = argmax sum over both sides of (sum y)^2 / n        of a node's stars, over features and thresholds

which is least squares for a number y and Gini's purity for two classes 0 and 1. Features enter by their ranks, for only
orders matter: a node of many stars is counted through, one of few is sorted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xptools.cores._numba import compiled

RANKS = 1 << 16
WIDE = 8  # ranks per star of a node, beyond which it is sorted
LEAF = -1


class Growth(NamedTuple):
    """How trees grow: their number, fewest stars of a leaf, features tried per split (0: all, -1: the square root of
    their number), stars of a bootstrap, ranks of a feature, beyond which values share them; the last two at most."""

    trees: int = 50
    fewest: int = 5
    tried: int = 0
    most: int = 8192
    ranks: int = 256


NUMBER = Growth()  # to predict a number
CLASSES = Growth(100, 1, -1, 1 << 62, RANKS)  # to tell two classes, with the settings that are usual: pure leaves


def predicted(x: np.ndarray, y: np.ndarray, new: np.ndarray, growth: Growth = NUMBER, seed: int = 0) -> np.ndarray:
    """Mean of y (N,), numbers or the classes 0 and 1, that trees grown on x (N, n) give for new (M, n)."""
    rng, total = np.random.default_rng(seed), np.zeros(len(new))
    y, features = np.ascontiguousarray(y, np.float64), x.shape[1]
    tried = {0: features, -1: max(int(np.sqrt(features)), 1)}.get(growth.tried, growth.tried)
    edges = [between(column, growth.ranks) for column in x.T]
    codes, others = (coded(some, edges) for some in (x, new))
    size = min(len(y), growth.most)
    for _ in range(growth.trees):
        rows = rng.integers(0, len(y), size)
        lots = rng.random((2 * size, features)) if tried < features else np.zeros((1, features))
        summed(*grown(codes, y, rows, lots, tried, growth.fewest), others, total)
    return total / growth.trees


def between(values: np.ndarray, ranks: int = RANKS) -> np.ndarray:
    """Thresholds between neighbouring values (N,), ascending; between quantiles if there are too many."""
    levels = np.unique(values)
    if len(levels) > ranks:
        levels = np.unique(np.quantile(values, np.linspace(0, 1, ranks)))
    return 0.5 * (levels[:-1] + levels[1:])


def coded(x: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    """How many edges (n, N), uint16, of its feature are below each value (N, n)."""
    return np.stack([np.searchsorted(e, v) for e, v in zip(edges, x.T, strict=True)]).astype(np.uint16)


@compiled()
def grown(codes, y, rows, lots, tried, fewest):
    """feature (LEAF in a leaf), last code to the left, first child and mean (nodes,) of a tree on rows of codes (n, N).

    A node draws its features by its row of lots (2 N, n), or takes them in order if there is one row; it looks at more
    than `tried` if those cannot be split.
    """
    most, n = 2 * len(rows), codes.shape[0]
    feature, last, children = np.full(most, LEAF), np.zeros(most, np.int64), np.zeros(most, np.int64)
    mean = np.zeros(most)
    start, stop = np.zeros(most, np.int64), np.zeros(most, np.int64)
    sums, counts = np.zeros(RANKS), np.zeros(RANKS, np.int64)
    stop[0], count, node = len(rows), 1, 0
    while node < count:
        mine = rows[start[node] : stop[node]]
        mean[node] = y[mine].mean()
        if len(mine) >= 2 * fewest:
            order = np.argsort(lots[node]) if tried < n else np.arange(n)
            best, seen, tiny = 0.0, 0, 1e-12 * (y[mine] ** 2).sum()
            for j in order:
                if seen == tried:
                    break
                gain, code = parted(codes[j], y, mine, mean[node], fewest, sums, counts)
                seen += gain > tiny
                if gain > max(best, tiny):
                    best, feature[node], last[node] = gain, j, code
            if best > 0:
                left = codes[feature[node]][mine] <= last[node]
                mine[:] = np.concatenate((mine[left], mine[~left]))
                children[node], middle = count, start[node] + left.sum()
                start[count], stop[count], start[count + 1], stop[count + 1] = start[node], middle, middle, stop[node]
                count += 2
        node += 1
    return feature[:count], last[:count], children[:count], mean[:count]


@compiled()
def parted(codes, y, rows, mean, fewest, sums, counts):
    """(gain, last code to the left) of the best split of rows by codes (N,); gain is how much squares of y fall.

    sums and counts (RANKS,) are room to work in, 0 before and after.
    """
    low, high = np.int64(RANKS), np.int64(-1)
    for i in rows:
        c = np.int64(codes[i])
        low, high = min(low, c), max(high, c)
    if high - low > WIDE * len(rows):
        return sorted_split(codes, y, rows, mean, fewest)
    for i in rows:
        c = np.int64(codes[i])
        sums[c] += y[i] - mean
        counts[c] += 1
    left, total, before, best, place = 0, 0.0, low, 0.0, np.int64(0)
    for c in range(low, high + 1):
        if counts[c]:
            gain = gained(total, left, len(rows), fewest)
            if gain > best:
                best, place = gain, (before + c) >> 1
            left, total, before = left + counts[c], total + sums[c], c
            sums[c], counts[c] = 0.0, 0
    return best, place


@compiled()
def sorted_split(codes, y, rows, mean, fewest):
    """The same for few stars."""
    own = codes[rows]
    order = np.argsort(own)
    total, best, place = 0.0, 0.0, np.int64(0)
    for k in range(1, len(rows)):
        total += y[rows[order[k - 1]]] - mean
        a, b = np.int64(own[order[k - 1]]), np.int64(own[order[k]])
        if a < b:
            gain = gained(total, k, len(rows), fewest)
            if gain > best:
                best, place = gain, (a + b) >> 1
    return best, place


@compiled(inline=True)
def gained(total, left, n, fewest):
    """By how much squares fall when `left` of n stars, whose y - mean add up to `total`, go to the left."""
    if left < fewest or n - left < fewest:
        return 0.0
    return total * total / left + total * total / (n - left)  # those to the right add up to -total


@compiled()
def summed(feature, last, children, mean, codes, total):
    """Adds the mean of each new star's leaf to total (M,); codes (n, M)."""
    for i in range(len(total)):
        node = 0
        while feature[node] != LEAF:
            node = children[node] + (codes[feature[node], i] > last[node])
        total[i] += mean[node]
