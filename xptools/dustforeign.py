"""Any other map class of dustmaps, asked through its own query: slower, and as large in memory as it makes itself."""

import contextlib
import inspect
import io
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from xptools.cores.dustcube import INSIDE, OUTSIDE
from xptools.dustfiles import Answer, cure
from xptools.errors import DataError, UnavailableError, UsageError

DENSITIES = ("leike2020", "leike_ensslin_2019")  # density per kpc, not extinction along the line of sight
FILE_ARGUMENTS = ("map_fname", "map_dir", "bh_dir")


def asker(name: str, path: Path | None, statistic: str) -> Callable[..., Answer]:
    """`ask(lon, lat, d, equatorial, threads)` of the map class in dustmaps' module `name`, in its own unit."""
    query = _opened(_map_class(name), name, path)
    accepts = inspect.signature(query.query).parameters
    mode = {"mode": statistic} if "mode" in accepts else {}

    def ask(lon, lat, d, equatorial, threads):
        from astropy import units
        from astropy.coordinates import SkyCoord

        known = np.isfinite(lon) & (np.abs(lat) <= 90)
        E = np.full(len(lon), np.nan)
        # A map of the whole sky's dust has no distances; a star without one must not spoil the others in a 3D map.
        distance = np.where(d > 0, d, 1.0) * units.pc
        frame = "icrs" if equatorial else "galactic"
        where = SkyCoord(lon[known] * units.deg, lat[known] * units.deg, distance=distance[known], frame=frame)
        if known.any():
            with quiet():
                E[known] = np.asarray(query.query(where, **mode), float).reshape(known.sum())
        if hasattr(query, "distances"):
            E[~(d > 0)] = np.nan
        place = np.where(np.isfinite(E), INSIDE, OUTSIDE)
        return Answer(E, np.full(len(E), np.nan), place, np.ones(len(E), bool))

    return ask


@contextlib.contextmanager
def quiet():
    """dustmaps talks on stdout, where the table goes."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def check_name(name: str) -> None:
    """Raise UsageError unless dustmaps has a module `name` whose map is extinction; imports nothing of it."""
    if not name.isidentifier() or find_spec(f"dustmaps.{name}") is None:
        raise UsageError(f"there is no dust map {name!r}. TRY: --map list")
    if name in DENSITIES:
        raise UsageError(f"the map {name} holds densities, not extinctions along the line of sight. TRY: --map list")


def _map_class(name: str) -> type:
    check_name(name)
    with quiet():
        module = import_module(f"dustmaps.{name}")
    classes = [value for key, value in vars(module).items() if key.endswith("Query")]
    found = [c for c in classes if c.__module__ == module.__name__ and not c.__name__.endswith("WebQuery")]
    if not found:
        raise UsageError(f"there is no dust map in dustmaps.{name}. TRY: --map list")
    return found[0]


def _opened(kind: type, name: str, path: Path | None):
    argument = next((a for a in FILE_ARGUMENTS if a in inspect.signature(kind.__init__).parameters), None)
    if path is not None and argument is None:
        raise UsageError(f"the map {name} takes no file. TRY: without --map-file")
    try:
        with quiet():
            return kind(**({argument: str(path)} if path is not None else {}))
    except OSError as fault:
        if path is not None:
            raise DataError(f"{path.name} is no map {name} to dustmaps, {fault}. {path}. TRY: another file") from fault
        raise UnavailableError(f"the dust map {name} is not on this machine, {fault}. {cure(name)}") from fault
