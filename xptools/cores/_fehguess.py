"""The first guess of `xp feh`, compiled: a small network from the spectrum to labels, star by star (numba, CPU).

`nn.apply` on `feh.guess_input` is the same in array form. A matrix product of many stars is no quicker here and would
wake up the threads of BLAS beside our own. Importing this module imports numba.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from xptools.cores._fehkernels import exponentials, kernel, part
from xptools.cores._fehsimd import add_rows
from xptools.cores._fehtiles import logarithm_tile
from xptools.cores._lanes import LANES

FAINTEST, BRIGHTEST, FURTHEST = np.float32(1e-30), np.float32(1e30), np.float32(5.0)  # as in feh.guess_input
LOG10_E = np.float32(1 / math.log(10.0))
STEEP, CUBIC = np.float32(-2 * math.sqrt(2 / math.pi)), np.float32(0.044715)  # of GELU: x / (1 + exp(-2 u))


class Layers(NamedTuple):
    """A network with all widths padded by zeros: weights and biases flat, widths; its inputs' mean and 1 / scale."""

    weights: np.ndarray
    biases: np.ndarray
    widths: np.ndarray
    mean: np.ndarray
    over: np.ndarray


def layers(params, mean: np.ndarray, scale: np.ndarray) -> Layers:
    """A network as `nn` has it, and what its inputs (n,) are standardised by."""
    widths = [_padded(params[0]["w"].shape[0]), *(_padded(layer["w"].shape[1]) for layer in params)]
    weights = [_filled(layer["w"], shape) for layer, shape in zip(params, pairwise(widths), strict=True)]
    biases = [_filled(layer["b"], (width,)) for layer, width in zip(params, widths[1:], strict=True)]
    inputs = (_filled(a, (widths[0],)) for a in (mean, 1 / np.asarray(scale, np.float64)))
    return Layers(np.concatenate([w.ravel() for w in weights]), np.concatenate(biases), np.array(widths), *inputs)


def _padded(width: int) -> int:
    return -(-width // LANES) * LANES


def _filled(a, shape: tuple[int, ...]) -> np.ndarray:
    return np.pad(np.asarray(a, np.float32), [(0, whole - n) for n, whole in zip(np.shape(a), shape, strict=True)])


@part
def standardised(layers, y, x):
    """What the network sees of flux at 10 pc y (n,), into x: standardised log10, 0 for what is not known."""
    for c in range(layers.widths[0]):
        x[c] = min(max(np.float32(y[c]), FAINTEST), BRIGHTEST) if c < len(y) else np.float32(1.0)
    for tile in range(0, layers.widths[0], LANES):
        logarithm_tile(x, tile)
    for c in range(layers.widths[0]):
        z = (LOG10_E * x[c] - layers.mean[c]) * layers.over[c]
        x[c] = min(max(z, -FURTHEST), FURTHEST) if c < len(y) and not math.isnan(y[c]) else np.float32(0.0)


@part
def activated(x, t, width):
    """GELU of x (width,) in place; t is scratch."""
    for c in range(width):
        t[c] = STEEP * x[c] * (np.float32(1.0) + CUBIC * x[c] * x[c])
    exponentials(t, width)
    for c in range(width):
        x[c] /= np.float32(1.0) + t[c]


@kernel
def guess_stars(layers, box, y, labels):
    """Scaled labels (N, 3) inside the box (2, 3) from flux at 10 pc y (N, n)."""
    widest = layers.widths.max()
    one, other = np.zeros(widest, np.float32), np.zeros(widest, np.float32)
    for i in range(len(y)):
        x, z = one, other
        standardised(layers, y[i], x)
        at = first = 0
        for k in range(1, len(layers.widths)):
            rows, columns = layers.widths[k - 1], layers.widths[k]
            for c in range(columns):
                z[c] = layers.biases[first + c]
            for r in range(0, rows, 4):
                for tile in range(0, columns, LANES):
                    add_rows(z, tile, layers.weights, at + r * columns + tile, columns, x, r)
            at += rows * columns
            first += columns
            x, z = z, x
            if k < len(layers.widths) - 1:
                activated(x, z, columns)
        for k in range(3):
            labels[i, k] = min(max(x[k], box[0, k]), box[1, k])
