"""A network of three labels as a table: cubic B-splines on a regular grid, its values and slopes (NumPy, JAX).

    t(theta) = sum_ijk B(x - i) B(y - j) B(z - k) c_ijk,   B: the cardinal cubic B-spline, x, y, z in grid steps

The coefficients interpolate the network at every node; between the nodes the error falls with the fourth power of the
step, value and slopes are continuous, and an evaluation costs 64 nodes whatever the network's size. The network is
evaluated a few nodes beyond the box, so that the filter's end conditions are forgotten inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

NODES = 33  # per label, from one end of the box to the other
MARGIN = 7  # nodes evaluated beyond either end; the filter forgets a factor of 3.7 per node
KEPT = 1  # nodes beyond either end that the splines inside the box touch
CHUNK = 4096
WIDTH = 64


@dataclass(frozen=True)
class Table:
    """Spline coefficients (nodes + 2, nodes + 2, nodes + 2, outputs) over the box low ... high (3,)."""

    low: np.ndarray
    high: np.ndarray
    coefficients: np.ndarray

    @cached_property
    def step(self) -> np.ndarray:
        """Distance between nodes, by label."""
        return (self.high - self.low) / (self.coefficients.shape[0] - 1 - 2 * KEPT)

    @cached_property
    def padded(self) -> np.ndarray:
        """The coefficients, float32, outputs filled up with zeros to WIDTH: what the compiled kernels read."""
        n = self.coefficients.shape[-1]
        return np.ascontiguousarray(np.pad(self.coefficients, [(0, 0)] * 3 + [(0, WIDTH - n)]).astype(np.float32))

    def __call__(self, labels, xp=np, coefficients=None):
        """Values (N, outputs) and slopes by label (3, N, outputs) at labels (N, 3); outside the box at its edge.

        With `xp` = jax.numpy the coefficients are better an argument of the compiled program than a constant in it.
        """
        c = self.coefficients if coefficients is None else coefficients
        cells = c.shape[0] - 1 - 2 * KEPT
        x = xp.clip((labels - self.low) / self.step, 0, cells)
        cell = xp.minimum(xp.floor(x), cells - 1)
        weight, slope = splines(x - cell, xp)  # (4, N, 3)
        first = cell.astype("int32")[:, :, None] + xp.arange(4, dtype="int32")  # (N, 3, 4)
        nodes = c[first[:, 0, :, None, None], first[:, 1, None, :, None], first[:, 2, None, None, :]]

        def along(factors, values):  # the sum over the last axis of nodes left
            return xp.einsum("kn,n...ko->n...o", factors, values)

        x, y, z = (weight[:, :, k] for k in range(3))
        plane = along(z, nodes)
        line = along(y, plane)
        slopes = (
            along(slope[:, :, 0], line),
            along(x, along(slope[:, :, 1], plane)),
            along(x, along(y, along(slope[:, :, 2], nodes))),
        )
        return along(x, line), xp.stack([s / h for s, h in zip(slopes, self.step, strict=True)])

    def values(self, labels, xp=np, coefficients=None):
        """Values (N, outputs) alone; what JAX differentiates."""
        return self(labels, xp, coefficients)[0]


def splines(u, xp=np):
    """The four cubic B-splines that touch a cell, and their slopes, at fractions u (...) of it: (4, ...) each."""
    v = 1 - u
    value = [v**3, 3 * u**3 - 6 * u**2 + 4, 3 * v**3 - 6 * v**2 + 4, u**3]
    slope = [-(v**2), 3 * u**2 - 4 * u, 4 * v - 3 * v**2, u**2]
    return xp.stack(value) / 6, xp.stack(slope) / 2


def tabulate(function, low, high, nodes: int = NODES) -> Table:
    """The table of `function`: (N, 3) labels -> (N, outputs), between low and high (3,)."""
    from scipy.ndimage import spline_filter1d

    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    step = (high - low) / (nodes - 1)
    axes = [lo + h * np.arange(-MARGIN, nodes + MARGIN) for lo, h in zip(low, step, strict=True)]
    labels = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    values = np.concatenate([function(labels[i : i + CHUNK]) for i in range(0, len(labels), CHUNK)])
    values = values.reshape(*(len(a) for a in axes), -1).astype(np.float64)
    for axis in range(3):
        values = spline_filter1d(values, 3, axis, mode="mirror")
        inside = slice(MARGIN - KEPT, -(MARGIN - KEPT))
        values = values[(slice(None),) * axis + (inside,)]
    return Table(low, high, np.ascontiguousarray(values))
