"""What a process settles before it runs: global options, threads, the version that was asked for."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.core import ParameterSource

from xptools.errors import ConfigError


def settle(values: dict[str, Any], names: tuple[str, ...]) -> None:
    """Merge the global options (`names`) given before the command into `values`, and put them into the environment."""
    ctx = click.get_current_context()
    root = ctx.find_root()
    for name in names:
        given = ctx.get_parameter_source(name)
        if (
            root is not ctx
            and given is not ParameterSource.COMMANDLINE
            and root.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ):
            values[name] = root.params[name]
            ctx.params[name] = root.params[name]
    _require(values.get("require_version"))
    for name, key in (("data", "XP_DATA"), ("cache", "XP_CACHE"), ("device", "XP_DEVICE"), ("color", "XP_COLOR")):
        if values.get(name) and not (name == "device" and values[name] == "auto"):
            os.environ[key] = values[name]
    if values.get("offline"):
        os.environ["XP_OFFLINE"] = "1"
    if values.get("quiet"):
        os.environ["XP_QUIET"] = "1"
    limit_threads(values.get("threads") or 0)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without looking for garbage: a tenth of the time that loading PyTorch takes goes into it, and it finds none."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _require(wanted: str | None) -> None:
    if wanted:
        import xptools

        if xptools.__version__ != wanted:
            raise ConfigError(
                f"this is xp {xptools.__version__}, but {wanted} is required. TRY: pip install xptools=={wanted}"
            )


def limit_threads(n: int, first: int | None = None) -> None:
    """Pin this process to n cores (0: all allowed) before JAX, Torch or numba are imported: all of them obey that.

    `first` is the place of the first of them among the allowed ones.
    """
    if hasattr(os, "sched_setaffinity") and n:
        allowed = sorted(os.sched_getaffinity(0))
        # The commands of one pipe must not all sit on the first core.
        first = (os.getpid() if first is None else first) % len(allowed)
        os.sched_setaffinity(0, (allowed[first:] + allowed[:first])[:n])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[key] = str(cores) if n else os.environ.get(key, str(cores))
    # Spinning OpenMP threads starve the other commands of a pipe.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # So do OpenBLAS's, for 2^26 ticks after numpy is loaded: 50 ms of a core, as much as numpy itself takes.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "18")
    # mimalloc gives memory back late: half as much again over 10 million rows of a stream, and no quicker. The system's
    # keeps all that a few rows were cut from while they are held: a gigabyte until a row group of Parquet is full.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc" if sys.platform == "linux" else "system")


# What packages import and xp never uses, and which module must be on its way for that (None: any).
ABSENT = {"pandas": None, "cloudpickle": "pyarrow.lib", "pyarrow._s3fs": None, "pyarrow._gcsfs": None}
ABSENT |= {"pyarrow._azurefs": None, "pyarrow._hdfs": None}
EMPTY = {"numpy.f2py"}  # scipy takes all names of numpy, and with this one a parser of Fortran


class Without:
    """Finds what is in ABSENT or EMPTY, and does not load it: the import fails, or gives a module without content."""

    def find_spec(self, name: str, _path: Any = None, _target: Any = None):
        """Others are found elsewhere."""
        from importlib.machinery import ModuleSpec

        mine = name in EMPTY or (name in ABSENT and _on_its_way(ABSENT[name]))
        return ModuleSpec(name, self) if mine else None

    def create_module(self, spec: Any) -> None:
        if spec.name in ABSENT:
            raise ModuleNotFoundError(f"xp has no use for {spec.name}", name=spec.name)

    def exec_module(self, _module: Any) -> None:
        """Nothing goes in."""


def _on_its_way(importer: str | None) -> bool:
    """Whether this module is being imported just now; Dask needs cloudpickle where pyarrow does not."""
    spec = getattr(sys.modules.get(importer or ""), "__spec__", None)
    return importer is None or bool(getattr(spec, "_initializing", False))


def alone() -> bool:
    """Whether `lean` was called: no one else in this process needs what xp leaves out."""
    return any(isinstance(finder, Without) for finder in sys.meta_path)


def lean() -> None:
    """In a process of xp alone: let packages do without what xp never uses.

    pyarrow loads pandas to ask whether an array is one of its, which takes as long as all the rest of a small command.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, Without())
