"""Where this process finds data and keeps its cache, and on which device it computes.

The command line writes its options into the environment, so that worker processes and notebooks see the same settings.
None of this reaches a result, hence none of it is a field of a step."""

import os
from pathlib import Path


def cache_dir() -> Path | None:
    """The folder for converted maps and compiled kernels (XP_CACHE, XDG_CACHE_HOME); None when caching is `off`."""
    named = os.environ.get("XP_CACHE")
    if named == "off":
        return None
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "xp"
    return base.expanduser()


def data_roots() -> list[Path]:
    """Read-only folders searched before the cache (XP_DATA, then INPUT_DIR, separated as PATH is)."""
    named = [*os.environ.get("XP_DATA", "").split(os.pathsep), *os.environ.get("INPUT_DIR", "").split(os.pathsep)]
    return [Path(p).expanduser() for p in named if p]


def offline() -> bool:
    """True when the network may not be used (XP_OFFLINE)."""
    return os.environ.get("XP_OFFLINE", "") not in ("", "0", "false")


def device() -> str:
    """auto, cpu or cuda (XP_DEVICE)."""
    return os.environ.get("XP_DEVICE", "auto")


def threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
