"""Dust maps by name: finding their files, opening them, and asking them for E on one scale.

Whatever the map's own unit, `DustMap.query` answers with E of Zhang, Green & Rix 2023: maps in other units are brought
there through A_V, their own A_V per unit over A_V / E of the extinction curve.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xptools import mapcache, settings
from xptools.errors import DataError, UnavailableError, UsageError

FETCHED = ("edenhofer2023", "bayestar2019")  # keys of data/manifest.toml
FLAVORS = {"main": "", "2kpc": "validation_with_less_data_but_2kpc_"}


class About(NamedTuple):
    """A map: where dustmaps keeps it, A_V [mag] per unit of its values (None: of its own scale), what it covers."""

    folder: str
    file: str
    a_v: float | None
    unit: str
    covers: str
    size: str = ""
    record: str = ""


# A_V per unit: Green+ 2019 Table 1 (bayestar2019); Schlafly & Finkbeiner 2011 Table 6, R_V 3.1 (maps on the scale of
# SFD); R_V = 3.1 for true E(B-V); A_0 is taken at 541.4 nm.
MAPS = {
    "edenhofer2023": About(
        "edenhofer_2023", "mean_and_std_healpix.fits", None, "E (ZGR23)", "3D, all sky, 69 to 1250 pc", "3.2 GB",
        "https://doi.org/10.5281/zenodo.8187943",
    ),
    "bayestar2019": About(
        "bayestar", "bayestar2019.h5", 2.742, "Bayestar 2019 units", "3D, dec > -30 deg, 63 pc to 63 kpc", "0.7 GB",
        "https://doi.org/10.7910/DVN/2EJ9TX",
    ),
    "bayestar2015": About(
        "bayestar", "bayestar2015.h5", 2.742, "E(B-V) of SFD", "3D, dec > -30 deg", "4.5 GB",
        "https://doi.org/10.7910/DVN/40C44C",
    ),
    "bayestar2017": About(
        "bayestar", "bayestar2017.h5", None, "Bayestar 2017 units", "3D, dec > -30 deg", "",
        "https://doi.org/10.7910/DVN/LCYHJG",
    ),
    "sfd": About("sfd", "", 2.742, "E(B-V) of SFD", "2D, all sky, all dust"),
    "csfd": About("csfd", "", 2.742, "E(B-V) of SFD", "2D, all sky, all dust"),
    "planck": About("planck", "", 3.1, "E(B-V)", "2D, all sky, all dust"),
    "lenz2017": About("lenz2017", "", 3.1, "E(B-V)", "2D, low column density, all dust"),
    "bh": About("bh", "", 3.1, "E(B-V)", "2D, b > 10 deg, all dust"),
    "gaia_tge": About("gaia_tge", "", 1.0, "A_0 [mag]", "2D, all sky, to 16 kpc"),
    "iphas": About("iphas", "", 1.0, "A_0 [mag]", "3D, 30 < l < 215 deg, |b| < 5 deg"),
}


class Answer(NamedTuple):
    """E, its standard deviation (NaN: not known), the place code of `cores.dustcube`, whether the map trusts E."""

    E: np.ndarray
    E_err: np.ndarray
    place: np.ndarray
    reliable: np.ndarray


@dataclass(frozen=True, eq=False)
class DustMap:
    """An opened map: `ask(lon, lat, d, equatorial, threads) -> Answer` in the map's unit, `factor` to ZGR23's E."""

    name: str
    path: str
    stamp: tuple[int, int]
    factor: float
    ask: Callable[..., Answer]

    def query(self, lon, lat, d, equatorial: bool = False, threads: int | None = None) -> Answer:
        """E at lon, lat [deg] (galactic, or ICRS if `equatorial`) and d [pc]; arrays (stars,)."""
        answer = self.ask(lon, lat, d, equatorial, settings.threads() if threads is None else threads)
        return answer._replace(E=answer.E * self.factor, E_err=answer.E_err * self.factor)


def locate(name: str, map_file: str = "", flavor: str = "main", samples: bool = False) -> Path | None:
    """The file of a map, None for a map that dustmaps finds by itself; UnavailableError naming all that was tried."""
    if map_file:
        path = Path(os.path.expandvars(map_file)).expanduser()
        if not path.is_file():
            raise UnavailableError(f"there is no map file {path}. {cure(name)}")
        return path
    if name not in MAPS or not MAPS[name].file:
        return None
    about = MAPS[name]
    file = about.file if name != "edenhofer2023" else FLAVORS[flavor] + _edenhofer_file(samples)
    places = (("dustmaps", about.folder), (about.folder,), ())
    tried = [root.joinpath(*place, file) for root in settings.map_roots() for place in places]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        size = "" if flavor != "main" else " (19.5 GB)" if samples else f" ({about.size})" if about.size else ""
        looked = ", ".join(str(root) for root in settings.map_roots())
        raise UnavailableError(
            f"the dust map {name} is not on this machine: {about.folder}/{file}{size} was looked for in {looked}. "
            f"{cure(name)}"
        )
    return found


def check(name: str, map_file: str = "", flavor: str = "main", samples: bool = False, a_v: float | None = None):
    """The map's file, once it is sure that there is such a map and that the file is one; cheap, converts nothing."""
    about = MAPS.get(name)
    if about is None and name.startswith("bayestar"):
        raise UsageError(f"there is no dust map {name!r}. TRY: --map bayestar2019")
    if about is None:
        from xptools.dustforeign import check_name

        check_name(name)
    if name != "edenhofer2023" and (about is None or about.a_v is None) and a_v is None:
        raise UsageError(f"the unit of the map {name} is not known to xp. TRY: --map-av with A_V [mag] per unit of it")
    path = locate(name, map_file, flavor, samples)
    if name == "edenhofer2023":
        _check_samples(path, samples)
    elif name.startswith("bayestar"):
        from xptools.dusth5 import check_sights

        check_sights(path)
    return path


