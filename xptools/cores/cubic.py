"""The cubic spline through given points, without scipy: to import scipy.interpolate takes longer than a small table."""

from __future__ import annotations

import numpy as np


class Cubic:
    """A spline s with s(x_i) = y_i, x (n,) rising, n >= 4, whose third derivative runs on at x_1 and x_(n-2).

    The ends are what is called not-a-knot: scipy's CubicSpline, and its splrep with s=0, are the same function.
    Outside of x the first and the last cubic go on.
    """

    def __init__(self, x, y):
        self.x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        h = np.diff(self.x)
        rise = np.diff(y) / h
        slope = _slopes(h, rise)
        bend = (slope[:-1] + slope[1:] - 2.0 * rise) / h
        self.c = np.stack([bend / h, (rise - slope[:-1]) / h - bend, slope[:-1], y[:-1]])

    def __call__(self, x) -> np.ndarray:
        """s at x, of any shape."""
        i = np.clip(np.searchsorted(self.x, x, side="right") - 1, 0, len(self.x) - 2)
        t, (a, b, c, d) = x - self.x[i], self.c[:, i]
        return ((a * t + b) * t + c) * t + d


def _slopes(h: np.ndarray, rise: np.ndarray) -> np.ndarray:
    """First derivatives (n,) at the points, from steps and mean rises (n - 1,): tridiagonal, by elimination."""
    first, last = h[0] + h[1], h[-2] + h[-1]
    below = np.r_[h[1:], last].tolist()
    middle = np.r_[h[1], 2.0 * (h[:-1] + h[1:]), h[-2]].tolist()
    above = np.r_[first, h[:-1]].tolist()
    right = np.r_[
        ((h[0] + 2.0 * first) * h[1] * rise[0] + h[0] ** 2 * rise[1]) / first,
        3.0 * (h[1:] * rise[:-1] + h[:-1] * rise[1:]),
        (h[-1] ** 2 * rise[-2] + (2.0 * last + h[-1]) * h[-2] * rise[-1]) / last,
    ].tolist()
    for i in range(len(above)):
        factor = below[i] / middle[i]
        middle[i + 1] -= factor * above[i]
        right[i + 1] -= factor * right[i]
    out = [right[-1] / middle[-1]]
    for i in reversed(range(len(above))):
        out.append((right[i] - above[i] * out[-1]) / middle[i])
    return np.array(out[::-1])
