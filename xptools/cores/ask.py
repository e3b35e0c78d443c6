"""The generalist at work: contexts are packed, encoded once, and all requests answered in one pass.

Numbers travel standardised, z = (value - centre) / scale, NaN where unknown. Stars are sorted by how many numbers they
bring and their tokens stand side by side, without padding. Layers see TOKENS tokens or ROWS requests at a time, never
another number: matrix products of one shape have bits that depend on a row's own numbers only, and what they make stays
in the cache. Errors that are told are the network's own, corrected for what was shown (ask_errors).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from xptools.cores.ask_errors import Errors
from xptools.cores.ask_inference import Inference, fits
from xptools.cores.ask_model import Generalist, Known, Runs, Sizes
from xptools.cores.ask_vocabulary import Vocabulary

TOKENS, ROWS, BLOCK = 2048, 768, 64  # tokens and requests that layers see at a time; summaries of a multiple of BLOCK
PRIOR, STRANGE, BEYOND, CROPPED, LACKING = 1, 2, 4, 8, 16  # bits of ask_flag
ON_GPU = 32  # times as many on a GPU, which small products leave idle
TENSORS = ("centre", "scale", "low", "high", "spread", "usable")


@dataclass
class Engine:
    """A trained generalist. Per token (V,): centre, scale, lowest and highest value of the training stars in their own
    unit, spread (rms of the value itself), usable (1 where it was trained)."""

    network: Generalist
    vocabulary: Vocabulary
    centre: np.ndarray
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    spread: np.ndarray
    usable: np.ndarray
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    errors: Errors | None = None

    def __post_init__(self):
        self.errors = self.errors or Errors(self.vocabulary, self.usable)

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """z (N, V) float32 of values; NaN where unknown or not to be told, and for tokens that were not trained."""
        with np.errstate(over="ignore"):
            z = ((values - self.centre) / self.scale).astype(np.float32)
        return np.where((self.usable > 0) & np.isfinite(z), z, np.float32(np.nan))

    @cached_property
    def working(self) -> Generalist | Inference:
        """The network in the precision asked for."""
        precision = getattr(torch, self.precision)
        if self.device == "cpu" and fits(self.network, precision):
            return Inference(self.network, precision)
        return self.network if precision == torch.float32 else self.network.at(precision)

    def answers(self, z: np.ndarray, requests: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means, variances and weights of the components (N, R, K) of tokens `requests` (R,), standardised."""
        order = self.vocabulary.order
        out = np.empty((3, len(z), len(requests), self.network.sizes.components), np.float32)
        seen = self.seen(np.isfinite(z))[:, order]
        count = seen.sum(1)
        stars = np.argsort(count, kind="stable")
        times = 1 if self.device == "cpu" else ON_GPU
        rows, each = max(times * ROWS, len(requests)), max(1, times * ROWS // max(len(requests), 1))
        size = max(times * TOKENS, self.network.sizes.context)
        block = -(-each // BLOCK) * BLOCK
        asked = torch.from_numpy(np.resize(np.asarray(requests, np.int64) + 1, rows)).to(self.device)
        working = self.working  # made before the threads start

        def run(part: np.ndarray) -> None:
            shown = seen[part]
            memory = self._memory(working, z[part][:, order], shown, size)
            whole = self._known(z[part], shown, block)
            out[:, part] = self._decoded(working, memory, whole, shown.sum(1), asked, len(requests))

        jobs = [stars[i : i + each] for i in range(0, len(stars), each)]
        # oneDNN's products ask each thread anew how many threads they may have
        one = {"initializer": torch.set_num_threads, "initargs": (torch.get_num_threads(),)}
        with ThreadPoolExecutor(self.threads, **one) as pool:
            list(pool.map(run, jobs))
        return out[0], out[1], out[2]

    @torch.inference_mode()
    def _memory(self, network: Generalist | Inference, z, shown, size: int) -> torch.Tensor:
        """The memory of one group of stars, in the order of their number of tokens; a multiple of `size` long."""
        memory = torch.cat([self._encoded(network, z[p], shown[p], size) for p in _pieces(shown.sum(1), size)])
        return F.pad(memory, (0, 0, 0, -len(memory) % size))

    def _known(self, z, shown, block: int) -> Known | None:
        """All that a group of stars shows, for a network with a summary; `block` rows, whatever the group."""
        if self.network.summary is None:
            return None
        values, there = np.zeros((2, block, z.shape[1] + 1), np.float32)
        order = self.vocabulary.order + 1
        there[: len(z), order] = shown
        values[: len(z), 1:] = np.nan_to_num(z)
        tensors = (torch.from_numpy(a).to(self.device) for a in (values * there, there > 0))
        return Known(*tensors)

    @torch.inference_mode()
    def _decoded(self, network: Generalist | Inference, memory, known, lengths, asked, requests: int) -> np.ndarray:
        """Means, variances and weights (3, n, R, K)."""
        got = network.decode(memory, asked, Runs(_runs(lengths), requests), known)
        parts = torch.stack([got.mean, got.s.exp(), got.log_weight.exp()])
        return parts[:, : len(lengths) * requests].unflatten(1, (len(lengths), requests)).cpu().numpy()

    def _encoded(self, network: Generalist | Inference, z, shown, size: int) -> torch.Tensor:
        """The memory (T, d) of the stars' tokens side by side."""
        star, place = np.nonzero(shown)
        ids, values = np.zeros(size, np.int64), np.zeros(size, np.float32)
        ids[: len(star)], values[: len(star)] = self.vocabulary.order[place] + 1, z[star, place]
        tensors = (torch.from_numpy(a).to(self.device) for a in (ids, values))
        return network.encode(*tensors, Runs(_runs(shown.sum(1))))[: len(star)]

    def corrected(
        self, mean: np.ndarray, variance: np.ndarray, known: np.ndarray, there: np.ndarray, requests: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated answers and standard errors (N, R), standardised, from the network's; known (N, V) what was shown
        of what was there (N, V)."""
        return self.errors.corrected(mean, variance, known, there, requests, self.seen(known))

    def seen(self, known: np.ndarray) -> np.ndarray:
        """What the network sees (N, V) of what is shown: as many tokens as its context has."""
        order, out = self.vocabulary.order, np.zeros(known.shape, bool)
        out[:, order] = known[:, order] & (known[:, order].cumsum(1) <= self.network.sizes.context)
        return out


def _runs(lengths: np.ndarray) -> tuple[tuple[int, int], ...]:
    """(stars, tokens of each) of lengths (N,) in order."""
    length, stars = np.unique(lengths, return_counts=True)
    return tuple(zip(stars.tolist(), length.tolist(), strict=True))


def _pieces(lengths: np.ndarray, most: int) -> Iterator[slice]:
    """Stars (N,) side by side in pieces of at most `most` tokens."""
    start, ends = 0, np.cumsum(lengths)
    while start < len(lengths):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + most, "right"))
        yield slice(start, stop)
        start = stop


def moments(mean: np.ndarray, variance: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (N, R) of a mixture (N, R, K)."""
    middle = (weight * mean).sum(-1)
    return middle, (weight * (variance + (mean - middle[..., None]) ** 2)).sum(-1)


def joint(engine: Engine, z: np.ndarray, there: np.ndarray, requests: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Samples (N, S, R), standardised: each request is drawn given the context and the draws of those before it.

    z (N, V) is shown of what was there (N, V); `uniform` (N, S, R, 2) chooses the component and the place in it.
    """
    n, samples = uniform.shape[:2]
    state = np.repeat(z, samples, axis=0)
    u = uniform.reshape(n * samples, len(requests), 2)
    for r, token in enumerate(requests):
        one = np.array([token])
        # before the first draw all samples of a star are one
        source, repeat = (z, samples) if r == 0 else (state, 1)
        told = engine.answers(source, one)
        middle, spread = moments(*told)
        # a component is moved, and its error corrected, as the whole answer is
        whole = there if r == 0 else there.repeat(samples, axis=0)
        moved, total = engine.corrected(middle, spread, np.isfinite(source), whole, one)
        factor, shift = ((total / np.sqrt(spread)).repeat(repeat, axis=0), (moved - middle).repeat(repeat, axis=0))
        mean, variance, weight = (np.repeat(a[:, 0], repeat, axis=0) for a in told)
        pick = np.minimum((u[:, r, :1] > weight.cumsum(-1)).sum(-1), weight.shape[-1] - 1)[:, None]
        mean, variance = (np.take_along_axis(a, pick, 1) for a in (mean, variance))
        deviate = torch.special.ndtri(torch.from_numpy(u[:, r, 1:])).numpy()
        state[:, token] = (mean + shift + factor * np.sqrt(variance) * deviate)[:, 0]
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
    tokens = {n: arrays[f"token.{n}"] for n in TENSORS}
    errors = Errors.of(vocabulary, tokens["usable"], arrays)
    threads = threads if device == "cpu" else 1
    return Engine(network.eval().to(device), vocabulary, **tokens, device=device, precision=precision, threads=threads,
                  errors=errors)  # fmt: skip


def sizes_of(told: dict) -> Sizes:
    """Sizes from JSON, whose lists were tuples."""
    pairs = {k: tuple(map(tuple, told[k])) for k in ("encoder", "decoder")}
    return Sizes(**{**told, **pairs, "head": tuple(told["head"]), "summary": tuple(told["summary"])})
