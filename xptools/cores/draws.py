"""Counter-based random numbers: star i's numbers depend on (seed, stream, i) and on nothing else.

A stream is a named sequence of 64-bit words, one word per star: Philox-4x64 with the key (seed, crc32 of the name) and
the counter i // 4, so any stretch of any stream can be made at once and a new stream never moves an old one. Each
transform below uses one word per star; where a shape cannot be inverted, the caller draws from an envelope and drops
stars.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

WORDS_PER_COUNTER = 4


@dataclass(frozen=True)
class Draws:
    """The streams of stars first ... first + n - 1 under one seed."""

    seed: int
    first: int
    n: int

    def uniform(self, stream: str) -> np.ndarray:
        """Uniform deviates (n,) strictly between 0 and 1, on a grid of 2^-53."""
        key = np.array([self.seed % 2**64, zlib.crc32(stream.encode())], dtype=np.uint64)
        skip = self.first % WORDS_PER_COUNTER
        philox = np.random.Philox(key=key).advance(self.first // WORDS_PER_COUNTER)
        # random() can be 0, where inverse distributions are infinite; half a grid step moves it inside
        return np.random.Generator(philox).random(self.n + skip)[skip:] + 2.0**-54

    def normal(self, stream: str) -> np.ndarray:
        """Standard normal deviates (n,) by inversion."""
        return ndtri(self.uniform(stream))

    def at(self, index: np.ndarray) -> Picked:
        """The same streams for the stars at `index` (m,) among these n."""
        return Picked(self, index)


def mixed(number: np.ndarray) -> np.ndarray:
    """64 well-mixed bits (N,) of integers, such as source_id, whose own bits are a place on the sky (SplitMix64)."""
    x = np.asarray(number).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Picked:
    """Streams of some of the stars of a stretch; a star's numbers are what they were."""

    draws: Draws
    index: np.ndarray

    def uniform(self, stream: str) -> np.ndarray:
        """Uniform deviates (m,)."""
        return self.draws.uniform(stream)[self.index]

    def normal(self, stream: str) -> np.ndarray:
        """Standard normal deviates (m,)."""
        return ndtri(self.uniform(stream))


def truncated_normal(u: np.ndarray, mean, sigma, lo, hi) -> np.ndarray:
    """Deviates of N(mean, sigma^2) between lo and hi at uniform u; all broadcast."""
    below = ndtr((lo - mean) / sigma)
    return mean + sigma * ndtri(below + u * (ndtr((hi - mean) / sigma) - below))


def truncated_normal_share(edges: np.ndarray, mean: float, sigma: float, lo: float, hi: float) -> np.ndarray:
    """Probability (B,) of N(mean, sigma^2) between lo and hi that falls into each bin of edges (B + 1,)."""
    inside = ndtr((np.clip(edges, lo, hi) - mean) / sigma)
    return np.diff(inside) / (ndtr((hi - mean) / sigma) - ndtr((lo - mean) / sigma))


def power_law(u: np.ndarray, lo, hi, alpha) -> np.ndarray:
    """Deviates of x^alpha between lo > 0 and hi at uniform u, exact through alpha = -1; all broadcast."""
    p = alpha + 1.0
    span = np.log(hi / lo)
    area = np.expm1(p * span)
    safe = np.where(np.abs(p) < 1e-9, 1.0, p)
    growth = np.where(np.abs(p) < 1e-9, u * span, np.log1p(u * area) / safe)
    return lo * np.exp(growth)


@dataclass(frozen=True)
class Alias:
    """Walker's alias table of a discrete distribution: one word, two look-ups, any number of outcomes."""

    keep: np.ndarray
    other: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray) -> Alias:
        """The table of probabilities proportional to weights (n,), none negative, not all zero."""
        scaled = np.asarray(weights, dtype=np.float64)
        scaled = (scaled * (len(scaled) / scaled.sum())).tolist()
        keep, other = [1.0] * len(scaled), list(range(len(scaled)))
        small = [j for j, w in enumerate(scaled) if w < 1.0]
        large = [j for j, w in enumerate(scaled) if w >= 1.0]
        while small and large:
            j, k = small.pop(), large[-1]
            keep[j], other[j] = scaled[j], k
            scaled[k] -= 1.0 - scaled[j]
            if scaled[k] < 1.0:
                small.append(large.pop())
        # what rounding left over is never an outcome of weight zero
        for j in small:
            if weights[j] == 0:
                keep[j], other[j] = 0.0, int(np.argmax(weights))
        return cls(np.array(keep), np.array(other, dtype=np.intp))

    def draw(self, u: np.ndarray) -> np.ndarray:
        """Outcomes (n,) at uniform u."""
        scaled = u * len(self.keep)
        j = np.minimum(scaled.astype(np.intp), len(self.keep) - 1)
        return np.where(scaled - j < self.keep[j], j, self.other[j])
