"""numba as xp uses it: without the interpreter's lock, kept on disk where there is a cache."""

from collections.abc import Callable

import numba

from xptools import settings  # as in _jax.py: only to know where compiled code may be kept


def compiled(
    fastmath: set[str] | bool = False, folder: str = "numba", inline: bool = False, parallel: bool = False
) -> Callable:
    """Make a function a compiled kernel; `fastmath` names the freedoms given, `folder` its place in the cache.

    `parallel`: loops over numba.prange take all threads that the process has.

    `inline`: it becomes part of every kernel that calls it. Calls copy what tuples of arrays they pass. And numba keeps
    a called function twice, by itself and in its caller, optimised apart: the process that compiles runs the first, one
    that loads from the cache the second. Where `fastmath` lets sums be reordered, these are different numbers.
    """

    def decorate(function: Callable) -> Callable:
        options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
        options |= {"forceinline": inline, "parallel": parallel}
        base = settings.cache_dir()
        if base is None:
            return numba.njit(**options)(function)
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(base / folder)
        try:
            return numba.njit(cache=True, **options)(function)
        except (OSError, RuntimeError):  # no folder to write to
            return numba.njit(**options)(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate
