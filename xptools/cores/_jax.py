"""JAX as xp uses it: float64 allowed, compiled kernels kept on disk, batches cut into equal shapes."""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xptools.errors import UnavailableError

SMALLEST = 256


@functools.cache
def configure():
    """Import JAX once, with x64, the wanted platform and the compile cache; returns the module."""
    device = os.environ.get("XP_DEVICE", "auto")
    if device != "auto":
        os.environ.setdefault("JAX_PLATFORMS", "cpu" if device == "cpu" else "cuda")
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")  # a GPU would round float32 to 10 bits
    cache = _compile_cache()
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    if device == "cuda":
        _demand(jax)
    return jax


def _demand(jax) -> None:
    """UnavailableError if the GPU that was asked for is not there: JAX's own words for it are those of a bug."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as fault:
        raise UnavailableError("JAX finds no GPU. TRY: --device cpu, or install JAX for this GPU") from fault


def chunked(kernel: Callable, rows: int) -> Callable:
    """Run `kernel(*arrays) -> tuple of arrays` in chunks of `rows`, the last one padded to a power of two.

    Every shape is compiled once, and a row's bits do not depend on how the stream was cut into batches.
    Padding repeats the last row; arrays have the star on their first axis.
    """

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        n = len(arrays[0])
        parts = []
        for start in range(0, n, rows):
            stop = min(start + rows, n)
            size = rows if stop - start == rows else min(rows, max(SMALLEST, 1 << (stop - start - 1).bit_length()))
            out = kernel(*(_padded(a[start:stop], size) for a in arrays))
            parts.append([np.asarray(o)[: stop - start] for o in out])
        return tuple(
            np.concatenate(columns) if len(columns) > 1 else columns[0] for columns in zip(*parts, strict=True)
        )

    return run


class Resumable:
    """A learner's `params` and `state`, pytrees of JAX arrays, as plain arrays and back (train.Learner)."""

    def kept(self) -> dict[str, np.ndarray]:
        leaves = self.jax.tree.leaves((self.params, self.state))
        return {str(i): np.array(leaf) for i, leaf in enumerate(leaves)}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        form = self.jax.tree.structure((self.params, self.state))
        leaves = [self.jax.numpy.asarray(kept[str(i)]) for i in range(form.num_leaves)]
        self.params, self.state = self.jax.tree.unflatten(form, leaves)


def _padded(a: np.ndarray, size: int) -> np.ndarray:
    return a if len(a) == size else np.concatenate([a, np.repeat(a[-1:], size - len(a), axis=0)])


def _compile_cache() -> Path | None:
    from xptools import settings  # the one thing a core asks of its surroundings: where compiled code may be kept

    base = settings.cache_dir()
    if base is None:
        return None
    import jaxlib

    # Compiled code is bound to the processor's features and to jaxlib: another machine on the same home has its own.
    flags = next((x for x in _cpuinfo() if x.startswith("flags")), "")
    key = hashlib.sha256(f"{flags}{jaxlib.__version__}".encode()).hexdigest()[:12]
    folder = base / f"jax-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
