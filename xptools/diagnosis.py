"""What `xp doctor` finds: one Finding for each thing xp needs or can use on this machine."""

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from xptools import settings

LEAST_MEMORY, LEAST_DISK = 2**31, 2**30  # bytes; the pipe of README needs about 1 GB


class Finding(NamedTuple):
    """`state`: ok, absent (some commands lack it) or fault; `about`: of what; `cure`: what to do, if anything."""

    state: str
    about: str
    words: str
    cure: str = ""


def findings(quick: bool = False) -> list[Finding]:
    """Everything that is looked at; with `quick` no file is read whole."""
    checks = (_versions, _packages, _threads, _memory, _cache, _jax, _models, _manual, lambda: _data(quick))
    return [finding for check in checks for finding in check()]


def _versions() -> Iterator[Finding]:
    from importlib.metadata import version

    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "xp", f"{version('xptools')} on Python {python}, {sys.platform}")


def _packages() -> Iterator[Finding]:
    """Each package that pyproject.toml names, against its lowest version; those of extras may be absent."""
    from importlib.metadata import PackageNotFoundError, requires, version

    seen = set()
    for line in requires("xptools") or ():
        name, least, extra = re.match(r"([\w.-]+)(?:>=([\d.]+))?(.*)", line).groups()
        optional = "extra" in extra
        if name in seen or 'extra == "test"' in extra.replace("'", '"'):
            continue
        seen.add(name)
        try:
            there = version(name)
        except PackageNotFoundError:
            cure = "pip install 'xptools[plot]'" if optional else f"pip install '{name}>={least}'"
            yield Finding("absent" if optional else "fault", "package", f"{name} is not installed.", cure)
            continue
        if least and _numbers(there) < _numbers(least):
            yield Finding(
                "fault", "package", f"{name} {there} is older than {least}.", f"pip install '{name}>={least}'"
            )
        else:
            yield Finding("ok", "package", f"{name} {there}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0]))


def _threads() -> Iterator[Finding]:
    yield Finding("ok", "cores", f"{settings.threads()} of {os.cpu_count()} may be used")


def _memory() -> Iterator[Finding]:
    free = _available()
    if free is not None and free < LEAST_MEMORY:
        words = f"{_size(free)} free, {_size(LEAST_MEMORY)} needed."
        yield Finding("fault", "memory", words, "close programs, or use a smaller --batch-rows")
    elif free is not None:
        yield Finding("ok", "memory", f"{_size(free)} free, {_size(LEAST_MEMORY)} needed")
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    words = f"{_size(disk)} free in {tempfile.gettempdir()}, {_size(LEAST_DISK)} needed"
    if disk < LEAST_DISK:
        yield Finding("fault", "disk", f"{words}.", "TMPDIR=DIR on another disk")
    else:
        yield Finding("ok", "disk", words)


def _available() -> int | None:
    """Free memory [bytes] as Linux counts it; None where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else None


def _cache() -> Iterator[Finding]:
    folder = settings.cache_dir()
    if folder is None:
        yield Finding("absent", "cache", "off: kernels are compiled and maps are converted again by every process.")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as why:
        yield Finding("fault", "cache", f"{folder} cannot be written ({why.strerror}).", "--cache DIR, or --cache off")
        return
    held = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    yield Finding("ok", "cache", f"{folder} holds {_size(held)}, {_size(shutil.disk_usage(folder).free)} free")


def _jax() -> Iterator[Finding]:
    """One small kernel, compiled and run in double precision."""
    from xptools.cores import _jax

    start = time.monotonic()
    try:
        jax = _jax.configure()
        value = float(jax.jit(lambda x: (x**2).sum())(jax.numpy.arange(4.0)))
        devices = ", ".join(f"{d.platform} {d.id}" for d in jax.devices())
    except (ImportError, RuntimeError, ValueError) as why:
        first = str(why).splitlines()[0] if str(why) else type(why).__name__
        yield Finding("fault", "jax", f"{first}.", "--device cpu, or install jax again")
        return
    if value != 14.0:
        yield Finding("fault", "jax", f"1 + 4 + 9 gives {value}.", "install jax and jaxlib again")
    yield Finding("ok", "jax", f"computes on {devices} ({time.monotonic() - start:.1f} s to start)")


def _models() -> Iterator[Finding]:
    """The models that come with xp: readable headers."""
    from xptools import artefact
    from xptools.errors import XpError

    for path in sorted((Path(__file__).parent / "data").glob("*.safetensors")):
        try:
            yield Finding("ok", "model", f"{path.name}, for xp {artefact.about(path).kind}")
        except XpError as why:
            yield Finding("fault", "model", f"{why}", "install xptools again")


def _manual() -> Iterator[Finding]:
    from xptools import manual

    page = manual.find("xp")
    reader = shutil.which("man") or shutil.which("mandoc")
    words = f"pages in {page.parent}" if page else "no pages."
    cure = "" if page else "pip install xptools puts them into share/man"
    yield Finding("ok" if page else "absent", "manual", words, cure)
    if not reader:
        yield Finding("absent", "manual", "no man: xp help shows --help instead.", "apt-get install man-db")


def _data(quick: bool) -> Iterator[Finding]:
    from xptools import manifest

    for folder in settings.data_roots():
        if not folder.is_dir():
            yield Finding("fault", "data", f"{folder} (from --data or XP_DATA) is no folder.", "another XP_DATA")
    roots = settings.map_roots()
    for file in manifest.external():
        path = file.find(roots)
        if path is None:
            size = f", {_size(file.bytes)}" if file.bytes else ""
            get = f"xp fetch data {file.key}, or by hand from {file.url}"
            yield Finding("absent", "file", f"{file.folder}/{file.name} ({file.use}{size}).", get)
        elif fault := file.fault(path, not quick):
            yield Finding("fault", "file", f"{path}: {fault}.", f"get it again from {file.url}")
        else:
            known = file.md5 or file.sha256 or manifest.own_sum(path)
            checked = "its sum is right" if not quick and known else "its sum was not compared"
            yield Finding("ok", "file", f"{path}, {_size(path.stat().st_size)}, {checked}")


def _size(n: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
