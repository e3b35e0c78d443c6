"""Training of the scatter variational auto-encoder, in JAX: an epoch is one compiled scan over its batches.

    L = mean over stars of  sum_j ½ [(x_j - x^_j)^2 / V_j + ln V_j] + w sum_l ½ [mu_l^2 + v_l - 1 - ln v_l]
    V_j = sigma_j^2 + s^_j^2,   z = mu + sqrt(v) epsilon                                          loss "code"

which is the negative ELBO up to a constant for w = 1. Loss "paper" (Laroche & Speagle 2024 eqs 1-5) averages both sums,
over K and over L, without the ½. Unknown coefficients are left out of the sum over j, and 0 where the encoder reads.
With correlations, the first sum is ½ [r^T C^-1 r + ln det C], C = diag(sigma) rho diag(sigma) + diag(s^2) per band; a
compiled kernel gives it and its slopes in r and s^2 between two passes through the network.

differs from the published code: no batch is dropped; the rows of an epoch are dealt evenly to its batches, and a batch
norm counts only real rows. The weight w of the KL term can rise to its value in the first epochs: latents may
otherwise be given up before the decoder has learned to use them, and stay so. In the last epochs batch norms are held
at their running moments, as they are in use: the scatter network otherwise learns the noise of the batches' moments,
and is too large for small batches.

In precision bfloat16 the factors of matrix products are rounded to it, forwards and backwards, sums are single
precision, as are weights, moments, batch norms and the likelihood; held-out losses are in single precision throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from operator import matmul
from typing import NamedTuple

import numpy as np

from xptools import settings
from xptools.cores import nn, vae
from xptools.cores.dustcube import spread_out

TRAINED = (".w", ".b", ".gamma", ".beta")


class Sample(NamedTuple):
    """Stars for training: x (N, K) standardised, 0 where unknown; variance sigma^2 (N, K), inf there; float32.

    correlations (N, bands, k (k - 1) / 2) packed strictly below the diagonal, or None.
    """

    x: np.ndarray
    variance: np.ndarray
    correlations: np.ndarray | None = None

    @classmethod
    def of(cls, x: np.ndarray, sigma: np.ndarray, correlations: np.ndarray | None = None) -> Sample:
        """From x with NaN and sigma with inf where unknown, as `vae.Model.standardised` gives them."""
        rho = None if correlations is None else np.nan_to_num(correlations.astype(np.float32), nan=0.0)
        return cls(np.where(np.isfinite(sigma), x, np.float32(0)), sigma.astype(np.float32) ** 2, rho)

    @classmethod
    def relative(
        cls, norms: vae.Arrays, x: np.ndarray, variance: np.ndarray, correlations: np.ndarray | None = None
    ) -> Sample:
        """From coefficients over the G flux and their variances (N, K), float32, inf where unknown; both change."""
        mean, over = norms["norm.mean"].astype(np.float32), (1 / norms["norm.scale"]).astype(np.float32)
        for start in range(0, len(x), 2048):  # what fits the cache goes through it once
            some, its = x[start : start + 2048], variance[start : start + 2048]
            some -= mean
            some *= over
            some[np.isinf(its)] = 0
            its *= over**2
        return cls(x, variance, correlations)

    def parted(self) -> tuple[Sample, np.ndarray | None]:
        """Without its correlations, and those."""
        rho = self.correlations
        return self._replace(correlations=None), None if rho is None else np.asarray(rho)

    def rows(self, rows) -> Sample:
        """Some of the stars."""
        return Sample(*(None if a is None else a[rows] for a in self))


@dataclass(frozen=True)
class Objective:
    """What is minimised: "code" or "paper", the weight of the KL term, the decay of AdamW; in which precision."""

    loss: str = "code"
    kl_weight: float = 1.0
    decay: float = 0.01
    precision: str = "float32"


Blocks = Callable[[int], Iterator[Sample]]


def dealt(n: int, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random order of n rows, dealt evenly to batches of at most `batch`: rows and whether they count (B, b)."""
    count = max(1, -(-n // batch))
    width = -(-n // count)
    order, use = np.zeros((count, width), np.int32), np.zeros((count, width), np.float32)
    shuffled = rng.permutation(n).astype(np.int32)
    edges = np.linspace(0, n, count + 1).astype(int)
    for k, (a, b) in enumerate(pairwise(edges)):
        order[k, : b - a], use[k, : b - a] = shuffled[a:b], 1
    return order, use


class Learner:
    """Weights, moments and running norms in training (train.Learner, with epochs of its own)."""

    def __init__(
        self, arrays: vae.Arrays, objective: Objective, batch: int, seed: int, blocks: Blocks, held: Sample,
        settle: float = np.inf, warm: float = 0.0,
    ):  # fmt: skip
        """From epoch `warm` the KL term has its whole weight, from `settle` batch norms are held as they are."""
        from xptools.cores._jax import configure  # JAX is needed for training only

        self.jax = configure()
        self.objective, self.batch, self.seed, self.blocks = objective, batch, seed, blocks
        self.settle, self.warm = settle, warm
        self.product = rounded_product(self.jax) if objective.precision == "bfloat16" else matmul
        put = self.put = self.jax.numpy.asarray
        arrays = {k: put(v) for k, v in arrays.items() if not k.startswith(("norm.", "calibration."))}
        self.params = {k: v for k, v in arrays.items() if k.endswith(TRAINED)}
        self.stats = {k: v for k, v in arrays.items() if k not in self.params}
        zero = self.jax.tree.map(self.jax.numpy.zeros_like, self.params)
        self.moments = (put(np.float32(0)), zero, zero)
        self.held, self.resident = Sample(*(None if a is None else put(a) for a in held)), (None, None)
        self.idle = {k for k in self.params if k.endswith(".b") and self._followed(k)}
        self._scan = self.jax.jit(self._scanned, static_argnums=(6,))
        self._score = self.jax.jit(self._held_out)
        self._both = self.jax.jit(self._outputs, static_argnums=(4, 5))
        self._step = self.jax.jit(self._updated, static_argnums=(5,))

    def epoch(self, number: int, rate: float) -> float:
        """Train once on all rows; the mean loss."""
        total, rows = 0.0, 0
        share = 1.0 if number >= self.warm else (number + 1) / (self.warm + 1)
        pace = np.float32(rate), np.float32(share)
        for k, block in enumerate(self.blocks(number)):
            n = len(block.x)
            order, use = dealt(n, self.batch, np.random.default_rng([self.seed, number, k]))
            key = self.jax.random.key(np.uint32((self.seed * 1_000_003 + number * 4_099 + k) % 2**32))
            carry, moving = (self.params, self.moments, self.stats), number < self.settle
            if block.correlations is None:
                carry, loss = self._scan(carry, self._resident(block), order, use, key, pace, moving)
            else:
                carry, loss = self._stepped(carry, block, order, use, key, pace, moving)
            self.params, self.moments, self.stats = carry
            total, rows = total + float(loss) * n, rows + n
        return total / rows

    def score(self, _rows) -> float:
        """The held-out loss with running norms and one fixed draw of epsilon."""
        total = 0.0
        for i in range(0, len(self.held.x), 4096):
            part, rho = self.held.rows(slice(i, i + 4096)).parted()
            epsilon = self._epsilon(self.jax.random.key(i), len(part.x))
            told = None
            if rho is not None:
                both = self._both(self.params, self.stats, part, (epsilon, None), False, matmul)
                told = correlated(part, rho, np.arange(len(part.x)), *both)
            total += float(self._score(self.params, self.stats, part, epsilon, told)) * len(part.x)
        return total / len(self.held.x)

    def arrays(self) -> vae.Arrays:
        return {k: np.array(v) for k, v in {**self.params, **self.stats}.items()}

    def kept(self) -> vae.Arrays:
        """All that a later process needs to go on."""
        count, first, second = self.moments
        return {
            **self.arrays(), "moment.count": np.array(count).reshape(1),  # files keep no number without an axis
            **{f"moment.1.{k}": np.array(v) for k, v in first.items()},
            **{f"moment.2.{k}": np.array(v) for k, v in second.items()},
        }  # fmt: skip

    def restore(self, kept: vae.Arrays) -> None:
        """Go on from `kept`."""
        self.params = {k: self.put(kept[k]) for k in self.params}
        self.stats = {k: self.put(kept[k]) for k in self.stats}
        first, second = ({k: self.put(kept[f"moment.{n}.{k}"]) for k in self.params} for n in "12")
        self.moments = (self.put(kept["moment.count"].reshape(())), first, second)

    def _followed(self, bias: str) -> bool:
        """Whether a batch norm takes this bias out again: its own layer's, or that of the layer after a bare one."""
        name = bias[:-2]
        return f"{name}.gamma" in self.params or (
            name in ("decoder.0", "scatter.0") and f"{name[:-1]}1.gamma" in self.params
        )

    def _resident(self, block: Sample) -> Sample:
        """The block on the device; the one that is always the same stays there."""
        if self.resident[0] is not block:
            self.resident = (block, Sample(*(None if a is None else self.put(a) for a in block)))
        return self.resident[1]

    def _epsilon(self, key, rows: int):
        return self.jax.random.normal(key, (rows, self.params["mu.b"].shape[0]), np.float32)

    def _scanned(self, carry, data, order, use, key, pace, moving):
        def one(carry, batch):
            rows, weight, number = batch
            epsilon = self._epsilon(self.jax.random.fold_in(key, number), len(rows))
            carry, loss = self._updated(carry, data.rows(rows), weight, epsilon, pace, moving)
            return carry, loss * weight.sum()

        numbers = np.arange(order.shape[0], dtype=np.uint32)
        carry, losses = self.jax.lax.scan(one, carry, (order, use, numbers))
        return carry, losses.sum() / use.sum()

    def _stepped(self, carry, block, order, use, key, pace, moving):
        """The same batch by batch, for the correlated law is no part of the compiled network."""
        data, rho = block.parted()
        total = 0.0
        for number, (rows, weight) in enumerate(zip(order, use, strict=True)):
            some, epsilon = data.rows(rows), self._epsilon(self.jax.random.fold_in(key, number), len(rows))
            both = self._both(carry[0], carry[2], some, (epsilon, weight), moving, self.product)
            told = correlated(some, rho, rows, *both)
            carry, loss = self._step(carry, some, weight, epsilon, pace, moving, told)
            total += float(loss) * weight.sum()
        return carry, total / use.sum()

    def _updated(self, carry, some, weight, epsilon, pace, moving, told=None):
        """Weights, moments and norms after one batch, and its mean loss; `pace` is the rate and the share of the KL."""
        rate, share = pace
        params, moments, stats = carry
        value = self.jax.value_and_grad(self._loss, has_aux=True)
        (loss, stats), slopes = value(params, stats, some, weight, epsilon, moving, told, share, self.product)
        # a bias under a batch norm has no slope but rounding, which AdamW would blow up to steps of the rate
        slopes |= {k: 0 * slopes[k] for k in self.idle if moving}
        decay = np.float32(self.objective.decay)
        params, moments = nn.adamw(self.jax.tree.map, rate, params, slopes, moments, decay)
        return (params, moments, stats), loss

    def _held_out(self, params, stats, some, epsilon, told):
        return self._loss(params, stats, some, np.ones(some.x.shape[0], np.float32), epsilon, False, told)[0]

    def _outputs(self, params, stats, some, drawn, training, product):
        """x^ and s^ at one draw of the latents; `drawn` are epsilon and the stars' weights."""
        epsilon, weight = drawn
        active = self._active(params, dict(stats), None if weight is None else weight / weight.sum(), training)
        return self._run(params, some, epsilon, active, product)[:2]

    def _active(self, params, moved, w, training):
        if training:
            return self._batch_norm(params, moved, w)
        return vae.running({**params, **moved}, lambda x: gelu_and_slope(self.jax, x)[0], self.jax.numpy)

    def _run(self, params, some, epsilon, active, product):
        """x^, s^, mu and ln v."""
        mu, log_var = vae.encoded(params, some.x, active, product)
        z = mu + epsilon * self.jax.numpy.exp(0.5 * log_var)
        out = vae.decoded(params, "decoder", z, active, product)
        return out, self.jax.nn.sigmoid(vae.decoded(params, "scatter", z, active, product)), mu, log_var

    def _loss(self, params, stats, some, weight, epsilon, training, told=None, share=1.0, product=matmul):
        """(mean loss of a batch, running norms after it); `told` is what `correlated` says, `share` the KL term's."""
        w = weight / weight.sum()
        moved = dict(stats)
        active = self._active(params, moved, w, training)
        out, scatter, mu, log_var = self._run(params, some, epsilon, active, product)
        likelihood = misfit(self.jax, some, out, scatter) if told is None else _about(self.jax, told, out, scatter)
        kl = 0.5 * (mu * mu + self.jax.numpy.exp(log_var) - 1 - log_var).sum(-1)
        if self.objective.loss == "paper":
            likelihood, kl = 2 * likelihood / some.x.shape[1], 2 * kl / mu.shape[1]
        return ((likelihood + share * self.objective.kl_weight * kl) * w).sum(), moved

    def _batch_norm(self, params, moved, w):
        """Norm by the batch's own moments, which move the running ones in `moved`, and GELU."""
        some = 1 / (1 - (w * w).sum())  # unbiased: n / (n - 1) for equal weights
        both = normed_gelu(self.jax)

        def active(name, x):
            if f"{name}.gamma" not in params:
                return gelu_and_slope(self.jax, x)[0]
            y, mean, var = both(x, params[f"{name}.gamma"], params[f"{name}.beta"], w)
            for key, now in (("mean", mean), ("var", var * some)):
                old = moved[f"{name}.{key}"]
                moved[f"{name}.{key}"] = old + np.float32(vae.MOMENTUM) * (self.jax.lax.stop_gradient(now) - old)
            return y

        return active


def gelu_and_slope(jax, x):
    """x Phi(x) and its derivative Phi(x) + x phi(x); jax.nn.gelu takes erfc, which is slower."""
    phi = 0.5 * (1 + jax.lax.erf(x * np.float32(np.sqrt(0.5))))
    return x * phi, phi + x * jax.numpy.exp(-0.5 * x * x) * np.float32(1 / np.sqrt(2 * np.pi))


@cache
def normed_gelu(jax) -> Callable:
    """GELU of a batch norm as one function of (x, gamma, beta, weights) with its closed slope; also mean and variance.

    With u = gamma x' + beta, x' = (x - mean) / s and d = dL/dy GELU'(u):
    dL/dx = gamma / s (d - w (sum d + x' sum d x')), dL/dgamma = sum d x', dL/dbeta = sum d. Mean and variance, which
    move the running moments only, pass no slope on. XLA's own derivation takes a tenth longer per epoch.
    """
    jnp = jax.numpy

    def forward(x, gamma, beta, w):
        mean = w @ x
        centred = x - mean
        var = w @ (centred * centred)
        over = 1 / jnp.sqrt(var + np.float32(vae.EPSILON))
        scaled = centred * over
        y, slope = gelu_and_slope(jax, gamma * scaled + beta)
        return (y, mean, var), (scaled, slope, gamma * over, w)

    def backward(kept, cotangent):
        scaled, slope, factor, w = kept
        d, ones = cotangent[0] * slope, jnp.ones_like(w)
        beta, gamma = ones @ d, ones @ (d * scaled)
        return factor * (d - w[:, None] * (beta + scaled * gamma)), gamma, beta, jnp.zeros_like(w)

    both = jax.custom_vjp(lambda *given: forward(*given)[0])
    both.defvjp(forward, backward)
    return both


@cache
def rounded_product(jax) -> Callable:
    """x @ w of float32 arrays (N, n), (n, m) with factors in bfloat16 and sums in float32, and so its slopes."""
    jnp = jax.numpy

    def product(a, b):
        return jnp.matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)

    def backward(kept, d):
        x, w = kept
        return product(d, w.T), product(x.T, d)

    both = jax.custom_vjp(product)
    both.defvjp(lambda x, w: (product(x, w), (x, w)), backward)
    return both


def misfit(jax, some: Sample, out, scatter):
    """-ln p(x | z) (N,) but for a constant, of independent errors."""
    jnp = jax.numpy
    known = jnp.isfinite(some.variance)
    r = jnp.where(known, some.x - out, 0)
    V = jnp.where(known, some.variance + scatter * scatter, 1)
    return 0.5 * (r * r / V + jnp.log(V)).sum(-1)


def correlated(some: Sample, rho: np.ndarray, rows: np.ndarray, out, scatter) -> tuple[np.ndarray, ...]:
    """The same with correlations: rows (N,) of rho; its slopes (N, K) in x^ and in s^^2; x^ and s^^2 themselves."""
    from xptools.cores import _vaecovariance as kernel

    variance = np.asarray(some.variance)
    known = np.isfinite(variance)
    out, extra = np.asarray(out), np.asarray(scatter) ** 2
    r = np.where(known, np.asarray(some.x) - out, np.float32(0))
    sigma, own = np.sqrt(np.where(known, variance, 0)), np.where(known, extra, np.float32(1))
    value, by_r, by_extra = np.empty(len(r), np.float32), np.empty_like(r), np.empty_like(r)

    def work(start, stop):
        part = slice(start, stop)
        kernel.law(rho, rows[part], sigma[part], own[part], r[part], value[part], by_r[part], by_extra[part])

    spread_out(work, len(r), settings.threads(), few=2 * kernel.LANES)
    return value, -by_r, np.where(known, by_extra, 0), out, extra


def _about(jax, told, out, scatter):
    """What `correlated` told, with its slopes."""
    value, by_out, by_extra, at, extra = told
    return value + (by_out * (out - at) + by_extra * (scatter * scatter - extra)).sum(-1)
