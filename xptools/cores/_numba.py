"""numba as xp uses it: without the interpreter's lock, kept on disk where there is a cache."""

import contextlib
from collections.abc import Callable

import numba
from numba.core.caching import FunctionCache
from numba.core.runtime import rtsys

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
        dispatcher = numba.njit(**options)(function)
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(base / folder)
        try:
            dispatcher._cache = Kept(function)
        except (OSError, RuntimeError):  # no folder to write to: it stays without a cache
            pass
        finally:
            numba.config.CACHE_DIR = before
        return dispatcher

    return decorate


class Kept(FunctionCache):
    """numba's cache, which before it looks loads all that could be needed to compile: 0.2 s, for nothing if it finds.

    A compiled kernel needs numba's memory management alone. If it is not found, the compiler loads the rest itself.
    """

    def load_overload(self, sig, target_context):
        rtsys.initialize(target_context)
        try:
            return self._load_overload(sig, target_context)
        except Exception:  # what a damaged file makes pickle raise: it is compiled anew, and kept in its stead
            with contextlib.suppress(OSError):
                self._cache_file.flush()
            return None

    def save_overload(self, sig, data):
        with contextlib.suppress(Exception):  # the disk is full, or the index damaged as well: it works without
            super().save_overload(sig, data)
