"""Random numbers that belong to a star: a mixed source_id, so that neither the table nor its order matters."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri


def mixed(source_id: np.ndarray, seed: int, stream: int = 0) -> np.ndarray:
    """64 bits (N,) of each source_id (N,), a seed and a stream: splitmix64 (Steele+ 2014), twice over."""
    with np.errstate(over="ignore"):
        salt = _finished(np.array([seed], np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream))
        return _finished(_finished(source_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)) ^ salt)


def uniform(source_id: np.ndarray, seed: int, stream: int = 0) -> np.ndarray:
    """Uniform deviates (N,) strictly between 0 and 1."""
    return (mixed(source_id, seed, stream) >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53


def normal(source_id: np.ndarray, seed: int, streams: int) -> np.ndarray:
    """Standard normal deviates (N, streams)."""
    return ndtri(np.stack([uniform(source_id, seed, k) for k in range(streams)], -1))


def _finished(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
