"""Where this process finds data and keeps its cache, and on which device it computes.

The command line writes its options into the environment, so that worker processes and notebooks see the same settings.
None of this reaches a result, hence none of it is a field of a step."""

import json
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


def map_roots() -> list[Path]:
    """Folders that may hold files from outside: XP_DATA, the cache, and the data folder of dustmaps' own."""
    cache = cache_dir()
    return [*data_roots(), *([cache] if cache else []), dustmaps_folder()]


def dustmaps_folder() -> Path:
    """data_dir of dustmaps' configuration file; read here, because importing dustmaps takes a second."""
    config = Path(os.path.expandvars(os.environ.get("DUSTMAPS_CONFIG_FNAME", "~/.dustmapsrc"))).expanduser()
    try:
        named = json.loads(config.read_text()).get("data_dir")
    except (OSError, ValueError):
        named = None
    if named:
        return Path(os.path.expandvars(named)).expanduser()
    from importlib.util import find_spec

    package = find_spec("dustmaps")
    return Path(package.origin).parent / "data" if package and package.origin else Path("dustmaps")


def offline() -> bool:
    """True when the network may not be used (XP_OFFLINE)."""
    return os.environ.get("XP_OFFLINE", "") not in ("", "0", "false")


def device() -> str:
    """auto, cpu or cuda (XP_DEVICE)."""
    return os.environ.get("XP_DEVICE", "auto")


def threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
