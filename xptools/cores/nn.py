"""Small fully connected networks as pytrees of arrays: x -> W x + b, GELU between layers, none after the last.

    GELU(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))      (the tanh form, Hendrycks & Gimpel 2016)

Parameters are a list of {"w": (in, out), "b": (out,)}; the same functions serve NumPy and JAX (`xp`).
"""

from itertools import pairwise
from math import pi, sqrt
from typing import Any

import numpy as np

Params = list[dict[str, Any]]


def init(seed: int, sizes: tuple[int, ...]) -> Params:
    """Weights normal with variance 2 / fan_in (He+ 2015), 1 / fan_in in the last layer, biases 0; float32."""
    rng = np.random.default_rng(seed)
    layers = []
    for k, (n, m) in enumerate(pairwise(sizes)):
        gain = 1.0 if k == len(sizes) - 2 else 2.0
        w = rng.normal(0, sqrt(gain / n), (n, m)).astype(np.float32)
        layers.append({"w": w, "b": np.zeros(m, np.float32)})
    return layers


def gelu(x, xp=np):
    """The tanh form of the Gaussian error linear unit."""
    return 0.5 * x * (1 + xp.tanh(sqrt(2 / pi) * x * (1 + 0.044715 * x * x)))


def apply(params: Params, x, xp=np):
    """(N, in) -> (N, out)."""
    for layer in params[:-1]:
        x = gelu(x @ layer["w"] + layer["b"], xp)
    return x @ params[-1]["w"] + params[-1]["b"]


def apply_with_slopes(params: Params, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, in) -> (N, out) and the Jacobian (in, N, out), in NumPy."""
    slopes = None  # (in, N, width)
    for layer in params[:-1]:
        z = x @ layer["w"] + layer["b"]
        t = np.tanh(sqrt(2 / pi) * z * (1 + 0.044715 * z * z))
        x = 0.5 * z * (1 + t)
        d = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * sqrt(2 / pi) * (1 + 3 * 0.044715 * z * z)
        slopes = d * (layer["w"][:, None, :] if slopes is None else slopes @ layer["w"])
    last = params[-1]
    jacobian = np.repeat(last["w"][:, None, :], len(x), 1) if slopes is None else slopes @ last["w"]
    return x @ last["w"] + last["b"], jacobian


def flatten(params: Params) -> dict[str, np.ndarray]:
    """{"net.0.w": ..., "net.0.b": ...}, as they stand in a model file."""
    return {f"net.{k}.{n}": np.array(v) for k, layer in enumerate(params) for n, v in layer.items()}


def unflatten(arrays: dict[str, np.ndarray]) -> Params:
    """The inverse of `flatten`; other names are left alone."""
    depth = sum(name.startswith("net.") and name.endswith(".w") for name in arrays)
    return [{n: arrays[f"net.{k}.{n}"] for n in ("w", "b")} for k in range(depth)]


def adamw(tree_map, rate, params, gradients, state, decay=1e-4, beta=(0.9, 0.999), epsilon=1e-8):
    """One AdamW step (Loshchilov & Hutter 2019): (new params, new state); state = (count, first, second moments).

    `tree_map` is jax.tree.map; weights and biases decay alike.
    """
    count, first, second = state
    count = count + 1
    first = tree_map(lambda m, g: beta[0] * m + (1 - beta[0]) * g, first, gradients)
    second = tree_map(lambda v, g: beta[1] * v + (1 - beta[1]) * g * g, second, gradients)
    a, b = 1 - beta[0] ** count, 1 - beta[1] ** count

    def moved(p, m, v):
        return p - rate * ((m / a) / ((v / b) ** 0.5 + epsilon) + decay * p)

    return tree_map(moved, params, first, second), (count, first, second)
