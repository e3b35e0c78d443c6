"""The scatter variational auto-encoder of XP spectra (Laroche & Speagle 2024), as it is used: encode, decode, scatter.

    x = (c / F_G - m) / s,   sigma = sigma_c / (F_G s)       110 coefficients c over the G flux F_G, standardised
    mu, ln v = encoder(x)                                    q(z | x) = N(mu, diag v)
    x^ = decoder(z),   s^ = scatter(z)                       p(x | z) = N(x^, diag(sigma^2 + s^2)), 0 < s^ < 1

Layers: K - h_1 - ... - h_n, each Linear, BatchNorm, GELU (erf), then two Linear heads to L; decoder and scatter the
same way back, L - h_n - ... - h_1 - K, where the first Linear stands alone and the last has no norm; the scatter ends
in a sigmoid. With 110, (90, 70, 50, 30, 10) and 6 these are 67,182 parameters, the published network.
differs from the paper: it omits the batch norm, which the published weights have, and activates the first layer back.

Arrays are named encoder.0.w (in, out), encoder.0.b, encoder.0.gamma, .beta, .mean, .var, mu.w, log_var.w, decoder.0.w,
scatter.0.w ..., norm.mean, norm.scale (K,). `forward` is the array form for NumPy and JAX; `Model` runs it compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from operator import matmul

import numpy as np

from xptools import settings
from xptools.cores import _vaekernels as kernels
from xptools.cores.dustcube import spread_out

EPSILON = 1e-5  # added to a batch norm's variance
MOMENTUM = 0.1
PAPER = (90, 70, 50, 30, 10)
Arrays = dict[str, np.ndarray]
Active = Callable[[str, "np.ndarray"], "np.ndarray"]  # norm and GELU of a layer's output, by the layer's name


def layers(K: int, hidden: tuple[int, ...], L: int) -> dict[str, tuple[tuple[int, int, bool], ...]]:
    """Per part its (in, out, whether norm and GELU follow): encoder, mu, log_var, decoder, scatter."""
    up = (K, *hidden)
    down = (L, *hidden[::-1], K)
    last = len(down) - 2
    back = tuple((down[k], down[k + 1], 0 < k < last) for k in range(last + 1))
    return {
        "encoder": tuple((up[k], up[k + 1], True) for k in range(len(hidden))),
        "mu": ((up[-1], L, False),), "log_var": ((up[-1], L, False),), "decoder": back, "scatter": back,
    }  # fmt: skip


def init(seed: int, K: int, hidden: tuple[int, ...], L: int, batch_norm: bool = True) -> Arrays:
    """Fresh arrays, float32: weights and biases uniform within 1 / sqrt(in), as PyTorch begins."""
    rng, out = np.random.default_rng([seed, 9]), {}
    for part, shapes in layers(K, hidden, L).items():
        for k, (n, m, active) in enumerate(shapes):
            name = f"{part}.{k}" if part in ("encoder", "decoder", "scatter") else part
            bound = 1 / np.sqrt(n)
            out[f"{name}.w"] = rng.uniform(-bound, bound, (n, m)).astype(np.float32)
            out[f"{name}.b"] = rng.uniform(-bound, bound, m).astype(np.float32)
            if active and batch_norm:
                for key, value in (("gamma", 1), ("beta", 0), ("mean", 0), ("var", 1)):
                    out[f"{name}.{key}"] = np.full(m, value, np.float32)
    return out


def count(arrays: Arrays) -> int:
    """How many trained numbers: all but norm.*, calibration.* and the running moments."""
    ends, starts = (".mean", ".var"), ("norm.", "calibration.")
    return sum(a.size for n, a in arrays.items() if not n.endswith(ends) and not n.startswith(starts))


def shape_of(arrays: Arrays) -> tuple[int, tuple[int, ...], int]:
    """(K, hidden, L) of a set of arrays."""
    depth = sum(n.startswith("encoder.") and n.endswith(".w") for n in arrays)
    hidden = tuple(arrays[f"encoder.{k}.w"].shape[1] for k in range(depth))
    return arrays[f"decoder.{depth}.w"].shape[1], hidden, arrays["mu.w"].shape[1]


def running(arrays: Arrays, gelu: Callable, xp=np) -> Active:
    """Batch norm by the running moments, if the network has any, and `gelu`."""

    def active(name, x):
        if f"{name}.gamma" in arrays:
            scale = arrays[f"{name}.gamma"] / xp.sqrt(arrays[f"{name}.var"] + np.float32(EPSILON))
            x = (x - arrays[f"{name}.mean"]) * scale + arrays[f"{name}.beta"]
        return gelu(x)

    return active


def encoded(arrays: Arrays, x, active: Active, product: Callable = matmul):
    """mu and ln v (N, L) of standardised coefficients (N, K), unknown ones 0."""
    for k in range(_depth(arrays, "encoder")):
        x = active(f"encoder.{k}", product(x, arrays[f"encoder.{k}.w"]) + arrays[f"encoder.{k}.b"])
    return tuple(product(x, arrays[f"{head}.w"]) + arrays[f"{head}.b"] for head in ("mu", "log_var"))


def decoded(arrays: Arrays, part: str, z, active: Active, product: Callable = matmul):
    """Output (N, K) of the decoder, or of the scatter network before its sigmoid, for latents (N, L)."""
    last = _depth(arrays, part) - 1
    for k in range(last + 1):
        z = product(z, arrays[f"{part}.{k}.w"]) + arrays[f"{part}.{k}.b"]
        if 0 < k < last:
            z = active(f"{part}.{k}", z)
    return z


def _depth(arrays: Arrays, part: str) -> int:
    return sum(n.startswith(f"{part}.") and n.endswith(".w") for n in arrays)


def gelu(x):
    """x/2 (1 + erf(x / sqrt 2)) in NumPy: the plain form."""
    from scipy.special import ndtr

    return x * ndtr(x)


def sigmoid(x, xp=np):
    """1 / (1 + e^-x)."""
    return 1 / (1 + xp.exp(-x))


class Model:
    """Arrays of a model file, ready to use: batch norm folded into the weights."""

    def __init__(self, arrays: Arrays):
        self.arrays = arrays
        self.K, self.hidden, self.L = shape_of(arrays)

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """mu and ln v (N, L) of standardised coefficients (N, K), unknown ones 0."""
        out = self._run("encoder", x, 2 * self.L)
        return out[:, : self.L], out[:, self.L :]

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Standardised coefficients (N, K) of latents (N, L)."""
        return self._run("decoder", z, self.K)

    def scatter(self, z: np.ndarray) -> np.ndarray:
        """Intrinsic scatter s^ (N, K) in standardised units."""
        return self._run("scatter", z, self.K)

    def standardised(self, values: np.ndarray, errors: np.ndarray, flux: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and sigma (N, K) of coefficients and errors (N, K) over the G flux (N,): `standardised`."""
        return standardised(self.arrays, values, errors, flux)

    def plain(self, x: np.ndarray, flux: np.ndarray, spread: bool = False) -> np.ndarray:
        """Coefficients (N, K) of standardised ones; with `spread`, of errors, which have no zero point."""
        mean = 0.0 if spread else self.arrays["norm.mean"].astype(np.float64)
        return (x * self.arrays["norm.scale"].astype(np.float64) + mean) * flux[:, None]

    def _run(self, part: str, rows: np.ndarray, width: int) -> np.ndarray:
        rows = np.ascontiguousarray(rows, np.float32)
        if settings.device() == "cuda":
            return self._on_device(part, rows)
        out = np.empty((len(rows), width), np.float32)
        weights, sizes, kinds = self._packed[part]

        def work(start, stop):
            kernels.network(weights, sizes, kinds, rows[start:stop], out[start:stop])

        spread_out(work, len(rows), settings.threads())
        return out

    @cached_property
    def _packed(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Per part what `kernels.network` takes."""
        return {part: _packed(folded(self.arrays, part)) for part in ("encoder", "decoder", "scatter")}

    def _on_device(self, part: str, rows: np.ndarray) -> np.ndarray:
        """The same with JAX, where a GPU was asked for."""
        from xptools.cores._jax import chunked

        (out,) = chunked(self._compiled[part], 1 << 16)(rows)
        return out

    @cached_property
    def _compiled(self) -> dict[str, Callable]:
        from xptools.cores._jax import configure

        jax = configure()
        arrays = {k: jax.numpy.asarray(v, jax.numpy.float32) for k, v in self.arrays.items()}
        active = running(arrays, lambda x: jax.nn.gelu(x, approximate=False), jax.numpy)
        return {
            "encoder": jax.jit(lambda x: (jax.numpy.concatenate(encoded(arrays, x, active), 1),)),
            "decoder": jax.jit(lambda z: (decoded(arrays, "decoder", z, active),)),
            "scatter": jax.jit(lambda z: (jax.nn.sigmoid(decoded(arrays, "scatter", z, active)),)),
        }


def standardised(norms: Arrays, values: np.ndarray, errors: np.ndarray, flux: np.ndarray):
    """x and sigma (N, K), float32, of coefficients and their errors (N, K) over the G flux (N,).

    NaN and inf where the coefficient or its error is unknown, or the error is not positive.
    """
    mean, scale = (norms[f"norm.{n}"].astype(np.float64) for n in ("mean", "scale"))
    x, sigma = (np.empty(values.shape, np.float32) for _ in range(2))
    given = [np.ascontiguousarray(a, np.float64) for a in (values, errors, flux)]

    def work(start, stop):
        rows = slice(start, stop)
        kernels.standardise(*(a[rows] for a in given), mean, scale, x[rows], sigma[rows])

    spread_out(work, len(x), settings.threads())
    return x, sigma


def folded(arrays: Arrays, part: str) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(W, b, what follows) of each layer of a part, float64, batch norm inside W and b; both heads as one layer."""
    depth, out = _depth(arrays, part), []
    wide = {k: v.astype(np.float64) for k, v in arrays.items()}
    for k in range(depth):
        name = f"{part}.{k}"
        W, b = wide[f"{name}.w"], wide[f"{name}.b"]
        if f"{name}.gamma" in wide:
            scale = wide[f"{name}.gamma"] / np.sqrt(wide[f"{name}.var"] + EPSILON)
            W, b = W * scale, (b - wide[f"{name}.mean"]) * scale + wide[f"{name}.beta"]
        active = part == "encoder" or 0 < k < depth - 1
        end = kernels.SIGMOID if part == "scatter" and k == depth - 1 else kernels.PLAIN
        out.append((W, b, kernels.GELU if active else end))
    if part == "encoder":
        W, b = (np.concatenate([wide[f"mu.{n}"], wide[f"log_var.{n}"]], -1) for n in "wb")
        out.append((W, b, kernels.PLAIN))
    return out


def _packed(parts: list[tuple[np.ndarray, np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flat, sizes = [], []
    for W, b, _ in parts:
        n, m = W.shape
        width = -(-m // 4) * 4
        both = np.zeros((n + 1, width), np.float32)
        both[:n, :m], both[n, :m] = W, b
        flat.append(both.ravel())
        sizes.append((n, width))
    return np.concatenate(flat), np.array(sizes, np.int64), np.array([kind for *_, kind in parts], np.int64)