def open_map(
    name: str,
    map_file: str = "",
    flavor: str = "main",
    samples: bool = False,
    statistic: str = "mean",
    shell_correct: bool = False,
    unit: str = "mag",
    a_v: float | None = None,
) -> DustMap:
    """The map `name`, converted on first use; `a_v` [mag] replaces A_V per unit of the map's values.

    Kept open for the process; opened again if its file has changed since.
    """
    wanted = (name, map_file, flavor, samples, statistic, shell_correct, unit, a_v)
    chart = _open(*wanted)
    if _stamp(chart.path) != chart.stamp:
        _open.cache_clear()
        chart = _open(*wanted)
    return chart


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of a file; zeros without one."""
    try:
        stat = os.stat(path)
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4)
def _open(name, map_file, flavor, samples, statistic, shell_correct, unit, a_v) -> DustMap:
    from xptools.cores.extinction import visual

    path = check(name, map_file, flavor, samples, a_v)
    per_unit = a_v if a_v is not None else (MAPS[name].a_v if name in MAPS else None)
    factor = 1.0 if per_unit is None else per_unit / visual(unit)
    if name == "edenhofer2023":
        ask = _edenhofer(path, samples, shell_correct)
    elif name.startswith("bayestar"):
        ask = _bayestar(path, statistic)
    else:
        from xptools.dustforeign import asker

        ask = asker(name, path, statistic)
    return DustMap(name, str(path or ""), _stamp(str(path or "")), factor, ask)


def _edenhofer(path: Path, samples: bool, shell_correct: bool) -> Callable[..., Answer]:
    from xptools import dustfits
    from xptools.cores.dustcube import Cube

    shells = _check_samples(path, samples)
    if shells is None:
        folder, about = mapcache.known(path, dustfits.KIND)
    else:
        size = 48 * shells.nside**2 * max(1, shells.samples) * (len(shells.centres) + 1)
        folder, about = mapcache.converted(
            path, dustfits.KIND, size, lambda half: dustfits.convert_shells(path, shells, half)
        )
    lnE, release = mapcache.opened(folder / "lnE.npy")
    cube = Cube(about["nside"], lnE, dustfits.nodes(about, shell_correct), release)
    query = cube.query if settings.device() != "cuda" else cube.query_jax

    def ask(lon, lat, d, equatorial, threads):
        E, spread, place = query(lon, lat, d, equatorial, threads)
        return Answer(E, spread, place, np.ones(len(E), bool))

    return ask


def _check_samples(path: Path, samples: bool):
    """The layout of an Edenhofer 2023 file that holds what is asked for; None if it has been converted already."""
    from xptools import dustfits

    done = mapcache.known(path, dustfits.KIND)
    shells = None if done else dustfits.read_shells(path)
    if samples and not (done[1]["samples"] if done else shells.samples):
        raise DataError(
            f"{path.name} has no posterior samples, only their mean. {path}. "
            "TRY: --map-file samples_healpix.fits (19.5 GB), or leave --samples out"
        )
    return shells


def _bayestar(path: Path, statistic: str) -> Callable[..., Answer]:
    from xptools.dusth5 import open_sights

    sights = open_sights(path)

    def ask(lon, lat, d, equatorial, threads):
        E, spread, place, converged, in_range = sights.query(lon, lat, d, equatorial, threads, statistic)
        return Answer(E, spread, place, converged & in_range)

    return ask


def _edenhofer_file(samples: bool) -> str:
    return "samples_healpix.fits" if samples else MAPS["edenhofer2023"].file


def cure(name: str) -> str:
    record = MAPS[name].record if name in MAPS else ""
    if name in FETCHED:
        return f"TRY: xp fetch data {name} ({record}), or --map-file FILE; or --map none for no correction"
    get = f"download it from {record} or with" if record else "download it with"
    module = "bayestar" if name.startswith("bayestar") else name
    fetch = f"fetch(version='{name}')" if module == "bayestar" else "fetch()"
    return (
        f"TRY: {get} python -c \"import dustmaps.{module} as m; m.{fetch}\", then --map-file FILE; "
        "or --map none for no correction"
    )
