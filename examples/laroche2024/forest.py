"""A random forest of two classes (Breiman 2001), with the settings that are usual: 100 trees grown to pure leaves, each
on a bootstrap of the stars, the best Gini split among sqrt(features) features drawn for every node."""

import numpy as np

from xptools.cores._numba import compiled

TREES = 100
LEAF = -1


def classified(x, classes, new, seed=0):
    """Which (M,) of new (M, n) the forest grown on x (N, n) and its classes (N,) puts into the class."""
    rng, votes = np.random.default_rng(seed), np.zeros(len(new))
    x, new, y = np.ascontiguousarray(x), np.ascontiguousarray(new), classes.astype(np.float64)
    for _ in range(TREES):
        rows = rng.integers(0, len(x), len(x))
        tree = grown(x, y, rows, rng.random((2 * len(x), x.shape[1])), int(np.sqrt(x.shape[1])))
        voted(*tree, new, votes)
    return votes / TREES > 0.5


@compiled()
def grown(x, y, rows, lots, tried):
    """feature (LEAF in a leaf), threshold, first child and share of the class (nodes,) of a tree on rows of x (N, n).

    A node draws its features by its row of lots (2 N, n); it looks at more than `tried` if those cannot be split.
    """
    most = 2 * len(rows)
    feature, children, value = np.full(most, LEAF), np.zeros(most, np.int64), np.zeros((most, 2))
    start, stop = np.zeros(most, np.int64), np.zeros(most, np.int64)
    stop[0], count, node = len(rows), 1, 0
    while node < count:
        mine = rows[start[node] : stop[node]]
        ones = y[mine].sum()
        value[node, 1] = ones / len(mine)
        if 0 < ones < len(mine):
            best, seen = 0.0, 0
            for j in np.argsort(lots[node]):
                if seen == tried:
                    break
                score, threshold = parted(x[:, j], y, mine)
                seen += score > 0
                if score > best:
                    best, feature[node], value[node, 0] = score, j, threshold
            if best > 0:
                left = x[:, feature[node]][mine] <= value[node, 0]
                mine[:] = np.concatenate((mine[left], mine[~left]))
                children[node], middle = count, start[node] + left.sum()
                start[count], stop[count], start[count + 1], stop[count + 1] = start[node], middle, middle, stop[node]
                count += 2
        node += 1
    return feature[:count], children[:count], value[:count]


@compiled()
def parted(x, y, rows):
    """(purity, threshold) of the best split of rows in x; purity is the sum over sides of (n_0^2 + n_1^2) / n."""
    v = x[rows]
    order = np.argsort(v)
    n, ones, left, best, threshold = len(rows), y[rows].sum(), 0.0, 0.0, 0.0
    for k in range(1, n):
        left += y[rows[order[k - 1]]]
        low, high = v[order[k - 1]], v[order[k]]
        if low < high:
            right = ones - left
            purity = (left**2 + (k - left) ** 2) / k + (right**2 + (n - k - right) ** 2) / (n - k)
            if purity > best:
                best, threshold = purity, low + 0.5 * (high - low)
                if threshold >= high:  # neighbours in floating point
                    threshold = low
    return best, threshold


@compiled()
def voted(feature, children, value, new, votes):
    """Adds each new star's share of the class in its leaf to votes (M,)."""
    for i in range(len(new)):
        node = 0
        while feature[node] != LEAF:
            node = children[node] + (new[i, feature[node]] > value[node, 0])
        votes[i] += value[node, 1]
