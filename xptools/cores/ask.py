"""The generalist at work: contexts are packed, encoded once, and all requests answered in one pass.

Numbers travel standardised, z = (value - centre) / scale, NaN where unknown. Stars are sorted by how many numbers they
bring and run in groups padded to the next multiple of eight, so padding costs next to nothing and a star's bits depend
on its own numbers only. Errors that are told come from

    total^2 = (k e)^2 + f^2,

e the network's own, k and f fitted per token to the pulls of held-out stars (ask_training).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri

from xptools.cores.ask_model import Answer, Generalist, Sizes
from xptools.cores.ask_vocabulary import Vocabulary

ROWS, SMALLEST, STEP = 128, 16, 8  # stars per run, of the smallest run, tokens a context is padded to
PRIOR, STRANGE, BEYOND, CROPPED, LACKING = 1, 2, 4, 8, 16  # bits of ask_flag
TENSORS = ("centre", "scale", "low", "high", "spread", "usable", "calibration")


@dataclass
class Engine:
    """A trained generalist. Per token (V,): centre, scale, lowest and highest value of the training stars in their own
    unit, spread (rms of the value itself), usable (1 where it was trained); calibration (V, 2): k and f above."""

    network: Generalist
    vocabulary: Vocabulary
    centre: np.ndarray
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray
    usable: np.ndarray
    calibration: np.ndarray
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """z (N, V) float32 of values; NaN where unknown and for tokens that were not trained."""
        z = (values - self.centre) / self.scale
        return np.where(self.usable > 0, z, np.nan).astype(np.float32)

    def answers(self, z: np.ndarray, requests: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means, variances and weights of the components (N, R, K) of tokens `requests` (R,), standardised."""
        order = self.vocabulary.order
        out = np.empty((3, len(z), len(requests), self.network.sizes.components), np.float32)
        known = np.isfinite(z[:, order])
        count = np.minimum(known.sum(1), self.network.sizes.context)
        length = np.maximum(-(-count // STEP) * STEP, STEP)
        # a star whose numbers fill their slots is never in a group with padding, whoever else is there
        key = 2 * length + (count == length)
        asked = torch.from_numpy(np.asarray(requests, np.int64) + 1)

        def run(job: tuple[int, np.ndarray]) -> None:
            group, part = job
            shown = known[part] & (known[part].cumsum(1) <= self.network.sizes.context)
            out[:, part] = self._run(z[part][:, order], shown, group // 2, bool(group % 2), asked)

        by_group = ((int(g), np.flatnonzero(key == g)) for g in np.unique(key))
        jobs = [(g, rows[i : i + ROWS]) for g, rows in by_group for i in range(0, len(rows), ROWS)]
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(run, jobs))
        return out[0], out[1], out[2]

    @torch.inference_mode()
    def _run(self, z, known, length: int, full: bool, asked) -> np.ndarray:
        """One group of stars, made up to a power of two by its last."""
        n = len(z)
        size = max(SMALLEST, 1 << (n - 1).bit_length())
        place = np.argsort(~known, axis=1, kind="stable")[:, :length]
        seen = np.take_along_axis(known, place, 1)
        ids = np.where(seen, self.vocabulary.order[place] + 1, 0)
        values = np.where(seen, np.take_along_axis(z, place, 1), 0.0).astype(np.float32)
        pad = np.minimum(np.arange(size), n - 1)
        tensors = (torch.from_numpy(a[pad]).to(self.device) for a in (ids, values, seen))
        got = self._network(*tensors, asked.to(self.device).expand(size, -1), full)
        return torch.stack([got.mean, got.s.exp(), got.log_weight.exp()])[:, :n].cpu().numpy()

    def _network(self, ids, values, seen, asked, full: bool) -> Answer:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.network(ids, values, asked, None if full else seen)

    def total(self, variance: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """Calibrated standard errors (N, R), standardised, of the network's variances."""
        k, f = self.calibration[requests].T
        return np.sqrt(k**2 * variance + f**2)


def moments(mean: np.ndarray, variance: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (N, R) of a mixture (N, R, K)."""
    middle = (weight * mean).sum(-1)
    return middle, (weight * (variance + (mean - middle[..., None]) ** 2)).sum(-1)


def joint(engine: Engine, z: np.ndarray, requests: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Samples (N, S, R), standardised: each request is drawn given the context and the draws of those before it.

    `uniform` (N, S, R, 2) chooses the component and the place in it.
    """
    n, samples = uniform.shape[:2]
    state = np.repeat(z, samples, axis=0)
    u = uniform.reshape(n * samples, len(requests), 2)
    for r, token in enumerate(requests):
        one = np.array([token])
        # before the first draw all samples of a star are one
        source, repeat = (z, samples) if r == 0 else (state, 1)
        mean, variance, weight = (np.repeat(a[:, 0], repeat, axis=0) for a in engine.answers(source, one))
        pick = np.minimum((u[:, r, :1] > weight.cumsum(-1)).sum(-1), weight.shape[-1] - 1)[:, None]
        mean, variance = (np.take_along_axis(a, pick, 1) for a in (mean, variance))
        state[:, token] = (mean + engine.total(variance, one) * ndtri(u[:, r, 1:]))[:, 0]
    return state[:, requests].reshape(n, samples, len(requests))


def losses(engine: Engine, z: np.ndarray, requests: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By group, nats (N, R) that are lost when its tokens are withheld.

    The expected loss of ln p(answer), KL(with || without), both taken as Gaussians of the mixtures' mean and variance.
    """
    mean, variance = moments(*engine.answers(z, requests))
    out = {}
    for name, tokens in groups.items():
        less = z.copy()
        less[:, tokens] = np.nan
        m, v = moments(*engine.answers(less, requests))
        out[name] = 0.5 * (np.log(v / variance) + (variance + (mean - m) ** 2) / v - 1.0)
    return out


def uniforms(seed: int, source_id: np.ndarray, samples: int, numbers: int) -> np.ndarray:
    """Uniform deviates (N, samples, numbers) strictly inside 0 ... 1, keyed by (seed, source_id, place): SplitMix64."""
    with np.errstate(over="ignore"):
        place = np.arange(samples * numbers, dtype=np.uint64)
        x = _mixed(np.uint64(seed % 2**64) + _mixed(source_id.astype(np.uint64)))[:, None] + place
        word = _mixed(_mixed(x)) >> np.uint64(11)
    return ((word + 0.5) * 2.0**-53).reshape(len(source_id), samples, numbers)


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014) after its increment."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def restored(
    arrays: dict[str, np.ndarray], shape: dict, device: str = "cpu", precision: str = "float32", threads: int = 1
) -> Engine:
    """The engine of a model file: its arrays, and `shape` of its description.

    Groups of stars run in `threads`; inside one PyTorch gets a single thread, for with more of them a star's last bits
    would depend on its neighbours.
    """
    torch.set_num_threads(1)
    vocabulary = Vocabulary.of(shape["vocabulary"])
    network = Generalist(len(vocabulary.tokens), sizes_of(shape["sizes"]))
    weights = {k.removeprefix("net."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("net.")}
    network.load_state_dict(weights)
    return Engine(network.eval().to(device), vocabulary, *(arrays[f"token.{n}"] for n in TENSORS), device, precision,
                  threads if device == "cpu" else 1)  # fmt: skip


def sizes_of(told: dict) -> Sizes:
    """Sizes from JSON, whose lists were tuples."""
    pairs = {k: tuple(map(tuple, told[k])) for k in ("encoder", "decoder")}
    return Sizes(**{**told, **pairs, "head": tuple(told["head"])})
